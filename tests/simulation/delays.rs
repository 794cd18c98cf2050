//! What should happen only after a while: wills with a delay, and sessions that expire while their clients are away.
//!
//! Checked here, in runs whose clocks are wrong by 400 days: a delayed will comes once, not before and not long after
//! its delay; a client that comes back in time finds its session, however long it was connected before; one that
//! comes back too late does not.
//!
//! Invariant: only the simulation's time decides, not any node's clock or the order's time.
//!
//! Deliberately absent: the sessions' contents (`keepers`), and wills that are due at once (`births`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use vulpes::log::Placed;
use vulpes::types::act::{Act, Join};
use vulpes::types::event::SessionId;
use vulpes_raft::ids::{Incarnation, NodeId};

use crate::births::ends;
use crate::chance::Chance;
use crate::connection::within;
use crate::mqtt::{Lasting, Mqtt};
use crate::plan::Plan;
use crate::record::{Phase, Shared};
use crate::times::RUNS_FROM;

/// Prefix of their wills' topics, which subscribers of everything don't get.
pub(crate) const TOPICS: &str = "$late/";

/// How many clients leave wills, and how many have persistent sessions.
pub(crate) const CLIENTS: u64 = 2;

/// Prefix of the names of clients with wills.
const NAME: &str = "late-";

/// Their seeds start here.
const CHANCES: u64 = 700;

/// The wills' delay and the sessions' expiry, in milliseconds.
const DELAY: u64 = 8_000;

/// How much too early it may be. The order's time may have stood still when the wait began, because too few clocks
/// were known; then it runs on.
const EARLY: u64 = 5_000;

/// How much too late it may be, from [`RUNS_FROM`] on: the time lost when all clocks were corrected, and some
/// answers.
const LATE: u64 = 6_000;

/// Time limit for opening: a node may wait for another one's last word, and for a quorum.
const OPENING: Duration = Duration::from_millis(3_000);

/// A session with a delayed will, while it lasts.
struct Living {
    place: (NodeId, Incarnation),
}

/// What the log shows about delayed wills.
#[derive(Default)]
pub(crate) struct DelayLog {
    living: BTreeMap<SessionId, Living>,
    /// Wills that are waiting, and since when.
    left: BTreeMap<SessionId, u64>,
    /// Wills that came in time.
    pub(crate) published: u64,
}

