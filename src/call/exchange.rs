//! The exchange: all calls that an entry takes part in, as a state machine.
//!
//! An entry takes part in a call on the caller's side, on the callee's, or on both. The caller's side has chosen the
//! callee and has to answer the caller; the callee's side, in `callee`, is the one place that knows everything a
//! callee has in flight. Between two entries the sides talk over links: the caller's entry dials, so a pair of
//! entries has up to two.
//!
//! Messages for sessions and links wait in queues here until they are taken ([`Exchange::take_told`] and the like);
//! [`Exchange::rung`] says which queues have something new.
//!
//! Invariant: a call is answered once. It ends on both sides when its callee's session, its caller's session or the link
//! between them ends: nothing waits for an answer that can't come. Every table and queue is bounded; without room, a call ends
//! itself and no other.
//!
//! Deliberately absent: clocks, tasks, and the fold of the log: the caller of [`Exchange::call`] names the callee.

mod callee;
mod choice;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use vulpes_raft::ids::NodeId;
use vulpes_raft::mutant::{planted, Mutant};

use self::callee::{Active, Arrived, Serving, Waiting};
use self::queue::{Queue, Total};
use super::{
    Call, CallError, CallId, CallMessage, CallNumber, CalleeSays, CallerSays, InvocationId, Invoke,
    Mode, Reply,
};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::procedure::RegistrationId;

pub use self::choice::{Chosen, Site};

/// A link that another entry has dialled, during this life of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// A receiver of messages from the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Session(SessionId),
    /// The link that this entry dials.
    Node(NodeId),
    /// A link that another entry has dialled.
    Link(LinkId),
}

/// The origin of a call that is with its callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Here(CallNumber),
    There(LinkId, CallNumber),
}

/// A call without an answer yet.
#[derive(Debug)]
struct Pending {
    caller: SessionId,
    id: CallId,
    callee: SessionId,
    site: Site,
    receive_progress: bool,
    deadline: Option<Moment>,
    /// Its caller has canceled it with `kill`, and waits for the result of that.
    killed: bool,
}

/// A session of this node that takes part in calls.
#[derive(Debug)]
struct Member {
    told: Queue<CallMessage>,
    /// Its unanswered calls.
    calls: BTreeMap<CallId, CallNumber>,
    /// Its registrations that can be invoked.
    serving: BTreeMap<RegistrationId, Serving>,
    interrupts: bool,
    /// Calls that wait for their turn at it, in order of arrival.
    waiting: Queue<Waiting>,
    invocations: BTreeMap<InvocationId, Active>,
    last_invocation: u64,
}

/// A link that this entry dials.
#[derive(Debug)]
struct Outgoing {
    queue: Queue<CallerSays>,
    calls: BTreeSet<CallNumber>,
}

/// All calls of an entry: see the module.
#[derive(Debug, Default)]
pub struct Exchange {
    total: Total,
    sessions: BTreeMap<SessionId, Member>,
    calls: BTreeMap<CallNumber, Pending>,
    last_call: CallNumber,
    /// Calls by their callee.
    callees: BTreeSet<(SessionId, CallNumber)>,
    deadlines: BTreeSet<(Moment, CallNumber)>,
    outgoing: BTreeMap<NodeId, Outgoing>,
    links: BTreeMap<LinkId, Queue<CalleeSays>>,
    last_link: u64,
    /// Calls that are with their callee, at this entry.
    arrived: BTreeMap<Origin, Arrived>,
    /// Deadlines of calls that wait for their callee to know of its registration.
    parked: BTreeSet<(Moment, Origin)>,
    /// The turns of registrations with `roundrobin`.
    turns: BTreeMap<RegistrationId, u64>,
    rung: Vec<Party>,
}

impl Exchange {
    /// A session starts to take part in calls.
    pub fn attach(&mut self, session: SessionId) {
        let member = Member {
            told: Queue::new(&self.total),
            calls: BTreeMap::new(),
            serving: BTreeMap::new(),
            interrupts: false,
            waiting: Queue::new(&self.total),
            invocations: BTreeMap::new(),
            last_invocation: 0,
        };
        self.sessions.entry(session).or_insert(member);
    }

    /// A session has ended: its calls are canceled, and callers that wait for it are told so.
    pub fn detach(&mut self, session: SessionId) {
        let Some(member) = self.sessions.remove(&session) else { return };
        for number in member.calls.values() {
            self.take_back(*number, Mode::KillNoWait);
            self.remove(*number);
        }
        let waiting = member.waiting.iter().map(|waiting| Some(waiting.origin));
        let active = member.invocations.values().map(|active| active.origin);
        for origin in waiting.chain(active).flatten() {
            self.reply(origin, Reply::Failed(CallError::CalleeLost));
        }
    }

