//! Listening for clients: one loop a protocol, one task a connection.
//!
//! Invariant: a connection takes one of a bounded number of places from its first byte to its last; one that finds no
//! place is closed at once, so that those who are in are not harmed.
//!
//! Deliberately absent: what a session does (`session`).

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::field::Empty;
use tracing::Instrument;
use vulpes_raft::host::{BoxStream, Listener};

use crate::gate::mqtt::{MqttConfig, MqttGate};
use crate::gate::wamp::{choose_subprotocol, subprotocol, Serializer, WampGate};
use crate::limits;

use super::clients::Clients;
use super::metered::metered;
use super::session::Session;
use super::transport::{failed, MqttTransport, TransportError, WampTransport};

tokio::task_local! {
    /// Set while a client's own connection is worked on, which nobody else depends on.
    static CLIENT: ();
}

/// Whether it is a client's connection that is being worked on, here and now.
#[must_use]
pub fn serves_a_client() -> bool {
    CLIENT.try_with(|()| ()).is_ok()
}

/// Which protocol a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Wamp,
    Mqtt,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wamp => "WAMP",
            Self::Mqtt => "MQTT",
        })
    }
}

/// How long to wait after a failure to accept, as when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// WebSocket buffers of a connection, in bytes; small, because there may be many.
const WEBSOCKET_BUFFER: usize = 16 << 10;

/// Accepts clients for as long as the node lives.
pub(super) async fn serve(
    protocol: Protocol,
    mut listener: Box<dyn Listener>,
    clients: Arc<Clients>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection for {protocol} could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = clients.connections.clone().try_acquire_owned() else {
            let most = clients.most;
            tracing::warn!(%peer, "turned away: {most} clients are connected, and that is the limit here");
            continue;
        };
        let clients = clients.clone();
        tokio::spawn(async move {
            let sessions = match protocol {
                Protocol::Wamp => &clients.wamp_sessions,
                Protocol::Mqtt => &clients.mqtt_sessions,
            };
            sessions.fetch_add(1, Ordering::Relaxed);
            // Every line about the client says who it is; the session adds its name.
            let span = tracing::error_span!("client", %protocol, %peer, name = Empty);
            let serving = async {
                match protocol {
                    Protocol::Wamp => Box::pin(serve_wamp(stream, clients.clone())).await,
                    Protocol::Mqtt => serve_mqtt(stream, clients.clone()).await,
                }
            };
            // What panicked was logged when it did.
            let serving = AssertUnwindSafe(CLIENT.scope((), serving)).catch_unwind();
            let end = Box::pin(serving).instrument(span.clone()).await;
            sessions.fetch_sub(1, Ordering::Relaxed);
            if let Ok(end) = end {
                span.in_scope(|| report(&end));
            }
            drop(place);
        });
    }
}

fn report(end: &TransportError) {
    match end {
        TransportError::Closed => tracing::debug!("the session ended"),
        TransportError::Silent => tracing::info!("connection closed: the client was silent"),
        TransportError::Io(error) => tracing::debug!("connection lost: {error}"),
        TransportError::Malformed(reason) => {
            tracing::info!("connection closed: malformed input: {reason}");
        }
    }
}

async fn serve_mqtt(stream: BoxStream, clients: Arc<Clients>) -> TransportError {
    let (default_realm, realms) = (clients.default_realm.clone(), clients.realms.clone());
    let config = MqttConfig { default_realm, realms };
    let gate = MqttGate::new(config, clients.new_session(), clients.now());
    Session::new(gate, MqttTransport::new(stream), clients).run().await
}

async fn serve_wamp(stream: BoxStream, clients: Arc<Clients>) -> TransportError {
    let (stream, meter) = metered(stream);
    let mut chosen = None;
    let config = WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_BUFFER)
        .write_buffer_size(WEBSOCKET_BUFFER)
        .max_write_buffer_size(4 * limits::CLIENT_MESSAGE)
        .max_message_size(Some(limits::CLIENT_MESSAGE))
        .max_frame_size(Some(limits::CLIENT_MESSAGE));
    // The error type is the library's, and so is its size.
    #[allow(clippy::result_large_err)]
    let negotiate = |request: &Request, response: Response| {
        let (serializer, response) = negotiate(request, response)?;
        chosen = Some(serializer);
        Ok(response)
    };
    let accepting =
        tokio_tungstenite::accept_hdr_async_with_config(stream, negotiate, Some(config));
    let socket = match tokio::time::timeout(limits::HANDSHAKE, accepting).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return failed(error),
        Err(_) => return TransportError::Malformed("no WebSocket handshake in time".into()),
    };
    let Some(serializer) = chosen else {
        return TransportError::Malformed("no WAMP subprotocol".into());
    };
    let transport = WampTransport::new(socket, serializer.is_text(), meter);
    let gate = WampGate::new(serializer, clients.new_session(), clients.now());
    Session::new(gate, transport, clients).run().await
}

/// Answers with the first subprotocol offered that is spoken here, or refuses with a word of what is.
#[allow(clippy::result_large_err)]
fn negotiate(
    request: &Request,
    mut response: Response,
) -> Result<(Serializer, Response), ErrorResponse> {
    let header = "Sec-WebSocket-Protocol";
    let values = request.headers().get_all(header).iter();
    let offered: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let Some(serializer) = choose_subprotocol(&offered) else {
        let reason =
            "offer one of the WebSocket subprotocols wamp.2.json, wamp.2.msgpack, wamp.2.cbor";
        let mut refusal = ErrorResponse::new(Some(reason.to_owned()));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    };
    let name = HeaderValue::from_static(subprotocol(serializer));
    response.headers_mut().insert(header, name);
    Ok((serializer, response))
}
