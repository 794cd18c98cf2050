//! The end of a connection: makes sure that the last message arrives.
//!
//! If a socket is closed while unread input waits in it, it is reset, and a reset destroys what the client has not read yet. So
//! the writing side is shut down first, and further input is read and dropped until the client hangs up, too.
//!
//! Invariant: a client gets [`limits::LINGER`] and [`limits::LINGER_BYTES`], and no more.
//!
//! Deliberately absent: the last message itself (`gate`, `transport`, `upgrade`).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vulpes_raft::host::BoxStream;

use crate::types::limits;

/// Buffer size for reading input that is dropped.
const DRAIN_ROOM: usize = 4 << 10;

/// The progress of a connection's end.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    shut: bool,
    drained: usize,
}

impl Lingering {
    /// Shuts down the writing side and drops input; ready when the client has hung up, or has used up its bytes.
    pub(super) fn poll(&mut self, stream: &mut BoxStream, context: &mut Context<'_>) -> Poll<()> {
        if !self.shut {
            if ready!(Pin::new(&mut *stream).poll_shutdown(context)).is_err() {
                return Poll::Ready(());
            }
            self.shut = true;
        }
        let mut room = [0; DRAIN_ROOM];
        while self.drained < limits::LINGER_BYTES {
            let mut read = ReadBuf::new(&mut room);
            let came = ready!(Pin::new(&mut *stream).poll_read(context, &mut read));
            if came.is_err() || read.filled().is_empty() {
                break;
            }
            self.drained += read.filled().len();
        }
        Poll::Ready(())
    }
}

/// Gives a client time to read what was written, if there is no transport.
pub(crate) async fn linger_on(stream: &mut BoxStream) {
    let mut lingering = Lingering::default();
    let lingering = poll_fn(|context| lingering.poll(stream, context));
    let _ = tokio::time::timeout(limits::LINGER, lingering).await;
}
