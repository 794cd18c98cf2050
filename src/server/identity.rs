//! Which client a task serves, so that every line that it logs says so.
//!
//! A value of the task and no span: the spans of clients would be kept, at half a KB each, for as long as they are connected.
//!
//! Invariant: nobody else depends on what such a task does, so that a panic in it ends just one session.
//!
//! Deliberately absent: how lines are written (`cli`).

use std::cell::OnceCell;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use super::transport::Protocol;

/// Characters of a client's name that are shown: a name may be very long.
const SHOWN_NAME: usize = 64;

tokio::task_local! {
    static CLIENT: Identity;
}

/// A client, as lines in the log name it.
struct Identity {
    protocol: Protocol,
    peer: SocketAddr,
    /// There once it has said it.
    name: OnceCell<Box<str>>,
    /// The subject of its certificate, if it has shown one.
    certificate: OnceCell<Box<str>>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client{{protocol={} peer={}", self.protocol, self.peer)?;
        if let Some(name) = self.name.get() {
            write!(f, " name={name:?}")?;
        }
        if let Some(subject) = self.certificate.get() {
            write!(f, " certificate={subject:?}")?;
        }
        f.write_str("}")
    }
}

/// Runs what serves a client.
pub(super) fn serving<F: Future>(
    protocol: Protocol,
    peer: SocketAddr,
    serve: F,
) -> impl Future<Output = F::Output> {
    let identity = Identity { protocol, peer, name: OnceCell::new(), certificate: OnceCell::new() };
    CLIENT.scope(identity, serve)
}

/// The client that is served here and now has this name.
pub(super) fn is_called(name: &str) {
    let end = name.char_indices().nth(SHOWN_NAME).map_or(name.len(), |(end, _)| end);
    // Tests serve clients in tasks of other kinds; and a client has one name.
    let _ = CLIENT.try_with(|client| client.name.set(name[..end].into()));
}

/// The client that is served here and now has shown a certificate of this subject.
pub(super) fn shows(subject: &str) {
    let _ = CLIENT.try_with(|client| client.certificate.set(subject.into()));
}

/// Where the client comes from that is served here and now.
pub(super) fn address() -> Option<IpAddr> {
    CLIENT.try_with(|client| client.peer.ip()).ok()
}

/// Whether it is a client's connection that is being worked on, here and now.
#[must_use]
pub fn serves_a_client() -> bool {
    CLIENT.try_with(|_| ()).is_ok()
}

/// The client whose connection is being worked on, here and now, as lines in the log name it.
#[must_use]
pub fn client() -> Option<String> {
    CLIENT.try_with(ToString::to_string).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_says_whom_it_serves() {
        assert!(!serves_a_client() && client().is_none());
        let peer = SocketAddr::from(([127, 0, 0, 1], 7));
        let told = serving(Protocol::Mqtt, peer, async {
            let before = client();
            is_called(&"\"ü".repeat(SHOWN_NAME));
            (before.unwrap(), client().unwrap())
        });
        let (before, after) = told.await;
        assert_eq!(before, "client{protocol=MQTT peer=127.0.0.1:7}");
        let name = "\\\"ü".repeat(SHOWN_NAME / 2);
        assert_eq!(after, format!("client{{protocol=MQTT peer=127.0.0.1:7 name=\"{name}\"}}"));
    }
}
