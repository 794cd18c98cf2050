//! Persistent subscriptions: all nodes learn of them through the log, and they are answered once they are in the realms' state.
//!
//! Invariant: while a request is on its way there, no event is accepted, so a filter begins and ends at its exact position in
//! the order. A filter that is subscribed to again while its UNSUBSCRIBE is pending is a new one.
//!
//! Deliberately absent: replays and snapshots, which end with the connection like those of other sessions.

use std::collections::VecDeque;

use super::{filter, Entry, Granted, Outbox, State, Subscriptions, Unsubscribe, Waiter};
use crate::gate::mqtt::filter::{Options, Reading};
use crate::gate::mqtt::packet::codec::write_unsuback;
use crate::gate::mqtt::packet::{Reason, Violation};
use crate::gate::{PersistentReading, Request, RetainedMode};
use crate::types::act::{Act, PersistentSubscription};
use crate::types::limits;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::Pattern;
use vulpes_raft::ids::Position;

/// The persistent subscriptions of a session.
#[derive(Debug, Default)]
pub(super) struct Persistence {
    /// Filters of the current SUBSCRIBE.
    asked: Vec<(Line, PersistentReading, PersistentSubscription)>,
    /// Requests on their way into the log.
    filter_changes: VecDeque<FilterChange>,
}

#[derive(Debug)]
enum FilterChange {
    Subscribe(Vec<Line>),
    Unsubscribe { packet_id: u16, existed: Vec<bool>, ids: Vec<SubscriptionId> },
}

/// A filter of a SUBSCRIBE.
#[derive(Debug)]
struct Line {
    id: SubscriptionId,
    text: Box<str>,
    granted: Granted,
    waiter: Waiter,
}

impl Subscriptions {
    /// Whether events have to wait until a filter change is done.
    pub(crate) fn has_filter_changes(&self) -> bool {
        self.persistence.as_ref().is_some_and(|persistence| !persistence.filter_changes.is_empty())
    }

    /// From here on, subscriptions are persistent; those of an earlier session continue.
    pub(crate) fn resume(
        &mut self,
        filters: Vec<(String, PersistentSubscription, Position)>,
        out: &mut Outbox,
    ) {
        self.persistence = Some(Box::default());
        let mut readings = Vec::with_capacity(filters.len());
        for (text, persistent, from) in filters {
            // A subscription of a newer release that this one can't read stays in the state, but sends nothing here.
            let Ok((pattern, _)) = filter::read(&text, Reading::default()) else { continue };
            let PersistentSubscription { changes, identifier, condition, .. } = persistent;
            let granted = Granted {
                qos: persistent.qos,
                no_local: persistent.no_local,
                retain_as_published: persistent.retain_as_published,
                changes,
                identifier,
            };
            let weight = condition.as_ref().map_or(0, |value| value.held());
            let id = self.add(entry(text.into(), granted, State::Stands, weight));
            let text = self.entry(id).text.clone();
            self.by_text.insert(text, id);
            let (retained, from) = (RetainedMode::None, Some(from));
            readings.push(PersistentReading { id, pattern, retained, changes, condition, from });
        }
        out.requests.push_back(Request::Resume(readings));
    }

    /// Whether a filter becomes a persistent subscription.
    pub(super) fn keeps(&self, reading: &Reading) -> bool {
        self.persistence.is_some() && !reading.is_replay()
    }

    /// Prepares a filter that becomes a persistent subscription.
    pub(super) fn ask_persistent(
        &mut self,
        text: String,
        granted: Granted,
        pattern: Pattern,
        (retained, options): (RetainedMode, &Options),
        waiter: Waiter,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let mut known = self.by_text.get(text.as_str()).copied();
        if let Some(id) = known.filter(|id| !self.by_id[id].persistent) {
            self.leave(id, out);
            known = None;
        }
        let changes = retained == RetainedMode::Changes;
        let granted = Granted { changes, ..granted };
        let condition = options.filter.clone();
        let id = match known {
            Some(id) => {
                self.wait()?;
                id
            }
            None if self.by_id.len() >= self.most_persistent as usize => {
                let text = SubscribeError::QuotaReached.to_string();
                return Err(Violation::new(Reason::QuotaExceeded, text));
            }
            None => {
                let weight = condition.as_ref().map_or(0, |value| value.held());
                let state = State::Asked(Vec::new());
                let id = self.insert(entry(text.clone().into(), granted, state, weight))?;
                self.by_text.insert(text.clone().into(), id);
                id
            }
        };
        let persistent = PersistentSubscription {
            qos: granted.qos,
            no_local: granted.no_local,
            retain_as_published: granted.retain_as_published,
            changes,
            identifier: granted.identifier,
            condition: condition.clone(),
        };
        let reading = PersistentReading { id, pattern, retained, changes, condition, from: None };
        let line = Line { id, text: text.into(), granted, waiter };
        if let Some(persistence) = &mut self.persistence {
            persistence.asked.push((line, reading, persistent));
        }
        Ok(())
    }

