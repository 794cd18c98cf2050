//! One client's session: its socket, its gate, its batch for the entry and its reader of the log, in one task.
//!
//! A turn takes what is ready, lets the gate work, hands the gate's events to the entry as one batch, and writes the
//! gate's output in one go.
//!
//! Invariant: everything a session holds is bounded. Its socket is not read while its publishes wait beyond their
//! bound, and it takes no events from the log while its output waits beyond its own. Whatever is held back goes on when
//! there is room: each poll looks at what is there then, and at nothing that an earlier one has seen.
//!
//! Deliberately absent: anything of a protocol.

mod client;
mod gone;
mod kept;
mod leaving;
mod liveness;
mod room;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wake;

use std::future::{poll_fn, Future};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{mpsc, OwnedSemaphorePermit};
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use crate::call::Asked;
use crate::gate::{EndReason, Gate, OpenRefusal, Request};
use crate::realm::EndCause;
use crate::session::ledger::{Decided, Done, Ledger};
use crate::session::Word;
use crate::types::answer::Answer;
use crate::types::event::Event;
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::topic::Realm;

use super::budget::Account;
use super::calls::Attached;
use super::clients::Clients;
use super::delivery::{self, Current};
use super::events;
use super::filtering::Filtering;
use super::outgo::Outgo;
use super::publishing::{looked_at, Publishing};
use super::reader::{Reader, ReaderDriver};
use super::transport::{End, Transport, TransportError};
use crate::session::reader::Reading;
use gone::Gone;
use kept::Keeping;
use liveness::Liveness;
use room::Room;
use wake::Wake;

/// Characters of a client's name that are shown in the log.
const SHOWN_NAME: usize = 64;

/// What a message costs beside its bytes, in bytes.
const MESSAGE_TOIL: usize = 1 << 10;

pub(super) struct Session<G, T> {
    gate: G,
    transport: T,
    clients: Arc<Clients>,
    standing: Standing,
    reader: Option<Reader>,
    /// There once the reader is.
    reading: Option<ReaderDriver>,
    ledger: Ledger,
    publishing: Publishing,
    /// Room for what all nodes keep of the session.
    state_room: Option<OwnedSemaphorePermit>,
    outgo: Outgo,
    /// What it holds of the log until the socket takes it.
    segments: Account,
    /// Its turn at reading large values for its filters.
    filtering: Filtering,
    /// There once the session has to do with calls.
    calls: Option<Attached>,
    /// Where the session outlives its connection.
    keeping: Option<Keeping>,
    current: Option<Current>,
    room: Room,
    liveness: Liveness,
    /// The client is, and what it said before is still to be done.
    gone: Option<Gone>,
    inputs: Vec<Bytes>,
    /// Bytes that went through it since others had their turn; a message counts as [`MESSAGE_TOIL`] at least.
    toil: usize,
    timer: Pin<Box<Sleep>>,
    /// Set when the connection is to be closed as soon as its output is written, or then at the latest.
    closing: Option<Instant>,
    /// The transport has queued what it says at the end.
    closed: bool,
    ending: bool,
    inputs_first: bool,
}

/// Where the session stands with all the others that know of it.
enum Standing {
    /// Nobody has heard of it.
    Unknown,
    /// It is in the log, or on its way there.
    Announced {
        realm: Realm,
        words: mpsc::Receiver<Word>,
        known_as: [serde_json::Value; 2],
        /// Its MQTT will is not to be published.
        drop_will: bool,
    },
    /// It is over for all, while its connection may still be there.
    Over,
}

