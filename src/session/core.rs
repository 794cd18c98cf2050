//! The core of a client's session: what comes from its client, from the entry, from the order and from the log goes in, and
//! what is to be done about it comes out.
//!
//! A driver calls [`Core::turn`] after each input, and drains [`Core::poll_output`] then. Whether the client may be listened to,
//! whether more may be made for it and when to look again are questions that it asks anew each time: they are functions of
//! what is there.
//!
//! Invariant: everything a session holds is bounded. Nothing is taken from its client while its publishes wait beyond their
//! bound, and it takes no events from the log while its output waits beyond its own. Whatever is held back goes on when
//! there is room.
//!
//! Deliberately absent: anything of a protocol, a clock, and why a connection fails.

mod gone;
mod holds;
mod persistent;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use vulpes_raft::ids::{Incarnation, Position};

use super::delivery::{self, Current, Outlet};
use super::events;
use super::ledger::{self, Decided, Errand, Ledger};
use super::liveness::{Liveness, Terms};
use super::reader::{Reader, Reading};
use super::room::Room;
use super::Signal;
use crate::call::{CallMessage, CallRequest};
use crate::gate::{Dropped, EndReason, Farewell, Gate, OpenRefusal, Request};
use crate::realm::{EndCause, PersistentState};
use crate::types::act::Progress;
use crate::types::answer::Answer;
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::topic::Realm;
use gone::Gone;
use persistent::Persistence;

/// What a message costs beside its bytes, in bytes.
const MESSAGE_TOIL: usize = 1 << 10;

/// For how many messages of a client that are not taken yet there always is room.
const FEW_INPUTS: usize = 4;

/// What a session finds at its node.
pub(crate) trait Node {
    /// From here on, the session hears what is said to it, and there is room for so many bytes that all nodes keep of it.
    fn register(&mut self, realm: &Realm, name: &str, bytes: usize) -> Result<(), OpenRefusal>;

    /// Takes part in calls; gives what the session is told at once.
    fn call(&mut self, realm: &Realm, asked: CallRequest) -> Option<CallMessage>;

    /// The incarnation of its entry in which the session is known to all.
    fn incarnation(&self) -> Option<Incarnation>;

    /// What is kept for the session.
    fn persistent(&self) -> Option<PersistentState>;

    /// How many wills of the session are known.
    fn wills(&self) -> usize;

    /// How many bytes an event makes every node look at, beside itself; whether it is compared with them is told.
    fn looked_at(&self, event: &Event, compares: bool) -> usize;

    /// Whether there is room for more publishes that wait.
    fn has_room_to_wait(&self) -> bool;

    /// The position that the next event gets, as far as the node has read the log.
    fn next_position(&self) -> Position;

    /// The first position that is kept.
    fn oldest(&self) -> Position;
}

/// What a session asks of its driver.
#[derive(Debug)]
pub(crate) enum Output {
    /// For the client.
    Write(Bytes),
    /// The client's messages that had no answer.
    Dropped(Dropped),
    /// For the way to the entry; [`Core::done`] tells what came of it.
    Errand(Errand),
    /// How far a session that outlives its connection has come.
    Save { realm: Realm, progress: Progress },
    /// The last of all output: the connection closes when it is written.
    Close(Farewell),
}

pub(crate) struct Core<G, R> {
    gate: G,
    presence: Presence,
    ledger: Ledger,
    /// There once the session is open.
    reader: Option<Reader<R>>,
    /// Where the session outlives its connection.
    persistence: Option<Persistence>,
    current: Option<Current>,
    room: Room,
    liveness: Liveness,
    /// The client is, and what it said before is still to be done.
    gone: Option<Gone>,
    inputs: VecDeque<Bytes>,
    outputs: VecDeque<Output>,
    /// Bytes that went through it since others had their turn; a message counts as [`MESSAGE_TOIL`] at least.
    toil: usize,
    /// Another connection took the session over before it was open. The client is told then.
    outdone: Option<Moment>,
    /// Set when the connection is to be closed as soon as its output is written, or then at the latest.
    closing: Option<Moment>,
    /// The driver was told to close.
    closed: bool,
    ending: bool,
}

/// How long a client is not told that another connection took its session over before it was open. Two that come again at once
/// would otherwise take each other's sessions over before either of them is open.
const OUTDONE_PAUSE: Duration = Duration::from_millis(200);

/// Where the session stands with all the others that know of it.
enum Presence {
    /// Nobody has heard of it.
    Unknown,
    /// It is in the log, or on its way there.
    Announced {
        realm: Realm,
        known_as: [serde_json::Value; 2],
        /// Its MQTT will is not to be published.
        drop_will: bool,
    },
    /// It is over for all, while its connection may still be there.
    Over,
}

