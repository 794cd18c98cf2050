//! Whether this node can serve clients, and log messages when that changes.
//!
//! Invariant: a node is ready only while the leader of sync has confirmed to it, within the time in which a silent leader is
//! replaced, that a majority still follows it. What a node remembers of a leader is not enough: there may be no node left
//! that follows it.
//!
//! Deliberately absent: whether a single publish will succeed; its own answer shows that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Timing;
use crate::http::Readiness;

use super::wiring::Node;

/// When this node last asked the leader and got the answer that a majority follows it.
#[derive(Default)]
pub(crate) struct Confirmed(Mutex<Option<Instant>>);

impl Confirmed {
    fn set(&self, asked: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    fn age(&self) -> Option<Duration> {
        let asked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map(|asked| asked.elapsed())
    }
}

/// How long to wait before the leader is asked again.
fn pause(timing: &Timing) -> Duration {
    timing.election_min / 2
}

/// Whether clients can be served right now.
pub(crate) fn of(node: &Node, confirmed: &Confirmed) -> Readiness {
    let timing = &node.config().timing;
    if node.sync().is_some_and(|sync| sync.leader().is_none()) {
        return Readiness::not_yet("sync has no leader; are most sync nodes running?");
    }
    let patience = timing.election_max + pause(timing);
    match confirmed.age() {
        None => {
            return Readiness::not_yet(
                "no leader of sync with a majority behind it has been heard of yet; are most sync nodes running?",
            );
        }
        Some(age) if age > patience => {
            return Readiness::not_yet(
                "the leader of sync has lost its majority or is out of reach; are most sync nodes running?",
            );
        }
        Some(_) => {}
    }
    if node.entry.as_ref().is_some_and(|entry| entry.status().borrow().incarnation.is_none()) {
        return Readiness::not_yet("this entry waits for sync to let it open");
    }
    if node.awaits_users() {
        return Readiness::not_yet("the first administrator is not in the log yet");
    }
    Readiness::ready()
}

/// Asks the leader again and again, and logs when the node becomes ready or stops being so. Never ends.
pub(crate) async fn watch(node: Arc<Node>, confirmed: Arc<Confirmed>) {
    let timing = node.config().timing;
    let mut told = Readiness::not_yet("the node is starting");
    loop {
        let asked = Instant::now();
        if node.order.confirm(timing.election_max).await.is_ok() {
            confirmed.set(asked);
        }
        let now = of(&node, &confirmed);
        match (told.ready, &now.reason) {
            (false, None) => tracing::info!("ready"),
            (true, Some(reason)) => tracing::warn!("not ready: {reason}"),
            _ => {}
        }
        told = now;
        tokio::time::sleep(pause(&timing)).await;
    }
}
