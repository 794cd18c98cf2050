//! A WAMP client for the simulation: JSON over WebSocket, over turmoil's TCP.
//!
//! Invariant: the client itself only waits for the answers to its handshake; its callers set the time limits.
//!
//! Deliberately absent: the rest of WAMP.

use std::io;

use futures::{SinkExt, StreamExt};
use serde_json::{json, Value as Json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::WebSocketStream;
use turmoil::net::TcpStream;
use vulpes_jepsen::code::{CALL, HELLO, PUBLISHED, REGISTER, REGISTERED, WELCOME, YIELD};
use vulpes_raft::ids::Position;

use crate::connection::{Gone, Outcome, Said, WAMP_PORT};

pub(crate) const ERROR: u64 = 8;
pub(crate) const PUBLISH: u64 = 16;
pub(crate) const SUBSCRIBE: u64 = 32;
pub(crate) const SUBSCRIBED: u64 = 33;
pub(crate) const UNSUBSCRIBED: u64 = 35;
pub(crate) const EVENT: u64 = 36;

/// An open session.
pub(crate) struct Wamp {
    socket: WebSocketStream<TcpStream>,
}

fn failed(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

impl Wamp {
    pub(crate) const GOODBYE: u64 = 6;
    pub(crate) const ERROR: u64 = ERROR;
    pub(crate) const RESULT: u64 = 50;
    pub(crate) const INVOCATION: u64 = 68;

    pub(crate) async fn open(node: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((node, WAMP_PORT)).await?;
        let address = format!("ws://{node}:{WAMP_PORT}/");
        let mut request = address.into_client_request().map_err(failed)?;
        let subprotocol = HeaderValue::from_static("wamp.2.json");
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocol);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(failed)?;
        let mut wamp = Self { socket };
        let roles = json!({"roles": {"publisher": {}, "subscriber": {}}});
        wamp.send(&json!([HELLO, "realm1", roles])).await?;
        match wamp.message().await? {
            Some(message) if message[0] == WELCOME => Ok(wamp),
            other => Err(failed(format!("no welcome: {other:?}"))),
        }
    }

    pub(crate) async fn publish(&mut self, topic: &str, number: u64, text: &str) -> io::Result<()> {
        let options = json!({"acknowledge": true});
        self.send(&json!([PUBLISH, number + 1, options, topic, [text]])).await
    }

    /// Subscribes to everything after a position; by its event id, if that is given.
    pub(crate) async fn subscribe(
        &mut self,
        after: Position,
        id: Option<String>,
    ) -> io::Result<()> {
        let after = id.map_or(json!(after.0), |id| json!(id));
        self.send(&json!([SUBSCRIBE, 1, {"after": after}, "#"])).await?;
        match self.message().await? {
            Some(message) if message[0] == SUBSCRIBED => Ok(()),
            Some(message) if message[4] == "vulpes.error.history_gone" => {
                let oldest = message[6]["oldest"].as_u64().map(Position);
                oldest.map_or_else(
                    || Err(failed(&message)),
                    |oldest| Err(io::Error::other(Gone { oldest: Some(oldest) })),
                )
            }
            other => Err(failed(format!("not subscribed: {other:?}"))),
        }
    }

    /// Waits for a lock; returns the token.
    pub(crate) async fn lock(&mut self, topic: &str, locker: u64) -> io::Result<Position> {
        let options = json!({
            "acknowledge": true, "retain": true, "when": null, "will": null, "watch": true,
        });
        self.send(&json!([PUBLISH, 1, options, topic, [{"locker": locker}]])).await?;
        self.published().await
    }

    pub(crate) async fn free(&mut self, topic: &str) -> io::Result<()> {
        let options = json!({"acknowledge": true, "retain": true});
        self.send(&json!([PUBLISH, 2, options, topic, [null]])).await?;
        self.published().await.map(drop)
    }

    async fn published(&mut self) -> io::Result<Position> {
        loop {
            match self.next().await? {
                Said::Answer { outcome: Outcome::Stored(Some(position)), .. } => {
                    return Ok(position);
                }
                Said::Alive => {}
                other => return Err(failed(format!("not published: {other:?}"))),
            }
        }
    }

    /// Registers a procedure that others may register as well.
    pub(crate) async fn register(&mut self, procedure: &str) -> io::Result<()> {
        self.send(&json!([REGISTER, 1, {"invoke": "roundrobin"}, procedure])).await?;
        match self.message().await? {
            Some(message) if message[0] == REGISTERED => Ok(()),
            other => Err(failed(format!("not registered: {other:?}"))),
        }
    }

    /// Returns an invocation's arguments.
    pub(crate) async fn answer(&mut self, invocation: &Json) -> io::Result<()> {
        self.send(&json!([YIELD, invocation[1], {}, invocation[4]])).await
    }

    pub(crate) async fn call(
        &mut self,
        request: u64,
        procedure: &str,
        number: u64,
        timeout: Option<u64>,
    ) -> io::Result<()> {
        let options = timeout.map_or(json!({}), |timeout| json!({"timeout": timeout}));
        self.send(&json!([CALL, request, options, procedure, [number]])).await
    }

    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        self.socket.send(Message::Ping(bytes::Bytes::new())).await.map_err(failed)
    }

    pub(crate) async fn next(&mut self) -> io::Result<Said> {
        let Some(message) = self.message().await? else { return Ok(Said::Alive) };
        let number = |at: usize| message[at].as_u64().ok_or_else(|| failed(&message));
        match number(0)? {
            PUBLISHED => {
                let position = Some(Position(number(2)?));
                Ok(Said::Answer { number: number(1)? - 1, outcome: Outcome::Stored(position) })
            }
            ERROR if message[4] == "vulpes.error.not_stored" => {
                Ok(Said::Answer { number: number(2)? - 1, outcome: Outcome::NotStored })
            }
            ERROR if message[4] == "fox.error.not_accepted" => {
                Ok(Said::Answer { number: number(2)? - 1, outcome: Outcome::Refused })
            }
            ERROR if message[4] == "vulpes.error.unknown_outcome" => {
                Ok(Said::Answer { number: number(2)? - 1, outcome: Outcome::Unknown })
            }
            EVENT => {
                let id = message[3]["event_id"].as_str().unwrap_or("no event id").to_owned();
                let text = message[4][0].as_str().ok_or_else(|| failed(&message))?.to_owned();
                Ok(Said::Event { text, place: Some((Position(number(2)?), id)) })
            }
            _ => Err(failed(format!("unexpected: {message}"))),
        }
    }

    pub(crate) async fn send(&mut self, message: &Json) -> io::Result<()> {
        self.socket.send(Message::text(message.to_string())).await.map_err(failed)
    }

    /// The next WAMP message; `None` for WebSocket's own frames.
    pub(crate) async fn message(&mut self) -> io::Result<Option<Json>> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map(Some).map_err(failed),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
            Some(Ok(other)) => Err(failed(format!("unexpected: {other:?}"))),
            Some(Err(error)) => Err(failed(error)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
