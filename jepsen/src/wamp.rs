//! A WAMP client for tests: JSON over WebSocket, publisher and subscriber.
//!
//! Invariant: any message that the WAMP basic profile does not allow the router to send here is an error, not
//! skipped.
//!
//! Deliberately absent: calls, registrations, authentication, other serializers (the stock clients have them).

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{bail, ensure, Context, Result};
use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{client_async, WebSocketStream};

use crate::client::{Said, Seen};
use crate::code::{
    ABORT, ERROR, EVENT, GOODBYE, HELLO, PUBLISH, PUBLISHED, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBED,
    WELCOME,
};
use crate::wait::{within, PATIENCE};

/// A session.
#[derive(Debug)]
pub struct Wamp {
    socket: WebSocketStream<TcpStream>,
    requests: u64,
    /// Messages that arrived while waiting for something else.
    early: VecDeque<Said>,
}

impl Wamp {
    /// Connects and opens a session in `realm`.
    ///
    /// # Errors
    /// If no process listens, or the router refuses.
    pub async fn connect(address: SocketAddr, realm: &str) -> Result<Self> {
        within("a WAMP session opens", PATIENCE, async {
            let mut session = Self::open(address).await?;
            let roles = json!({ "publisher": {}, "subscriber": {} });
            session.send(&json!([HELLO, realm, { "roles": roles }])).await?;
            let answer = session.receive().await?.context("closed before WELCOME")?;
            ensure!(answer[0] == WELCOME, "no WELCOME but {answer}");
            let id = answer[1].as_u64().context("a session id that is no integer")?;
            ensure!((1..=1 << 53).contains(&id), "session id {id}");
            Ok(session)
        })
        .await
    }

    /// Only opens the WebSocket, for tests that send arbitrary messages.
    ///
    /// # Errors
    /// If no process listens there, or the subprotocol is refused.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{address}/").into_client_request()?;
        let protocol = HeaderValue::from_static("wamp.2.json");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self { socket, requests: 0, early: VecDeque::new() })
    }

    /// Sends this message unchanged.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, message: &Value) -> Result<()> {
        self.send_text(message.to_string()).await
    }

    /// Sends this text unchanged.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send_text(&mut self, text: String) -> Result<()> {
        Ok(self.socket.send(Message::text(text)).await?)
    }

    /// The next message, or nothing if the connection is gone.
    ///
    /// # Errors
    /// If it is not a JSON list.
    pub async fn receive(&mut self) -> Result<Option<Value>> {
        while let Some(message) = self.socket.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    let value: Value = serde_json::from_str(&text)?;
                    ensure!(value.is_array(), "not a WAMP message: {value}");
                    return Ok(Some(value));
                }
                Ok(Message::Binary(_)) => bail!("a binary message in a JSON session"),
                Ok(Message::Close(_)) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
        Ok(None)
    }

    /// Publishes one text argument with `acknowledge`; returns the request.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish(&mut self, topic: &str, text: &str) -> Result<u64> {
        self.publish_with(topic, Some(text), json!({})).await
    }

    /// Publishes one text argument, or none, with `acknowledge` and these options; returns the request.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        text: Option<&str>,
        mut options: Value,
    ) -> Result<u64> {
        self.requests += 1;
        options["acknowledge"] = true.into();
        self.send(&json!([PUBLISH, self.requests, options, topic, [text]])).await?;
        Ok(self.requests)
    }

    /// Subscribes, and waits for the answer.
    ///
    /// # Errors
    /// If the router refuses.
    pub async fn subscribe(&mut self, topic: &str, options: &Value) -> Result<()> {
        self.requests += 1;
        self.send(&json!([SUBSCRIBE, self.requests, options, topic])).await?;
        within("a subscription is answered", PATIENCE, async {
            loop {
                let answer = self.receive().await?.context("closed before SUBSCRIBED")?;
                match answer[0].as_u64() {
                    Some(SUBSCRIBED) if answer[1] == self.requests => return Ok(()),
                    Some(ERROR) if answer[2] == self.requests => bail!("refused: {answer}"),
                    _ => self.early.push_back(understand(&answer)?),
                }
            }
        })
        .await
    }

    /// The router's next message.
    ///
    /// # Errors
    /// If it is not allowed here.
    pub async fn next(&mut self) -> Result<Said> {
        if let Some(said) = self.early.pop_front() {
            return Ok(said);
        }
        match self.receive().await? {
            Some(message) => understand(&message),
            None => Ok(Said::Closed("the connection is gone".to_owned())),
        }
    }
}

fn understand(message: &Value) -> Result<Said> {
    Ok(match message[0].as_u64() {
        Some(PUBLISHED) => {
            Said::Acknowledged { request: number(message, 1)?, position: Some(number(message, 2)?) }
        }
        Some(ERROR) => {
            Said::Refused { request: number(message, 2)?, reason: format!("{}", message[4]) }
        }
        Some(EVENT) => Said::Event(Seen {
            topic: message[3]["topic"].as_str().unwrap_or_default().to_owned(),
            payload: payload(message)?,
            position: Some(number(message, 2)?),
            retained: message[3]["retained"] == true,
        }),
        Some(UNSUBSCRIBED) if message[1] == 0 => Said::Ended,
        Some(ABORT | GOODBYE) => Said::Closed(message.to_string()),
        _ => bail!("unexpected {message}"),
    })
}

fn number(message: &Value, index: usize) -> Result<u64> {
    message[index].as_u64().with_context(|| format!("item {index} of {message} is no integer"))
}

fn payload(event: &Value) -> Result<String> {
    let Some(arguments) = event.get(4) else { return Ok(String::new()) };
    let arguments = arguments.as_array().with_context(|| format!("arguments in {event}"))?;
    Ok(match arguments.as_slice() {
        [] | [Value::Null] => String::new(),
        [Value::String(text)] => text.clone(),
        [one] => one.to_string(),
        _ => serde_json::to_string(arguments)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_a_router_may_say() {
        let seen = |topic: &str, payload: &str| {
            let (topic, payload) = (topic.into(), payload.into());
            Said::Event(Seen { topic, payload, position: Some(9), retained: false })
        };
        let table = [
            (json!([17, 4, 9]), Said::Acknowledged { request: 4, position: Some(9) }),
            (
                json!([8, 16, 4, {}, "fox.error.x"]),
                Said::Refused { request: 4, reason: "\"fox.error.x\"".into() },
            ),
            (json!([36, 1, 9, { "topic": "a.b" }, ["x"]]), seen("a.b", "x")),
            (json!([36, 1, 9, { "topic": "a" }, [{ "k": 1 }]]), seen("a", "{\"k\":1}")),
            (json!([36, 1, 9, {}]), seen("", "")),
            (json!([36, 1, 9, {}, [1, "b"]]), seen("", "[1,\"b\"]")),
            (json!([35, 0, { "subscription": 3 }]), Said::Ended),
        ];
        for (message, said) in table {
            assert_eq!(understand(&message).unwrap(), said, "{message}");
        }
        for message in [json!([2, 1]), json!([17, 1]), json!([17, 1, 0.5]), json!([36, 1, null])] {
            assert!(understand(&message).is_err(), "{message}");
        }
    }
}
