//! A connection as the network sees it: two queues of bytes, each emptied by a task that makes every write late, holds
//! it while the link is down, and keeps their order, as TCP does. What one end wrote before it closed still arrives.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use chordfs_net::rpc::DialedStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Link;

type Written = (Instant, Bytes);

struct PipeReader {
    arrived: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    rest: Bytes,
}

struct PipeWriter {
    leaving: Option<mpsc::UnboundedSender<Written>>,
    cut: CancellationToken,
}

/// Two ends of one connection of a mount; `cut` ends it at both.
pub(super) fn connection(link: &Arc<Link>, cut: &CancellationToken) -> (DialedStream, DialedStream) {
    let (up_write, up_read) = direction(link, cut);
    let (down_write, down_read) = direction(link, cut);
    (DialedStream { read: down_read, write: up_write }, DialedStream { read: up_read, write: down_write })
}

type Direction = (Box<dyn AsyncWrite + Send + Unpin>, Box<dyn AsyncRead + Send + Unpin>);

fn direction(link: &Arc<Link>, cut: &CancellationToken) -> Direction {
    let (leaving, left) = mpsc::unbounded_channel();
    let (arriving, arrived) = mpsc::unbounded_channel();
    tokio::spawn(carry(link.clone(), left, arriving, cut.clone()));
    (
        Box::new(PipeWriter { leaving: Some(leaving), cut: cut.clone() }),
        Box::new(PipeReader { arrived, rest: Bytes::new() }),
    )
}

async fn carry(
    link: Arc<Link>,
    mut left: mpsc::UnboundedReceiver<Written>,
    arriving: mpsc::UnboundedSender<io::Result<Bytes>>,
    cut: CancellationToken,
) {
    let carried = async {
        while let Some((written, bytes)) = left.recv().await {
            sleep_until(written + link.delay()).await;
            link.up().await;
            if arriving.send(Ok(bytes)).is_err() {
                return;
            }
        }
        link.up().await;
    };
    if cut.run_until_cancelled(carried).await.is_none() {
        let _ = arriving.send(Err(io::ErrorKind::ConnectionReset.into()));
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.arrived.poll_recv(cx)) {
                Some(bytes) => self.rest = bytes?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(leaving) = &self.leaving else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        match leaving.send((Instant::now(), Bytes::copy_from_slice(bytes))) {
            Ok(()) => Poll::Ready(Ok(bytes.len())),
            Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.leaving = None;
        Poll::Ready(Ok(()))
    }
}
