//! The socket below TLS, read in large pieces. rustls takes at most 4 KiB at a time, which would be five system calls
//! for each of its records of 16 KiB, and two for the answer to a read of 4 KiB.
//!
//! The memory belongs to the thread: a connection keeps it only while it has something that TLS has not taken yet, so
//! idle connections hold none.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const BUFFER_BYTES: usize = 64 << 10;

thread_local! {
    /// A buffer that no connection has now.
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

pub struct BufferedSocket<S = TcpStream> {
    stream: S,
    /// What was received and not taken yet.
    received: Option<Received>,
}

struct Received {
    buffer: Box<[u8]>,
    left: Range<usize>,
}

impl<S> BufferedSocket<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, received: None }
    }

    pub fn socket(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BufferedSocket<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut received = match this.received.take() {
            Some(received) => received,
            None => ready!(receive(&mut this.stream, context))?,
        };
        let count = received.left.len().min(out.remaining());
        out.put_slice(&received.buffer[received.left.start..received.left.start + count]);
        received.left.start += count;
        if received.left.is_empty() {
            SPARE.set(Some(received.buffer));
        } else {
            this.received = Some(received);
        }
        Poll::Ready(Ok(()))
    }
}

/// Receives as much as there is; nothing is left of it at the end of the stream.
fn receive(stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<io::Result<Received>> {
    let mut buffer = SPARE.take().unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
    let mut read = ReadBuf::new(&mut buffer);
    let polled = Pin::new(stream).poll_read(context, &mut read);
    let left = 0..read.filled().len();
    match polled {
        Poll::Ready(Ok(())) => return Poll::Ready(Ok(Received { buffer, left })),
        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        Poll::Pending => {}
    }
    SPARE.set(Some(buffer));
    Poll::Pending
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BufferedSocket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_whatever_the_sizes_of_writes_and_reads() {
        let (mut writer, reader) = duplex(1 << 20);
        let sent: Vec<u8> = (0..500_000_u32).map(|at| (at * 7 + (at >> 8)) as u8).collect();
        let written = sent.clone();
        tokio::spawn(async move {
            for (number, piece) in written.chunks(70_001).enumerate() {
                writer.write_all(&piece[..number]).await.unwrap();
                writer.write_all(&piece[number..]).await.unwrap();
            }
        });
        let (mut socket, mut received) = (BufferedSocket::new(reader), Vec::new());
        for size in [1, 4096, 5, 100_000].into_iter().cycle() {
            let mut piece = vec![0; size];
            match socket.read(&mut piece).await.unwrap() {
                0 => break,
                count => received.extend_from_slice(&piece[..count]),
            }
        }
        assert!(received == sent);
        assert_eq!(socket.read(&mut [0; 9]).await.unwrap(), 0, "the end stays the end");
    }

    #[tokio::test]
    async fn a_connection_with_nothing_to_take_has_no_buffer() {
        let (mut writer, reader) = duplex(1 << 20);
        let mut socket = BufferedSocket::new(reader);
        writer.write_all(&[7; 100]).await.unwrap();
        socket.read_exact(&mut [0; 60]).await.unwrap();
        assert!(socket.received.is_some());
        socket.read_exact(&mut [0; 40]).await.unwrap();
        assert!(socket.received.is_none());
    }
}
