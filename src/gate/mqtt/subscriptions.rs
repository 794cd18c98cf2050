//! A session's subscriptions by the text of their filters, and the SUBSCRIBEs that wait for the node.
//!
//! Invariant: a SUBACK is written when the node has answered for every filter in it, and not before. To subscribe to a
//! filter again changes its options and nothing else, so that no event is missed; only a filter that replays the log
//! begins anew, because that is what asking for it again means.
//!
//! Deliberately absent: matching, which the driver does.

use std::collections::{BTreeMap, HashMap};

use super::filter::{self, Reading};
use super::outbox::Outbox;
use super::packet::codec::{write_suback, write_unsuback, Filter, Subscribe, Unsubscribe};
use super::packet::{Reason, Version, Violation};
use crate::event::Qos;
use crate::gate::{Request, SubscribeError, Subscription, SubscriptionId};
use crate::limits;

/// Bytes the filters of one session may have, all together.
const FILTER_BYTES: usize = 1 << 20;

/// What a subscription was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    granted: Granted,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The node has not answered yet.
    Asked(Vec<Waiter>),
    Stands,
    /// Unsubscribed before the node had answered.
    Left(Vec<Waiter>),
}

/// A line of a SUBSCRIBE that waits.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    packet: u64,
    index: usize,
    qos: Qos,
}

/// A SUBSCRIBE with lines that wait.
#[derive(Debug)]
struct Pending {
    packet_id: u16,
    /// Those not known yet hold an error until they are.
    codes: Vec<Result<Qos, Reason>>,
    missing: usize,
    /// Why the first refused filter was.
    text: Option<String>,
}

/// All subscriptions of a session.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    version: Version,
    /// Reason strings are welcome in a SUBACK.
    explain: bool,
    last: u64,
    by_text: HashMap<Box<str>, SubscriptionId>,
    by_id: HashMap<SubscriptionId, Entry>,
    /// Bytes of all texts in `by_id`.
    text_bytes: usize,
    pending: BTreeMap<u64, Pending>,
    packets: u64,
    /// Lines that wait, over all packets.
    waiting: usize,
}

impl Subscriptions {
    pub(crate) fn new(version: Version, explain: bool) -> Self {
        Self {
            version,
            explain,
            last: 0,
            by_text: HashMap::new(),
            by_id: HashMap::new(),
            text_bytes: 0,
            pending: BTreeMap::new(),
            packets: 0,
            waiting: 0,
        }
    }

    /// What a subscription was granted, unless it is over.
    pub(crate) fn granted(&self, id: SubscriptionId) -> Option<&Granted> {
        let entry = self.by_id.get(&id)?;
        (!matches!(entry.state, State::Left(_))).then_some(&entry.granted)
    }

    /// A SUBSCRIBE came.
    pub(crate) fn subscribe(
        &mut self,
        packet: Subscribe,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let number = self.packets;
        self.packets += 1;
        let options = filter::read_options(&packet.user_properties);
        let mut pending = Pending {
            packet_id: packet.packet_id,
            codes: Vec::with_capacity(packet.filters.len()),
            missing: 0,
            text: None,
        };
        for (index, filter) in packet.filters.into_iter().enumerate() {
            // QoS 2 is not offered: the most that is granted is QoS 1.
            let qos = filter.qos.min(Qos::AtLeastOnce);
            let granted = Granted { qos, no_local: filter.no_local, identifier: packet.identifier };
            let waiter = Waiter { packet: number, index, qos };
            let asked = options.clone().and_then(|o| self.ask(filter, granted, o, waiter, out));
            pending.codes.push(match asked {
                Ok(true) => Ok(qos),
                Ok(false) => {
                    pending.missing += 1;
                    Err(Reason::Unspecified)
                }
                Err(violation) => {
                    pending.text.get_or_insert(violation.text.into_owned());
                    Err(violation.reason)
                }
            });
        }
        if pending.missing == 0 {
            return self.write(&pending, out);
        }
        self.pending.insert(number, pending);
        Ok(())
    }

    /// Returns whether the subscription stands already.
    fn ask(
        &mut self,
        filter: Filter,
        granted: Granted,
        options: Reading,
        waiter: Waiter,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let (pattern, reading) = filter::read(&filter.text, options)?;
        let known = self.by_text.get(filter.text.as_str()).copied();
        if let (Some(id), false) = (known, reading.is_replay()) {
            return self.change(id, granted, waiter);
        }
        if self.by_id.len() >= limits::SESSION_SUBSCRIPTIONS
            || self.text_bytes + filter.text.len() > FILTER_BYTES
        {
            return Err(too_many());
        }
        self.wait()?;
        if let Some(id) = known {
            self.leave(id, out);
        }
        self.last += 1;
        let id = SubscriptionId(self.last);
        let text: Box<str> = filter.text.into();
        self.text_bytes += text.len();
        self.by_text.insert(text.clone(), id);
        self.by_id.insert(id, Entry { text, granted, state: State::Asked(vec![waiter]) });
        out.requests.push_back(Request::Subscribe(Subscription {
            id,
            pattern,
            after: reading.after,
            snapshot: reading.snapshot,
        }));
        Ok(false)
    }

