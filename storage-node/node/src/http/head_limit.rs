//! Bounds what a connection may make the node hold before a request has begun. The HTTP library has one limit for its
//! buffer, which is large for the sake of bodies; so a head could have a MiB, and be kept for a minute.
//!
//! Between requests, a connection is read up to [`MAX_READ_BYTES`]. If no request has begun by then, the client gets
//! 431, what it still sends is discarded, and the connection ends.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use chordfs_net::transport::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer_room::AnswerRoom;

/// More than the largest head that [`super::origin`] accepts, which answers heads of up to this size in words.
const MAX_READ_BYTES: usize = 96 << 10;
/// Between requests at most this much is read at once, because the memory for it is cleared before.
const MAX_ONE_READ_BYTES: usize = 64 << 10;
/// What is discarded so that the client, which may still be sending, reads the answer.
const MAX_DISCARDED_BYTES: usize = 8 << 20;
const SCRATCH_BYTES: usize = 16 << 10;
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 38\r\nconnection: close\r\n\r\nthe head of the request has no end yet";

/// The number of requests under way on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestCount(Arc<AtomicUsize>);

/// One request that is counted until this is dropped.
pub(super) struct CountedRequest(RequestCount);

impl RequestCount {
    pub(super) fn begin(&self) -> CountedRequest {
        self.0.fetch_add(1, Relaxed);
        CountedRequest(self.clone())
    }

    fn is_zero(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

pub(super) struct HeadLimitedStream {
    stream: Connection,
    requests: RequestCount,
    answers: AnswerRoom,
    /// Bytes that were read since the last request.
    read_bytes: usize,
    discarded_bytes: Option<usize>,
}

impl HeadLimitedStream {
    pub(super) fn new(stream: Connection, requests: RequestCount, answers: AnswerRoom) -> Self {
        Self { stream, requests, answers, read_bytes: 0, discarded_bytes: None }
    }

    /// Reads and drops what arrives, to its end or its limit.
    fn poll_discard(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; SCRATCH_BYTES];
        while self.discarded_bytes.is_some_and(|bytes| bytes < MAX_DISCARDED_BYTES) {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.discarded_bytes = self.discarded_bytes.map(|bytes| bytes + buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(io::Error::other("the head of a request is too large"))
    }
}

impl AsyncRead for HeadLimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.discarded_bytes.is_some() {
            return this.poll_discard(context).map(Err);
        }
        if !this.requests.is_zero() {
            this.read_bytes = 0;
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let room = MAX_READ_BYTES - this.read_bytes;
        if room == 0 {
            // A client that reads nothing gets no answer.
            let _ = Pin::new(&mut this.stream).poll_write(context, TOO_LARGE);
            let _ = Pin::new(&mut this.stream).poll_flush(context);
            this.discarded_bytes = Some(0);
            return this.poll_discard(context).map(Err);
        }
        let take = room.min(buffer.remaining()).min(MAX_ONE_READ_BYTES);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(take));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        this.read_bytes += read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HeadLimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.answers.count_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.answers.count_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.answers.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