impl<G: Gate, T: Transport> Session<G, T> {
    pub(super) fn new(gate: G, transport: T, clients: Arc<Clients>) -> Self {
        let publishing = Publishing::new(gate.session(), clients.rooms.clone());
        let outgo = Outgo::new(&clients.output);
        let segments = clients.segments.account();
        let filtering = Filtering::new(&clients.filtering);
        let liveness = Liveness::new(clients.now());
        Self {
            gate,
            transport,
            clients,
            standing: Standing::Unknown,
            reader: None,
            reading: None,
            ledger: Ledger::default(),
            publishing,
            state_room: None,
            outgo,
            segments,
            filtering,
            calls: None,
            keeping: None,
            current: None,
            room: Room::default(),
            liveness,
            gone: None,
            inputs: Vec::new(),
            toil: 0,
            timer: Box::pin(tokio::time::sleep(limits::HANDSHAKE)),
            closing: None,
            closed: false,
            ending: false,
            inputs_first: false,
        }
    }

    /// Serves the client until either side ends it; tells why.
    pub(super) async fn run(mut self) -> TransportError {
        let end = match AssertUnwindSafe(self.serve()).catch_unwind().await {
            Ok(end) => end,
            // It was logged. The session still has to leave, or the others would know of it for as long as the node lives.
            Err(_) => TransportError::Panicked,
        };
        self.leave(end).await
    }

