//! A session with everything that it needs of a node, and a socket that is controlled by the test.
//!
//! Time is paused and advances only when no task has anything to do: a short sleep waits until all tasks are idle.
//!
//! Deliberately absent: the order. The test itself gives the session the signals of the order.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use vulpes_raft::host::sim::{self, SimConfig, SimDisk};
use vulpes_raft::ids::{NodeId, Position, Slot};

use crate::config::origins::Origins;
use crate::dispatch::Dispatcher;
use crate::entry::Inbox;
use crate::log::{log, Log, LogTail, Placed, Tail};
use crate::realm::{Realms, SharedRealms};
use crate::replica::Command;
use crate::server::bans::Bans;
use crate::server::calls::Calls;
use crate::server::clients::Clients;
use crate::server::session_manager::SessionManager;
use crate::session::testing::sealed;
use crate::types::event::{Event, Extensions, Payload, Qos, SessionId};
use crate::types::topic::{Realm, Topic};

/// A socket as its peer sees it.
#[derive(Clone, Default)]
pub(super) struct Socket(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    /// Bytes that it takes now.
    room: usize,
    taken: Vec<u8>,
    writer: Option<Waker>,
    sent: VecDeque<Bytes>,
    /// How often it was asked for bytes.
    polls: usize,
    /// How the next read fails.
    breaks: Option<Break>,
    reader: Option<Waker>,
}

/// How a read of a socket may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The peer has reset the connection.
    Reset,
    /// The reading code panics, as with a bug.
    Panic,
}

impl Socket {
    /// How often it was asked for bytes.
    pub(super) fn polls(&self) -> usize {
        self.lock().polls
    }

    pub(super) fn breaks(&self, how: Break) {
        let mut shared = self.lock();
        shared.breaks = Some(how);
        shared.reader.take().into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }

    /// Takes this many bytes more.
    pub(super) fn take(&self, bytes: usize) {
        let mut shared = self.lock();
        shared.room += bytes;
        shared.writer.take().into_iter().for_each(Waker::wake);
    }

    /// Bytes that it would take and was not given.
    pub(super) fn room(&self) -> usize {
        self.lock().room
    }

    pub(super) fn taken(&self) -> Vec<u8> {
        self.lock().taken.clone()
    }

    pub(super) fn send(&self, bytes: impl Into<Bytes>) {
        let mut shared = self.lock();
        shared.sent.push_back(bytes.into());
        shared.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        shared.polls += 1;
        match shared.breaks.take() {
            Some(Break::Reset) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Break::Panic) => {
                drop(shared);
                panic!("planted");
            }
            None => {}
        }
        let Some(front) = shared.sent.front_mut() else {
            shared.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let bytes = front.split_to(front.len().min(buffer.remaining()));
        buffer.put_slice(&bytes);
        if !front.has_remaining() {
            shared.sent.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let count = bytes.len().min(shared.room);
        if count == 0 {
            shared.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        shared.room -= count;
        shared.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a session needs of its node.
pub(super) struct Node {
    pub(super) clients: Arc<Clients>,
    pub(super) inbox: Inbox,
    tail: LogTail,
    pub(super) log: Log,
    realms: SharedRealms,
    placed: mpsc::UnboundedSender<Arc<Placed>>,
    _stop: watch::Sender<bool>,
}

pub(super) fn realm() -> Realm {
    Realm::new("realm1").unwrap()
}

impl Node {
    pub(super) fn new() -> Self {
        let config = SimConfig { seed: 1, clock_ahead: 0, commit: Duration::ZERO };
        let host = sim::host(config, &SimDisk::default());
        let (entry, inbox) = Inbox::new();
        let (commands, asked) = mpsc::channel(16);
        let next = Tail { next_slot: Slot(1), next_position: Position(1) };
        let (tail, log) = log(next, Vec::new());
        let realms = SharedRealms::new(Realms::default());
        let calls = Calls::new(&host, NodeId(1), realms.clone());
        let manager = SessionManager::new(calls.clone(), Bans::new(realms.clone()));
        let (stop, stopping) = watch::channel(false);
        let all = [realm()].into_iter().collect();
        let states = (realms.clone(), manager, calls);
        let clients = Clients::new(
            host,
            entry,
            commands,
            log.clone(),
            states,
            (all, realm(), crate::gate::MergingRealms::default()),
            (100, Origins::default(), stopping),
        );
        // Tests bound what passes through it.
        #[allow(clippy::disallowed_methods)]
        let (placed, to_dispatch) = mpsc::unbounded_channel();
        tokio::spawn(dispatch(asked, to_dispatch));
        Self { clients: Arc::new(clients), inbox, tail, log, realms, placed, _stop: stop }
    }

    /// Adds a segment to the log, of messages with these payloads.
    pub(super) fn publish(&self, topic: &str, payloads: &[String]) {
        let events: Vec<Event> = payloads.iter().map(|payload| event(topic, payload)).collect();
        self.publish_events(&events);
    }

    /// The same, of these events.
    pub(super) fn publish_events(&self, events: &[Event]) {
        let Tail { next_slot: slot, next_position: base } = self.log.tail();
        let (resolution, segment) = sealed(slot, base, events);
        let segment = Some(segment);
        let hidden = self.realms.apply(&resolution, segment.as_ref(), Vec::new()).hidden.into();
        let placed = Arc::new(Placed { resolution, segment, hidden });
        self.tail.append(placed.clone());
        self.placed.send(placed).unwrap();
    }
}

async fn dispatch(
    mut asked: mpsc::Receiver<Command>,
    mut placed: mpsc::UnboundedReceiver<Arc<Placed>>,
) {
    let mut dispatcher = Dispatcher::new(Slot(1));
    loop {
        tokio::select! {
            biased;
            Some(placed) = placed.recv() => dispatcher.dispatch(&placed),
            Some(command) = asked.recv() => match command {
                Command::Join { join, answer } => drop(answer.send(dispatcher.join(join))),
                Command::Leave { session, id, answer } => {
                    dispatcher.leave(session, id);
                    let _ = answer.send(());
                }
                Command::Remove(session) => dispatcher.remove(session),
            },
            else => return,
        }
    }
}

/// An event of another session, of QoS 0.
pub(super) fn event(topic: &str, payload: &str) -> Event {
    Event {
        realm: realm(),
        topic: Topic::from_mqtt(topic).unwrap(),
        publisher: SessionId(9),
        client: crate::types::event::ClientTag::default(),
        exclude_me: false,
        disclose_me: false,
        retain: false,
        qos: Qos::AtMostOnce,
        payload: Payload::raw(Bytes::copy_from_slice(payload.as_bytes())),
        properties: Bytes::new(),
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

/// Waits until all tasks are idle.
pub(super) async fn rest() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
