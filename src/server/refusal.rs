//! Connections without a free place: each is told so in its own protocol.
//!
//! Invariant: a refused connection takes no place of a session and little memory. It has at most [`limits::LINGER`] to send its
//! protocol's first packet, and as long again to read the answer.
//!
//! Deliberately absent: how many are refused this way at a time (`listen`).

use std::future::poll_fn;
use std::task::{ready, Context, Poll};

use vulpes_raft::host::BoxStream;

use super::clients::Clients;
use super::intake::{Framing, Intake, Terms};
use super::quotas::Refused;
use super::transport::{linger, MqttTransport, Protocol, Transport};
use super::upgrade::{answer, QUOTA_REACHED, STOPPING, TOO_FAST, TOO_MANY_CONNECTIONS};
use crate::gate::mqtt::MqttGate;
use crate::gate::{Gate, OpenRefusal, Request};
use crate::types::limits;
use crate::types::moment::Moment;

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoPlace {
    /// There are too many.
    Full,
    /// The node is stopping.
    Stopping,
    /// Its address has as many as it may have.
    Quota,
    /// They come from its address too fast.
    TooFast,
}

impl From<Refused> for NoPlace {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Connections => Self::Quota,
            Refused::Rate => Self::TooFast,
        }
    }
}

/// Tells a client why there is no place for it.
pub(super) async fn refuse(protocol: Protocol, stream: BoxStream, clients: &Clients, why: NoPlace) {
    match (protocol, why) {
        (Protocol::Wamp, NoPlace::Full) => answer(stream, &TOO_MANY_CONNECTIONS).await,
        (Protocol::Wamp, NoPlace::Stopping) => answer(stream, &STOPPING).await,
        (Protocol::Wamp, NoPlace::Quota) => answer(stream, &QUOTA_REACHED).await,
        (Protocol::Wamp, NoPlace::TooFast) => answer(stream, &TOO_FAST).await,
        (Protocol::Mqtt, why) => {
            let gate = MqttGate::new(clients.mqtt.clone(), clients.new_session(), clients.now());
            let intake = Intake::new(Framing::Mqtt, &Terms::CLIENT, &clients.login);
            let transport = MqttTransport::new(stream, intake);
            refuse_in_session(gate, transport, clients.now(), why).await;
        }
    }
}

/// The answer depends on what the client sends first.
async fn refuse_in_session(
    mut gate: impl Gate,
    mut transport: impl Transport,
    now: Moment,
    why: NoPlace,
) {
    let refused = poll_fn(|context| poll_refused(&mut gate, &mut transport, (now, why), context));
    if tokio::time::timeout(limits::LINGER, refused).await.is_ok() {
        while let Some(output) = gate.poll_output() {
            transport.push(output);
        }
        linger(&mut transport).await;
    }
}

/// Ready when the gate has closed, or the client is gone.
fn poll_refused(
    gate: &mut impl Gate,
    transport: &mut impl Transport,
    (now, why): (Moment, NoPlace),
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let Ok(input) = ready!(transport.poll_receive(context)) else { return Poll::Ready(()) };
        gate.receive(input, now);
        while let Some(request) = gate.poll_request() {
            match request {
                Request::Login(_) | Request::Open { .. } | Request::Attach { .. } => {
                    gate.opened(Err(match why {
                        NoPlace::Full => OpenRefusal::TooManyConnections,
                        NoPlace::Stopping => OpenRefusal::Stopping,
                        NoPlace::Quota => OpenRefusal::QuotaReached,
                        NoPlace::TooFast => OpenRefusal::TooFast,
                    }));
                }
                Request::Close { .. } => return Poll::Ready(()),
                // A gate makes no requests before its session is open.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::budget::Budget;
    use super::*;
    use crate::gate::mqtt::MqttConfig;
    use crate::types::event::SessionId;
    use crate::types::topic::Realm;

    /// The answer to a client that sends this.
    async fn told(says: &[u8]) -> Vec<u8> {
        told_why(says, NoPlace::Full).await
    }

    async fn told_why(says: &[u8], why: NoPlace) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(4096);
        let config = MqttConfig {
            default_realm: Realm::new("realm1").unwrap(),
            realms: Arc::default(),
            merging: crate::gate::MergingRealms::default(),
        };
        let gate = MqttGate::new(config, SessionId(1), Moment(0));
        let budget = Budget::in_parts(limits::LOGIN_BYTES);
        let intake = Intake::new(Framing::Mqtt, &Terms::CLIENT, &budget);
        let transport = MqttTransport::new(Box::new(server), intake);
        let refused = tokio::spawn(refuse_in_session(gate, transport, Moment(0), why));
        client.write_all(says).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        drop(client);
        refused.await.unwrap();
        said
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_so() {
        let connect = |level: u8, rest: &[u8]| {
            [&[0x10, 10 + rest.len() as u8, 0, 4], &b"MQTT"[..], &[level, 2, 0, 60], rest].concat()
        };
        assert_eq!(told(&connect(4, &[0, 0])).await, [0x20, 2, 0, 3]);
        let refused = told(&connect(5, &[0, 0, 0])).await;
        assert_eq!((refused[0], &refused[2..4]), (0x20, &[0, 0x89][..]));
        let stopping = told_why(&connect(5, &[0, 0, 0]), NoPlace::Stopping).await;
        assert_eq!(&stopping[2..4], &[0, 0x88], "try another node");
        let quota = told_why(&connect(5, &[0, 0, 0]), NoPlace::Quota).await;
        let too_fast = told_why(&connect(5, &[0, 0, 0]), NoPlace::TooFast).await;
        assert_eq!((&quota[2..4], &too_fast[2..4]), (&[0, 0x97][..], &[0, 0x9F][..]));
        // A client that is refused for other reasons gets the answer for those.
        assert_eq!(told(&connect(3, &[0, 0])).await, [0x20, 2, 0, 1]);
        assert_eq!(told(b"GET / HTTP/1.1\r\n\r\n").await, b"");

        let (mut client, server) = tokio::io::duplex(4096);
        let answered =
            tokio::spawn(async { answer(Box::new(server), &TOO_MANY_CONNECTIONS).await });
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        drop(client);
        answered.await.unwrap();
        assert!(
            said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nretry-after: 5\r\n"),
            "{said}"
        );
    }
}
