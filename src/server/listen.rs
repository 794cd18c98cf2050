//! Listening for clients: one loop a protocol, one task a connection.
//!
//! Invariant: a connection takes one of a bounded number of places from its first byte to its last; one that finds no
//! place is closed at once, so that those who are in are not harmed.
//!
//! Deliberately absent: what a session does (`session`).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use vulpes_raft::host::{BoxStream, Listener};

use crate::gate::mqtt::{MqttConfig, MqttGate};
use crate::gate::wamp::{choose_subprotocol, subprotocol, Serializer, WampGate};
use crate::limits;

use super::clients::Clients;
use super::session::Session;
use super::transport::{MqttTransport, TransportError, WampTransport};

/// Which protocol a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Wamp,
    Mqtt,
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
                tracing::warn!(?protocol, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = clients.connections.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = limits::CONNECTIONS, "turned away: too many connections");
            continue;
        };
        let clients = clients.clone();
        tokio::spawn(async move {
            let sessions = match protocol {
                Protocol::Wamp => &clients.wamp_sessions,
                Protocol::Mqtt => &clients.mqtt_sessions,
            };
            sessions.fetch_add(1, Ordering::Relaxed);
            let end = match protocol {
                Protocol::Wamp => Box::pin(serve_wamp(stream, clients.clone())).await,
                Protocol::Mqtt => serve_mqtt(stream, clients.clone()).await,
            };
            sessions.fetch_sub(1, Ordering::Relaxed);
            report(protocol, peer, &end);
            drop(place);
        });
    }
}

fn report(protocol: Protocol, peer: SocketAddr, end: &TransportError) {
    match end {
        TransportError::Closed => tracing::debug!(?protocol, %peer, "session ended"),
        TransportError::Silent => tracing::info!(?protocol, %peer, "connection closed: silent"),
        TransportError::Io(error) => tracing::debug!(?protocol, %peer, %error, "connection lost"),
        TransportError::Malformed(reason) => {
            tracing::info!(?protocol, %peer, reason, "connection closed: malformed input");
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
        Ok(Err(error)) => return TransportError::Malformed(error.to_string()),
        Err(_) => return TransportError::Malformed("no WebSocket handshake in time".into()),
    };
    let Some(serializer) = chosen else {
        return TransportError::Malformed("no WAMP subprotocol".into());
    };
    let transport = WampTransport::new(socket, serializer.is_text());
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