    /// The order shows that a session has ended, here or at another node.
    pub fn ended(&mut self, session: SessionId) {
        self.detach(session);
        let all = (session, CallNumber(0))..=(session, CallNumber(u64::MAX));
        let lost: Vec<_> = self.callees.range(all).map(|(_, number)| *number).collect();
        for number in lost {
            self.answer(number, Reply::Failed(CallError::CalleeLost));
        }
    }

    /// A session calls; the answer comes as a message to it.
    pub fn call(&mut self, caller: SessionId, call: Call, chosen: Chosen, now: Moment) {
        let Some(member) = self.sessions.get_mut(&caller) else { return };
        let full = member.calls.len() >= limits::SESSION_CALLS
            || self.calls.len() >= limits::ENTRY_CALLS
            || self.total.bytes() + call.payload.len() > limits::ENTRY_CALL_BYTES;
        if full {
            let told = CallMessage::Failed { call: call.id, error: CallError::TooManyCalls };
            return self.tell(caller, told);
        }
        self.last_call.0 += 1;
        let number = self.last_call;
        member.calls.insert(call.id, number);
        let deadline = call.timeout.map(|timeout| later(now, timeout));
        self.deadlines.extend(deadline.map(|deadline| (deadline, number)));
        self.callees.insert((chosen.callee, number));
        let pending = Pending {
            caller,
            id: call.id,
            callee: chosen.callee,
            site: chosen.site,
            receive_progress: call.receive_progress,
            deadline,
            killed: false,
        };
        self.calls.insert(number, pending);
        let invoke = Invoke {
            callee: chosen.callee,
            registration: chosen.registration,
            procedure: chosen.is_pattern.then_some(call.procedure),
            caller: (chosen.disclose_caller || call.disclose_me).then_some(caller),
            receive_progress: call.receive_progress,
            payload: call.payload,
            seen: chosen.seen,
        };
        match chosen.site {
            Site::Here => self.invoke(Origin::Here(number), invoke, true, now),
            Site::Node(node) => self.send_invoke(node, number, invoke),
        }
    }

    fn send_invoke(&mut self, node: NodeId, number: CallNumber, invoke: Invoke) {
        let total = &self.total;
        let outgoing = self
            .outgoing
            .entry(node)
            .or_insert_with(|| Outgoing { queue: Queue::new(total), calls: BTreeSet::new() });
        let size = invoke.size();
        if outgoing.calls.len() >= limits::LINK_CALLS
            || outgoing.queue.bytes() + size > limits::LINK_BYTES
        {
            return self.answer(number, Reply::Failed(CallError::TooManyCalls));
        }
        outgoing.calls.insert(number);
        outgoing.queue.push(CallerSays::Invoke { call: number, invoke: Box::new(invoke) }, size);
        self.rung.push(Party::Node(node));
    }

    /// A caller cancels a call.
    pub fn cancel(&mut self, caller: SessionId, id: CallId, mode: Mode) {
        let Some(member) = self.sessions.get(&caller) else { return };
        // It was answered already, and the answer is on its way.
        let Some(number) = member.calls.get(&id).copied() else { return };
        self.take_back(number, mode);
        if mode != Mode::Kill {
            self.answer(number, Reply::Failed(CallError::Canceled));
        }
    }

    /// Tells the callee's side that a call is canceled.
    fn take_back(&mut self, number: CallNumber, mode: Mode) {
        let Some(pending) = self.calls.get_mut(&number) else { return };
        if mode == Mode::Kill && std::mem::replace(&mut pending.killed, true) {
            return;
        }
        match pending.site {
            Site::Here => self.let_go(Origin::Here(number), mode),
            Site::Node(node) => {
                let Some(outgoing) = self.outgoing.get_mut(&node) else { return };
                let cancel = CallerSays::Cancel { call: number, mode };
                let size = cancel.size();
                outgoing.queue.push(cancel, size);
                self.rung.push(Party::Node(node));
            }
        }
    }

    /// A call has a result: tells its caller, unless it has been answered.
    fn answer(&mut self, number: CallNumber, reply: Reply) {
        let Some(pending) = self.calls.get(&number) else { return };
        let (caller, call, wanted) = (pending.caller, pending.id, pending.receive_progress);
        let Some(member) = self.sessions.get(&caller) else { return };
        let full = member.told.bytes() + reply.size() > limits::SESSION_CALL_BYTES;
        let told = match reply {
            Reply::Progress(_) if full => {
                self.take_back(number, Mode::KillNoWait);
                CallMessage::Failed { call, error: CallError::CallerSlow }
            }
            Reply::Progress(payload) if wanted => {
                return self.tell(caller, CallMessage::Result { call, progress: true, payload });
            }
            Reply::Progress(_) => return,
            Reply::Result(_) | Reply::Failed(CallError::Callee { .. }) if full => {
                CallMessage::Failed { call, error: CallError::CallerSlow }
            }
            Reply::Result(payload) => CallMessage::Result { call, progress: false, payload },
            Reply::Failed(error) => CallMessage::Failed { call, error },
        };
        self.remove(number);
        self.tell(caller, told);
    }

