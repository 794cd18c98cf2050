//! A WAMP client: JSON over WebSocket, publisher, subscriber and caller (`calls`).
//!
//! Invariant: messages that do not answer the open request are kept in order for [`WampClient::next`], up to
//! [`WAITING`]. Opening, publishing and subscribing each end within [`ANSWER_TIMEOUT`].
//!
//! Deliberately absent: registering procedures, and methods of logging in besides `ticket`.

mod calls;

use std::collections::VecDeque;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{json, Map, Value};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::WebSocketStream;
use vulpes_raft::host::BoxStream;
use vulpes_raft::ids::Position;

use super::dial::{self, DialError, Dialer};
use crate::config::Address;
use crate::types::access::Login;

pub use self::calls::CallError;

/// Time limit for the node's answer to a request: longer than a publish can wait at the node itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Most events queued while an answer is awaited.
pub const WAITING: usize = 65_536;

/// The codes of WAMP's messages (WAMP basic profile, "Message Codes and Direction").
pub(crate) mod code {
    pub(crate) const HELLO: u64 = 1;
    pub(crate) const WELCOME: u64 = 2;
    pub(crate) const ABORT: u64 = 3;
    pub(crate) const CHALLENGE: u64 = 4;
    pub(crate) const AUTHENTICATE: u64 = 5;
    pub(crate) const GOODBYE: u64 = 6;
    pub(crate) const ERROR: u64 = 8;
    pub(crate) const PUBLISH: u64 = 16;
    pub(crate) const PUBLISHED: u64 = 17;
    pub(crate) const SUBSCRIBE: u64 = 32;
    pub(crate) const SUBSCRIBED: u64 = 33;
    pub(crate) const UNSUBSCRIBED: u64 = 35;
    pub(crate) const EVENT: u64 = 36;
    pub(crate) const CALL: u64 = 48;
    pub(crate) const RESULT: u64 = 50;
}

/// Why a client can't continue, or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum WampError {
    #[error("{0:?} is not a node's WAMP URL; write ws://host:port/, as in ws://127.0.0.1:9031/, or wss:// if it is encrypted")]
    BadUrl(String),
    #[error("{url} can't be reached ({reason}); is the node running?")]
    Unreachable { url: String, reason: String },
    #[error("{url}: {error}")]
    NoTls { url: String, error: DialError },
    #[error("{url} does not speak WAMP: {reason}")]
    NotWamp { url: String, reason: String },
    /// The node aborted the session, for example because it does not have the realm.
    #[error("the node refused the session: {uri}{}", colon(.message))]
    Aborted { uri: String, message: String },
    /// The node lets in nobody without a login, or not with this one.
    #[error("the node refused the login: {uri}{}", colon(.message))]
    LoginRefused { uri: String, message: String },
    /// The node answered this request with an error; the session continues.
    #[error("the node refused: {uri}{}", colon(.message))]
    Refused { uri: String, message: String },
    /// The outcome of everything unanswered is unknown.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// The outcome is unknown.
    #[error("no answer within {ANSWER_TIMEOUT:?}; whether it was done is not known")]
    Timeout,
    #[error("the node broke the protocol: {0}")]
    Protocol(String),
}

/// Errors about who a client is.
const OF_LOGINS: [&str; 4] = [
    "wamp.error.not_authorized",
    "wamp.error.authentication_failed",
    "wamp.error.no_matching_auth_method",
    "wamp.error.authentication_denied",
];

fn colon(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// An event's arguments.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Arguments {
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
}

/// An event, as a subscriber gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedEvent {
    pub subscription: u64,
    pub position: Position,
    pub event_id: Option<String>,
    /// Only if the subscription is for a pattern.
    pub topic: Option<String>,
    pub arguments: Arguments,
}

/// A message that answers no request.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Event(ReceivedEvent),
    /// The node ended a subscription: a snapshot is complete.
    Ended {
        subscription: u64,
    },
}

/// A client with an open session.
pub struct WampClient {
    stream: WebSocketStream<BoxStream>,
    session: u64,
    /// The last request's number.
    request: u64,
    waiting: VecDeque<Incoming>,
}

