//! Turns a connection into a WebSocket that carries WAMP, or refuses it with an HTTP response.
//!
//! Invariant: every client that sends an HTTP request gets an HTTP response, and time to read it.
//!
//! Deliberately absent: messages on the WebSocket (`transport`), and paths: any path is accepted.

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{
    write_response, ErrorResponse, Request, Response,
};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::WebSocketStream;
use vulpes_raft::host::BoxStream;

use super::linger::linger_on;
use super::transport::{failed, TransportError};
use crate::config::origins::Origins;
use crate::gate::wamp::{choose_subprotocol, subprotocol, Serializer};
use crate::types::limits;

/// Bytes that a WebSocket reads at once. Each connection holds a buffer of this size, whether or not input comes.
const WEBSOCKET_BUFFER: usize = 4 << 10;

/// Bytes that it collects before it writes them.
const OUTPUT_BUFFER: usize = 16 << 10;

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";

/// An HTTP response to a request that does not become a WebSocket.
pub(super) struct Answer {
    status: StatusCode,
    headers: &'static [(&'static str, &'static str)],
    reason: &'static str,
}

/// The supported protocol (RFC 6455 section 4.4).
const UPGRADE: &[(&str, &str)] = &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];

pub(super) const TOO_MANY_CONNECTIONS: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    headers: &[("Retry-After", "5")],
    reason: "this node has as many connections as it takes; try again, or at another node",
};

pub(super) const STOPPING: Answer = Answer {
    status: StatusCode::SERVICE_UNAVAILABLE,
    headers: &[("Retry-After", "5")],
    reason: "this node is stopping; connect to another one",
};

pub(super) const QUOTA_REACHED: Answer = Answer {
    status: StatusCode::TOO_MANY_REQUESTS,
    headers: &[("Retry-After", "5")],
    reason: "this address has as many connections to this node as it may have",
};

pub(super) const TOO_FAST: Answer = Answer {
    status: StatusCode::TOO_MANY_REQUESTS,
    headers: &[("Retry-After", "5")],
    reason: "clients of this address connect faster than this node lets them",
};

const NO_SUBPROTOCOL: Answer =
    bad_request("offer one of the WebSocket subprotocols wamp.2.json, wamp.2.msgpack, wamp.2.cbor");

const FOREIGN_PAGE: Answer = Answer {
    status: StatusCode::FORBIDDEN,
    headers: &[],
    reason: "web pages of this origin may not connect; `origins` under [listen] in the node's file lists those that may",
};

const TOO_SLOW: Answer = Answer {
    status: StatusCode::REQUEST_TIMEOUT,
    headers: &[],
    reason: "no whole request for a WebSocket came in time",
};

const fn bad_request(reason: &'static str) -> Answer {
    Answer { status: StatusCode::BAD_REQUEST, headers: &[], reason }
}

impl Answer {
    /// The response to a request that can't be granted; `None` if the client does not wait for one.
    fn to(error: &Error) -> Option<Self> {
        let Error::Protocol(protocol) = error else {
            return match error {
                Error::Io(_) => None,
                Error::AttackAttempt | Error::Capacity(_) => Some(Self {
                    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    headers: &[],
                    reason: "the header is too long, or comes in too many pieces",
                }),
                _ => Some(bad_request("this is no HTTP request for a WebSocket")),
            };
        };
        let upgrade =
            |reason| Self { status: StatusCode::UPGRADE_REQUIRED, headers: UPGRADE, reason };
        Some(match protocol {
            ProtocolError::HandshakeIncomplete => return None,
            ProtocolError::WrongHttpMethod => Self {
                status: StatusCode::METHOD_NOT_ALLOWED,
                headers: &[("Allow", "GET")],
                reason: "WAMP is spoken on a WebSocket here, which begins with GET",
            },
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader => {
                upgrade("WAMP is spoken on a WebSocket here")
            }
            ProtocolError::MissingSecWebSocketVersionHeader => {
                upgrade("Sec-WebSocket-Version has to be 13")
            }
            ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey => {
                bad_request("Sec-WebSocket-Key has to be 16 bytes in base64")
            }
            ProtocolError::JunkAfterRequest => {
                bad_request("more was sent before the request was answered")
            }
            _ => bad_request("this is no HTTP request for a WebSocket"),
        })
    }

