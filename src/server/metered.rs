//! A connection that counts its bytes, for checks of whether the other side is still there.
//!
//! It can hide the end of the input from its reader: a WebSocket that has seen the end writes nothing any more, so a client
//! that has closed only its sending side would get no answers.
//!
//! Deliberately absent: what the counts mean.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vulpes_raft::host::BoxStream;

/// What has passed through a connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    came: AtomicU64,
    taken: AtomicU64,
    /// After the end of the input, a read is pending instead of returning the end.
    hides_end: AtomicBool,
    ended: AtomicBool,
}

impl Meter {
    /// Bytes that have come from the other side.
    pub(super) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Bytes that the socket has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether a read after the end of the input is pending instead of returning the end.
    pub(super) fn hide_end(&self, hides_end: bool) {
        self.hides_end.store(hides_end, Ordering::Relaxed);
    }

    /// Whether the input has ended, and that was hidden.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// The same connection, with its meter.
pub(super) fn metered(stream: BoxStream) -> (BoxStream, Arc<Meter>) {
    let meter = Arc::<Meter>::default();
    (Box::new(Metered { stream, meter: meter.clone() }), meter)
}

struct Metered {
    stream: BoxStream,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let came = buffer.filled().len() - before;
        self.meter.came.fetch_add(came as u64, Ordering::Relaxed);
        let is_end = came == 0 && buffer.remaining() > 0;
        if is_end && self.meter.hides_end.load(Ordering::Relaxed) {
            self.meter.ended.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.meter.taken.fetch_add(taken as u64, Ordering::Relaxed);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
