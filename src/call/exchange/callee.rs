//! The callee's side: calls that have arrived at their callee's entry.
//!
//! Invariant: with `concurrency`, a callee has no more than that in flight for a registration; the others wait in a queue,
//! first come, first served. A callee is not invoked before its client knows of the registration.
//!
//! Deliberately absent: a time limit for answers. A callee's invocations end with its session.

use super::{later, Exchange, Member, Origin, Party};
use crate::call::{
    CallError, CallMessage, CallNumber, CalleeSays, CallerSays, Invocation, InvocationId, Invoke,
    LinkId, Mode, Reply, Serve,
};
use crate::types::event::{Payload, SessionId};
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::procedure::RegistrationId;

use super::queue::Queue;

/// A registration that a callee can be invoked for.
#[derive(Debug)]
pub(super) struct Serving {
    /// 0: unlimited.
    concurrency: u32,
    in_flight: u32,
}

/// A call that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) origin: Origin,
    invoke: Invoke,
}

/// An unanswered invocation.
#[derive(Debug)]
pub(super) struct Active {
    /// The origin that waits for it; none if it was canceled.
    pub(super) origin: Option<Origin>,
    registration: RegistrationId,
    receive_progress: bool,
}

/// A call's state at its callee's entry.
#[derive(Debug)]
pub(super) struct Arrived {
    callee: SessionId,
    /// `None`: it waits.
    invocation: Option<InvocationId>,
}

impl Serving {
    fn has_room(&self) -> bool {
        self.concurrency == 0 || self.in_flight < self.concurrency
    }
}

impl Member {
    fn has_room_for(&self, invoke: &Invoke) -> bool {
        self.waiting.len() + self.invocations.len() < limits::CALLEE_CALLS
            && self.waiting.bytes() + self.told.bytes() + invoke.size() <= limits::CALLEE_BYTES
    }

    /// The first in the queue whose turn it is.
    fn next(&mut self) -> Option<Waiting> {
        let has_turn = |waiting: &Waiting| {
            self.serving.get(&waiting.invoke.registration).is_some_and(Serving::has_room)
        };
        let at = self.waiting.iter().position(has_turn)?;
        self.waiting.remove(at)
    }
}

impl Exchange {
    /// A client now knows of its registration.
    pub fn serve(&mut self, session: SessionId, serve: Serve) {
        let Some(member) = self.sessions.get_mut(&session) else { return };
        member.interrupts = serve.interrupts;
        let registration = serve.registration;
        // It may have unregistered and registered again, with calls still in flight.
        let of_it = |active: &&Active| active.registration == registration;
        let in_flight = member.invocations.values().filter(of_it).count();
        let in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
        member.serving.insert(registration, Serving { concurrency: serve.concurrency, in_flight });
        self.hand_out(session);
    }

    /// A client is about to learn that its registration has ended: calls that wait for it are not carried out.
    pub fn stop_serving(&mut self, session: SessionId, registration: RegistrationId) {
        let Some(member) = self.sessions.get_mut(&session) else { return };
        member.serving.remove(&registration);
        loop {
            let Some(member) = self.sessions.get_mut(&session) else { return };
            let of_it = |waiting: &Waiting| waiting.invoke.registration == registration;
            let Some(at) = member.waiting.iter().position(of_it) else { return };
            let Some(waiting) = member.waiting.remove(at) else { return };
            self.reply(waiting.origin, Reply::Failed(CallError::NoSuchProcedure));
        }
    }

