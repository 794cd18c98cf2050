//! A client of admin HTTP: one request per connection.
//!
//! Invariant: an answer larger than [`ANSWER`] or later than [`TIMEOUT`] is an error. After a change without an answer, the error
//! says that the outcome is unknown.
//!
//! Deliberately absent: the rest of HTTP. Requests are HTTP/1.0, so that the answer ends with the connection.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use serde::de::DeserializeOwned;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{timeout_at, Instant};
use vulpes_raft::host::BoxStream;
use vulpes_raft::ids::{Position, Slot};

use super::dial::{self, DialError, Dialer};
use crate::config::Address;
use crate::http::{
    AuditPage, BanEdit, BanInfo, BanPage, ChangeInfo, Changed, Decision, LogPage, NodeStatus,
    Readiness, Refusal, RoleEdit, RoleInfo, RoleSummary, UserEdit, UserInfo, UserPage,
};
use crate::types::access::Login;
use crate::types::limits;

/// Largest answer, in bytes.
pub const ANSWER: u64 = 8 << 20;

/// The largest page of users is such an answer; in JSON, a character of a name may take twice as much.
const _: () = assert!(
    limits::USERS_SHOWN * (2 * (limits::USER_ROLES + 1) * (limits::USER_NAME + 4) + 256)
        < ANSWER as usize
);

/// So is the largest page of bans, whose control characters take six, and that of changes, whose largest is an event.
const _: () = assert!(
    (limits::BANS_SHOWN + limits::BAN_CHANGES)
        * (6 * (limits::BAN_NAME + limits::BAN_REASON + limits::REALM + limits::USER_NAME) + 256)
        < ANSWER as usize
);
const _: () = assert!(limits::AUDIT_SHOWN_BYTES + limits::EVENT < ANSWER as usize / 3);

/// How long an answer may take, from dialling to its last byte.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// The node gives up a change before that.
const _: () = assert!(limits::USER_CHANGES_TIME.as_secs() < TIMEOUT.as_secs());

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

    /// The same URL, with the other one's authorities and certificate.
    #[must_use]
    pub fn trusting_as(self, other: &Self) -> Self {
        self.trusting(&other.dialer)
    }

    /// The same URL, with the dialer's authorities and certificate.
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
    /// Nobody's password was given, or the wrong one.
    #[error("{url} refuses: {reason}")]
    LoginRefused { url: AdminUrl, reason: String },
    /// It may have been done.
    #[error("{url}: {reason}")]
    Unknown { url: AdminUrl, reason: String },
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

/// HTTP's status for a request without the login that it needs.
const UNAUTHORIZED: u16 = 401;

/// HTTP's status for something that took too long.
const GATEWAY_TIMEOUT: u16 = 504;

/// Whether the node can serve. It needs no login.
///
/// # Errors
/// If it can't be reached or is not a node.
pub async fn ready(url: &AdminUrl) -> Result<Readiness, AdminError> {
    let (_, body) = fetch(url, &Request::get("/readyz", None)).await?;
    read(url, &body)
}

/// Asks nodes, as a user if there is a login.
#[derive(Clone, Debug, Default)]
pub struct AdminClient {
    login: Option<Login>,
}

/// A request to any node.
struct Request {
    line: String,
    rest: Vec<u8>,
    /// Something changes if it is done.
    changes: bool,
}

impl Request {
    fn get(path: &str, login: Option<&Login>) -> Self {
        Self::new(format!("GET {path}"), login, None)
    }

    fn post(path: &str, login: Option<&Login>, body: &[u8]) -> Self {
        Self::new(format!("POST {path}"), login, Some(body))
    }

    fn new(line: String, login: Option<&Login>, body: Option<&[u8]>) -> Self {
        let mut text = String::new();
        if let Some(Login { user, password }) = login {
            let both = [user.as_bytes(), b":", &password.0].concat();
            let encoded = BASE64_STANDARD.encode(both);
            text.push_str(&format!("Authorization: Basic {encoded}\r\n"));
        }
        if let Some(body) = body {
            let length = body.len();
            text.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        text.push_str("\r\n");
        let rest = [text.as_bytes(), body.unwrap_or_default()].concat();
        Self { line, rest, changes: body.is_some() }
    }

    fn bytes(&self, url: &AdminUrl) -> Vec<u8> {
        let head = format!("{} HTTP/1.0\r\nHost: {}\r\n", self.line, url.address);
        [head.as_bytes(), &self.rest].concat()
    }
}

impl AdminClient {
    /// Asks as this user.
    #[must_use]
    pub fn new(login: Option<Login>) -> Self {
        Self { login }
    }

