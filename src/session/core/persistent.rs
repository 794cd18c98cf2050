//! The persistent part of a session: it waits for the session from which it took over, reads on from that session's cursor,
//! adds and removes filters, and reports its progress.
//!
//! Invariant: the session reports its final progress once, when it ends. Until then it reports often enough that little is sent
//! a second time if its node is lost.
//!
//! Deliberately absent: the effect in the realms' state (`realm`), and reading itself (`reader`).

use std::collections::VecDeque;
use std::time::Duration;

use super::{Core, Node, Output, Presence};
use crate::gate::{EndReason, Gate, Handover, PersistentReading, Resumed};
use crate::realm::{FilterOutcome, PersistentState};
use crate::session::delivery::Current;
use crate::session::events;
use crate::types::act::{Act, Gone, Progress};
use crate::types::limits;
use crate::types::moment::Moment;
use crate::types::subscription::SubscriptionId;

/// How long a session waits for the act `Gone` of the session from which it took over.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(1);

/// How often a session reports its progress.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How many positions without an event for it a session may pass before it reports that.
const IDLE_POSITIONS: u64 = 100_000;

/// How often a session without activity checks how many positions it has passed.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// The state of a persistent session.
pub(super) struct Persistence {
    phase: Phase,
    /// Filters that the client wants to add or remove.
    changes: VecDeque<PendingChange>,
    /// How many of those are on their way into the log, counted from the front.
    filter_changes: usize,
    /// When the first of them times out.
    filters_until: Moment,
    told: Progress,
    report_at: Moment,
    /// Its progress may be beyond the last report.
    moved: bool,
}

enum Phase {
    /// Not in the realms' state yet.
    Attaching,
    /// In the realms' state, but the session from which it took over has not published its act `Gone`. With `without`, an event
    /// is on its way that ends the wait for it.
    TakingOver {
        until: Moment,
        without: bool,
    },
    Open,
}

struct PendingChange {
    act: Act,
    subscribe: Vec<PersistentReading>,
    unsubscribe: Vec<SubscriptionId>,
}

impl Persistence {
    pub(super) fn attaching(now: Moment) -> Self {
        Self {
            phase: Phase::Attaching,
            changes: VecDeque::new(),
            filter_changes: 0,
            filters_until: now,
            told: Progress::default(),
            report_at: now,
            moved: false,
        }
    }

    /// Whether to read from the client.
    pub(super) fn has_room(&self) -> bool {
        self.changes.len() < limits::SESSION_FILTER_CHANGES
    }

    /// When the next timed work is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Attaching => None,
            Phase::TakingOver { until, .. } => Some(until),
            Phase::Open => {
                let noted = (self.filter_changes > 0).then_some(self.filters_until);
                let idle = if self.moved { Duration::ZERO } else { IDLE_INTERVAL };
                noted.into_iter().chain([self.report_at.after(idle)]).min()
            }
        }
    }
}

impl<G: Gate, R> Core<G, R> {
    /// The session is in the realms' state; true if it is persistent there.
    pub(super) fn attached(&mut self, now: Moment, node: &impl Node) -> bool {
        let Some(persistence) = &mut self.persistence else { return false };
        match node.persistent() {
            // There was no room for a persistent session.
            None => {
                self.persistence = None;
                false
            }
            Some(found) if found.persistent.awaited.is_some() => {
                let until = now.after(TAKE_OVER_WAIT);
                persistence.phase = Phase::TakingOver { until, without: false };
                true
            }
            Some(found) => {
                self.resume(found, node);
                true
            }
        }
    }

