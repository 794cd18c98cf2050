//! Bench clients that speak WAMP in JSON.
//!
//! Invariant: each turn handles all messages that have arrived, then sends all its messages with one flush.
//!
//! Deliberately absent: parsing whole JSON documents. The few kinds of messages that arrive by the million are recognized by
//! their first bytes.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::{BufMut, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::WebSocketStream;
use vulpes_raft::host::BoxStream;

use super::load::{Load, Plan, Published, Schedule};
use super::reception::{Received, Reception};
use crate::client::wamp::{closed, hello, open_socket, welcomed};

/// Bytes after the payload in an EVENT or a RESULT: the end of its string, of the arguments, of the message.
pub(super) const EVENT_TAIL: usize = 3;

/// Time limit for a router's GOODBYE.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) type Socket = WebSocketStream<BoxStream>;

pub(super) async fn open(plan: &Plan, target: &str) -> anyhow::Result<Socket> {
    let config = WebSocketConfig::default()
        .read_buffer_size(plan.shape.buffer)
        .write_buffer_size(plan.shape.buffer);
    let mut socket = open_socket(&plan.dialer, target, config).await?;
    let realm = plan.shape.realm.as_deref().unwrap_or(crate::cli::DEFAULT_REALM);
    socket.send(Message::text(hello(realm).to_string())).await?;
    welcomed(&receive_array(&mut socket).await?)?;
    Ok(socket)
}

/// The next text message.
pub(super) async fn receive(socket: &mut Socket) -> anyhow::Result<Utf8Bytes> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(closed(error).into()),
            None => bail!("the node closed the connection"),
        }
    }
}

/// The next text message, if it has already arrived.
pub(super) fn receive_now(socket: &mut Socket) -> anyhow::Result<Option<Utf8Bytes>> {
    receive(socket).now_or_never().transpose()
}

/// The next text message, which has to be of this kind and for the first request.
pub(super) async fn receive_answer(
    socket: &mut Socket,
    code: u64,
    what: &str,
) -> anyhow::Result<()> {
    let answer = receive(socket).await?;
    ensure!(head(&answer) == Some((code, 1)), "the node refuses the {what}: {answer}");
    Ok(())
}

/// Whether the router supports positions in a log.
pub(super) async fn knows_places(plan: &Plan, target: &str) -> anyhow::Result<bool> {
    let mut socket = open(plan, target).await?;
    let subscribe = json!([32, 1, {"after": "?"}, "bench"]);
    socket.send(Message::text(subscribe.to_string())).await?;
    let answer = receive(&mut socket).await?;
    close(&mut socket).await?;
    Ok(head(&answer).is_some_and(|(code, _)| code == 8))
}

async fn receive_array(socket: &mut Socket) -> anyhow::Result<Vec<Value>> {
    Ok(serde_json::from_str(&receive(socket).await?)?)
}

/// Sends a GOODBYE and waits for the router's GOODBYE. A connection that has ended is not an error.
pub(super) async fn close(socket: &mut Socket) -> anyhow::Result<()> {
    let goodbye = json!([6, {}, "wamp.close.close_realm"]);
    socket.send(Message::text(goodbye.to_string())).await?;
    let answered = async {
        while receive(socket).await.is_ok_and(|text| head(&text).is_some_and(|it| it.0 != 6)) {}
    };
    // A router that does not answer has still received everything.
    let _ = tokio::time::timeout(GOODBYE, answered).await;
    Ok(())
}

/// The message's code and, if a number follows, that number.
pub(super) fn head(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.strip_prefix('[')?.splitn(3, [',', ']']);
    let code = numbers.next()?.trim().parse().ok()?;
    let second = numbers.next().and_then(|number| number.trim().parse().ok());
    Some((code, second.unwrap_or(0)))
}

/// The name of a callee's procedure.
pub(super) fn procedure(plan: &Plan, number: usize) -> String {
    format!("bench.{:08x}.call{number}", plan.run)
}

