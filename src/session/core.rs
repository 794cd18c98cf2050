//! The core of a client's session: inputs are what comes from the client, the entry, the order and the log; outputs are what
//! has to be done about them.
//!
//! The driver calls [`Core::turn`] after each input, then drains [`Core::poll_output`]. It asks anew each time whether to read
//! from the client, whether more output may be made, and when to look again: the answers depend only on the current state.
//!
//! Invariant: everything a session holds is bounded. It takes nothing from its client while its publishes wait beyond their
//! bound, and no events from the log while its output waits beyond its own. What is held back continues when there is room.
//!
//! Deliberately absent: anything of a protocol, a clock, and the reasons why a connection fails.

mod gone;
mod holds;
mod persistent;
mod rules;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use vulpes_raft::ids::{Incarnation, Position};

use super::delivery::{self, Current, Delivered, Outlet};
use super::events;
use super::ledger::{self, Decided, Errand, Ledger};
use super::liveness::{Liveness, Terms};
use super::reader::{Reader, Reading};
use super::room::Room;
use super::sight::Sight;
use super::Signal;
use crate::call::{CallMessage, CallRequest};
use crate::gate::{Allowed, Dropped, EndReason, Farewell, Gate, OpenRefusal, Request};
use crate::realm::{EndCause, PastPermissions, PersistentState};
use crate::rules::Permissions;
use crate::types::access::LoginRefusal;
use crate::types::act::Progress;
use crate::types::answer::Answer;
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::login::{LoginReply, LoginStep};
use crate::types::moment::Moment;
use crate::types::topic::Realm;
use gone::Gone;
use persistent::Persistence;

/// Work that a message costs in addition to its bytes, in bytes.
const MESSAGE_TOIL: usize = 1 << 10;

/// There is always room for this many messages of a client that are not taken yet.
const FEW_INPUTS: usize = 4;

/// What a session uses of its node.
pub(crate) trait Node {
    /// From here on the session receives its signals. Also reserves room for this many bytes of the session's data that all nodes
    /// store. The client has a name, and a user if it logged in.
    fn register(
        &mut self,
        realm: &Realm,
        who: (&str, Option<&str>),
        bytes: usize,
    ) -> Result<(), OpenRefusal>;

    /// Whether a client of this user and name is admitted; without a name, clients that did not log in. All nodes decide this again at
    /// the position where the session begins.
    fn admit(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> Result<(), OpenRefusal>;

    /// What a client with this user and name may do in a realm, as of the position of a change.
    fn permissions(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        realm: &Realm,
    ) -> (Permissions, Position);

    /// What the session's client may do, as of the position of a change; none unless the session is in the realms' state.
    fn own_permissions(&self) -> Option<(Permissions, Position)>;

    /// What the session's client could do at a position up to that of the last change; none unless the session is in the
    /// realms' state.
    fn past_permissions(&self, at: Position) -> Option<PastPermissions>;

    /// The position of the last change of users or roles, as far as this node has applied the order.
    fn access_changed(&self) -> Position;

    /// Sends a call request; returns the session's message if the answer is immediate.
    fn call(&mut self, realm: &Realm, asked: CallRequest) -> Option<CallMessage>;

    /// The incarnation of the entry under which the session is in the realms' state.
    fn incarnation(&self) -> Option<Incarnation>;

    /// The persistent state of the session.
    fn persistent(&self) -> Option<PersistentState>;

    /// How many wills of the session are known.
    fn wills(&self) -> usize;

    /// How many bytes an event makes every node look at, beside its own; `compares` says whether it is compared with them.
    fn looked_at(&self, event: &Event, compares: bool) -> usize;

    /// Which publishes there is room for, whatever the session has made so far.
    fn room(&self) -> Allowed;

    /// The position of the next event, as far as this node has read the log.
    fn next_position(&self) -> Position;

    /// The first retained position.
    fn oldest(&self) -> Position;
}

/// What the driver has to do for the session.
#[derive(Debug)]
pub(crate) enum Output {
    /// Write these bytes to the client.
    Write(Bytes),
    /// Check a step of the client's login; answered by [`Core::logged_in`].
    Login(LoginStep),
    /// Count the client's messages that were dropped without an answer.
    Dropped(Dropped),
    /// Work at the entry; the driver reports its result with [`Core::done`].
    Errand(Errand),
    /// Save the progress of a persistent session.
    Save { realm: Realm, progress: Progress },
    /// The last output: the connection closes when it is written.
    Close(Farewell),
}

pub(crate) struct Core<G, R> {
    gate: G,
    presence: Presence,
    ledger: Ledger,
    /// Present once the session is open.
    reader: Option<Reader<R>>,
    /// Present if the session is persistent.
    persistence: Option<Box<Persistence>>,
    current: Option<Box<Current>>,
    room: Room,
    liveness: Liveness,
    /// The client is gone, and its earlier messages are still to be handled.
    gone: Option<Gone>,
    inputs: VecDeque<Bytes>,
    outputs: VecDeque<Output>,
    /// Bytes processed since other sessions had their turn; a message counts as [`MESSAGE_TOIL`] at least.
    toil: usize,
    /// Another connection took the session over before it was open. The client is notified at this time.
    outdone: Option<Moment>,
    /// Set when the connection is to be closed: as soon as its output is written, and at this time at the latest.
    closing: Option<Moment>,
    /// [`Output::Close`] was given out.
    closed: bool,
    ending: bool,
    /// What the client may see.
    sight: Sight,
}

/// How long a client is not notified that another connection took its session over before it was open. Otherwise two clients
/// that reconnect at once would keep taking each other's sessions over before either of them is open.
const OUTDONE_PAUSE: Duration = Duration::from_millis(200);

/// What the realms' state knows of the session.
enum Presence {
    /// Nothing.
    Unknown,
    /// It is in the log, or on its way there.
    Announced {
        realm: Realm,
        /// Its name and its role, in JSON.
        known_as: Box<str>,
        /// The session's MQTT will must not be published.
        drop_will: bool,
    },
    /// The session has ended in the realms' state; its connection may still be there.
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
            sight: Sight::default(),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.gate.session()
    }