    async fn serve(&mut self) -> TransportError {
        let mut stopping = self.clients.stopping();
        let stop = stopping.wait_for(|stop| *stop);
        tokio::pin!(stop);
        loop {
            // One that always finds something to do lets others have their turn.
            coop::consume_budget().await;
            self.turn();
            if self.toil >= limits::SESSION_READ {
                self.toil = 0;
                tokio::task::yield_now().await;
            }
            let wake = poll_fn(|context| {
                if !self.ending && stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Wake::End(EndReason::Shutdown));
                }
                self.poll_wake(context)
            })
            .await;
            if let Some(end) = self.handle(wake) {
                return end;
            }
        }
    }

    fn now(&self) -> Moment {
        self.clients.now()
    }

    /// Lets the gate's wishes and words out, and events in while there is room.
    fn turn(&mut self) {
        loop {
            self.take_requests();
            if !self.deliver_some() {
                break;
            }
        }
        while let Some(output) = self.gate.poll_output() {
            self.toil += output.len();
            self.transport.push(output);
        }
        if let Some(dropped) = self.gate.poll_dropped() {
            self.clients.drops.note(self.gate.session(), &dropped);
        }
        // Behind the gate's last words, which may have come after its wish to close.
        if self.closing.is_some() && !std::mem::replace(&mut self.closed, true) {
            self.transport.close(End::Ours(self.gate.farewell()));
        }
        self.publishing.count_waiting(self.ledger.waiting());
        let states = &self.clients.realm_states;
        let errand = self.ledger.next(|event, compares| looked_at(states, event, compares));
        if let Some(errand) = errand {
            self.publishing.begin(errand, &self.clients.entry);
        }
        if self.reader.is_some() && self.ledger.is_idle() && self.inputs.is_empty() {
            self.transport.intake().settle();
        }
        self.filtering.give_back();
        if self.current.is_none() {
            self.filtering.forget();
        }
        self.hold_segments();
        self.count_output();
    }

    fn take_requests(&mut self) {
        while let Some(request) = self.gate.poll_request() {
            self.request(request);
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Open { realm, join } => {
                let known_as = events::known_as(&join.details);
                let event = events::join(realm.clone(), self.gate.session(), join);
                self.announce(realm, known_as, event);
            }
            Request::Attach { realm, attach } => {
                self.keeping = Some(Keeping::attaching());
                let known_as = events::known_as(&attach.join.details);
                let event = events::attach(realm.clone(), self.gate.session(), attach);
                self.announce(realm, known_as, event);
            }
            Request::Resume(readings) => self.read_on(readings),
            Request::Keep { act, subscribe, unsubscribe } => self.keep(act, subscribe, unsubscribe),
            Request::Publish { event, terms } => self.ledger.publish(event, terms),
            Request::Decide(event) => self.ledger.decide(event),
            Request::Subscribe(subscription) => {
                if let Some(reader) = &mut self.reader {
                    reader.subscribe(subscription);
                }
            }
            Request::Unsubscribe(id) => {
                if let Some(reader) = &mut self.reader {
                    reader.unsubscribe(id);
                }
            }
            Request::Call(asked) => self.ask(asked),
            Request::Close { drop_will: dropped } => {
                if let Standing::Announced { drop_will, .. } = &mut self.standing {
                    *drop_will = dropped;
                }
                self.closing.get_or_insert_with(|| Instant::now() + limits::LINGER);
            }
        }
    }

    fn ask(&mut self, asked: Asked) {
        let Standing::Announced { realm, .. } = &self.standing else { return };
        let (clients, session) = (&self.clients, self.gate.session());
        let calls = self.calls.get_or_insert_with(|| clients.calls.attach(session));
        if let Some(told) = calls.ask(realm, asked) {
            self.gate.told(told);
        }
    }

    /// Hands the gate what it is told about calls, while there is room for it.
    fn tell(&mut self) {
        while let Some(size) = self.calls.as_ref().and_then(Attached::next_size) {
            if !self.has_room() || self.outgo.takes(self.output(), size) == 0 {
                return;
            }
            let Some(told) = self.calls.as_ref().and_then(Attached::next) else { return };
            self.gate.told(told);
        }
    }

    /// Has the session's beginning put into the log; it is open when the log shows that.
    fn announce(&mut self, realm: Realm, known_as: [serde_json::Value; 2], event: Event) {
        if !self.clients.realms.contains(&realm) {
            return self.gate.opened(Err(OpenRefusal::NoSuchRealm));
        }
        let Some(room) = self.clients.try_keep_state(event.size()) else {
            return self.gate.opened(Err(OpenRefusal::NoRoom));
        };
        let name = shown(known_as[0].as_str().unwrap_or("unnamed"));
        tracing::Span::current().record("name", name);
        let words = self.clients.desk.register(self.gate.session());
        self.ledger.push_own(event);
        self.standing = Standing::Announced { realm, words, known_as, drop_will: false };
        self.state_room = Some(room);
    }

    fn joined(&mut self) {
        let session = self.gate.session();
        let incarnation = self
            .clients
            .realm_states
            .with(|realms| realms.session(session).map(|session| session.incarnation));
        // It may have ended again meanwhile, of which it is about to hear.
        let Some(incarnation) = incarnation else { return };
        self.ledger.joined(incarnation);
        if !self.attached() {
            self.open();
        }
    }

    fn open(&mut self) {
        let Standing::Announced { realm, .. } = &self.standing else { return };
        let clients = &self.clients;
        self.reader = Some(Reader::new(realm.clone()));
        let log = (clients.log.clone(), clients.realm_states.clone());
        let (commands, rooms) = (clients.commands.clone(), clients.subscriptions.clone());
        let session = self.gate.session();
        self.reading = Some(ReaderDriver::new(session, realm.clone(), log, commands, rooms));
        self.transport.intake().belongs_to(&clients.input);
        self.gate.opened(Ok(()));
    }

    /// Hands the gate what is at hand for it; true where something changed that may bring more to do.
    fn deliver_some(&mut self) -> bool {
        if self.current.is_none() || !self.has_room() {
            return false;
        }
        let room = delivery::Room {
            outgo: &mut self.outgo,
            waiting: self.transport.pending(),
            toil: &mut self.toil,
            filtering: &mut self.filtering,
        };
        let (Some(reader), Some(current)) = (&mut self.reader, &mut self.current) else {
            return false;
        };
        let done = current.deliver(&mut self.gate, reader, room);
        if done {
            self.current = None;
        }
        self.may_have_moved();
        done
    }

    /// Handles what woke the session; tells why it ends, if it does.
    fn handle(&mut self, wake: Wake) -> Option<TransportError> {
        match wake {
            // The next turn does it.
            Wake::Asked => {}
            Wake::Room => self.tell(),
            Wake::Failed(error) => return Some(error),
            Wake::Inputs => {
                let now = self.now();
                let (states, session) = (&self.clients.realm_states, self.gate.session());
                let waits = self.publishing.has_room_to_wait();
                let allowed =
                    self.ledger.allowed(waits, || states.with(|realms| realms.wills(session)));
                self.gate.allow(allowed);
                let mut inputs = std::mem::take(&mut self.inputs).into_iter();
                while self.ledger.may_grow() {
                    let Some(input) = inputs.next() else { break };
                    self.toil += MESSAGE_TOIL + input.len();
                    self.gate.receive(input, now);
                    self.take_requests();
                }
                self.inputs.extend(inputs);
                self.may_have_moved();
            }
            Wake::Answer(answer) => {
                self.answered(answer);
                while let Some(answer) = self.publishing.try_answer() {
                    self.answered(answer);
                }
            }
            Wake::Word(word) => self.told(word),
            Wake::Told => self.tell(),
            Wake::Done(done) => {
                self.ledger.done(done);
                if done == Done::Closed {
                    self.end(EndReason::Shutdown);
                }
            }
            Wake::Reading(reading) => self.read(reading),
            Wake::Time => {
                if self.closing.is_some() {
                    return Some(TransportError::Closed);
                }
                let now = self.now();
                self.gate.tick(now);
                self.look_after_keeping();
            }
            Wake::End(reason) => self.end(reason),
        }
        None
    }

    fn answered(&mut self, answer: Answer) {
        for (slot, account) in self.publishing.compared(&answer) {
            let log = self.clients.log.clone();
            tokio::spawn(async move {
                log.reached(slot).await;
                drop(account);
            });
        }
        let lost = self.ledger.loses_sight(&answer);
        let decided = self.ledger.answered(&answer);
        self.gate.answered(answer);
        if lost {
            self.end(EndReason::Unavailable);
        }
        decided.into_iter().for_each(|decided| self.decided(decided));
    }

    fn decided(&mut self, (sequence, outcome): Decided) {
        self.gate.decided(sequence, outcome);
    }

    /// Takes what the realms' state says to this session.
    fn told(&mut self, word: Option<Word>) {
        match word {
            Some(Word::Joined) => self.joined(),
            Some(Word::Noted(noted)) => self.noted(noted),
            Some(Word::Released) => self.released(),
            Some(word @ (Word::Decided { .. } | Word::Turn { .. })) => {
                if let Some(decided) = self.ledger.told(word) {
                    self.decided(decided);
                }
            }
            Some(Word::Ended(cause)) => {
                if cause == EndCause::TakenOver {
                    self.give_up();
                }
                self.standing = Standing::Over;
                self.end(match cause {
                    EndCause::TakenOver => EndReason::TakenOver,
                    EndCause::EntryLost | EndCause::Left { .. } => EndReason::Lost,
                });
            }
            None => {
                // It has to leave by itself: a channel that is closed says nothing more.
                if let Standing::Announced { words, .. } = &mut self.standing {
                    *words = mpsc::channel(1).1;
                }
                self.end(EndReason::Unavailable);
            }
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.ending = true;
        self.gate.end(reason);
    }

    fn read(&mut self, reading: Reading) {
        match reading {
            Reading::Subscribed(id, result) => self.gate.subscribed(id, result),
            Reading::Unsubscribed(id) => self.gate.unsubscribed(id),
            Reading::Ended(id) => self.gate.ended(id),
            Reading::Noted(room) => self.reads_anew(room),
            Reading::Segment(wanted) => self.current = Some(Current::segment(wanted)),
            Reading::Back(placed) => {
                if let Some(current) = &mut self.current {
                    current.take_back(placed);
                }
            }
            Reading::Retained(values) => {
                self.toil += values.toil;
                self.current = Some(Current::retained(values));
            }
            Reading::Gone => {
                let oldest = self.clients.log.head().position;
                tracing::warn!(%oldest, "a subscriber fell behind what is kept of the log");
                self.end(EndReason::FellBehind { oldest });
            }
            Reading::Stopped => self.end(EndReason::Shutdown),
        }
    }
}

/// The beginning of a client's name, for the log: a name may be very long.
fn shown(name: &str) -> &str {
    name.char_indices().nth(SHOWN_NAME).map_or(name, |(end, _)| &name[..end])
}