impl<G: Gate, R> Core<G, R> {
    pub(crate) fn new(gate: G, now: Moment) -> Self {
        Self {
            gate,
            presence: Presence::Unknown,
            ledger: Ledger::default(),
            reader: None,
            persistence: None,
            current: None,
            room: Room::default(),
            liveness: Liveness::new(now),
            gone: None,
            inputs: VecDeque::new(),
            outputs: VecDeque::new(),
            toil: 0,
            outdone: None,
            closing: None,
            closed: false,
            ending: false,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.gate.session()
    }

    /// Lets the gate's wishes out, and events in while there is room.
    pub(crate) fn turn(&mut self, now: Moment, node: &mut impl Node, outlet: &mut impl Outlet) {
        loop {
            self.take_requests(now, node);
            if !self.deliver_some(now, outlet) {
                break;
            }
        }
        let errand = self.ledger.next(|event, compares| node.looked_at(event, compares));
        self.outputs.extend(errand.map(Output::Errand));
    }

    /// What is to be done next. After [`Output::Close`] nothing more is written.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(bytes) = self.gate.poll_output() {
            self.toil += bytes.len();
            return Some(Output::Write(bytes));
        }
        if let Some(dropped) = self.gate.poll_dropped() {
            return Some(Output::Dropped(dropped));
        }
        // Behind the gate's last words, which may have come after its wish to close.
        if self.closing.is_some() && !std::mem::replace(&mut self.closed, true) {
            return Some(Output::Close(self.gate.farewell()));
        }
        None
    }

    fn take_requests(&mut self, now: Moment, node: &mut impl Node) {
        while let Some(request) = self.gate.poll_request() {
            self.request(request, now, node);
        }
    }

    fn request(&mut self, request: Request, now: Moment, node: &mut impl Node) {
        match request {
            Request::Open { realm, join } => {
                let known_as = events::known_as(&join.details);
                let event = events::join(realm.clone(), self.gate.session(), join);
                self.announce(realm, known_as, event, node);
            }
            Request::Attach { realm, attach } => {
                self.persistence = Some(Persistence::attaching(now));
                let known_as = events::known_as(&attach.join.details);
                let event = events::attach(realm.clone(), self.gate.session(), attach);
                self.announce(realm, known_as, event, node);
            }
            Request::Resume(readings) => self.read_on(readings, node),
            Request::Persist { act, subscribe, unsubscribe } => {
                self.persist(act, subscribe, unsubscribe, now);
            }
            Request::Publish { event, terms } => {
                self.ledger.publish(event, terms);
            }
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
            Request::Call(asked) => {
                let Presence::Announced { realm, .. } = &self.presence else { return };
                if let Some(told) = node.call(realm, asked) {
                    self.gate.told(told);
                }
            }
            Request::Close { drop_will: dropped } => {
                if let Presence::Announced { drop_will, .. } = &mut self.presence {
                    *drop_will = dropped;
                }
                self.closing.get_or_insert(now.after(limits::LINGER));
            }
        }
    }

    /// Has the session's beginning put into the log; it is open when the log shows that.
    fn announce(
        &mut self,
        realm: Realm,
        known_as: [serde_json::Value; 2],
        event: Event,
        node: &mut impl Node,
    ) {
        let name = known_as[0].as_str().unwrap_or("unnamed");
        if let Err(refusal) = node.register(&realm, name, event.size()) {
            return self.gate.opened(Err(refusal));
        }
        self.ledger.push_own(event);
        self.presence = Presence::Announced { realm, known_as, drop_will: false };
    }

    fn joined(&mut self, now: Moment, node: &impl Node) {
        // It may have ended again meanwhile, of which it is about to hear.
        let Some(incarnation) = node.incarnation() else { return };
        self.ledger.joined(incarnation);
        if !self.attached(now, node) {
            self.open();
        }
    }

    pub(crate) fn open(&mut self) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        self.reader = Some(Reader::new(realm.clone()));
        self.gate.opened(Ok(()));
    }

    /// The session's realm, once it is open.
    pub(crate) fn realm(&self) -> Option<&Realm> {
        match &self.presence {
            Presence::Announced { realm, .. } => self.reader.as_ref().map(|_| realm),
            Presence::Unknown | Presence::Over => None,
        }
    }

    /// Hands the gate what is at hand for it; true where something changed that may bring more to do.
    fn deliver_some<O: Outlet>(&mut self, now: Moment, outlet: &mut O) -> bool {
        if self.current.is_none() || !self.has_room(outlet) {
            return false;
        }
        let (Some(reader), Some(current)) = (&mut self.reader, &mut self.current) else {
            return false;
        };
        let room = delivery::Room { outlet, toil: &mut self.toil };
        let done = current.deliver(&mut self.gate, reader, room);
        if done {
            self.current = None;
        }
        self.may_have_moved(now);
        done
    }

    /// Something came from the client. [`Core::take_inputs`] hands it on.
    pub(crate) fn received(&mut self, input: Bytes) {
        self.inputs.push_back(input);
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Hands the gate what came from the client, as far as there is room for what it asks for.
    pub(crate) fn take_inputs(&mut self, now: Moment, node: &mut impl Node) {
        let waits = node.has_room_to_wait();
        self.gate.allow(self.ledger.allowed(waits, || node.wills()));
        while self.ledger.may_grow() {
            let Some(input) = self.inputs.pop_front() else { break };
            self.toil += MESSAGE_TOIL + input.len();
            self.gate.receive(input, now);
            self.take_requests(now, node);
        }
        // One that has said much once does not hold the room for it for good.
        self.inputs.shrink_to(FEW_INPUTS);
        self.may_have_moved(now);
    }

    /// Takes what came of an errand.
    pub(crate) fn done(&mut self, done: ledger::Done) {
        self.ledger.done(done);
        if done == ledger::Done::Closed {
            self.end(EndReason::Shutdown);
        }
    }

    /// The entry has answered.
    pub(crate) fn answered(&mut self, answer: Answer) {
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

    /// Whether the realms' state may have something to say to the session.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.presence, Presence::Announced { .. })
    }

    /// Takes what the realms' state says to the session; nothing where it was too slow to listen.
    pub(crate) fn told(&mut self, word: Option<Signal>, now: Moment, node: &impl Node) {
        match word {
            Some(Signal::Joined) => self.joined(now, node),
            Some(Signal::FilterOutcome(noted)) => self.noted(noted, now),
            Some(Signal::Released) => self.released(node),
            Some(word @ (Signal::Decided { .. } | Signal::Turn { .. })) => {
                if let Some(decided) = self.ledger.told(word) {
                    self.decided(decided);
                }
            }
            Some(Signal::Ended(cause)) => {
                if cause == EndCause::TakenOver {
                    // Behind what the client said before.
                    self.ledger.leave();
                    self.say_last();
                }
                self.presence = Presence::Over;
                if cause == EndCause::TakenOver && self.reader.is_none() {
                    self.persistence = None;
                    self.outdone = Some(now.after(OUTDONE_PAUSE));
                    return;
                }
                self.end(match cause {
                    EndCause::TakenOver => EndReason::TakenOver,
                    EndCause::EntryLost | EndCause::Left { .. } => EndReason::Lost,
                });
            }
            None => self.end(EndReason::Unavailable),
        }
    }

    /// Takes news about the session's calls.
    pub(crate) fn called(&mut self, told: CallMessage) {
        self.gate.told(told);
    }

    /// We end the session.
    pub(crate) fn end(&mut self, reason: EndReason) {
        self.ending = true;
        self.gate.end(reason);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Takes what the reader has.
    pub(crate) fn read(&mut self, reading: Reading, node: &impl Node) {
        match reading {
            Reading::Subscribed(id, result) => self.gate.subscribed(id, result),
            Reading::Unsubscribed(id) => self.gate.unsubscribed(id),
            Reading::Ended(id) => self.gate.ended(id),
            Reading::FilterOutcome(room) => self.reads_anew(room),
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
            Reading::Gone => self.end(EndReason::FellBehind { oldest: node.oldest() }),
            Reading::Stopped => self.end(EndReason::Shutdown),
        }
    }

    /// Time has passed. Tells whether the connection has had its time to close.
    pub(crate) fn tick(&mut self, now: Moment, node: &impl Node) -> bool {
        if self.closing.is_some() {
            return true;
        }
        if self.outdone.take_if(|at| *at <= now).is_some() {
            self.end(EndReason::TakenOver);
        }
        self.gate.tick(now);
        self.look_after_persistence(now, node);
        false
    }

    /// When to look again at the latest, if nothing happens before.
    pub(crate) fn deadline(&self, terms: Terms) -> Option<Moment> {
        let end = self.closing.or_else(|| self.gate.deadline());
        let persistence = self.persistence.as_ref().and_then(Persistence::deadline);
        let gone = self.gone.as_ref().map(|gone| gone.until);
        [end, persistence, self.liveness.deadline(terms), gone, self.outdone]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether the driver was told to close.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the session was open, and is not left yet.
    pub(crate) fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    pub(crate) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Whether others should have their turn, for all that went through the session since they had.
    pub(crate) fn has_toiled(&mut self) -> bool {
        let much = self.toil >= limits::SESSION_READ;
        if much {
            self.toil = 0;
        }
        much
    }

    /// Puts the session's end on its way to everybody, and lets go of what it reads; tells whether the dispatcher knows of it.
    pub(crate) fn leave(&mut self) -> bool {
        self.note_rest();
        self.say_last();
        self.current = None;
        self.reader.take().is_some()
    }
}

#[cfg(test)]
mod tests;
