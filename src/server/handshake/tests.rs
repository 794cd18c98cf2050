//! As many handshakes as may go on at once, and one more; clients that say nothing, and what they are told that say
//! something else.

use std::sync::Arc;

use rustls::{ClientConfig, Error as TlsFault};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{client, TlsConnector};

use super::*;
use crate::tls::files::client_config;
use crate::tls::testing::Folder;

const PATIENCE: Duration = limits::TLS_HANDSHAKE_PATIENCE;

struct Server {
    folder: Folder,
    acceptor: Acceptor,
    handshakes: Arc<Handshakes>,
}

impl Server {
    fn new(most: usize) -> Self {
        let folder = Folder::new();
        let acceptor = Acceptor::of(&folder.files());
        Self { folder, acceptor, handshakes: Arc::new(Handshakes::new(most)) }
    }

    /// A client with a certificate that the server trusts, if it has one.
    fn client(&self, shows: bool) -> Arc<ClientConfig> {
        let (certificate, key) = (self.folder.path("node.pem"), self.folder.path("node.key"));
        let own = shows.then_some((&*certificate, &*key));
        Arc::new(client_config(&self.folder.path("ca.pem"), own).unwrap())
    }

    /// A connection that begins now, and what becomes of it.
    fn connect(&self) -> (DuplexStream, tokio::task::JoinHandle<Result<Secured, NoTls>>) {
        let (theirs, ours) = tokio::io::duplex(64 << 10);
        let (acceptor, handshakes) = (self.acceptor.clone(), self.handshakes.clone());
        let deadline = Instant::now() + limits::HANDSHAKE;
        let ours = Box::new(ours);
        let securing =
            tokio::spawn(async move { handshakes.secure(ours, &acceptor, deadline).await });
        (theirs, securing)
    }
}

async fn hello(
    config: Arc<ClientConfig>,
    stream: DuplexStream,
) -> io::Result<client::TlsStream<DuplexStream>> {
    let name = "localhost".to_owned().try_into().unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

#[tokio::test(start_paused = true)]
async fn both_sides_hear_each_other_and_the_certificate_is_known() {
    let server = Server::new(1);
    let (stream, securing) = server.connect();
    let mut client = hello(server.client(true), stream).await.unwrap();
    let Secured { mut stream, certificate, .. } = securing.await.unwrap().unwrap();
    let subject = certificate.as_ref().and_then(crate::tls::files::subject);
    assert!(subject.unwrap().contains("CN=first"));
    client.write_all(b"question").await.unwrap();
    client.flush().await.unwrap();
    let mut said = [0; 8];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"question");
    // The client closes its own side alone, and still gets its answer; then the server says goodbye.
    client.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut said).await.unwrap(), 0);
    stream.write_all(b"answer").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
}

#[tokio::test(start_paused = true)]
async fn who_vanishes_without_a_goodbye_has_closed() {
    let server = Server::new(1);
    let (stream, securing) = server.connect();
    let client = hello(server.client(true), stream).await.unwrap();
    let Secured { mut stream, .. } = securing.await.unwrap().unwrap();
    drop(client);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_has_until_the_deadline_unless_others_wait() {
    let server = Server::new(2);
    let began = Instant::now();
    let (_first, first) = server.connect();
    let end = first.await.unwrap().map(|_| ()).unwrap_err();
    assert!(matches!(end, NoTls::TooLate), "{end}");
    assert_eq!(began.elapsed().as_secs(), limits::HANDSHAKE.as_secs());

    // As many as may be at once, which say nothing: one more waits for its turn, and has it.
    let began = Instant::now();
    let stalled = [server.connect(), server.connect()];
    let (stream, securing) = server.connect();
    let _client = hello(server.client(true), stream).await.unwrap();
    assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE + 2 * LOOK);
    assert!(securing.await.unwrap().is_ok());
    let [(_one, one), (_other, other)] = stalled;
    for end in [one.await.unwrap(), other.await.unwrap()] {
        let end = end.map(|_| ()).unwrap_err();
        assert!(matches!(end, NoTls::MadeRoom | NoTls::TooLate), "{end}");
    }
    assert_eq!(server.handshakes.waiting.load(Ordering::Relaxed), 0);
    assert_eq!(server.handshakes.places.available_permits(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_handshake_is_told_so_and_ends() {
    let server = Server::new(1);
    for (says, expected) in [
        (&b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02c1"[..], "does not speak TLS"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak TLS"),
        (b"\x16\x03\x01\xff\xff", "received corrupt message"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
        (b"", "has closed the connection"),
    ] {
        let (mut client, securing) = server.connect();
        client.write_all(says).await.unwrap();
        client.shutdown().await.unwrap();
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        // An alert, wherever the first bytes made sense of a fault.
        assert_eq!(told.first().copied(), (!says.is_empty()).then_some(0x15), "{says:?}");
        let end = securing.await.unwrap().map(|_| ()).unwrap_err().to_string();
        assert!(end.contains(expected), "{says:?}: {end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_to_show_a_certificate_is_refused_without() {
    let server = Server::new(1);
    let stranger = Folder::new();
    let strange = (stranger.path("node.pem"), stranger.path("node.key"));
    let strange = client_config(&server.folder.path("ca.pem"), Some((&strange.0, &strange.1)));
    for (config, expected) in [
        (server.client(false), "peer sent no certificates"),
        (Arc::new(strange.unwrap()), "invalid peer certificate"),
    ] {
        let (stream, securing) = server.connect();
        // In TLS 1.3 the client learns it with the first read.
        let mut client = hello(config, stream).await.unwrap();
        let told = client.read(&mut [0; 8]).await.unwrap_err();
        let told = told.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>()).cloned();
        assert!(matches!(told, Some(TlsFault::AlertReceived(_))), "{told:?}");
        drop(client);
        let end = securing.await.unwrap().map(|_| ()).unwrap_err().to_string();
        assert!(end.contains(expected), "{end}");
    }
}