    /// A call has arrived at its callee's entry. `soon`: if the callee does not know of the registration yet, it will soon.
    pub(super) fn invoke(&mut self, origin: Origin, invoke: Invoke, soon: bool, now: Moment) {
        if self.arrived.contains_key(&origin) {
            return;
        }
        let callee = invoke.callee;
        let is_full = self.arrived.len() >= limits::ENTRY_CALLS
            || self.total.bytes() + invoke.size() > 2 * limits::ENTRY_CALL_BYTES;
        let refusal = match self.sessions.get(&callee) {
            None => Some(CallError::NoSuchProcedure),
            Some(_) if is_full => Some(CallError::TooManyCalls),
            Some(member) if !soon && !member.serving.contains_key(&invoke.registration) => {
                Some(CallError::NoSuchProcedure)
            }
            Some(member) if !member.has_room_for(&invoke) => Some(CallError::CalleeBusy),
            Some(_) => None,
        };
        if let Some(error) = refusal {
            return self.reply(origin, Reply::Failed(error));
        }
        let Some(member) = self.sessions.get_mut(&callee) else { return };
        if !member.serving.contains_key(&invoke.registration) {
            self.parked.insert((later(now, limits::CALLEE_UNAWARE), origin));
        }
        self.arrived.insert(origin, Arrived { callee, invocation: None });
        let size = invoke.size();
        member.waiting.push(Waiting { origin, invoke }, size);
        self.hand_out(callee);
    }

    /// Invokes a callee for the calls whose turn it is.
    fn hand_out(&mut self, callee: SessionId) {
        let Some(member) = self.sessions.get_mut(&callee) else { return };
        while let Some(Waiting { origin, invoke }) = member.next() {
            if let Some(serving) = member.serving.get_mut(&invoke.registration) {
                serving.in_flight += 1;
            }
            member.last_invocation += 1;
            let id = InvocationId(member.last_invocation);
            let active = Active {
                origin: Some(origin),
                registration: invoke.registration,
                receive_progress: invoke.receive_progress,
            };
            member.invocations.insert(id, active);
            if let Some(arrived) = self.arrived.get_mut(&origin) {
                arrived.invocation = Some(id);
            }
            let told = CallMessage::Invocation(Invocation {
                id,
                registration: invoke.registration,
                procedure: invoke.procedure,
                caller: invoke.caller,
                receive_progress: invoke.receive_progress,
                payload: invoke.payload,
            });
            let size = told.size();
            member.told.push(told, size);
            self.rung.push(Party::Session(callee));
        }
    }

    /// A callee's result, or a part of it. Late ones are dropped.
    pub fn yielded(
        &mut self,
        session: SessionId,
        id: InvocationId,
        progress: bool,
        payload: Payload,
    ) {
        if !progress {
            return self.finished(session, id, Reply::Result(payload));
        }
        let active = self.sessions.get(&session).and_then(|member| member.invocations.get(&id));
        // Parts that were not asked for are dropped.
        let Some(active) = active.filter(|active| active.receive_progress) else { return };
        if let Some(origin) = active.origin {
            self.reply(origin, Reply::Progress(payload));
        }
    }

    /// A callee's error.
    pub fn failed(&mut self, session: SessionId, id: InvocationId, uri: String, payload: Payload) {
        self.finished(session, id, Reply::Failed(CallError::Callee { uri, payload }));
    }

    fn finished(&mut self, session: SessionId, id: InvocationId, reply: Reply) {
        let Some(member) = self.sessions.get_mut(&session) else { return };
        let Some(active) = member.invocations.remove(&id) else { return };
        if let Some(serving) = member.serving.get_mut(&active.registration) {
            serving.in_flight = serving.in_flight.saturating_sub(1);
        }
        if let Some(origin) = active.origin {
            self.reply(origin, reply);
        }
        self.hand_out(session);
    }

    /// Passes on a call's result, to the caller's side here or at another entry.
    pub(super) fn reply(&mut self, origin: Origin, mut reply: Reply) {
        let is_last = !matches!(reply, Reply::Progress(_));
        if is_last {
            self.arrived.remove(&origin);
        }
        let (link, call) = match origin {
            Origin::Here(number) => return self.answer(number, reply),
            Origin::There(link, call) => (link, call),
        };
        let Some(queue) = self.links.get(&link) else { return };
        if queue.bytes() + reply.size() > limits::LINK_BYTES {
            if !is_last {
                self.let_go(origin, Mode::KillNoWait);
            }
            reply = Reply::Failed(CallError::CallerSlow);
        }
        let Some(queue) = self.links.get_mut(&link) else { return };
        let says = CalleeSays { call, reply };
        let size = says.size();
        queue.push(says, size);
        self.rung.push(Party::Link(link));
    }

