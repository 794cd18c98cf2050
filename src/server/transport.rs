//! Bytes to whole messages and back: the two ways in which a client's messages travel.
//!
//! Invariant: what is read ahead is bounded by one message and one read; what waits to be written is bounded by the gate. A
//! transport sends nothing on its own except what WebSocket itself demands (pong, close), and the error it found before the
//! connection ends.
//!
//! Deliberately absent: what the messages mean, and whether the client is still there (`session::liveness`).

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::WebSocketStream;
use tokio_util::io::poll_read_buf;
use vulpes_raft::host::BoxStream;

use super::handshake::NoTls;
use super::intake::Intake;
use super::linger::Lingering;
use super::metered::{metered, Meter};
use crate::gate::mqtt::packet;
use crate::gate::Farewell;
use crate::types::limits;

/// Which protocol a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
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

/// Room for one read of a client that sends little.
const READ_ROOM: usize = 4 << 10;

/// Longest reason in a close frame, in bytes (RFC 6455 section 5.5).
const CLOSE_REASON: usize = 123;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Fault),
    /// It was answered with an HTTP response.
    #[error("{0}")]
    Refused(&'static str),
    /// Nothing was said on it.
    #[error(transparent)]
    NoTls(#[from] NoTls),
    /// The code that served the client has a bug.
    #[error("serving the client panicked")]
    Panicked,
    #[error("the client gave no sign of life")]
    Silent,
    #[error("the client took its messages too slowly while others waited for the room they take")]
    TooSlow,
}

/// A violation of WebSocket by the client, and its close code (RFC 6455 section 7.4.1).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Fault {
    code: CloseCode,
    reason: String,
}

/// A client's connection, as a stream of messages.
pub(super) trait Transport: Send {
    /// The next input for the gate.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>>;

    /// From now on gives one message at a time, where it gave several.
    fn take_singly(&mut self) {}

    /// Queues output of the gate.
    fn push(&mut self, output: Bytes);

    /// Writes what is queued; ready when nothing is left.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Bytes queued and not yet written.
    fn pending(&self) -> usize;

    /// Counts of the bytes that went through the connection so far.
    fn meter(&self) -> &Meter;

    /// The limit for what it reads.
    fn intake(&self) -> &Intake;

    /// Whether the protocol has a ping that every client answers automatically.
    fn can_ask(&self) -> bool;

    /// Queues a ping.
    fn ask(&mut self);

    /// Lets go of memory that is free: nothing has happened for a while.
    fn rest(&mut self);

    /// Drops all output, queued and later: the client does not read it any more.
    fn abandon(&mut self);

    /// Stops reading. If possible, drops the arrived part of an unfinished message.
    fn stop_reading(&mut self);

    /// Queues the transport's own message for the end, if there is one.
    fn close(&mut self, end: End<'_>);

    /// Writes what is queued, then waits until the client has hung up, or its time to read the last message is over; see
    /// [`linger`].
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// Writes what is queued, and gives the client time to read it.
pub(super) async fn linger(transport: &mut impl Transport) {
    let lingering = poll_fn(|context| transport.poll_linger(context));
    // If it has not hung up by then, its time is over.
    let _ = tokio::time::timeout(limits::LINGER, lingering).await;
}

/// Which side ended the connection.
#[derive(Debug)]
pub(super) enum End<'a> {
    /// The gate has closed.
    Ours(Farewell),
    /// The transport has failed, or the client is gone.
    Failed(&'a TransportError),
}

/// MQTT packets on a byte stream.
pub(super) struct MqttTransport {
    stream: BoxStream,
    input: BytesMut,
    output: VecDeque<Bytes>,
    pending: usize,
    meter: Arc<Meter>,
    intake: Intake,
    abandoned: bool,
    /// Gives one packet at a time.
    singly: bool,
    lingering: Lingering,
}

impl MqttTransport {
    pub(super) fn new(stream: BoxStream, intake: Intake) -> Self {
        let (stream, meter) = metered(stream);
        Self {
            stream: intake.on(stream),
            input: BytesMut::new(),
            output: VecDeque::new(),
            pending: 0,
            meter,
            intake,
            abandoned: false,
            singly: false,
            lingering: Lingering::default(),
        }
    }
}

impl MqttTransport {
    /// Reads more of the input. The first bytes of a packet are read through a buffer on the stack: a client that sends nothing
    /// has no buffer.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.input.is_empty() {
            make_room(&mut self.input, self.intake.told());
            return poll_read_buf(Pin::new(&mut self.stream), context, &mut self.input);
        }
        let mut room = [MaybeUninit::uninit(); READ_ROOM];
        let mut come = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut come))?;
        self.input = BytesMut::from(come.filled());
        Poll::Ready(Ok(come.filled().len()))
    }
}