    /// The wait for the previous session is over. Its progress would not include what this session sends from now on, so before
    /// this session sends anything, all nodes have to stop accepting that progress.
    fn begin_without(&mut self, now: Moment, node: &impl Node) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        let Some(persistence) = &mut self.persistence else { return };
        let session = self.gate.session();
        let until = now.after(limits::PUBLISH_TIMEOUT);
        persistence.phase = Phase::TakingOver { until, without: true };
        // The session may have ended again meanwhile; the signal for that follows.
        if let Some(found) = node.persistent() {
            let act = Act::Progress(vec![(session, found.persistent.progress)]);
            self.ledger.push_own(events::persisting(realm.clone(), session, &act));
        }
    }

    /// The previous session has published its act `Gone`, or the wait for it was ended.
    pub(super) fn released(&mut self, node: &impl Node) {
        let taking_over = self
            .persistence
            .as_ref()
            .is_some_and(|persistence| matches!(persistence.phase, Phase::TakingOver { .. }));
        // The session may have ended again meanwhile; the signal for that follows.
        if let Some(found) = node.persistent().filter(|_| taking_over) {
            self.resume(found, node);
        }
    }

    fn resume(&mut self, found: PersistentState, node: &impl Node) {
        let Some(persistence) = &mut self.persistence else { return };
        persistence.phase = Phase::Open;
        persistence.told = found.persistent.progress.clone();
        let filter = |(text, filter): (String, crate::realm::PersistentFilter)| {
            (text, filter.subscription, filter.from)
        };
        let received = found.received();
        self.gate.resume(Resumed {
            received,
            present: found.persistent.resumed,
            in_flight: found.persistent.progress.in_flight,
            filters: found.filters.into_iter().map(filter).collect(),
            back_at: node.next_position(),
        });
        self.open();
    }

    /// The gate has found out which subscriptions to read.
    pub(super) fn read_on(&mut self, readings: Vec<PersistentReading>, node: &impl Node) {
        if let (Some(reader), Some(persistence)) = (&mut self.reader, &self.persistence) {
            reader.resume(persistence.told.clone(), readings, node.next_position());
        }
    }

    /// The client wants to add or remove a filter.
    pub(super) fn persist(
        &mut self,
        act: Act,
        subscribe: Vec<PersistentReading>,
        unsubscribe: Vec<SubscriptionId>,
        now: Moment,
    ) {
        if let Some(persistence) = &mut self.persistence {
            persistence.changes.push_back(PendingChange { act, subscribe, unsubscribe });
        }
        self.note_wishes(now);
    }

    /// Submits pending filter changes, several at once.
    fn note_wishes(&mut self, now: Moment) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        let Some(persistence) = &mut self.persistence else { return };
        let session = self.gate.session();
        while persistence.filter_changes < limits::SESSION_FILTER_CHANGES {
            let Some(change) = persistence.changes.get(persistence.filter_changes) else { return };
            if persistence.filter_changes == 0 {
                persistence.filters_until = now.after(limits::PUBLISH_TIMEOUT);
            }
            persistence.filter_changes += 1;
            self.ledger.push_own(events::persisting(realm.clone(), session, &change.act));
        }
    }

    /// Submits all remaining filter changes, since the session ends.
    pub(super) fn note_rest(&mut self) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        let Some(persistence) = &self.persistence else { return };
        let session = self.gate.session();
        for change in persistence.changes.iter().skip(persistence.filter_changes) {
            self.ledger.push_own(events::persisting(realm.clone(), session, &change.act));
        }
    }

    /// The oldest filter change is in the realms' state, or there was no room for it.
    pub(super) fn noted(&mut self, noted: FilterOutcome, now: Moment) {
        let (Some(persistence), Some(reader)) = (&mut self.persistence, &mut self.reader) else {
            return;
        };
        let Some(change) = persistence.changes.pop_front() else { return };
        persistence.filter_changes = persistence.filter_changes.saturating_sub(1);
        persistence.filters_until = now.after(limits::PUBLISH_TIMEOUT);
        let PendingChange { mut subscribe, unsubscribe, .. } = change;
        match noted {
            FilterOutcome::From(from) => {
                subscribe.iter_mut().for_each(|reading| reading.from = Some(from));
                reader.persist(subscribe, unsubscribe, true);
            }
            FilterOutcome::NoRoom => reader.persist(Vec::new(), Vec::new(), false),
        }
        self.note_wishes(now);
    }

    /// The oldest filter change has reached the reader.
    pub(super) fn reads_anew(&mut self, room: bool) {
        // The segment is read again, from the cursor on.
        if self.current.as_deref().is_some_and(Current::is_at_cursor) {
            self.current = None;
        }
        self.gate.noted(room);
    }

    /// The client has sent or received something.
    pub(super) fn may_have_moved(&mut self, now: Moment) {
        if let Some(persistence) = &mut self.persistence {
            if !persistence.moved {
                persistence.moved = true;
                persistence.report_at = persistence.report_at.max(now);
            }
        }
    }

    /// The session's progress; `None` if it is not open.
    fn progress(&self) -> Option<(Progress, Handover)> {
        let persistence = self.persistence.as_ref()?;
        let sent = self.reader.as_ref()?.sent()?;
        let handover = self.gate.handover();
        let (in_flight, doubt) = (handover.in_flight.clone(), persistence.told.doubt);
        Some((Progress { sent, in_flight, doubt }, handover))
    }

    /// Does timed work whose deadline has passed.
    pub(super) fn look_after_persistence(&mut self, now: Moment, node: &impl Node) {
        let Some(persistence) = &mut self.persistence else { return };
        if persistence.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match persistence.phase {
            Phase::Attaching => {}
            Phase::TakingOver { without: false, .. } => self.begin_without(now, node),
            Phase::TakingOver { without: true, .. } => self.end(EndReason::Unavailable),
            Phase::Open if persistence.filter_changes > 0 && persistence.filters_until <= now => {
                self.end(EndReason::Unavailable);
            }
            Phase::Open => self.report(now),
        }
    }

    fn report(&mut self, now: Moment) {
        let touched = self.reader.as_mut().is_some_and(|reader| reader.take_touched());
        let Some((progress, _)) = self.progress() else { return };
        let Some(persistence) = &mut self.persistence else { return };
        persistence.moved = false;
        persistence.report_at = now.after(REPORT_INTERVAL);
        let told = &persistence.told;
        let same = progress.in_flight == told.in_flight
            && progress.sent.0 - told.sent.0.min(progress.sent.0) < IDLE_POSITIONS;
        if same && !touched {
            return;
        }
        persistence.told = progress.clone();
        if let Presence::Announced { realm, .. } = &self.presence {
            let realm = realm.clone();
            self.outputs.push_back(Output::Save { realm, progress });
        }
    }

    /// Submits the session's act `Gone`.
    pub(super) fn say_last(&mut self) {
        let Presence::Announced { realm, known_as, drop_will } = &self.presence else { return };
        let (progress, expiry) = match self.progress() {
            Some((progress, Handover { expiry, .. })) => (Some(progress), expiry),
            None => (None, None),
        };
        // A client whose session was never open leaves no will.
        let drop_will = *drop_will || self.reader.is_none();
        let gone = Gone { drop_will, expiry, progress };
        let event = events::gone(realm.clone(), self.gate.session(), known_as, gone);
        self.ledger.push_own(event);
    }
}
