//! The handshakes of a listener's connections: one that is waited for, and one that goes on while the connection is used.
//!
//! Invariant: the bytes that wait for a connection's socket are bounded.
//!
//! Deliberately absent: the client's side, which is tokio-rustls' own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{Accept, TlsAcceptor};
use vulpes_raft::host::{BoxStream, ByteStream};

use super::certificates::Acceptor;
use super::encrypted::Encrypted;

/// Encrypted bytes of one connection that wait for its socket, about: a record, as the other side reads it.
pub const OUTPUT: usize = 16 << 10;

/// Begins a connection: the handshake goes on whenever this is polled.
pub fn accept<S: ByteStream>(acceptor: &Acceptor, stream: S) -> Accept<S> {
    let bound = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(OUTPUT));
    TlsAcceptor::from(acceptor.config()).accept_with(stream, bound)
}

/// A connection whose handshake goes on while it is read and written: whoever bounds that bounds the handshake.
pub struct Deferred {
    peer: SocketAddr,
    state: State,
}

enum State {
    Handshaking(Accept<BoxStream>),
    Open(Encrypted<BoxStream>),
    Failed,
}

impl Deferred {
    /// A connection that begins.
    #[must_use]
    pub fn new(acceptor: &Acceptor, stream: BoxStream, peer: SocketAddr) -> Self {
        Self { peer, state: State::Handshaking(accept(acceptor, stream)) }
    }

    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Pin<&mut Encrypted<BoxStream>>>> {
        if let State::Handshaking(accept) = &mut self.state {
            self.state = match ready!(Pin::new(accept).poll(context)) {
                Ok(stream) => State::Open(Encrypted::new(stream)),
                Err(error) => {
                    tracing::debug!(peer = %self.peer, "no TLS came about: {error}");
                    State::Failed
                }
            };
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(Pin::new(stream)),
            State::Handshaking(_) | State::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Deferred {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Deferred {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(context))?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(stream).poll_shutdown(context),
            // There is nobody to say goodbye to.
            State::Handshaking(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
