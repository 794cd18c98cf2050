//! A session's subscriptions by the text of their filters, and the SUBSCRIBEs that wait for the node.
//!
//! Invariant: a SUBACK is written once the node has answered for every filter in it. Subscribing to a filter again
//! only changes its options, so no event is missed. If the retained values have to come again, a second, temporary
//! subscription shows them. Only a filter with reading options of its own (a replay, changes of retained values, a
//! condition) starts again from the beginning, because that is what asking for it again means.
//!
//! Deliberately absent: matching, which the driver does.

mod persistent;

use std::collections::{BTreeMap, HashMap};

use super::admission::Client;
use super::filter::{self, Options};
use super::outbox::Outbox;
use super::packet::codec::{write_suback, Filter, Subscribe, Unsubscribe};
use super::packet::{Reason, Version, Violation};
use crate::gate::{most_subscriptions, Request, RetainedMode, Subscription};
use crate::rules::Permissions;
use crate::types::event::Qos;
use crate::types::limits;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::{weight, Pattern};
use persistent::Persistence;

/// What a subscription was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// Its events are changes of retained values.
    pub(crate) changes: bool,
    pub(crate) identifier: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    /// Empty if it only shows the retained values again, for another subscription.
    text: Box<str>,
    granted: Granted,
    state: State,
    retained: RetainedMode,
    /// It has reading options of its own, so no plain subscription can replace it.
    own: bool,
    /// It outlives the session.
    persistent: bool,
    /// Bytes of its condition.
    condition: usize,
    /// The subscription that shows the retained values again, if there was one.
    again: Option<SubscriptionId>,
}

impl Entry {
    /// What it counts among the patterns of the session.
    fn weight(&self) -> usize {
        weight(&self.text)
    }
}

#[derive(Debug)]
enum State {
    /// The node has not answered yet.
    Asked(Vec<Waiter>),
    Stands,
    /// Unsubscribed before the node had answered.
    Left(Vec<Waiter>),
}

/// A filter of a SUBSCRIBE that waits.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    packet: u64,
    index: usize,
    qos: Qos,
}

/// A SUBSCRIBE with waiting filters.
#[derive(Debug)]
struct Pending {
    packet_id: u16,
    /// Undecided ones hold an error.
    codes: Vec<Result<Qos, Reason>>,
    missing: usize,
    /// Why the first refused filter was refused.
    text: Option<String>,
}

/// All subscriptions of a session.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    version: Version,
    /// The client accepts reason strings in a SUBACK.
    explain: bool,
    /// A bridge before MQTT 5, which can't ask for these: it sees the RETAIN flag as published, and gets nothing back
    /// that it published itself.
    bridge: bool,
    last: u64,
    /// The most persistent ones that it may have.
    most_persistent: u32,
    by_text: HashMap<Box<str>, SubscriptionId>,
    by_id: HashMap<SubscriptionId, Entry>,
    /// Bytes of all texts in `by_id`.
    text_bytes: usize,
    /// Bytes of all conditions in `by_id`.
    condition_bytes: usize,
    pending: BTreeMap<u64, Pending>,
    packets: u64,
    /// Waiting filters, over all packets.
    waiting: usize,
    /// Set if the session is persistent.
    persistence: Option<Box<Persistence>>,
}

