//! A subscriber's counts, which both protocols share.
//!
//! Invariant: every message is counted once: as one of ours, which is checked, or as foreign.
//!
//! Deliberately absent: sockets and packets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::check::DeliveryCheck;
use super::load::{latencies, micros, Finished, Latencies, Plan};

/// One subscriber's counts.
pub(super) struct Reception {
    plan: Arc<Plan>,
    finished: watch::Receiver<Finished>,
    check: DeliveryCheck,
    /// From the first delivery, or from the request for a replay, to the last.
    span: Option<(Duration, Duration)>,
    delivered: u64,
    foreign: u64,
    latencies: Latencies,
}

/// What a subscriber got.
pub(super) struct Received {
    /// The target it was connected to.
    pub(super) target: usize,
    pub(super) check: DeliveryCheck,
    pub(super) delivered: u64,
    /// From the first delivery, or from the request for a replay, to the last.
    pub(super) time: Duration,
    /// Messages that this run did not publish.
    pub(super) foreign: u64,
    /// From publish to delivery; for a replay, from the request to its first event.
    pub(super) latencies: Latencies,
    pub(super) error: Option<String>,
}

impl Reception {
    pub(super) fn new(plan: Arc<Plan>, finished: watch::Receiver<Finished>) -> Self {
        Self {
            plan,
            finished,
            check: DeliveryCheck::default(),
            span: None,
            delivered: 0,
            foreign: 0,
            latencies: latencies(),
        }
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Records the moment of the subscription.
    pub(super) fn subscribed(&mut self, at: Duration) {
        if self.plan.shape.replay {
            self.span = Some((at, at));
        }
    }

    /// A message arrived. Its payload is followed by `tail` bytes.
    pub(super) fn received(&mut self, message: &[u8], tail: usize, now: Duration) {
        let Some(content) = self.plan.mark.find(message, self.plan.shape.size, tail) else {
            self.foreign += 1;
            return;
        };
        self.delivered += 1;
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        self.check.delivered(content.publisher, content.sequence);
        let since = if self.plan.shape.replay { micros(first) } else { content.sent };
        if !self.plan.shape.replay || self.delivered == 1 {
            self.latencies.saturating_record(micros(now).saturating_sub(since));
        }
    }

    /// Whether everything acknowledged has arrived.
    pub(super) fn is_done(&self) -> bool {
        let finished = self.finished.borrow();
        finished.as_ref().is_some_and(|(counts, _)| self.check.is_complete(counts))
    }

    /// Completes when waiting longer is useless; never before the publishers are done.
    pub(super) fn expiry(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let (mut finished, plan) = (self.finished.clone(), self.plan.clone());
        async move {
            let deadline = match finished.wait_for(Option::is_some).await {
                Ok(value) => value.as_ref().map(|(_, deadline)| *deadline),
                // The run was canceled.
                Err(_) => None,
            };
            if let Some(deadline) = deadline {
                tokio::time::sleep_until(plan.instant(deadline)).await;
            }
        }
    }

    /// Completes as soon as the publishers are done.
    pub(super) fn publishers_done(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let mut finished = self.finished.clone();
        async move {
            // An error means that the run was canceled, which ends the subscriber as well.
            let _ = finished.wait_for(Option::is_some).await;
        }
    }

    pub(super) fn finish(self, error: Option<String>) -> Received {
        let time = self.span.map_or(Duration::ZERO, |(first, last)| last - first);
        Received {
            target: 0,
            check: self.check,
            delivered: self.delivered,
            time,
            foreign: self.foreign,
            latencies: self.latencies,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::load::tests::shape;
    use super::super::load::Shape;
    use super::super::payload::Content;
    use super::*;

    #[test]
    fn a_replay_counts_from_where_it_was_asked_for() {
        let ms = Duration::from_millis;
        let shape = Shape { replay: true, ..shape(None) };
        let plan = Arc::new(Plan::new(1, shape));
        let (_finish, finished) = watch::channel(None);
        let mut reception = Reception::new(plan.clone(), finished);
        reception.subscribed(ms(100));
        for (sequence, at) in [(0, 130), (1, 600)] {
            let mut text = BytesMut::new();
            plan.mark.write(&mut text, Content { publisher: 0, sequence, sent: 5 }, 64);
            reception.received(&text, 0, ms(at));
        }
        let received = reception.finish(None);
        assert_eq!((received.delivered, received.time), (2, ms(500)));
        assert_eq!((received.latencies.len(), received.latencies.max() / 1000), (1, 30));
    }
}
