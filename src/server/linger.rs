//! The end of a connection: how the last word arrives.
//!
//! A socket that is closed while input waits in it is reset, and a reset destroys what the client has not read yet. So
//! the writing side is shut down first, and what the client still sends is read and dropped until it hangs up, too.
//!
//! Invariant: a client is given [`limits::LINGER`] and [`limits::LINGER_BYTES`], and no more.
//!
//! Deliberately absent: the last word itself (`gate`, `transport`, `upgrade`).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vulpes_raft::host::BoxStream;

use crate::types::limits;

/// Room for one read of what nobody looks at.
const DRAIN_ROOM: usize = 4 << 10;

/// How far the end of a connection has come.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    shut: bool,
    drained: usize,
}

impl Lingering {
    /// Shuts down the writing side and drops what comes; ready when the client has hung up, or has had its bytes.
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

/// Gives a client time to read what is written, where there is no transport.
pub(super) async fn linger_on(stream: &mut BoxStream) {
    let mut lingering = Lingering::default();
    let lingering = poll_fn(|context| lingering.poll(stream, context));
    let _ = tokio::time::timeout(limits::LINGER, lingering).await;
}
