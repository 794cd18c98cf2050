//! What a session does about what outlives its connection: it waits for the one it took over from, reads on where that
//! one was, has filters kept and dropped, and tells how far it has come.
//!
//! Invariant: how far the session has come is told once and for all when it ends, and until then often enough that
//! little is sent a second time where its node is lost.
//!
//! Deliberately absent: what all nodes make of it (`realm`), and reading itself (`reader`).

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

/// How long a session waits for the last word of the one it took over from.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(1);

/// How often a session tells how far it has come.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How far a session's place in the log may move on with nothing for it before it tells so.
const IDLE_POSITIONS: u64 = 100_000;

/// How often a session that hears nothing looks how far that is.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// A session that outlives its connection.
pub(super) struct Persistence {
    phase: Phase,
    /// What the client wants to be kept or dropped.
    changes: VecDeque<PendingChange>,
    /// How many of those are on their way into the log, from the front.
    filter_changes: usize,
    /// When the first of them is given up.
    filters_until: Moment,
    told: Progress,
    report_at: Moment,
    /// It may have come further than was told.
    moved: bool,
}

enum Phase {
    /// Not known to all yet.
    Attaching,
    /// It is known to all, and the one that it took over from has not said its last. With `without`, all are being told that
    /// it is not waited for any more.
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

    /// Whether the client may be listened to.
    pub(super) fn has_room(&self) -> bool {
        self.changes.len() < limits::SESSION_FILTER_CHANGES
    }

    /// When there is something to be done.
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
    /// The session is known to all; tells whether it is one that keeps something.
    pub(super) fn attached(&mut self, now: Moment, node: &impl Node) -> bool {
        let Some(persistence) = &mut self.persistence else { return false };
        match node.persistent() {
            // There was no room to keep anything.
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

    /// The one that it took over from was waited for long enough. Before anything is sent that it does not know of, it must
    /// not be listened to any more, by nobody.
    fn begin_without(&mut self, now: Moment, node: &impl Node) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        let Some(persistence) = &mut self.persistence else { return };
        let session = self.gate.session();
        let until = now.after(limits::PUBLISH_TIMEOUT);
        persistence.phase = Phase::TakingOver { until, without: true };
        // It may have ended again meanwhile, of which it is about to hear.
        if let Some(found) = node.persistent() {
            let act = Act::Progress(vec![(session, found.persistent.progress)]);
            self.ledger.push_own(events::persisting(realm.clone(), session, &act));
        }
    }

    /// The one that it took over from has said its last, or nobody waits for it any more.
    pub(super) fn released(&mut self, node: &impl Node) {
        let taking_over = self
            .persistence
            .as_ref()
            .is_some_and(|persistence| matches!(persistence.phase, Phase::TakingOver { .. }));
        // It may have ended again meanwhile, of which it is about to hear.
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
        self.gate.resume(Resumed {
            present: found.persistent.resumed,
            in_flight: found.persistent.progress.in_flight,
            filters: found.filters.into_iter().map(filter).collect(),
            back_at: node.next_position(),
        });
        self.open();
    }

    /// The gate knows what is to be read.
    pub(super) fn read_on(&mut self, readings: Vec<PersistentReading>, node: &impl Node) {
        if let (Some(reader), Some(persistence)) = (&mut self.reader, &self.persistence) {
            reader.resume(persistence.told.clone(), readings, node.next_position());
        }
    }

    /// The client wants something to be kept or dropped.
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

    /// Has what is wished noted, some changes at once.
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

    /// Has all noted that is left: the session ends.
    pub(super) fn note_rest(&mut self) {
        let Presence::Announced { realm, .. } = &self.presence else { return };
        let Some(persistence) = &self.persistence else { return };
        let session = self.gate.session();
        for change in persistence.changes.iter().skip(persistence.filter_changes) {
            self.ledger.push_own(events::persisting(realm.clone(), session, &change.act));
        }
    }

    /// What was wished first is noted, or not for lack of room.
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

    /// What was wished first is read by now, or not any more.
    pub(super) fn reads_anew(&mut self, room: bool) {
        // It is read again, from the cursor on.
        if self.current.as_ref().is_some_and(Current::is_at_cursor) {
            self.current = None;
        }
        self.gate.noted(room);
    }

    /// Something came from the client or went to it.
    pub(super) fn may_have_moved(&mut self, now: Moment) {
        if let Some(persistence) = &mut self.persistence {
            if !persistence.moved {
                persistence.moved = true;
                persistence.report_at = persistence.report_at.max(now);
            }
        }
    }

    /// How far the session has come; nothing where it is not open.
    fn progress(&self) -> Option<(Progress, Handover)> {
        let persistence = self.persistence.as_ref()?;
        let sent = self.reader.as_ref()?.sent()?;
        let handover = self.gate.handover();
        let (in_flight, doubt) = (handover.in_flight.clone(), persistence.told.doubt);
        Some((Progress { sent, in_flight, doubt }, handover))
    }

    /// Does what it is time for.
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

    /// Puts the session's last word on its way to everybody.
    pub(super) fn say_last(&mut self) {
        let Presence::Announced { realm, known_as, drop_will } = &self.presence else { return };
        let (progress, expiry) = match self.progress() {
            Some((progress, Handover { expiry, .. })) => (Some(progress), expiry),
            None => (None, None),
        };
        // Who was never told that it is connected leaves no will.
        let drop_will = *drop_will || self.reader.is_none();
        let gone = Gone { drop_will, expiry, progress };
        let event = events::gone(realm.clone(), self.gate.session(), known_as, gone);
        self.ledger.push_own(event);
    }
}
