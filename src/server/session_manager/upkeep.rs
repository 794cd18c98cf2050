//! An entry's upkeep of persistent sessions: it saves their progress, all of them together, and lets those expire whose clients
//! do not come back.
//!
//! Invariant: memory is bounded by one progress per session of this node, and one time per client that is away.
//!
//! Deliberately absent: whether something has expired, which the realms' state decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, OrderTime};

use super::order_now::{later, OrderNow};
use super::{turn, AGAIN, DUE_BATCH, PATIENCE};
use crate::realm::SharedRealms;
use crate::session::events;
use crate::types::act::{Act, Progress};
use crate::types::event::{Event, SessionId};
use crate::types::limits;
use crate::types::topic::Realm;

/// How often progress is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of progress in one event; the last session's progress may exceed it.
const SAVE_BYTES: usize = limits::EVENT / 2;

/// The progress of sessions since it was last saved.
#[derive(Clone, Default)]
pub(super) struct Moved(Arc<Mutex<BTreeMap<SessionId, (Realm, Progress)>>>);

impl Moved {
    pub(super) fn note(&self, session: SessionId, realm: Realm, progress: Progress) {
        let mut moved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(session, (realm, progress));
    }

    /// The session has published its final progress itself.
    pub(super) fn forget(&self, session: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }

    fn take(&self) -> BTreeMap<SessionId, (Realm, Progress)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Upkeep {
    node: NodeId,
    realms: SharedRealms,
    moved: Moved,
    save_at: Instant,
    /// Clients that are away, and the order's time when it is this node's turn to let their persistent sessions expire.
    away: BTreeSet<(OrderTime, Realm, String)>,
}

impl Upkeep {
    /// Begins with the clients that are away already.
    pub(super) fn new(node: NodeId, realms: SharedRealms, moved: Moved) -> Self {
        let save_at = Instant::now() + SAVE_INTERVAL;
        let mut upkeep = Self { node, realms, moved, save_at, away: BTreeSet::new() };
        let away: Vec<(Realm, String)> = upkeep.realms.with(|realms| {
            let away =
                realms.persistent().filter(|(_, _, persistent)| persistent.attached.is_none());
            away.map(|(realm, client, _)| (realm.clone(), client.to_owned())).collect()
        });
        for (realm, client) in away {
            upkeep.note(realm, client);
        }
        upkeep
    }

    /// A client has gone, and its persistent session will expire.
    pub(super) fn note(&mut self, realm: Realm, client: String) {
        let at = self.realms.with(|realms| {
            let (at, _) = realms.expiring(&realm, &client)?;
            Some(later(at, PATIENCE * turn(realms, self.node, None)))
        });
        if let Some(at) = at {
            self.away.insert((at, realm, client));
        }
    }

    pub(super) fn next(&self, time: &OrderNow) -> Instant {
        self.away.first().map_or(self.save_at, |(at, ..)| self.save_at.min(time.at(*at)))
    }

    /// The events to publish now.
    pub(super) fn ready(&mut self, time: &OrderNow) -> Vec<Event> {
        let now = Instant::now();
        let mut events = Vec::new();
        let is_time = |away: &BTreeSet<(OrderTime, Realm, String)>| {
            away.first().is_some_and(|(at, ..)| time.at(*at) <= now)
        };
        while events.len() < DUE_BATCH && is_time(&self.away) {
            let Some((_, realm, client)) = self.away.pop_first() else { break };
            let found = self.realms.with(|realms| realms.expiring(&realm, &client));
            let Some((at, expire)) = found else { continue };
            if at > time.now() {
                // The client was connected again meanwhile.
                self.note(realm, client);
                continue;
            }
            events.push(events::persisting(realm.clone(), SessionId(0), &Act::Expire(expire)));
            // Published again later, in case that this has no effect.
            self.away.insert((later(time.now(), AGAIN), realm, client));
        }
        if self.save_at <= now {
            self.save_at = now + SAVE_INTERVAL;
            self.save(&mut events);
        }
        events
    }

    fn save(&self, events: &mut Vec<Event>) {
        let mut all = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        for (session, (realm, progress)) in self.moved.take() {
            bytes += 32 + 16 * progress.in_flight.len();
            all.push((session, progress));
            if bytes >= SAVE_BYTES {
                let act = Act::Progress(std::mem::take(&mut all));
                events.push(events::persisting(realm.clone(), SessionId(0), &act));
                bytes = 0;
            }
            last = Some(realm);
        }
        if let Some(realm) = last.filter(|_| !all.is_empty()) {
            events.push(events::persisting(realm, SessionId(0), &Act::Progress(all)));
        }
    }
}