    /// The node's status.
    ///
    /// # Errors
    /// If it can't be reached, is not a node, or refuses.
    pub async fn status(&self, url: &AdminUrl) -> Result<NodeStatus, AdminError> {
        self.get(url, "/status").await
    }

    /// A range of the node's log; slot 0 stands for the oldest.
    ///
    /// # Errors
    /// If it can't be reached, is not a node, or can't show it.
    pub async fn log(&self, url: &AdminUrl, from: Slot, max: usize) -> Result<LogPage, AdminError> {
        self.get(url, &format!("/log?from={from}&max={max}")).await
    }

    /// All users, in the order of their names.
    ///
    /// # Errors
    /// If the node can't be reached, is not a node, or refuses.
    pub async fn users(&self, url: &AdminUrl) -> Result<Vec<UserInfo>, AdminError> {
        let mut users: Vec<UserInfo> = Vec::new();
        loop {
            let after = users.last().map(|user| format!("?after={}", escaped(&user.name)));
            let path = format!("/users{}", after.unwrap_or_default());
            let page: UserPage = self.get(url, &path).await?;
            let is_last = !page.more || page.users.is_empty();
            users.extend(page.users);
            if is_last {
                return Ok(users);
            }
        }
    }

    /// A user.
    ///
    /// # Errors
    /// If there is no such user, or the node can't be reached, is not a node, or refuses.
    pub async fn user(&self, url: &AdminUrl, name: &str) -> Result<UserInfo, AdminError> {
        self.get(url, &format!("/users/{}", escaped(name))).await
    }

    /// Changes users, all of it or nothing.
    ///
    /// # Errors
    /// [`AdminError::Unknown`] if it may have been done; after any other one nothing was changed.
    pub async fn change_users(
        &self,
        url: &AdminUrl,
        edits: &[UserEdit],
    ) -> Result<Changed, AdminError> {
        self.post(url, "/users", edits).await
    }

    /// All roles that have rules, in the order of their names.
    ///
    /// # Errors
    /// If the node can't be reached, is not a node, or refuses.
    pub async fn roles(&self, url: &AdminUrl) -> Result<Vec<RoleSummary>, AdminError> {
        self.get(url, "/roles").await
    }

    /// A role.
    ///
    /// # Errors
    /// If there is no such role, or the node can't be reached, is not a node, or refuses.
    pub async fn role(&self, url: &AdminUrl, name: &str) -> Result<RoleInfo, AdminError> {
        self.get(url, &format!("/roles/{}", escaped(name))).await
    }

    /// Changes roles, all of it or nothing.
    ///
    /// # Errors
    /// [`AdminError::Unknown`] if it may have been done; after any other one nothing was changed.
    pub async fn change_roles(
        &self,
        url: &AdminUrl,
        edits: &[RoleEdit],
    ) -> Result<Changed, AdminError> {
        self.post(url, "/roles", edits).await
    }

    /// Whether a user may do something; the query has the names and values of `/can`.
    ///
    /// # Errors
    /// If there is no such user, or the node can't be reached, is not a node, or refuses.
    pub async fn can(
        &self,
        url: &AdminUrl,
        query: &[(&str, &str)],
    ) -> Result<Decision, AdminError> {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
        self.get(url, &format!("/can?{}", pairs.collect::<Vec<_>>().join("&"))).await
    }

    /// All bans that hold, in the order of their last changes.
    ///
    /// # Errors
    /// If the node can't be reached, is not a node, or refuses.
    pub async fn bans(&self, url: &AdminUrl) -> Result<Vec<BanInfo>, AdminError> {
        let mut bans: Vec<BanInfo> = Vec::new();
        loop {
            let after = bans.last().map_or(Position(0), |ban| ban.changed);
            let page: BanPage = self.get(url, &format!("/bans?after={after}")).await?;
            let is_last = !page.more || page.bans.is_empty();
            bans.extend(page.bans);
            if is_last {
                return Ok(bans);
            }
        }
    }

