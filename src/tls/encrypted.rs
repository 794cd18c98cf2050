//! An encrypted connection as a stream of bytes.
//!
//! Invariant: a peer that closes its connection without saying so in TLS has closed it all the same. What is spoken inside
//! has lengths of its own, so nothing can be cut off unnoticed.
//!
//! Deliberately absent: handshakes (`stream`, `nodes`).

use std::io;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use vulpes_raft::host::ByteStream;

/// A connection after its handshake.
pub struct Encrypted<S>(TlsStream<S>);

impl<S: ByteStream> Encrypted<S> {
    /// After a handshake.
    #[must_use]
    pub fn new(stream: TlsStream<S>) -> Self {
        Self(stream)
    }

    /// The certificate that the client has shown, and that was checked.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.0.get_ref().1.peer_certificates()?.first()
    }

    /// The connection's own value, for channel binding (RFC 9266). TLS 1.2 has none that is unique for sure.
    #[must_use]
    pub fn exporter(&self) -> Option<[u8; 32]> {
        let connection = &self.0.get_ref().1;
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let label = b"EXPORTER-Channel-Binding";
        connection.export_keying_material([0; 32], label, Some(b"")).ok()
    }
}

impl<S: ByteStream> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(context, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl<S: ByteStream> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