    /// Writes the prepared filters into the log.
    pub(super) fn note_asked(&mut self, out: &mut Outbox) -> Result<(), Violation> {
        let Some(persistence) = &mut self.persistence else { return Ok(()) };
        if persistence.asked.is_empty() {
            return Ok(());
        }
        let mut filters = Vec::new();
        let mut subscribe = Vec::new();
        let mut lines = Vec::new();
        for (line, reading, persistent) in persistence.asked.drain(..) {
            filters.push((line.text.to_string(), persistent));
            subscribe.push(reading);
            lines.push(line);
        }
        let act = Act::Subscribe(filters);
        if act.encode().len() > limits::EVENT {
            return self.refuse(lines, out);
        }
        persistence.filter_changes.push_back(FilterChange::Subscribe(lines));
        out.requests.push_back(Request::Persist { act, subscribe, unsubscribe: Vec::new() });
        Ok(())
    }

    /// Answers an UNSUBSCRIBE once its remaining filters, all persistent, are removed.
    pub(super) fn drop_persistent(
        &mut self,
        packet: &Unsubscribe,
        existed: Vec<bool>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let mut ids = Vec::new();
        let mut texts = Vec::new();
        for text in &packet.filters {
            if let Some(id) = self.by_text.remove(text.as_str()) {
                ids.push(id);
                texts.push(text.clone());
            }
        }
        let Some(persistence) = self.persistence.as_mut().filter(|_| !ids.is_empty()) else {
            return out
                .put(|output| write_unsuback(self.version, packet.packet_id, &existed, output));
        };
        let unsubscribe = ids.clone();
        let packet_id = packet.packet_id;
        persistence.filter_changes.push_back(FilterChange::Unsubscribe { packet_id, existed, ids });
        let act = Act::Unsubscribe(texts);
        out.requests.push_back(Request::Persist { act, subscribe: Vec::new(), unsubscribe });
        Ok(())
    }

    /// The oldest request is done, or failed for lack of room.
    pub(crate) fn noted(&mut self, room: bool, out: &mut Outbox) -> Result<(), Violation> {
        let first = self
            .persistence
            .as_mut()
            .and_then(|persistence| persistence.filter_changes.pop_front());
        match first {
            None => Ok(()),
            Some(FilterChange::Subscribe(lines)) if room => {
                for Line { id, granted, waiter, .. } in lines {
                    if let Some(entry) = self.by_id.get_mut(&id) {
                        entry.granted = granted;
                        entry.state = State::Stands;
                    }
                    self.settle(waiter, Ok(()), out)?;
                }
                Ok(())
            }
            Some(FilterChange::Subscribe(lines)) => self.refuse(lines, out),
            Some(FilterChange::Unsubscribe { packet_id, existed, ids }) => {
                for id in ids {
                    self.remove(id);
                }
                out.put(|output| write_unsuback(self.version, packet_id, &existed, output))
            }
        }
    }

    fn refuse(&mut self, lines: Vec<Line>, out: &mut Outbox) -> Result<(), Violation> {
        if self.has_filter_changes() {
            // Later requests may build on the refused one.
            let text = SubscribeError::NoRoom.to_string();
            return Err(Violation::new(Reason::QuotaExceeded, text));
        }
        for Line { id, waiter, .. } in lines {
            let is_new = self.by_id.get(&id).is_some_and(|e| matches!(e.state, State::Asked(_)));
            if is_new {
                self.remove(id);
            }
            self.settle(waiter, Err(SubscribeError::NoRoom), out)?;
        }
        Ok(())
    }
}

fn entry(text: Box<str>, granted: Granted, state: State, condition: usize) -> Entry {
    let retained = RetainedMode::None;
    Entry { text, granted, state, retained, own: true, persistent: true, condition, again: None }
}
