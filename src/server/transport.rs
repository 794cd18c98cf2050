//! Bytes to whole messages and back: the two ways a client's messages travel.
//!
//! Invariant: what is read ahead is bounded by one message and one read; what waits to be written is the gate's to
//! bound. A transport says nothing on its own but what WebSocket itself demands (pong, close).
//!
//! Deliberately absent: what the messages mean, and whether the client is still there (`session::liveness`).

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::WebSocketStream;
use tokio_util::io::poll_read_buf;
use vulpes_raft::host::BoxStream;

use super::metered::{metered, Meter};
use crate::gate::mqtt::packet;
use crate::limits;

/// Room for one read of a client that sends little.
const READ_ROOM: usize = 4 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(String),
    #[error("the client gave no sign of life")]
    Silent,
}

/// A client's connection, message-wise.
pub(super) trait Transport: Send {
    /// The next input for the gate.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>>;

    /// Queues output of the gate.
    fn push(&mut self, output: Bytes);

    /// Writes what is queued; ready when nothing is left.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Bytes queued and not yet written.
    fn pending(&self) -> usize;

    /// What went through the connection so far.
    fn meter(&self) -> &Meter;

    /// Whether the protocol has a question that every client answers by itself.
    fn can_ask(&self) -> bool;

    /// Queues that question.
    fn ask(&mut self);

    /// Drops what is queued, and what will be: nobody reads it any more.
    fn abandon(&mut self);

    /// Queues what the transport itself says at the end, if anything.
    fn close(&mut self);
}

/// MQTT packets on a byte stream.
pub(super) struct MqttTransport {
    stream: BoxStream,
    input: BytesMut,
    output: VecDeque<Bytes>,
    pending: usize,
    meter: Arc<Meter>,
    abandoned: bool,
}

impl MqttTransport {
    pub(super) fn new(stream: BoxStream) -> Self {
        let (stream, meter) = metered(stream);
        Self {
            stream,
            input: BytesMut::new(),
            output: VecDeque::new(),
            pending: 0,
            meter,
            abandoned: false,
        }
    }
}

impl Transport for MqttTransport {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>> {
        loop {
            let Ok(whole) = packet::complete_prefix(&self.input, limits::CLIENT_MESSAGE) else {
                // The gate finds the same fault, says so to the client, and closes.
                return Poll::Ready(Ok(self.input.split().freeze()));
            };
            if whole > 0 {
                return Poll::Ready(Ok(self.input.split_to(whole).freeze()));
            }
            // Room grows with what has come of a large packet, not with what its length claims.
            let room = self.input.len().clamp(READ_ROOM, limits::SESSION_READ);
            self.input.reserve(room);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), context, &mut self.input))? == 0 {
                return Poll::Ready(Err(TransportError::Closed));
            }
        }
    }

    fn push(&mut self, output: Bytes) {
        if self.abandoned {
            return;
        }
        self.pending += output.len();
        self.output.push_back(output);
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.abandoned {
            return Poll::Ready(Ok(()));
        }
        while let Some(front) = self.output.front_mut() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, front))?;
            if written == 0 {
                return Poll::Ready(Err(TransportError::Closed));
            }
            self.pending -= written;
            front.advance(written);
            if front.is_empty() {
                self.output.pop_front();
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn can_ask(&self) -> bool {
        false
    }

    fn ask(&mut self) {}

    fn abandon(&mut self) {
        self.abandoned = true;
        self.output.clear();
        self.pending = 0;
    }

    fn close(&mut self) {}
}

/// WAMP messages on a WebSocket.
pub(super) struct WampTransport {
    socket: WebSocketStream<BoxStream>,
    /// Whether messages are text frames.
    text: bool,
    output: VecDeque<Message>,
    pending: usize,
    meter: Arc<Meter>,
    abandoned: bool,
}

impl WampTransport {
    /// On a WebSocket whose stream has this meter.
    pub(super) fn new(socket: WebSocketStream<BoxStream>, text: bool, meter: Arc<Meter>) -> Self {
        Self { socket, text, output: VecDeque::new(), pending: 0, meter, abandoned: false }
    }

    fn message(&self, output: Bytes) -> Message {
        if self.text {
            // A gate that speaks JSON writes UTF-8.
            Utf8Bytes::try_from(output).map_or_else(|_| Message::Close(None), Message::Text)
        } else {
            Message::Binary(output)
        }
    }
}

impl Transport for WampTransport {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(Some(message)) => message.map_err(failed)?,
                Poll::Ready(None) => return Poll::Ready(Err(TransportError::Closed)),
                Poll::Pending => return Poll::Pending,
            };
            match message {
                Message::Text(text) if self.text => return Poll::Ready(Ok(text.into())),
                Message::Binary(bytes) if !self.text => return Poll::Ready(Ok(bytes)),
                Message::Text(_) | Message::Binary(_) => {
                    let reason = "the frame type does not fit the negotiated serializer";
                    return Poll::Ready(Err(TransportError::Malformed(reason.into())));
                }
                Message::Close(_) => return Poll::Ready(Err(TransportError::Closed)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn push(&mut self, output: Bytes) {
        if self.abandoned {
            return;
        }
        self.pending += output.len();
        let message = self.message(output);
        self.output.push_back(message);
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.abandoned {
            return Poll::Ready(Ok(()));
        }
        while !self.output.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(failed)?;
            if let Some(message) = self.output.pop_front() {
                Pin::new(&mut self.socket).start_send(message).map_err(failed)?;
            }
        }
        ready!(Pin::new(&mut self.socket).poll_flush(context)).map_err(failed)?;
        self.pending = 0;
        Poll::Ready(Ok(()))
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn can_ask(&self) -> bool {
        true
    }

    fn ask(&mut self) {
        self.output.push_back(Message::Ping(Bytes::new()));
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.output.clear();
        self.pending = 0;
    }

    fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        self.output.push_back(Message::Close(Some(frame)));
    }
}

/// Why a WebSocket connection ends. Who vanishes, in the middle of a frame or of the handshake, has sent nothing wrong.
pub(super) fn failed(error: tungstenite::Error) -> TransportError {
    match error {
        tungstenite::Error::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        ) => TransportError::Closed,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            TransportError::Closed
        }
        tungstenite::Error::Io(error) => TransportError::Io(error),
        other => TransportError::Malformed(other.to_string()),
    }
}