/// Waits for the common start, and meanwhile answers the router's pings, since connecting all clients may take long.
async fn wait_start(
    socket: &mut Socket,
    load: &mut Load,
    start: &mut watch::Receiver<Option<Schedule>>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = load.wait_start(start) => Ok(()),
        text = receive(socket) => bail!("the node sent before it was asked for anything: {:.200}", text?),
    }
}

/// A client's requests to a router.
pub(super) trait Requests {
    /// The next request, if there is room and time for one.
    fn next(&mut self, load: &mut Load, now: Duration) -> anyhow::Result<Option<Message>>;

    /// Handles a message, and returns the message that has to follow it, if any.
    ///
    /// # Errors
    /// If it answers no request.
    fn take(
        &mut self,
        load: &mut Load,
        text: &str,
        now: Duration,
    ) -> anyhow::Result<Option<Message>>;
}

/// A client that makes requests repeatedly.
pub(super) struct Asking<R> {
    socket: Socket,
    requests: R,
}

impl<R: Requests> Asking<R> {
    pub(super) fn new(socket: Socket, requests: R) -> Self {
        Self { socket, requests }
    }

    pub(super) async fn run(
        mut self,
        mut load: Load,
        mut start: watch::Receiver<Option<Schedule>>,
        name: String,
    ) -> Published {
        if let Err(error) = wait_start(&mut self.socket, &mut load, &mut start).await {
            return load.finish(Some(format!("{name}: {error:#}")));
        }
        let outcome = timeout_at(load.deadline(), self.ask(&mut load)).await;
        load.conclude(outcome, &name)
    }

    async fn ask(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let Self { socket, requests } = self;
        loop {
            let now = load.plan().now();
            while let Some(request) = requests.next(load, now)? {
                socket.feed(request).await?;
            }
            socket.flush().await?;
            if load.is_done(now) {
                return close(socket).await;
            }
            let mut next = tokio::select! {
                text = receive(socket) => Some(text?),
                () = load.wait_due() => continue,
            };
            let now = load.plan().now();
            while let Some(text) = next.take() {
                if let Some(request) = requests.take(load, &text, now)? {
                    socket.feed(request).await?;
                }
                next = receive_now(socket)?;
            }
        }
    }
}

/// The receivers of payloads.
enum To {
    /// Published to these topics.
    Topics(Vec<String>),
    /// Sent as arguments to this procedure, which echoes them.
    Procedure(String),
}

/// Requests with a payload.
pub(super) struct Payloads {
    to: To,
    buffer: BytesMut,
}

impl Payloads {
    fn new(plan: &Plan, to: To) -> Self {
        Self { to, buffer: BytesMut::with_capacity(plan.shape.buffer) }
    }
}

/// A client that publishes.
pub(super) async fn publisher(plan: &Plan, target: &str) -> anyhow::Result<Asking<Payloads>> {
    let socket = open(plan, target).await?;
    let topic = |topic| format!("bench.{:08x}.{topic}", plan.run);
    let topics = (0..plan.shape.topics).map(topic).collect();
    Ok(Asking::new(socket, Payloads::new(plan, To::Topics(topics))))
}

/// A client that calls the procedure of this number.
pub(super) async fn caller(
    plan: &Plan,
    target: &str,
    number: usize,
) -> anyhow::Result<Asking<Payloads>> {
    let socket = open(plan, target).await?;
    let procedure = procedure(plan, number);
    Ok(Asking::new(socket, Payloads::new(plan, To::Procedure(procedure))))
}