/// Makes room for more of a packet of `told` bytes in all, as far as that is known. Room grows with what has arrived, not with
/// what a length claims; and it never grows past the packet's end, since it is counted by the packet's length.
fn make_room(input: &mut BytesMut, told: usize) {
    let come = input.len();
    let more = come.clamp(READ_ROOM, limits::SESSION_READ);
    let more = if told > come { more.min(told - come) } else { more };
    if input.capacity() - come < more && !input.try_reclaim(more) {
        let mut larger = BytesMut::with_capacity(come + more);
        larger.extend_from_slice(input);
        *input = larger;
    }
}

impl Transport for MqttTransport {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>> {
        loop {
            let whole = match self.singly {
                false => packet::complete_prefix(&self.input, limits::CLIENT_MESSAGE),
                true => packet::first_complete(&self.input, limits::CLIENT_MESSAGE),
            };
            let Ok(whole) = whole else {
                // The gate finds the same error, sends it to the client, and closes.
                return Poll::Ready(Ok(self.input.split().freeze()));
            };
            if whole > 0 && whole == self.input.len() {
                // An empty rest would keep the memory of the packet.
                return Poll::Ready(Ok(std::mem::take(&mut self.input).freeze()));
            }
            if whole > 0 {
                return Poll::Ready(Ok(self.input.split_to(whole).freeze()));
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Err(TransportError::Closed));
            }
        }
    }

    fn take_singly(&mut self) {
        self.singly = true;
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

    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn can_ask(&self) -> bool {
        false
    }

    fn ask(&mut self) {}

    fn rest(&mut self) {
        self.output.shrink_to_fit();
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.output.clear();
        self.pending = 0;
    }

    fn stop_reading(&mut self) {
        self.intake.stop();
        self.input = BytesMut::new();
        self.intake.forget_unfinished();
    }

    /// The gate has said everything: MQTT has a reason code for every fault.
    fn close(&mut self, _end: End<'_>) {}

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Input that is dropped when it arrives needs no room.
        self.stop_reading();
        if ready!(self.poll_flush(context)).is_err() {
            return Poll::Ready(());
        }
        self.lingering.poll(&mut self.stream, context)
    }
}

/// WAMP messages on a WebSocket.
pub(super) struct WampTransport {
    socket: WebSocketStream<BoxStream>,
    /// Whether messages are text frames.
    text: bool,
    output: VecDeque<Message>,
    pending: usize,
    meter: Arc<Meter>,
    intake: Intake,
    abandoned: bool,
    /// The client's error, after which nothing more is read.
    fault: Option<Fault>,
    /// A close frame has arrived. Only the answer to it may still be sent, which WebSocket does by itself.
    closed: bool,
    lingering: Lingering,
}

impl WampTransport {
    /// On a WebSocket whose stream has this meter, and is read through this intake.
    pub(super) fn new(
        socket: WebSocketStream<BoxStream>,
        text: bool,
        (meter, intake): (Arc<Meter>, Intake),
    ) -> Self {
        meter.hide_end(true);
        Self {
            socket,
            text,
            output: VecDeque::new(),
            pending: 0,
            meter,
            intake,
            abandoned: false,
            fault: None,
            closed: false,
            lingering: Lingering::default(),
        }
    }