    fn response(&self) -> ErrorResponse {
        let text = format!("{}\n", self.reason);
        let length = HeaderValue::from(text.len());
        let mut response = ErrorResponse::new(Some(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers.insert("Connection", HeaderValue::from_static("close"));
        headers.insert("Content-Type", HeaderValue::from_static("text/plain"));
        headers.insert("Content-Length", length);
        response
    }
}

/// Sends the response, and gives the client time to read it.
pub(super) async fn answer(mut stream: BoxStream, answer: &Answer) {
    let response = answer.response();
    let mut bytes = Vec::new();
    if write_response(&mut bytes, &response).is_err() {
        return;
    }
    bytes.extend(response.body().iter().flat_map(|text| text.bytes()));
    let written = tokio::time::timeout(limits::LINGER, stream.write_all(&bytes)).await;
    if matches!(written, Ok(Ok(()))) {
        linger_on(&mut stream).await;
    }
}

/// Buffers and limits of a client's WebSocket.
pub(super) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_BUFFER)
        .write_buffer_size(OUTPUT_BUFFER)
        .max_write_buffer_size(limits::CLIENT_OUTPUT)
        .max_message_size(Some(limits::CLIENT_MESSAGE))
        .max_frame_size(Some(limits::CLIENT_MESSAGE))
}

/// Opens a WebSocket for WAMP by a deadline, or answers why not.
pub(super) async fn upgrade(
    mut stream: BoxStream,
    origins: &Origins,
    deadline: Instant,
) -> Result<(WebSocketStream<BoxStream>, Serializer), TransportError> {
    let config = websocket_config();
    let mut chosen = None;
    let mut refused = &NO_SUBPROTOCOL;
    // The error type and its size are the library's.
    #[allow(clippy::result_large_err)]
    let negotiate = |request: &Request, response: Response| {
        if !is_welcome(request, origins) {
            refused = &FOREIGN_PAGE;
            return Err(FOREIGN_PAGE.response());
        }
        let (serializer, response) = negotiate(request, response)?;
        chosen = Some(serializer);
        Ok(response)
    };
    let accepting =
        tokio_tungstenite::accept_hdr_async_with_config(&mut stream, negotiate, Some(config));
    let refusal = match tokio::time::timeout_at(deadline, accepting).await {
        Ok(Ok(_)) => None,
        // The library has written the response of `negotiate`.
        Ok(Err(Error::Http(_))) => {
            linger_on(&mut stream).await;
            return Err(TransportError::Refused(refused.reason));
        }
        Ok(Err(error)) => match Answer::to(&error) {
            Some(answer) => Some(answer),
            None => return Err(failed(error)),
        },
        Err(_) => Some(TOO_SLOW),
    };
    match (refusal, chosen) {
        (None, Some(serializer)) => {
            // The library refuses requests with data after them, so nothing is lost here.
            let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
            Ok((socket, serializer))
        }
        (refusal, _) => {
            let refusal = refusal.unwrap_or(NO_SUBPROTOCOL);
            answer(stream, &refusal).await;
            Err(TransportError::Refused(refusal.reason))
        }
    }
}

/// Whether the web page that connects may do so. A client that is no browser names no origin.
fn is_welcome(request: &Request, origins: &Origins) -> bool {
    let mut named = request.headers().get_all("Origin").iter();
    named.all(|origin| origin.to_str().is_ok_and(|origin| origins.allows(origin)))
}

/// Answers with the first offered subprotocol that is supported, or refuses with a list of those.
#[allow(clippy::result_large_err)]
fn negotiate(
    request: &Request,
    mut response: Response,
) -> Result<(Serializer, Response), ErrorResponse> {
    let values = request.headers().get_all(SUBPROTOCOL).iter();
    let offered: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let serializer = choose_subprotocol(&offered).ok_or_else(|| NO_SUBPROTOCOL.response())?;
    let name = HeaderValue::from_static(subprotocol(serializer));
    response.headers_mut().insert(SUBPROTOCOL, name);
    Ok((serializer, response))
}