    /// Removes a call on the caller's side.
    fn remove(&mut self, number: CallNumber) {
        let Some(pending) = self.calls.remove(&number) else { return };
        self.callees.remove(&(pending.callee, number));
        if let Some(deadline) = pending.deadline {
            self.deadlines.remove(&(deadline, number));
        }
        if let Some(member) = self.sessions.get_mut(&pending.caller) {
            member.calls.remove(&pending.id);
        }
        if let Site::Node(node) = pending.site {
            if let Some(outgoing) = self.outgoing.get_mut(&node) {
                outgoing.calls.remove(&number);
            }
        }
    }

    fn tell(&mut self, session: SessionId, told: CallMessage) {
        let Some(member) = self.sessions.get_mut(&session) else { return };
        let size = told.size();
        member.told.push(told, size);
        self.rung.push(Party::Session(session));
    }

    /// The approximate size of the next message for a session.
    #[must_use]
    pub fn told_size(&self, session: SessionId) -> Option<usize> {
        self.sessions.get(&session)?.told.next_size()
    }

    /// The next message for a session.
    pub fn take_told(&mut self, session: SessionId) -> Option<CallMessage> {
        self.sessions.get_mut(&session)?.told.pop()
    }

    /// Parties with new messages since the last call.
    pub fn rung(&mut self) -> Vec<Party> {
        std::mem::take(&mut self.rung)
    }

    /// Messages for the link to another entry, up to this many bytes.
    pub fn take_for_node(&mut self, node: NodeId, bytes: usize) -> Vec<CallerSays> {
        let outgoing = self.outgoing.get_mut(&node);
        outgoing.map_or_else(Vec::new, |outgoing| outgoing.queue.take(bytes))
    }

    /// Whether another entry owes answers.
    #[must_use]
    pub fn waits_for(&self, node: NodeId) -> bool {
        self.outgoing.get(&node).is_some_and(|outgoing| !outgoing.calls.is_empty())
    }

    /// Whether a party has messages to take.
    #[must_use]
    pub fn has_something_for(&self, party: Party) -> bool {
        match party {
            Party::Session(session) => {
                self.sessions.get(&session).is_some_and(|m| !m.told.is_empty())
            }
            Party::Node(node) => self.outgoing.get(&node).is_some_and(|o| !o.queue.is_empty()),
            Party::Link(link) => self.links.get(&link).is_some_and(|queue| !queue.is_empty()),
        }
    }

    /// Messages of a callee's entry over the link that this one dialled.
    pub fn heard_from_node(&mut self, node: NodeId, says: Vec<CalleeSays>) {
        for CalleeSays { call, reply } in says {
            if self.calls.get(&call).is_some_and(|pending| pending.site == Site::Node(node)) {
                self.answer(call, reply);
            }
        }
    }

    /// The link that this entry dials has ended, or could not be set up: all calls over it end.
    pub fn node_lost(&mut self, node: NodeId) {
        if planted(Mutant::KeepCallsOfLostLinks) {
            return;
        }
        let Some(outgoing) = self.outgoing.remove(&node) else { return };
        let unsent: BTreeSet<CallNumber> = outgoing
            .queue
            .iter()
            .filter_map(|says| match says {
                CallerSays::Invoke { call, .. } => Some(*call),
                CallerSays::Cancel { .. } => None,
            })
            .collect();
        for number in outgoing.calls {
            let error = match unsent.contains(&number) {
                true => CallError::Unreachable,
                false => CallError::CalleeLost,
            };
            self.answer(number, Reply::Failed(error));
        }
    }

    /// When [`Exchange::expire`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let call = self.deadlines.first().map(|(moment, _)| *moment);
        let parked = self.parked.first().map(|(moment, _)| *moment);
        call.into_iter().chain(parked).min()
    }

    /// Time has passed.
    pub fn expire(&mut self, now: Moment) {
        while let Some((_, number)) = self.deadlines.first().filter(|(at, _)| *at <= now).copied() {
            self.take_back(number, Mode::KillNoWait);
            self.answer(number, Reply::Failed(CallError::Timeout));
        }
        self.give_up_parked(now);
    }

    /// The next turn of a registration.
    pub fn turn(&mut self, registration: RegistrationId) -> u64 {
        // A full table is emptied: then a callee may get two turns in a row.
        if self.turns.len() >= limits::ENTRY_TURNS {
            self.turns.clear();
        }
        let turn = self.turns.entry(registration).or_default();
        *turn += 1;
        *turn - 1
    }
}

impl CallMessage {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Invocation(invocation) => invocation.payload.len(),
                Self::Result { payload, .. } => payload.len(),
                Self::Failed { error, .. } => error.size(),
                Self::Interrupt { .. } => 0,
            }
    }
}

/// The approximate size of a message without its payload.
const OVERHEAD: usize = 64;

fn later(now: Moment, by: std::time::Duration) -> Moment {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    Moment(now.0.saturating_add(by))
}