    /// Takes the gate's requests, and delivers events while there is room.
    pub(crate) fn turn(&mut self, now: Moment, node: &mut impl Node, outlet: &mut impl Outlet) {
        self.follow_rules(node);
        loop {
            self.take_requests(now, node);
            match self.deliver_some(now, outlet) {
                Delivered::All => {}
                Delivered::Unknown(at) => self.look_back(at, node),
                Delivered::Some => break,
            }
        }
        let errand = self.ledger.next(|event, compares| node.looked_at(event, compares));
        self.outputs.extend(errand.map(Output::Errand));
    }

    /// The next output. After [`Output::Close`] nothing more is written.
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
        // Comes after the gate's last output, which may have been added after its request to close.
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
            Request::Login(step) => self.outputs.push_back(Output::Login(step)),
            Request::Open { realm, join, user } => {
                if let Err(refusal) = self.admit(&realm, &join, user.as_deref(), node) {
                    return self.gate.opened(Err(refusal));
                }
                let known_as = events::known_as(&join.details);
                let event = events::join(realm.clone(), self.gate.session(), join);
                self.announce(realm, known_as, (event, user), node);
            }
            Request::Attach { realm, attach, user } => {
                if let Err(refusal) = self.admit(&realm, &attach.join, user.as_deref(), node) {
                    return self.gate.opened(Err(refusal));
                }
                self.persistence = Some(Box::new(Persistence::attaching(now)));
                let known_as = events::known_as(&attach.join.details);
                let event = events::attach(realm.clone(), self.gate.session(), attach);
                self.announce(realm, known_as, (event, user), node);
            }
            Request::Resume(readings) => self.read_on(readings, node),
            Request::Persist { act, subscribe, unsubscribe } => {
                self.persist(act, subscribe, unsubscribe, now);
            }
            Request::Publish { event, terms, once } => {
                if once {
                    self.ledger.publish_once(event, &terms);
                } else {
                    self.ledger.publish(event, terms);
                }
            }
            Request::Decide(event) => self.ledger.decide(event),
            Request::Subscribe(subscription) => {
                if subscription.after.is_some() {
                    self.sight.begin();
                }
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

    /// Puts the start of the session into the log; the session is open when it is read back from there.
    fn announce(
        &mut self,
        realm: Realm,
        [name, role]: [serde_json::Value; 2],
        (event, user): (Event, Option<String>),
        node: &mut impl Node,
    ) {
        let known_as = format!("{name},{role}").into();
        let name = name.as_str().unwrap_or("unnamed");
        if let Err(refusal) = node.register(&realm, (name, user.as_deref()), event.size()) {
            return self.gate.opened(Err(refusal));
        }
        let event = match user {
            Some(user) => events::of_user(event, &user),
            None => event,
        };
        self.ledger.push_own(event);
        self.presence = Presence::Announced { realm, known_as, drop_will: false };
    }

    fn joined(&mut self, now: Moment, node: &impl Node) {
        // The session may have ended again meanwhile; the signal for that follows.
        let Some(incarnation) = node.incarnation() else { return };
        self.ledger.joined(incarnation);
        self.sight.begin();
        if !self.attached(now, node) {
            self.open();
        }
    }

    /// Whether everything that has come from the client before its session is open is done with.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.gate.awaits_answer() && self.inputs.is_empty()
    }