    fn message(&self, output: Bytes) -> Message {
        if self.text {
            // A gate that uses JSON writes UTF-8.
            Utf8Bytes::try_from(output).map_or_else(|_| Message::Close(None), Message::Text)
        } else {
            Message::Binary(output)
        }
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(Some(message)) => message.map_err(failed)?,
                Poll::Ready(None) => return Poll::Ready(Err(TransportError::Closed)),
                Poll::Pending if self.meter.has_ended() => {
                    return Poll::Ready(Err(TransportError::Closed));
                }
                Poll::Pending => return Poll::Pending,
            };
            match message {
                Message::Text(text) if self.text => return Poll::Ready(Ok(text.into())),
                Message::Binary(bytes) if !self.text => return Poll::Ready(Ok(bytes)),
                Message::Text(_) | Message::Binary(_) => {
                    let reason = "the frame type does not fit the negotiated serializer".to_owned();
                    let fault = Fault { code: CloseCode::Unsupported, reason };
                    return Poll::Ready(Err(fault.into()));
                }
                Message::Close(_) => {
                    self.closed = true;
                    return Poll::Ready(Err(TransportError::Closed));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
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
}

impl Transport for WampTransport {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, TransportError>> {
        // A poll that saw it first may have had earlier input to return.
        if let Some(fault) = &self.fault {
            return Poll::Ready(Err(fault.clone().into()));
        }
        let received = self.poll_message(context);
        if let Poll::Ready(Err(TransportError::Malformed(fault))) = &received {
            self.fault = Some(fault.clone());
        }
        received
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
        if self.closed {
            self.output.clear();
            self.pending = 0;
        }
        self.poll_write(context)
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn can_ask(&self) -> bool {
        true
    }

    fn ask(&mut self) {
        self.output.push_back(Message::Ping(Bytes::new()));
    }

    fn rest(&mut self) {
        self.output.shrink_to_fit();
    }

    fn abandon(&mut self) {
        self.abandoned = true;
        self.output.clear();
        self.pending = 0;
    }

    /// The socket keeps what has arrived.
    fn stop_reading(&mut self) {
        self.intake.stop();
    }

    fn close(&mut self, end: End<'_>) {
        let (code, reason) = match end {
            End::Ours(Farewell::Said) => (CloseCode::Normal, ""),
            End::Ours(Farewell::Away(ref reason)) => (CloseCode::Away, reason.as_str()),
            End::Ours(Farewell::Again(ref reason)) => (CloseCode::Restart, reason.as_str()),
            End::Failed(TransportError::Malformed(fault)) => (fault.code, fault.reason.as_str()),
            End::Failed(TransportError::Silent) => (CloseCode::Policy, "no sign of life"),
            End::Failed(TransportError::TooSlow) => (CloseCode::Policy, "too slow"),
            End::Failed(TransportError::Panicked) => (CloseCode::Error, "internal error"),
            End::Failed(
                TransportError::Closed
                | TransportError::Io(_)
                | TransportError::Refused(_)
                | TransportError::NoTls(_),
            ) => return,
        };
        let ends = (0..=reason.len().min(CLOSE_REASON)).rev();
        let end = ends.into_iter().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        let reason = reason[..end].into();
        self.output.push_back(Message::Close(Some(CloseFrame { code, reason })));
    }

    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Input that is dropped when it arrives needs no room.
        self.stop_reading();
        if ready!(self.poll_flush(context)).is_err() {
            return Poll::Ready(());
        }
        self.meter.hide_end(false);
        self.lingering.poll(self.socket.get_mut(), context)
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
        other => {
            let code = match other {
                tungstenite::Error::Capacity(_) => CloseCode::Size,
                tungstenite::Error::Utf8(_) => CloseCode::Invalid,
                _ => CloseCode::Protocol,
            };
            TransportError::Malformed(Fault { code, reason: other.to_string() })
        }
    }
}