impl Requests for Payloads {
    fn next(&mut self, load: &mut Load, now: Duration) -> anyhow::Result<Option<Message>> {
        let Some(content) = load.begin(now) else { return Ok(None) };
        // WAMP's requests are numbered from 1; sequence numbers count from 0.
        let request = content.sequence + 1;
        let buffer = &mut self.buffer;
        match &self.to {
            To::Topics(topics) => {
                let topic = &topics[load.topic(content.sequence)];
                write!(buffer, r#"[16,{request},{{"acknowledge":true}},"{topic}",[""#)?;
            }
            To::Procedure(procedure) => write!(buffer, r#"[48,{request},{{}},"{procedure}",[""#)?,
        }
        load.write(buffer, content);
        buffer.put_slice(b"\"]]");
        // Shares the buffer, without another allocation.
        Ok(Some(Message::Text(Utf8Bytes::try_from(buffer.split().freeze())?)))
    }

    fn take(
        &mut self,
        load: &mut Load,
        text: &str,
        now: Duration,
    ) -> anyhow::Result<Option<Message>> {
        let request = match (&self.to, head(text)) {
            (To::Topics(_), Some((17, request))) => request,
            (To::Procedure(_), Some((50, request))) => {
                let returned = request > 0 && load.is_own(text.as_bytes(), EVENT_TAIL, request - 1);
                ensure!(returned, "call {request} did not come to what it was called with");
                request
            }
            _ => bail!("the node answered a request with {text:.200}"),
        };
        let known = request > 0 && load.answered(request - 1, now);
        ensure!(known, "the node answered request {request}, which is not in flight");
        Ok(None)
    }
}

pub(super) struct Subscriber {
    socket: Socket,
    /// When it subscribed.
    at: Duration,
}

impl Subscriber {
    pub(super) async fn connect(plan: &Plan, target: &str) -> anyhow::Result<Self> {
        let mut socket = open(plan, target).await?;
        let prefix = format!("bench.{:08x}.", plan.run);
        // The prefix ends before its dot: WAMP forbids an empty last part.
        let prefix = prefix.trim_end_matches('.');
        let options = match plan.shape.replay {
            true => json!({"match": "prefix", "after": 0}),
            false => json!({"match": "prefix"}),
        };
        let at = plan.now();
        let subscribe = json!([32, 1, options, prefix]);
        socket.send(Message::text(subscribe.to_string())).await?;
        receive_answer(&mut socket, 33, "subscription").await?;
        Ok(Self { socket, at })
    }

    pub(super) async fn run(mut self, mut reception: Reception, name: String) -> Received {
        reception.subscribed(self.at);
        let expiry = reception.expiry();
        let error = tokio::select! {
            outcome = self.receive(&mut reception) => {
                outcome.err().map(|error| format!("{name}: {error:#}"))
            }
            // Anything missing then counts as lost.
            () = expiry => None,
        };
        reception.finish(error)
    }

    async fn receive(&mut self, reception: &mut Reception) -> anyhow::Result<()> {
        let publishers_done = reception.publishers_done();
        tokio::pin!(publishers_done);
        let mut watching = true;
        while !reception.is_done() {
            let mut next = tokio::select! {
                text = receive(&mut self.socket) => Some(text?),
                () = &mut publishers_done, if watching => {
                    watching = false;
                    None
                }
            };
            let now = reception.plan().now();
            while let Some(text) = next.take() {
                match head(&text) {
                    Some((36, _)) => reception.received(text.as_bytes(), EVENT_TAIL, now),
                    _ => bail!("the node sent to a subscriber: {text:.200}"),
                }
                next = receive_now(&mut self.socket)?;
            }
        }
        close(&mut self.socket).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        for (text, expected) in [
            ("[17,25,301]", Some((17, 25))),
            ("[ 17 , 25 , 301 ]", Some((17, 25))),
            ("[36,7,9,{\"topic\":\"a\"},[\"x\"]]", Some((36, 7))),
            ("[8,16,3,{},\"wamp.error\"]", Some((8, 16))),
            ("[3,{},\"wamp.close\"]", Some((3, 0))),
            ("[6]", Some((6, 0))),
            ("{}", None),
            ("", None),
            ("[x", None),
        ] {
            assert_eq!(head(text), expected, "{text}");
        }
    }
}