    /// The caller's side has canceled a call.
    pub(super) fn let_go(&mut self, origin: Origin, mode: Mode) {
        let Some(arrived) = self.arrived.get(&origin) else { return };
        let (callee, invocation) = (arrived.callee, arrived.invocation);
        let Some(member) = self.sessions.get_mut(&callee) else {
            self.arrived.remove(&origin);
            return;
        };
        let Some(id) = invocation else {
            let at = member.waiting.iter().position(|waiting| waiting.origin == origin);
            at.and_then(|at| member.waiting.remove(at));
            return match mode {
                Mode::Kill => self.reply(origin, Reply::Failed(CallError::Canceled)),
                Mode::Skip | Mode::KillNoWait => drop(self.arrived.remove(&origin)),
            };
        };
        let Some(active) = member.invocations.get_mut(&id) else { return };
        let interrupts = member.interrupts;
        // With `kill`, an interrupted callee's answer is awaited, because the caller gets it.
        if mode != Mode::Kill || !interrupts {
            active.origin = None;
            match mode {
                Mode::Kill => self.reply(origin, Reply::Failed(CallError::Canceled)),
                Mode::Skip | Mode::KillNoWait => drop(self.arrived.remove(&origin)),
            }
        }
        if mode != Mode::Skip && interrupts {
            self.tell(callee, CallMessage::Interrupt { invocation: id, mode });
        }
    }

    /// Calls whose callee did not learn of its registration in time are not carried out.
    pub(super) fn give_up_parked(&mut self, now: Moment) {
        while let Some((_, origin)) = self.parked.first().filter(|(at, _)| *at <= now).copied() {
            self.parked.pop_first();
            let Some(arrived) = self.arrived.get(&origin) else { continue };
            let Some(member) = self.sessions.get_mut(&arrived.callee) else { continue };
            let at = member.waiting.iter().position(|waiting| {
                waiting.origin == origin
                    && !member.serving.contains_key(&waiting.invoke.registration)
            });
            if at.and_then(|at| member.waiting.remove(at)).is_some() {
                self.reply(origin, Reply::Failed(CallError::NoSuchProcedure));
            }
        }
    }

    /// Another entry has dialled.
    pub fn link_opened(&mut self) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link, Queue::new(&self.total));
        link
    }

    /// A link that another entry has dialled has ended: its calls have no receiver any more.
    pub fn link_lost(&mut self, link: LinkId) {
        self.links.remove(&link);
        for origin in self.over(link) {
            self.let_go(origin, Mode::KillNoWait);
        }
    }

    fn over(&self, link: LinkId) -> Vec<Origin> {
        let all = Origin::There(link, CallNumber(0))..=Origin::There(link, CallNumber(u64::MAX));
        self.arrived.range(all).map(|(origin, _)| *origin).collect()
    }

    /// Messages of a caller's entry. For a call whose callee does not know of the registration yet, `soon` says whether it will
    /// soon.
    pub fn heard_from_link(
        &mut self,
        link: LinkId,
        says: Vec<CallerSays>,
        soon: impl Fn(&Invoke) -> bool,
        now: Moment,
    ) {
        for says in says {
            match says {
                CallerSays::Invoke { call, invoke } => {
                    let member = self.sessions.get(&invoke.callee);
                    let knows =
                        member.is_some_and(|m| m.serving.contains_key(&invoke.registration));
                    let soon = !knows && soon(&invoke);
                    self.invoke(Origin::There(link, call), *invoke, soon, now);
                }
                CallerSays::Cancel { call, mode } => self.let_go(Origin::There(link, call), mode),
            }
        }
    }

    /// Messages for a link that another entry has dialled, up to this many bytes.
    pub fn take_for_link(&mut self, link: LinkId, bytes: usize) -> Vec<CalleeSays> {
        self.links.get_mut(&link).map_or_else(Vec::new, |queue| queue.take(bytes))
    }

    /// Whether another entry waits for answers over its link.
    #[must_use]
    pub fn owes(&self, link: LinkId) -> bool {
        let all = Origin::There(link, CallNumber(0))..=Origin::There(link, CallNumber(u64::MAX));
        self.arrived.range(all).next().is_some()
            || self.links.get(&link).is_some_and(|queue| !queue.is_empty())
    }
}
