//! The two halves of a connection, for client and server: reading messages, with a deadline for each frame that has
//! begun, and writing queued messages, as many in one write as are waiting.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{codec::Decoder, sync::CancellationToken};

use super::{
    RpcLimits,
    codec::{MessageDecoder, RpcMessage, StreamError},
};
use crate::limits::{ByteBudget, ByteClass, ByteReservation, PeerKey};

/// A peer that reads nothing for this long is dead.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Messages gathered for one write.
const WRITE_BATCH: usize = 128;
/// Larger messages are written by themselves rather than copied together with others.
const LARGE_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 16 << 10;
/// A frame up to this length needs no room in the budget while it arrives.
const SMALL_FRAME_BYTES: usize = READ_BYTES;
/// While others wait for room in the budget, a frame that holds some and of which no bytes arrive for this long is
/// given up.
const STALL_UNDER_PRESSURE: Duration = Duration::from_secs(1);

pub(super) struct MessageReader<R> {
    stream: R,
    buffer: BytesMut,
    decoder: MessageDecoder,
    frame_deadline: Duration,
    /// Has room for the frames that arrive; `None` on the client's side, which chooses its peers.
    budget: Option<ByteBudget>,
    /// The peer from whose share that room is taken.
    peer: Option<PeerKey>,
    /// The room of the frame that is arriving or was returned last.
    reserved: Vec<ByteReservation>,
    reserved_bytes: usize,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    pub(super) fn new(stream: R, limits: &RpcLimits, budget: Option<ByteBudget>) -> Self {
        let (buffer, decoder) = (BytesMut::new(), MessageDecoder::new(limits));
        let frame_deadline = limits.frame_deadline;
        Self { stream, buffer, decoder, frame_deadline, budget, peer: None, reserved: Vec::new(), reserved_bytes: 0 }
    }

    /// Takes the room of long frames from the share of a peer.
    pub(super) fn of_peer(self, peer: Option<PeerKey>) -> Self {
        Self { peer, ..self }
    }

    /// The length of the message that `next` returned last.
    pub(super) fn frame_bytes(&self) -> usize {
        self.decoder.frame_bytes
    }

    /// Hands over the room that the message which `next` returned last has in the budget.
    pub(super) fn take_reservation(&mut self) -> Vec<ByteReservation> {
        self.reserved_bytes = 0;
        std::mem::take(&mut self.reserved)
    }

    /// Returns the next message; `None` at the end of the stream. Waits without limit between frames, but not within
    /// one.
    pub(super) async fn next(&mut self) -> Result<Option<RpcMessage>, StreamError> {
        let mut deadline = None;
        loop {
            if let Some(message) = self.decoder.decode(&mut self.buffer)? {
                if self.frame_bytes() > LARGE_BYTES {
                    self.buffer = BytesMut::from(&self.buffer[..]); // Frees the memory of the large frame.
                }
                return Ok(Some(message));
            }
            if !self.buffer.is_empty() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.frame_deadline);
                self.reserve_room(deadline).await?;
            }
            if self.read_more(deadline).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(StreamError::Torn) };
            }
        }
    }

    async fn read_more(&mut self, deadline: Option<Instant>) -> Result<usize, StreamError> {
        if self.buffer.is_empty() && self.buffer.capacity() > LARGE_BYTES {
            self.buffer = BytesMut::new(); // An idle connection does not keep the memory of its largest frame.
        }
        // The buffer grows by doubling, so the beginning of a long frame is moved a bounded number of times.
        self.buffer.reserve(READ_BYTES);
        match deadline {
            None => Ok(self.stream.read_buf(&mut self.buffer).await?),
            Some(deadline) => self.read_within(deadline).await,
        }
    }

    async fn read_within(&mut self, deadline: Instant) -> Result<usize, StreamError> {
        let began = Instant::now();
        loop {
            let next_check = deadline.min(Instant::now() + STALL_UNDER_PRESSURE);
            match timeout_at(next_check, self.stream.read_buf(&mut self.buffer)).await {
                Ok(read) => return Ok(read?),
                Err(_) if Instant::now() >= deadline => return Err(StreamError::Stalled(self.frame_deadline)),
                Err(_) if self.must_give_way(began) => return Err(StreamError::Overloaded(self.reserved_bytes)),
                Err(_) => {}
            }
        }
    }

    fn must_give_way(&self, stalled_since: Instant) -> bool {
        let pressed = self.budget.as_ref().is_some_and(ByteBudget::is_pressed);
        pressed && !self.reserved.is_empty() && stalled_since.elapsed() >= STALL_UNDER_PRESSURE
    }

    /// Makes sure that a long frame has room in the budget before more of it is read. Its first reservation waits until
    /// `deadline`; a frame whose length becomes known bit by bit must find further room at once, because nothing may
    /// wait for room while it holds some.
    async fn reserve_room(&mut self, deadline: Instant) -> Result<(), StreamError> {
        let Some(budget) = &self.budget else { return Ok(()) };
        let needed = self.decoder.announced_bytes().max(self.buffer.len());
        if needed <= SMALL_FRAME_BYTES.max(self.reserved_bytes) {
            return Ok(());
        }
        let more = needed.max(2 * self.reserved_bytes) - self.reserved_bytes;
        let reserved = if self.reserved.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            budget.reserve_for(self.peer, ByteClass::Call, more, left).await
        } else {
            budget.try_reserve_for(self.peer, ByteClass::Call, more)
        };
        self.reserved.push(reserved.ok_or(StreamError::Overloaded(needed))?);
        self.reserved_bytes += more;
        Ok(())
    }
}

/// A frame to send, with the permits that it holds until it is sent.
pub(super) trait Outgoing {
    fn frame(&self) -> &[u8];
}

impl Outgoing for Bytes {
    fn frame(&self) -> &[u8] {
        self
    }
}

/// Writes queued messages until the queue ends or an error occurs. After `finish`, writes the rest of the queue and
/// stops.
pub(super) async fn write_queued<W: AsyncWrite + Unpin, M: Outgoing>(
    mut stream: W,
    mut queue: mpsc::Receiver<M>,
    finish: CancellationToken,
) -> std::io::Result<()> {
    let mut batch = Vec::with_capacity(WRITE_BATCH);
    let mut gathered = BytesMut::new();
    loop {
        let count = tokio::select! {
            biased;
            count = queue.recv_many(&mut batch, WRITE_BATCH) => count,
            () = finish.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if count == 0 {
            return timeout(WRITE_DEADLINE, stream.shutdown()).await?;
        }
        write_batch(&mut stream, &batch, &mut gathered).await?;
        batch.clear();
    }
}

async fn write_batch<W: AsyncWrite + Unpin, M: Outgoing>(
    stream: &mut W,
    batch: &[M],
    gathered: &mut BytesMut,
) -> std::io::Result<()> {
    for frame in batch.iter().map(Outgoing::frame) {
        if frame.len() < LARGE_BYTES {
            gathered.extend_from_slice(frame);
            continue;
        }
        write(stream, gathered).await?;
        gathered.clear();
        write(stream, frame).await?;
    }
    write(stream, gathered).await?;
    gathered.clear();
    timeout(WRITE_DEADLINE, stream.flush()).await?
}

async fn write<W: AsyncWrite + Unpin>(stream: &mut W, bytes: &[u8]) -> std::io::Result<()> {
    timeout(WRITE_DEADLINE, stream.write_all(bytes)).await?
}

/// Configures a socket to send small messages at once, and to detect a vanished host within about a minute.
pub(super) fn configure_socket(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
