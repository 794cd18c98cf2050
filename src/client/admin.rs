//! A client of admin HTTP: one GET per connection.
//!
//! Invariant: an answer larger than [`ANSWER`] or later than [`TIMEOUT`] is an error.
//!
//! Deliberately absent: the rest of HTTP. Requests are HTTP/1.0, so that the answer ends with the connection.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vulpes_raft::ids::Slot;

use super::dial::{self, DialError, Dialer};
use crate::config::Address;
use crate::http::{LogPage, NodeStatus, Readiness, Refusal};

/// Largest answer, in bytes.
pub const ANSWER: u64 = 8 << 20;

/// How long an answer may take, from dialling to its last byte.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The URL of a node's admin HTTP: `http://host:port` or `https://host:port`, with or without a slash at the end, and whom to
/// trust there. Without a scheme it is HTTP.
#[derive(Clone, Debug)]
pub struct AdminUrl {
    address: Address,
    encrypted: bool,
    dialer: Dialer,
}

impl AdminUrl {
    /// The admin HTTP at this address.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address, encrypted: false, dialer: Dialer::default() }
    }

    /// The admin HTTP of another node of the cluster, at this address: encrypted if this one is.
    #[must_use]
    pub fn beside(&self, address: Address) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same, trusting whom that one trusts.
    #[must_use]
    pub fn trusting_as(self, other: &Self) -> Self {
        self.trusting(&other.dialer)
    }

    /// The same, trusting whom the dialer trusts.
    #[must_use]
    pub fn trusting(self, dialer: &Dialer) -> Self {
        Self { dialer: dialer.clone(), ..self }
    }
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, encrypted) = match text.strip_prefix("https://") {
            Some(rest) => (rest, true),
            None => (text.strip_prefix("http://").unwrap_or(text), false),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let address = rest.parse().map_err(|_| {
            format!("{text:?} is not the URL of a node's admin HTTP; write http://host:port, as in http://127.0.0.1:9081, or https:// if it is encrypted")
        })?;
        Ok(Self { address, encrypted, dialer: Dialer::default() })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.encrypted { "https" } else { "http" }, self.address)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{url} can't be reached ({reason}); is the node running?")]
    Unreachable { url: AdminUrl, reason: String },
    #[error("{url}: {error}")]
    NoTls { url: AdminUrl, error: DialError },
    /// The node gave a reason.
    #[error("{url} refuses: {reason}")]
    Refused { url: AdminUrl, status: u16, reason: String },
    #[error("{url} is not a Vulpes node's admin HTTP: {reason}")]
    NotAdmin { url: AdminUrl, reason: String },
}

impl AdminError {
    /// Whether the requested slots are released.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status: GONE, .. })
    }
}

/// HTTP's status for something that no longer exists.
const GONE: u16 = 410;

/// Whether the node can serve.
///
/// # Errors
/// If it can't be reached or is not a node.
pub async fn ready(url: &AdminUrl) -> Result<Readiness, AdminError> {
    let (_, body) = fetch(url, "/readyz").await?;
    read(url, &body)
}

/// The node's status.
///
/// # Errors
/// If it can't be reached or is not a node.
pub async fn status(url: &AdminUrl) -> Result<NodeStatus, AdminError> {
    get(url, "/status").await
}

/// A range of the node's log; slot 0 stands for the oldest.
///
/// # Errors
/// If it can't be reached, is not a node, or can't show it.
pub async fn log(url: &AdminUrl, from: Slot, max: usize) -> Result<LogPage, AdminError> {
    get(url, &format!("/log?from={from}&max={max}")).await
}

async fn get<T: DeserializeOwned>(url: &AdminUrl, path: &str) -> Result<T, AdminError> {
    let (status, body) = fetch(url, path).await?;
    if status == 200 {
        return read(url, &body);
    }
    let reason = serde_json::from_slice::<Refusal>(&body)
        .map_or_else(|_| format!("HTTP status {status}"), |refusal| refusal.error);
    Err(AdminError::Refused { url: url.clone(), status, reason })
}

fn read<T: DeserializeOwned>(url: &AdminUrl, body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::NotAdmin { url: url.clone(), reason: error.to_string() })
}

async fn fetch(url: &AdminUrl, path: &str) -> Result<(u16, Vec<u8>), AdminError> {
    let unreachable = |reason: String| AdminError::Unreachable { url: url.clone(), reason };
    let answer = tokio::time::timeout(TIMEOUT, exchange(url, path)).await;
    let answer = answer.map_err(|_| unreachable(format!("no answer within {TIMEOUT:?}")))?;
    let answer = answer.map_err(|error| match error {
        DialError::Unreachable(error) => unreachable(error.to_string()),
        error => AdminError::NoTls { url: url.clone(), error },
    })?;
    split(&answer).ok_or_else(|| AdminError::NotAdmin {
        url: url.clone(),
        reason: "the answer is not HTTP".into(),
    })
}

async fn exchange(url: &AdminUrl, path: &str) -> Result<Vec<u8>, DialError> {
    let mut stream = url.dialer.connect(&url.address, url.encrypted).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", url.address);
    let mut answer = Vec::new();
    let exchanged = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        stream.take(ANSWER + 1).read_to_end(&mut answer).await
    };
    if let Err(error) = exchanged.await {
        return Err(match dial::refusal(&error) {
            Some(reason) => DialError::NoTls(reason),
            None => error.into(),
        });
    }
    if answer.len() as u64 > ANSWER {
        let reason = format!("the answer has more than {ANSWER} bytes");
        return Err(std::io::Error::other(reason).into());
    }
    Ok(answer)
}

/// The status code and the body of a whole answer.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = words.next()?.parse().ok()?;
    Some((status, answer[head_end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for text in ["http://127.0.0.1:9081", "http://127.0.0.1:9081/", "127.0.0.1:9081"] {
            let url: AdminUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), "http://127.0.0.1:9081");
        }
        let url: AdminUrl = "https://h:1/".parse().unwrap();
        assert_eq!(url.to_string(), "https://h:1");
        assert_eq!(url.beside("other:2".parse().unwrap()).to_string(), "https://other:2");
        for text in ["http://h", "ws://h:1", "http://h:1/status", ""] {
            assert!(text.parse::<AdminUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn answers_are_split() {
        let answer = b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n{}";
        assert_eq!(split(answer), Some((503, b"{}".to_vec())));
        for bad in [&b""[..], b"\r\n\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.0 abc\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
    }
}