    /// Changes bans, all of it or nothing.
    ///
    /// # Errors
    /// [`AdminError::Unknown`] if it may have been done; after any other one nothing was changed.
    pub async fn change_bans(
        &self,
        url: &AdminUrl,
        edits: &[BanEdit],
    ) -> Result<Changed, AdminError> {
        self.post(url, "/bans", edits).await
    }

    /// Up to `limit` remembered changes of users, roles and bans after a position, and from where on all are remembered.
    ///
    /// # Errors
    /// If the node can't be reached, is not a node, or refuses.
    pub async fn audit(
        &self,
        url: &AdminUrl,
        mut after: Position,
        limit: usize,
    ) -> Result<(Position, Vec<ChangeInfo>), AdminError> {
        let mut changes: Vec<ChangeInfo> = Vec::new();
        loop {
            let left = (limit - changes.len()).min(limits::AUDIT_SHOWN);
            let page: AuditPage =
                self.get(url, &format!("/audit?after={after}&limit={left}")).await?;
            let is_last = !page.more || page.changes.is_empty();
            changes.extend(page.changes.into_iter().take(left));
            after = changes.last().map_or(after, |change| change.position);
            if is_last || changes.len() == limit {
                return Ok((page.from, changes));
            }
        }
    }

    async fn post<T: Serialize + ?Sized>(
        &self,
        url: &AdminUrl,
        path: &str,
        edits: &T,
    ) -> Result<Changed, AdminError> {
        let body = serde_json::to_vec(edits).map_err(|error| AdminError::NotAdmin {
            url: url.clone(),
            reason: error.to_string(),
        })?;
        self.ask(url, &Request::post(path, self.login.as_ref(), &body)).await
    }

    async fn get<T: DeserializeOwned>(&self, url: &AdminUrl, path: &str) -> Result<T, AdminError> {
        self.ask(url, &Request::get(path, self.login.as_ref())).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        url: &AdminUrl,
        request: &Request,
    ) -> Result<T, AdminError> {
        let (status, body) = fetch(url, request).await?;
        if status == 200 {
            return read(url, &body);
        }
        let reason = serde_json::from_slice::<Refusal>(&body)
            .map_or_else(|_| format!("HTTP status {status}"), |refusal| refusal.error);
        let url = url.clone();
        Err(match status {
            UNAUTHORIZED => AdminError::LoginRefused { url, reason },
            GATEWAY_TIMEOUT => AdminError::Unknown { url, reason },
            _ => AdminError::Refused { url, status, reason },
        })
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let part = |byte: u8| match is_plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(part).collect()
}

fn read<T: DeserializeOwned>(url: &AdminUrl, body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::NotAdmin { url: url.clone(), reason: error.to_string() })
}

async fn fetch(url: &AdminUrl, request: &Request) -> Result<(u16, Vec<u8>), AdminError> {
    let unreachable = |reason: String| AdminError::Unreachable { url: url.clone(), reason };
    let deadline = Instant::now() + TIMEOUT;
    let too_late = || format!("no answer within {TIMEOUT:?}");
    let no_tls = |error| AdminError::NoTls { url: url.clone(), error };
    let stream = timeout_at(deadline, url.dialer.connect(&url.address, url.encrypted)).await;
    let stream = stream.map_err(|_| unreachable(too_late()))?.map_err(|error| match error {
        DialError::Unreachable(error) => unreachable(error.to_string()),
        error => no_tls(error),
    })?;
    let lost = |reason: String| match request.changes {
        true => AdminError::Unknown {
            url: url.clone(),
            reason: format!("{reason}; whether it was done is not known"),
        },
        false => unreachable(reason),
    };
    let answer = timeout_at(deadline, exchange(stream, &request.bytes(url))).await;
    let answer = answer.map_err(|_| lost(too_late()))?.map_err(|error| match error {
        DialError::Unreachable(error) => lost(error.to_string()),
        error => no_tls(error),
    })?;
    split(&answer).ok_or_else(|| match answer.is_empty() {
        true => lost("the node closed the connection".into()),
        false => AdminError::NotAdmin { url: url.clone(), reason: "the answer is not HTTP".into() },
    })
}

async fn exchange(mut stream: BoxStream, request: &[u8]) -> Result<Vec<u8>, DialError> {
    let mut answer = Vec::new();
    let exchanged = async {
        stream.write_all(request).await?;
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