impl Subscriptions {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            version: client.version,
            explain: client.problem_information,
            bridge: client.bridge && !client.version.is_5(),
            last: 0,
            most_persistent: u32::MAX,
            by_text: HashMap::new(),
            by_id: HashMap::new(),
            text_bytes: 0,
            condition_bytes: 0,
            pending: BTreeMap::new(),
            packets: 0,
            waiting: 0,
            persistence: None,
        }
    }

    /// Sets how many persistent ones there may be. The others are counted where they begin.
    pub(crate) fn allow(&mut self, most_persistent: u32) {
        self.most_persistent = most_persistent;
    }

    /// What a subscription was granted, unless it has ended.
    pub(crate) fn granted(&self, id: SubscriptionId) -> Option<&Granted> {
        let entry = self.by_id.get(&id)?;
        (!matches!(entry.state, State::Left(_))).then_some(&entry.granted)
    }

    /// A SUBSCRIBE came.
    pub(crate) fn subscribe(
        &mut self,
        packet: Subscribe,
        may: &mut Permissions,
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
        let mut forbidden = 0;
        for (index, filter) in packet.filters.into_iter().enumerate() {
            // In persistent sessions, QoS 1 is the highest that is granted.
            let highest = match self.persistence {
                Some(_) => Qos::AtLeastOnce,
                None => Qos::ExactlyOnce,
            };
            let qos = filter.qos.min(highest);
            let granted = Granted {
                qos,
                no_local: filter.no_local || self.bridge,
                retain_as_published: filter.retain_as_published || self.bridge,
                changes: false,
                identifier: packet.identifier,
            };
            let waiter = Waiter { packet: number, index, qos };
            let options = options.as_ref().map_err(Violation::clone);
            let asked = options.and_then(|o| self.ask(filter, granted, (o, may), waiter, out));
            pending.codes.push(match asked {
                Ok(true) => Ok(qos),
                Ok(false) => {
                    pending.missing += 1;
                    Err(Reason::Unspecified)
                }
                Err(violation) => {
                    forbidden += usize::from(violation.reason == Reason::NotAuthorized);
                    if forbidden > limits::FORBIDDEN_FILTERS {
                        let text = "more filters are refused than one SUBSCRIBE may have";
                        return Err(Violation::new(Reason::QuotaExceeded, text));
                    }
                    pending.text.get_or_insert(violation.text.into_owned());
                    Err(violation.reason)
                }
            });
        }
        if pending.missing == 0 {
            return self.write(&pending, out);
        }
        self.pending.insert(number, pending);
        self.note_asked(out)
    }

    /// Returns whether the subscription already exists.
    fn ask(
        &mut self,
        filter: Filter,
        granted: Granted,
        (options, may): (&Options, &mut Permissions),
        waiter: Waiter,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let (pattern, reading) = filter::read(&filter.text, options.reading)?;
        let is_known = self.by_text.contains_key(filter.text.as_str());
        if !is_known && self.by_id.len() >= most_subscriptions() {
            return Err(too_many());
        }
        if !may.allow_subscription(&pattern) {
            let text = SubscribeError::NotAllowed.to_string();
            return Err(Violation::new(Reason::NotAuthorized, text));
        }
        let known = self.by_text.get(filter.text.as_str()).copied();
        let retained = reading.retained_mode(filter.retain_handling, known.is_none());
        if self.keeps(&reading) {
            let how = (retained, options);
            self.ask_persistent(filter.text, granted, pattern, how, waiter, out)?;
            return Ok(false);
        }
        if known.is_some_and(|id| self.by_id[&id].persistent) {
            let text =
                "the filter is persistent: to replay it as well, subscribe to $replay/<place>/<filter>";
            return Err(Violation::new(Reason::ImplementationSpecific, text));
        }
        let changes = retained == RetainedMode::Changes;
        let goes_on = changes || options.filter.is_some();
        if let Some(id) = known.filter(|_| !goes_on && !reading.is_replay()) {
            if self.may_stay(id, retained) {
                return self.stay(id, granted, pattern, retained, waiter, out);
            }
        }
        let condition = options.filter.as_ref().map_or(0, |value| value.held());
        let entry = Entry {
            text: filter.text.into(),
            granted: Granted { changes, ..granted },
            state: State::Asked(vec![waiter]),
            retained,
            own: goes_on || reading.snapshot,
            persistent: false,
            condition,
            again: None,
        };
        let id = self.insert(entry)?;
        if let Some(old) = known {
            self.leave(old, out);
        }
        let text = self.entry(id).text.clone();
        self.by_text.insert(text, id);
        out.requests.push_back(Request::Subscribe(Subscription {
            id,
            pattern,
            after: reading.after,
            snapshot: reading.snapshot,
            retained,
            filter: options.filter.clone(),
        }));
        Ok(false)
    }

    /// Whether a subscription can continue as a plain one. Before the node has answered it can't, if its retained
    /// values are wanted only now.
    fn may_stay(&mut self, id: SubscriptionId, retained: RetainedMode) -> bool {
        let entry = self.entry(id);
        let comes = entry.retained == RetainedMode::State || retained == RetainedMode::None;
        !entry.own && (comes || matches!(entry.state, State::Stands))
    }

    /// Changes what a subscription was granted; returns whether nothing else is needed.
    fn stay(
        &mut self,
        id: SubscriptionId,
        granted: Granted,
        pattern: Pattern,
        retained: RetainedMode,
        waiter: Waiter,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        if matches!(self.entry(id).state, State::Asked(_)) {
            self.wait()?;
            let entry = self.entry(id);
            entry.granted = granted;
            if let State::Asked(waiters) = &mut entry.state {
                waiters.push(waiter);
            }
            return Ok(false);
        }
        if retained == RetainedMode::None {
            self.entry(id).granted = granted;
            return Ok(true);
        }
        let again = self.insert(Entry {
            text: Box::default(),
            granted,
            state: State::Asked(vec![waiter]),
            retained,
            own: true,
            persistent: false,
            condition: 0,
            again: None,
        })?;
        let entry = self.entry(id);
        entry.granted = granted;
        if let Some(old) = entry.again.replace(again) {
            self.leave(old, out);
        }
        out.requests.push_back(Request::Subscribe(Subscription {
            id: again,
            pattern,
            after: None,
            snapshot: true,
            retained,
            filter: None,
        }));
        Ok(false)
    }

    /// Adds a subscription that waits for the node's answer.
    fn insert(&mut self, entry: Entry) -> Result<SubscriptionId, Violation> {
        if self.by_id.len() >= most_subscriptions()
            || self.text_bytes + entry.weight() > limits::SESSION_PATTERNS
        {
            return Err(too_many());
        }
        if self.condition_bytes + entry.condition > limits::SESSION_FILTERS {
            return Err(Violation::new(
                Reason::QuotaExceeded,
                format!(
                    "the conditions of a session's subscriptions take {} bytes at most, all together",
                    limits::SESSION_FILTERS
                ),
            ));
        }
        self.wait()?;
        Ok(self.add(entry))
    }

    fn add(&mut self, entry: Entry) -> SubscriptionId {
        self.text_bytes += entry.weight();
        self.condition_bytes += entry.condition;
        self.last += 1;
        let id = SubscriptionId(self.last);
        self.by_id.insert(id, entry);
        id
    }

    fn entry(&mut self, id: SubscriptionId) -> &mut Entry {
        self.by_id.get_mut(&id).expect("every text leads to an entry")
    }

    fn wait(&mut self) -> Result<(), Violation> {
        if self.waiting >= most_subscriptions() {
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
        let refused = pending.codes.iter().find_map(|code| code.err());
        if let Some(reason) = refused.filter(|_| self.version == Version::V31) {
            let text = pending.text.clone().unwrap_or_default();
            return Err(Violation::new(reason, format!("a filter is refused: {text}")));
        }
        let text = pending.text.as_deref().filter(|_| self.explain);
        out.put_explained(text, |text, output| {
            write_suback(self.version, pending.packet_id, &pending.codes, text, output);
        })
    }

    /// An UNSUBSCRIBE came. It is answered at once, unless a persistent subscription is among them; from here on, no
    /// event of its filters is passed on.
    pub(crate) fn unsubscribe(
        &mut self,
        packet: &Unsubscribe,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let mut existed = Vec::with_capacity(packet.filters.len());
        for text in &packet.filters {
            let known = self.by_text.get(text.as_str()).copied();
            existed.push(known.is_some());
            if let Some(id) = known.filter(|id| !self.by_id[id].persistent) {
                self.leave(id, out);
            }
        }
        self.drop_persistent(packet, existed, out)
    }

    fn leave(&mut self, id: SubscriptionId, out: &mut Outbox) {
        let Some(entry) = self.by_id.get_mut(&id) else { return };
        let again = entry.again.take();
        out.requests.push_back(Request::Unsubscribe(id));
        match std::mem::replace(&mut entry.state, State::Stands) {
            State::Asked(waiters) | State::Left(waiters) => {
                entry.state = State::Left(waiters);
                let text = entry.text.clone();
                self.by_text.remove(&text);
            }
            State::Stands => self.remove(id),
        }
        // If `again` has ended, it is not there any more; and it has no `again` itself.
        if let Some(again) = again {
            self.leave(again, out);
        }
    }

    /// The node ended a subscription: at our request, or because a snapshot is complete.
    pub(crate) fn over(&mut self, id: SubscriptionId, out: &mut Outbox) -> Result<(), Violation> {
        // If it was not answered before, this is its answer.
        self.subscribed(id, Ok(()), out)?;
        self.remove(id);
        Ok(())
    }

    fn remove(&mut self, id: SubscriptionId) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        self.text_bytes -= entry.weight();
        self.condition_bytes -= entry.condition;
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
        SubscribeError::TooMany
        | SubscribeError::NodeFull
        | SubscribeError::QuotaReached
        | SubscribeError::NoRoom => Reason::QuotaExceeded,
        SubscribeError::NotAllowed => Reason::NotAuthorized,
        SubscribeError::Unavailable => Reason::Unspecified,
    }
}