    /// The client's login has got one step further, or was refused.
    pub(crate) fn logged_in(&mut self, result: Result<LoginReply, LoginRefusal>) {
        self.gate.logged_in(result);
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

    /// Hands the gate what is being delivered.
    fn deliver_some<O: Outlet>(&mut self, now: Moment, outlet: &mut O) -> Delivered {
        if self.current.is_none() || !self.has_room(outlet) {
            return Delivered::Some;
        }
        let (Some(reader), Some(current)) = (&mut self.reader, &mut self.current) else {
            return Delivered::Some;
        };
        let room = delivery::Room { outlet, toil: &mut self.toil };
        let delivered = current.deliver(&mut self.gate, reader, &mut self.sight, room);
        if delivered == Delivered::All {
            self.current = None;
        }
        self.may_have_moved(now);
        delivered
    }

    /// The client has sent something. [`Core::take_inputs`] hands it to the gate.
    pub(crate) fn received(&mut self, input: Bytes) {
        self.inputs.push_back(input);
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Hands the gate the client's input, as far as there is room for the requests that it causes.
    pub(crate) fn take_inputs(&mut self, now: Moment, node: &mut impl Node) {
        self.follow_rules(node);
        self.gate.allow(self.ledger.allowed(node.room(), || node.wills()));
        while self.ledger.may_grow() {
            let Some(input) = self.inputs.pop_front() else { break };
            self.toil += MESSAGE_TOIL + input.len();
            self.gate.receive(input, now);
            self.take_requests(now, node);
        }
        // A burst of inputs does not hold its room for good.
        self.inputs.shrink_to(FEW_INPUTS);
        self.may_have_moved(now);
    }

    /// Takes the result of an errand.
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

    /// Whether the realms' state may have signals for the session.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.presence, Presence::Announced { .. })
    }

    /// Takes a signal of the realms' state; `None` if the session was too slow to receive them.
    pub(crate) fn told(&mut self, word: Option<Signal>, now: Moment, node: &impl Node) {
        // What the client has sent before its session is open is handled as soon as that is told.
        self.follow_rules(node);
        match word {
            Some(Signal::Joined) => self.joined(now, node),
            Some(Signal::FilterOutcome(noted)) => self.noted(noted, now),
            Some(Signal::Released) => self.released(node),
            Some(Signal::AddressBanned) => self.end(EndReason::Banned),
            Some(word @ (Signal::Decided { .. } | Signal::Turn { .. })) => {
                if let Some(decided) = self.ledger.told(word) {
                    self.decided(decided);
                }
            }
            Some(Signal::Ended(cause)) => {
                if cause == EndCause::TakenOver {
                    // After everything that the client sent before.
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
                    EndCause::Revoked => EndReason::Revoked,
                    EndCause::Banned => EndReason::Banned,
                    EndCause::EntryLost | EndCause::Left { .. } => EndReason::Lost,
                });
            }
            None => self.end(EndReason::Unavailable),
        }
    }

    /// Takes a message about the session's calls.
    pub(crate) fn called(&mut self, told: CallMessage) {
        self.gate.told(told);
    }

    /// Lets go of memory that is free: nothing has happened for a while.
    pub(crate) fn rest(&mut self) {
        self.gate.rest();
        self.gate.permissions().rest();
        self.sight.rest();
        self.ledger.rest();
        self.inputs.shrink_to_fit();
        self.outputs.shrink_to_fit();
        if let Some(reader) = &mut self.reader {
            reader.rest();
        }
    }

    /// This node ends the session.
    pub(crate) fn end(&mut self, reason: EndReason) {
        self.ending = true;
        self.gate.end(reason);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Takes the reader's next result.
    pub(crate) fn read(&mut self, reading: Reading, node: &impl Node) {
        match reading {
            Reading::Subscribed(id, result) => self.gate.subscribed(id, result),
            Reading::Unsubscribed(id) => self.gate.unsubscribed(id),
            Reading::Ended(id) => self.gate.ended(id),
            Reading::FilterOutcome(room) => self.reads_anew(room),
            Reading::Segment(wanted) => self.current = Some(Box::new(Current::segment(wanted))),
            Reading::Back(placed) => {
                if let Some(current) = &mut self.current {
                    current.take_back(placed);
                }
            }
            Reading::Retained(values) => {
                self.toil += values.toil;
                self.current = Some(Box::new(Current::retained(values)));
            }
            Reading::Gone => self.end(EndReason::FellBehind { oldest: node.oldest() }),
            Reading::Stopped => self.end(EndReason::Shutdown),
        }
    }

    /// Time has passed. True if the time to close the connection is over.
    pub(crate) fn tick(&mut self, now: Moment, node: &impl Node) -> bool {
        if self.closing.is_some_and(|at| at <= now) {
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
        let persistence = self.persistence.as_deref().and_then(Persistence::deadline);
        let gone = self.gone.as_ref().map(|gone| gone.until);
        [end, persistence, self.liveness.deadline(terms), gone, self.outdone]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether [`Output::Close`] was given out.
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

    /// Submits the end of the session, and drops what it reads; true if the dispatcher knows of the session.
    pub(crate) fn leave(&mut self) -> bool {
        self.note_rest();
        self.say_last();
        self.current = None;
        self.reader.take().is_some()
    }
}

#[cfg(test)]
mod tests;