/// The address in a WAMP URL.
///
/// # Errors
/// If it is not `ws://host[:port][/path]` or `wss://…`.
pub fn url_address(url: &str) -> Result<Address, WampError> {
    url_target(url).map(|(address, _)| address)
}

/// The address in a WAMP URL, and whether it is encrypted.
fn url_target(url: &str) -> Result<(Address, bool), WampError> {
    let bad = || WampError::BadUrl(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let (port, encrypted) = match uri.scheme_str() {
        Some("ws") => (80, false),
        Some("wss") => (443, true),
        _ => return Err(bad()),
    };
    let host = uri.host().ok_or_else(bad)?;
    let address = Address::new(host, uri.port_u16().unwrap_or(port)).map_err(|_| bad())?;
    Ok((address, encrypted))
}

/// Dials a node and opens a WebSocket for WAMP in JSON.
pub(crate) async fn open_socket(
    dialer: &Dialer,
    url: &str,
    config: WebSocketConfig,
) -> Result<WebSocketStream<BoxStream>, WampError> {
    let (address, encrypted) = url_target(url)?;
    let stream = dialer.connect(&address, encrypted).await.map_err(|error| match error {
        DialError::Unreachable(error) => {
            WampError::Unreachable { url: url.to_owned(), reason: error.to_string() }
        }
        error => WampError::NoTls { url: url.to_owned(), error },
    })?;
    upgrade(stream, url, config).await
}

async fn upgrade(
    stream: BoxStream,
    url: &str,
    config: WebSocketConfig,
) -> Result<WebSocketStream<BoxStream>, WampError> {
    let not_wamp = |reason: String| WampError::NotWamp { url: url.to_owned(), reason };
    let mut request = url.into_client_request().map_err(|_| WampError::BadUrl(url.to_owned()))?;
    let protocol = HeaderValue::from_static("wamp.2.json");
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
    let handshake =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (stream, response) = handshake.map_err(|error| {
        let refused = match &error {
            WebSocketError::Io(error) => dial::refusal(error),
            _ => None,
        };
        match refused {
            Some(reason) => {
                WampError::NoTls { url: url.to_owned(), error: DialError::NoTls(reason) }
            }
            None => not_wamp(error.to_string()),
        }
    })?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol");
    if chosen.is_none_or(|chosen| chosen != "wamp.2.json") {
        return Err(not_wamp("it did not choose wamp.2.json".into()));
    }
    Ok(stream)
}

/// The session's first message.
pub(crate) fn hello(realm: &str) -> Value {
    json!([code::HELLO, realm, {
        "agent": concat!("vulpes-", env!("CARGO_PKG_VERSION")),
        "roles": {
            "publisher": {},
            "subscriber": {"features": {"pattern_based_subscription": true}},
            "caller": {"features": {"progressive_call_results": true, "call_timeout": true}},
        },
    }])
}

/// The session's number, from the node's first message.
pub(crate) fn welcomed(answer: &[Value]) -> Result<u64, WampError> {
    match (code_of(answer), answer) {
        (code::WELCOME, [_, session, ..]) => {
            session.as_u64().ok_or_else(|| WampError::Protocol("WELCOME without a session".into()))
        }
        (code::ABORT, [_, details, uri, ..]) => {
            let (uri, message) = (text(Some(uri)), text(details.get("message")));
            Err(match OF_LOGINS.contains(&uri.as_str()) {
                true => WampError::LoginRefused { uri, message },
                false => WampError::Aborted { uri, message },
            })
        }
        _ => Err(WampError::Protocol("neither WELCOME nor ABORT".into())),
    }
}

fn code_of(message: &[Value]) -> u64 {
    message.first().and_then(Value::as_u64).unwrap_or(0)
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl WampClient {
    /// Joins a realm at a node, as this user if there is a login.
    ///
    /// # Errors
    /// If the node can't be reached, or refuses.
    pub async fn connect(url: &str, realm: &str, login: Option<&Login>) -> Result<Self, WampError> {
        Self::connect_with(&Dialer::default(), url, realm, login).await
    }

    /// As [`WampClient::connect`], trusting whom the dialer trusts.
    ///
    /// # Errors
    /// If the node can't be reached or trusted, or refuses.
    pub async fn connect_with(
        dialer: &Dialer,
        url: &str,
        realm: &str,
        login: Option<&Login>,
    ) -> Result<Self, WampError> {
        within(async {
            let stream = open_socket(dialer, url, WebSocketConfig::default()).await?;
            Self::join(stream, realm, login).await
        })
        .await
    }

    /// Joins a realm over an existing connection.
    ///
    /// # Errors
    /// If the node refuses.
    pub async fn over(stream: BoxStream, url: &str, realm: &str) -> Result<Self, WampError> {
        within(async {
            let stream = upgrade(stream, url, WebSocketConfig::default()).await?;
            Self::join(stream, realm, None).await
        })
        .await
    }

    async fn join(
        stream: WebSocketStream<BoxStream>,
        realm: &str,
        login: Option<&Login>,
    ) -> Result<Self, WampError> {
        let mut client = Self { stream, session: 0, request: 0, waiting: VecDeque::new() };
        let mut hello = hello(realm);
        if let Some(login) = login {
            // Who wants to be a user is not content to be anonymous.
            hello[2]["authmethods"] = json!(["ticket"]);
            hello[2]["authid"] = login.user.as_str().into();
        }
        client.send(&hello).await?;
        let mut answer = client.receive().await?;
        if let (Some(login), code::CHALLENGE) = (login, code_of(&answer)) {
            let ticket = std::str::from_utf8(&login.password.0).unwrap_or_default();
            client.send(&json!([code::AUTHENTICATE, ticket, {}])).await?;
            answer = client.receive().await?;
        }
        client.session = welcomed(&answer)?;
        Ok(client)
    }

    /// The session's number.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Publishes, and waits until the event is durable and ordered.
    ///
    /// # Errors
    /// [`WampError::Refused`] if the node refused; any other one leaves the outcome unknown.
    pub async fn publish(
        &mut self,
        topic: &str,
        options: Map<String, Value>,
        arguments: &Arguments,
    ) -> Result<Position, WampError> {
        self.publish_within(topic, options, arguments, Some(ANSWER_TIMEOUT)).await
    }

    /// Publishes, and waits at most this long, or without limit: a publish with `watch` may wait for its turn.
    ///
    /// # Errors
    /// Like [`WampClient::publish`].
    pub async fn publish_within(
        &mut self,
        topic: &str,
        mut options: Map<String, Value>,
        arguments: &Arguments,
        limit: Option<Duration>,
    ) -> Result<Position, WampError> {
        options.insert("acknowledge".into(), true.into());
        let request = self.next_request();
        let mut message = vec![
            code::PUBLISH.into(),
            request.into(),
            options.into(),
            topic.into(),
            arguments.args.clone().into(),
        ];
        if !arguments.kwargs.is_empty() {
            message.push(arguments.kwargs.clone().into());
        }
        let position = self.request(request, message, code::PUBLISHED, limit).await?;
        Ok(Position(position))
    }

    /// Subscribes, and returns the subscription's number.
    ///
    /// # Errors
    /// [`WampError::Refused`] if the node refused; any other one ends the session.
    pub async fn subscribe(
        &mut self,
        topic: &str,
        options: Map<String, Value>,
    ) -> Result<u64, WampError> {
        let request = self.next_request();
        let message = vec![code::SUBSCRIBE.into(), request.into(), options.into(), topic.into()];
        self.request(request, message, code::SUBSCRIBED, Some(ANSWER_TIMEOUT)).await
    }

    /// The next message that answers no request; waits for it without a deadline.
    ///
    /// # Errors
    /// If the session ends.
    pub async fn next(&mut self) -> Result<Incoming, WampError> {
        if let Some(incoming) = self.waiting.pop_front() {
            return Ok(incoming);
        }
        loop {
            let message = self.receive().await?;
            if let Some(incoming) = incoming(&message)? {
                return Ok(incoming);
            }
        }
    }

    /// Closes the session with a GOODBYE. Dropping the client ends the session too.
    pub async fn close(mut self) {
        let goodbye = json!([code::GOODBYE, {}, "wamp.close.close_realm"]);
        let farewell = async {
            self.send(&goodbye).await?;
            while code_of(&self.receive().await?) != code::GOODBYE {}
            self.stream.close(None).await.map_err(closed)
        };
        // The answer does not matter: a node that gives none has ended the session anyway.
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }

    fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    async fn request(
        &mut self,
        request: u64,
        message: Vec<Value>,
        expected: u64,
        limit: Option<Duration>,
    ) -> Result<u64, WampError> {
        let answered = async {
            self.send(&message.into()).await?;
            loop {
                let answer = self.receive().await?;
                if let Some(outcome) = answered(&answer, request, expected) {
                    return outcome;
                }
                if let Some(incoming) = incoming(&answer)? {
                    if self.waiting.len() >= WAITING {
                        let reason = format!("{WAITING} events before the answer to a request");
                        return Err(WampError::Protocol(reason));
                    }
                    self.waiting.push_back(incoming);
                }
            }
        };
        match limit {
            Some(limit) => {
                tokio::time::timeout(limit, answered).await.unwrap_or(Err(WampError::Timeout))
            }
            None => answered.await,
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), WampError> {
        self.stream.send(Message::text(message.to_string())).await.map_err(closed)
    }

    async fn receive(&mut self) -> Result<Vec<Value>, WampError> {
        loop {
            let message = self.stream.next().await;
            let message = message.ok_or_else(|| closed(WebSocketError::ConnectionClosed))?;
            match message.map_err(closed)? {
                Message::Text(text) => {
                    return serde_json::from_str(&text)
                        .map_err(|error| WampError::Protocol(error.to_string()));
                }
                Message::Close(Some(frame)) if !frame.reason.is_empty() => {
                    return Err(WampError::Closed(frame.reason.to_string()));
                }
                // The WebSocket answers pings by itself, and reports its end with the next read.
                _ => {}
            }
        }
    }
}

async fn within<T>(
    future: impl std::future::Future<Output = Result<T, WampError>>,
) -> Result<T, WampError> {
    tokio::time::timeout(ANSWER_TIMEOUT, future).await.unwrap_or(Err(WampError::Timeout))
}

pub(crate) fn closed(error: WebSocketError) -> WampError {
    WampError::Closed(match error {
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => {
            "the node closed it".into()
        }
        error => error.to_string(),
    })
}

/// The outcome of the request, if this message answers it.
fn answered(message: &[Value], request: u64, expected: u64) -> Option<Result<u64, WampError>> {
    match (code_of(message), message) {
        (code::ERROR, [_, _, id, details, uri, rest @ ..]) if id.as_u64() == Some(request) => {
            let explained = rest.first().and_then(|args| args.get(0)).or(details.get("message"));
            Some(Err(WampError::Refused { uri: text(Some(uri)), message: text(explained) }))
        }
        (code, [_, id, result, ..]) if code == expected && id.as_u64() == Some(request) => {
            let number = result.as_u64();
            Some(number.ok_or_else(|| WampError::Protocol("an answer without its id".into())))
        }
        _ => None,
    }
}

/// The contents of this message, if it answers no request.
fn incoming(message: &[Value]) -> Result<Option<Incoming>, WampError> {
    match (code_of(message), message) {
        (code::EVENT, [_, subscription, position, details, rest @ ..]) => {
            let malformed = || WampError::Protocol("an EVENT without its ids".into());
            let args = rest.first().and_then(Value::as_array).cloned().unwrap_or_default();
            let kwargs = rest.get(1).and_then(Value::as_object).cloned().unwrap_or_default();
            Ok(Some(Incoming::Event(ReceivedEvent {
                subscription: subscription.as_u64().ok_or_else(malformed)?,
                position: Position(position.as_u64().ok_or_else(malformed)?),
                event_id: details.get("event_id").and_then(Value::as_str).map(str::to_owned),
                topic: details.get("topic").and_then(Value::as_str).map(str::to_owned),
                arguments: Arguments { args, kwargs },
            })))
        }
        (code::UNSUBSCRIBED, [_, request, details, ..]) if request.as_u64() == Some(0) => {
            let subscription = details.get("subscription").and_then(Value::as_u64);
            Ok(subscription.map(|subscription| Incoming::Ended { subscription }))
        }
        (code::GOODBYE | code::ABORT, [_, details, uri, ..]) => {
            let reason = format!("{}{}", text(Some(uri)), colon(&text(details.get("message"))));
            Err(WampError::Closed(reason))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
