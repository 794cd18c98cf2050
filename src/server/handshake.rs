//! The beginning of an encrypted connection of a client.
//!
//! Invariant: at most [`limits::TLS_HANDSHAKES`] handshakes run at once, so the memory that rustls holds for them is bounded. A
//! connection beyond that waits and is not read. While one waits, each handshake is limited to
//! [`limits::TLS_HANDSHAKE_PATIENCE`]: clients that begin a handshake and go silent can't keep the others out.
//!
//! Deliberately absent: which certificates are served and trusted (`tls`).

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::{Error, InvalidMessage};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use vulpes_raft::host::BoxStream;

use super::linger::linger_on;
use crate::tls::certificates::Acceptor;
use crate::tls::encrypted::Encrypted;
use crate::tls::stream::accept;
use crate::types::limits;

/// How often a handshake that has had its time looks whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// Why a connection has not become an encrypted one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTls {
    #[error("the handshake was not finished in time")]
    TooLate,
    #[error("the handshake took too long while others waited for its place")]
    MadeRoom,
    #[error("the client does not speak TLS; give it the address of a listener without, or have it use TLS")]
    Plain,
    #[error("the client has closed the connection")]
    Gone,
    #[error("{0}")]
    Failed(io::Error),
}

impl NoTls {
    fn of(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Plain,
            Some(_) => Self::Failed(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Gone,
                _ => Self::Failed(error),
            },
        }
    }
}

/// An encrypted connection.
pub(crate) struct Secured {
    pub(crate) stream: BoxStream,
    /// What the client has shown, and was checked.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// The connection's own value, for channel binding.
    pub(crate) exporter: Option<[u8; 32]>,
}

/// The handshakes that go on, and those that wait.
pub(crate) struct Handshakes {
    places: Semaphore,
    waiting: AtomicUsize,
}

/// One that waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handshakes {
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Semaphore::new(most), waiting: AtomicUsize::new(0) }
    }

    /// Makes a connection an encrypted one, by a deadline.
    pub(crate) async fn secure(
        &self,
        stream: BoxStream,
        acceptor: &Acceptor,
        deadline: Instant,
    ) -> Result<Secured, NoTls> {
        let securing = self.secure_in_turn(stream, acceptor);
        match tokio::time::timeout_at(deadline, securing).await {
            Ok(Ok(secured)) => Ok(secured),
            Ok(Err((error, None))) => Err(error),
            Ok(Err((error, Some(mut stream)))) => {
                // It was told why in an alert, which is lost if the connection is closed with input left.
                linger_on(&mut stream).await;
                Err(error)
            }
            Err(_) => Err(NoTls::TooLate),
        }
    }

    async fn secure_in_turn(
        &self,
        stream: BoxStream,
        acceptor: &Acceptor,
    ) -> Result<Secured, (NoTls, Option<BoxStream>)> {
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => {
                let _waiting = Waiting::new(&self.waiting);
                // The semaphore is never closed.
                self.places.acquire().await
            }
        };
        let accepting = accept(acceptor, stream).into_fallible();
        tokio::pin!(accepting);
        let mut patience = limits::TLS_HANDSHAKE_PATIENCE;
        let accepted = loop {
            match tokio::time::timeout(patience, &mut accepting).await {
                Ok(accepted) => break accepted,
                Err(_) if self.waiting.load(Ordering::Relaxed) > 0 => {
                    return Err((NoTls::MadeRoom, None));
                }
                Err(_) => patience = LOOK,
            }
        };
        drop(place);
        let stream = accepted.map_err(|(error, stream)| match NoTls::of(error) {
            NoTls::Gone => (NoTls::Gone, None),
            error => (error, Some(stream)),
        })?;
        let stream = Encrypted::new(stream);
        let certificate = stream.client_certificate().cloned();
        let exporter = stream.exporter();
        Ok(Secured { stream: Box::new(stream), certificate, exporter })
    }
}

#[cfg(test)]
mod tests;