impl DelayLog {
    /// The next slot, at this time.
    pub(crate) fn take(&mut self, placed: &Placed, now: u64) -> Result<(), String> {
        self.end_all(now, |place| ends(&placed.resolution.step, place));
        let Some(segment) = &placed.segment else { return Ok(()) };
        let id = segment.id();
        for event in segment.events() {
            let topic = segment.topics()[event.topic as usize].1.as_str();
            match Act::decode(&event.act) {
                Some(Act::Attach(attach)) => {
                    self.begin(event.publisher, (id.entry, id.incarnation), &attach.join);
                }
                Some(Act::Gone(gone)) => self.end(event.publisher, gone.drop_will, now),
                // A request that comes too early is refused, as it should be.
                Some(Act::Due(due))
                    if topic.starts_with(TOPICS) && !placed.is_hidden(event.offset) =>
                {
                    self.shown(due.session, now)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, session: SessionId, place: (NodeId, Incarnation), join: &Join) {
        if join.client.as_ref().is_some_and(|client| client.starts_with(NAME)) {
            self.living.insert(session, Living { place });
        }
    }

    fn end(&mut self, session: SessionId, drop_will: bool, now: u64) {
        if self.living.remove(&session).is_some() && !drop_will {
            self.left.insert(session, now);
        }
    }

    fn end_all(&mut self, now: u64, over: impl Fn((NodeId, Incarnation)) -> bool) {
        let ended = self.living.iter().filter(|(_, living)| over(living.place));
        for session in ended.map(|(session, _)| *session).collect::<Vec<_>>() {
            self.end(session, false, now);
        }
    }

    fn shown(&mut self, session: SessionId, now: u64) -> Result<(), String> {
        let Some(since) = self.left.remove(&session) else {
            return Err(format!("the delayed will of {session:?} is shown, and not left"));
        };
        let passed = now - since;
        if passed + EARLY < DELAY {
            return Err(format!(
                "the will of {session:?}, {DELAY} ms delayed, comes after {passed}"
            ));
        }
        self.published += 1;
        Ok(())
    }

    /// A will that should have come by now.
    pub(crate) fn overdue(&self, now: u64) -> Result<(), String> {
        let late = |since: u64| since.max(RUNS_FROM) + DELAY + LATE < now;
        let Some((session, since)) = self.left.iter().find(|(_, since)| late(**since)) else {
            return Ok(());
        };
        let passed = now - since;
        Err(format!("the will of {session:?}, {DELAY} ms delayed, has not come after {passed}"))
    }

    /// A will that has not come yet, or may still be left.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let session = self.left.keys().chain(self.living.keys()).next()?;
        Some(format!("the delayed will of {session:?} is not published"))
    }
}

/// Clients that have seen everything they have to see.
#[derive(Default)]
pub(crate) struct Delays(BTreeSet<u64>);

impl Delays {
    pub(crate) fn unfinished(&self) -> Option<String> {
        let client = (0..CLIENTS).find(|client| !self.0.contains(client))?;
        Some(format!("client {client} of those that go away for long has not seen all"))
    }
}

/// Leaves delayed wills at any node, one after the other, while there are faults.
pub(crate) async fn leaver(plan: Plan, client: u64, shared: Shared) {
    let mut chance = plan.chance(CHANCES + client);
    // Sessions that end with their node, or some time later.
    let mut others = Vec::new();
    for number in 0_u64.. {
        if shared.borrow().now >= RUNS_FROM {
            return;
        }
        let node = crate::node::name(chance.pick(&plan.serving()));
        let (name, topic) = (format!("{NAME}{client}-{number}"), format!("{TOPICS}{client}"));
        let lasting = Lasting { expiry: 60, will: Some((topic, (DELAY / 1000) as u32)) };
        let opened = within(OPENING, Mqtt::lasting(&node, &name, &lasting)).await;
        shared.borrow_mut().trace(|| format!("{name} has a will at {node}: {}", opened.is_ok()));
        others.extend(opened);
        tokio::time::sleep(Duration::from_millis(chance.between(50, 600))).await;
        if chance.one_in(3) {
            others.clear();
        } else if chance.one_in(2) {
            others.pop();
        }
    }
}

/// Disconnects and comes back: often and soon while there are faults. Then once too late, or after it was connected for longer
/// than its session's expiry.
pub(crate) async fn absentee(plan: Plan, client: u64, shared: Shared) {
    let mut absentee = Absentee {
        chance: plan.chance(CHANCES + CLIENTS + client),
        nodes: plan.serving(),
        name: format!("away-{client}"),
        client,
        shared: shared.clone(),
        last_there: None,
    };
    while shared.borrow().now < RUNS_FROM {
        let _ = absentee.call().await;
    }
    while absentee.show().await.is_err() {}
    let mut record = shared.borrow_mut();
    record.trace(|| format!("client {client} has seen all"));
    record.delays.0.insert(client);
}

struct Absentee {
    chance: Chance,
    nodes: Vec<u64>,
    name: String,
    client: u64,
    shared: Shared,
    /// The last moment at which it was certainly connected.
    last_there: Option<u64>,
}

impl Absentee {
    fn now(&self) -> u64 {
        self.shared.borrow().now
    }

    /// Connects somewhere; its session has to be there if it comes back in time.
    async fn connect(&mut self) -> io::Result<(Mqtt, bool)> {
        let node = crate::node::name(self.chance.pick(&self.nodes));
        let lasting = Lasting { expiry: (DELAY / 1000) as u32, will: None };
        let opened = within(OPENING, Mqtt::lasting(&node, &self.name, &lasting)).await;
        let (now, name) = (self.now(), &self.name);
        let present = opened.as_ref().map(|(_, present)| *present);
        self.shared.borrow_mut().trace(|| format!("{name} is at {node}: {present:?}"));
        let Ok((mqtt, present)) = opened else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return opened;
        };
        let away = self.last_there.map(|last| now - last);
        if !present && away.is_some_and(|away| away + EARLY < DELAY) {
            let reason = format!("{name} was away for {away:?} of {DELAY} ms, and is forgotten");
            self.shared.borrow_mut().check(Err(reason));
        }
        self.last_there = Some(now);
        Ok((mqtt, present))
    }

    async fn leave(&mut self, mut mqtt: Mqtt) -> io::Result<()> {
        self.last_there = Some(self.now());
        within(OPENING, mqtt.leave()).await
    }

    /// Connects for a moment, and leaves with or without a DISCONNECT.
    async fn call(&mut self) -> io::Result<()> {
        let (mqtt, _) = self.connect().await?;
        tokio::time::sleep(Duration::from_millis(self.chance.between(10, 500))).await;
        if self.chance.one_in(2) {
            self.leave(mqtt).await?;
        }
        self.last_there = Some(self.now());
        tokio::time::sleep(Duration::from_millis(self.chance.between(0, 1_500))).await;
        Ok(())
    }

    /// Every other client stays connected long and comes back soon; the others stay away too long.
    async fn show(&mut self) -> io::Result<()> {
        let (mut mqtt, _) = self.connect().await?;
        let stays = self.client.is_multiple_of(2);
        if stays {
            // An earlier connection attempt of the same client may arrive late and take over.
            match within(Duration::from_millis(DELAY + LATE), mqtt.next()).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.leave(mqtt).await?;
        if !stays {
            tokio::time::sleep(Duration::from_millis(DELAY + LATE)).await;
        }
        let (_mqtt, present) = self.connect().await?;
        if present && !stays {
            let away = DELAY + LATE;
            let reason = format!("{} was away for {away} of {DELAY} ms, and is known", self.name);
            self.shared.borrow_mut().check(Err(reason));
        }
        Ok(())
    }
}

/// What has to be seen before a run with wrong clocks is over.
pub(crate) fn unfinished(log: &DelayLog, delays: &Delays, phase: Phase) -> Option<String> {
    let waits = log.unfinished().or_else(|| delays.unfinished());
    waits.filter(|_| phase == Phase::Rest)
}