    fn change(
        &mut self,
        id: SubscriptionId,
        granted: Granted,
        waiter: Waiter,
    ) -> Result<bool, Violation> {
        let asked = matches!(self.entry(id).state, State::Asked(_));
        if asked {
            self.wait()?;
        }
        let entry = self.entry(id);
        entry.granted = granted;
        if let State::Asked(waiters) = &mut entry.state {
            waiters.push(waiter);
        }
        Ok(!asked)
    }

    fn entry(&mut self, id: SubscriptionId) -> &mut Entry {
        self.by_id.get_mut(&id).expect("every text leads to an entry")
    }

    fn wait(&mut self) -> Result<(), Violation> {
        if self.waiting >= limits::SESSION_SUBSCRIPTIONS {
            return Err(too_many());
        }
        self.waiting += 1;
        Ok(())
    }

    /// The node answered for a subscription.
    pub(crate) fn subscribed(
        &mut self,
        id: SubscriptionId,
        result: Result<(), SubscribeError>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(entry) = self.by_id.get_mut(&id) else { return Ok(()) };
        let (waiters, over) = match std::mem::replace(&mut entry.state, State::Stands) {
            State::Asked(waiters) => (waiters, result.is_err()),
            State::Left(waiters) => (waiters, true),
            State::Stands => return Ok(()),
        };
        if over {
            self.remove(id);
        }
        waiters.into_iter().try_for_each(|waiter| self.settle(waiter, result, out))
    }

    fn settle(
        &mut self,
        waiter: Waiter,
        result: Result<(), SubscribeError>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.waiting -= 1;
        let pending =
            self.pending.get_mut(&waiter.packet).expect("a packet stays until its last line");
        pending.missing -= 1;
        pending.codes[waiter.index] = result.map(|()| waiter.qos).map_err(|error| {
            pending.text.get_or_insert(error.to_string());
            reason(error)
        });
        if pending.missing > 0 {
            return Ok(());
        }
        match self.pending.remove(&waiter.packet) {
            Some(pending) => self.write(&pending, out),
            None => Ok(()),
        }
    }

    fn write(&self, pending: &Pending, out: &mut Outbox) -> Result<(), Violation> {
        let text = pending.text.as_deref().filter(|_| self.explain);
        out.put_explained(text, |text, output| {
            write_suback(self.version, pending.packet_id, &pending.codes, text, output);
        })
    }

    /// An UNSUBSCRIBE came. It is answered at once: from here on, no event of its filters is passed on.
    pub(crate) fn unsubscribe(
        &mut self,
        packet: &Unsubscribe,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let mut existed = Vec::with_capacity(packet.filters.len());
        for text in &packet.filters {
            let known = self.by_text.get(text.as_str()).copied();
            existed.push(known.is_some());
            if let Some(id) = known {
                self.leave(id, out);
            }
        }
        out.put(|output| write_unsuback(self.version, packet.packet_id, &existed, output))
    }

    fn leave(&mut self, id: SubscriptionId, out: &mut Outbox) {
        out.requests.push_back(Request::Unsubscribe(id));
        let entry = self.entry(id);
        match std::mem::replace(&mut entry.state, State::Stands) {
            State::Asked(waiters) | State::Left(waiters) => {
                entry.state = State::Left(waiters);
                let text = entry.text.clone();
                self.by_text.remove(&text);
            }
            State::Stands => self.remove(id),
        }
    }

    /// The node ended a subscription: at our request, or because a snapshot is through.
    pub(crate) fn over(&mut self, id: SubscriptionId, out: &mut Outbox) -> Result<(), Violation> {
        // Where it was not answered for before, this is its answer.
        self.subscribed(id, Ok(()), out)?;
        self.remove(id);
        Ok(())
    }

    fn remove(&mut self, id: SubscriptionId) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        self.text_bytes -= entry.text.len();
        if self.by_text.get(&entry.text) == Some(&id) {
            self.by_text.remove(&entry.text);
        }
    }
}

fn too_many() -> Violation {
    Violation::new(Reason::QuotaExceeded, SubscribeError::TooMany.to_string())
}

fn reason(error: SubscribeError) -> Reason {
    match error {
        SubscribeError::Gone { .. } | SubscribeError::Ahead { .. } => {
            Reason::ImplementationSpecific
        }
        SubscribeError::TooMany => Reason::QuotaExceeded,
        SubscribeError::Unavailable => Reason::Unspecified,
    }
}
