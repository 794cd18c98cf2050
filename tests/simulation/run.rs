//! One run: a cluster, its clients, its faults and its checks, all from one seed.
//!
//! Invariant: a run with the same seed leaves the same trace. It passes only if there was no violation, everything settled in
//! bounded time after the last fault, and enough happened for the run to be meaningful.
//!
//! Deliberately absent: which seeds are run (`main`).

use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use turmoil::{Builder, Sim};
use vulpes_raft::mutant::{plant, Mutant};

use crate::births::{self, born};
use crate::calls::{callee, caller, CALLEES, CALLERS};
use crate::clients::{probe, publisher, reader, PUBLISHERS, READERS};
use crate::cluster::{Cluster, Ongoing, CLIENTS};
use crate::delays::{self, absentee, leaver};
use crate::insiders::{insider, INSIDERS};
use crate::keepers::keeper;
use crate::locks::{locker, LOCKERS};
use crate::plan::Plan;
use crate::record::{Counts, Phase, Record, Shared};
use crate::registers;
use crate::watchers::{watcher, WATCHERS};

/// One step of the simulation.
const TICK: Duration = Duration::from_millis(1);

/// Time limit for the cluster to settle, in milliseconds.
const REST: u64 = 30_000;

/// Nothing happened.
const NONE: Counts = Counts {
    attempts: 0,
    acknowledged: 0,
    delivered: 0,
    crashes: 0,
    cuts: 0,
    grants: 0,
    broken: 0,
    clocks: 0,
    left_behind: 0,
    released: 0,
    rotten: 0,
    retired: 0,
    answers: 0,
    joins: 0,
    calls: 0,
    early: 0,
    results: 0,
    heard: 0,
    births: 0,
    delayed: 0,
};

/// What a run has to contain to be meaningful. Under some fault schedules there is hardly ever a majority, and most publishes
/// stay unanswered; many runs together have to have enough of them.
const LEAST: Counts = Counts {
    attempts: 1,
    acknowledged: 1,
    delivered: 3,
    crashes: 1,
    cuts: 1,
    grants: 1,
    calls: CALLERS,
    early: 0,
    results: CALLERS,
    births: births::CLIENTS,
    ..NONE
};

/// Segments that may wait in one simulated socket.
const SOCKET: usize = 4_096;

/// The result of a run.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) counts: Counts,
    pub(crate) slots: u64,
    /// Milliseconds simulated.
    pub(crate) simulated: u64,
    pub(crate) trace: Vec<String>,
    pub(crate) failure: Option<String>,
}

/// Runs a plan, with a bug planted or not.
pub(crate) fn run(plan: &Plan, mutant: Option<Mutant>) -> Report {
    let shared = Shared::default();
    {
        let log = &mut shared.borrow_mut().log;
        log.shape = plan.shape;
        (log.times.wrong, log.times.age) = (plan.clocks, plan.age);
    }
    plant(mutant);
    let ran = catch_unwind(AssertUnwindSafe(|| simulate(plan, &shared)));
    plant(None);
    let failure = match ran {
        Ok(Ok(())) => shared.borrow().violation().map(str::to_owned),
        Ok(Err(reason)) => Some(reason),
        Err(panic) => Some(panic_text(panic.as_ref())),
    };
    let record = Rc::try_unwrap(shared).map_or_else(
        // Clients left over from a panic still hold it.
        |shared| std::mem::take(&mut *shared.borrow_mut()),
        RefCell::into_inner,
    );
    let counts = Counts { released: record.log.heads().len() as u64, ..record.counts };
    Report {
        seed: plan.seed,
        counts,
        slots: record.log.len(),
        simulated: record.now,
        failure,
        trace: record.into_trace(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}

fn builder(plan: &Plan) -> Builder {
    let mut builder = Builder::new();
    builder
        .rng_seed(plan.seed)
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3_600))
        .tcp_capacity(SOCKET)
        .min_message_latency(Duration::from_millis(plan.latency.0))
        .max_message_latency(Duration::from_millis(plan.latency.1))
        .enable_random_order();
    builder
}

fn add_clients(sim: &mut Sim<'_>, plan: &Plan, shared: &Shared) {
    for (side, host) in CLIENTS.into_iter().enumerate() {
        let (plan, shared) = (plan.clone(), shared.clone());
        sim.client(host, async move {
            let here = |number: &u64| *number as usize % CLIENTS.len() == side;
            // Each client is a separate task, so that a slow one doesn't block the others.
            let publishers = (0..PUBLISHERS / 2)
                .map(|number| number * 2 + side as u64)
                .map(|client| publisher(plan.clone(), client, shared.clone()))
                .map(tokio::task::spawn_local);
            let readers = (0..READERS)
                .filter(here)
                .map(|number| reader(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let entries = plan.serving().into_iter().filter(here);
            let probes = entries
                .map(|node| probe(plan.clone(), node, shared.clone()))
                .map(tokio::task::spawn_local);
            let lockers = (0..LOCKERS)
                .filter(here)
                .map(|number| locker(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let registrars = (0..registers::CLIENTS)
                .filter(here)
                .map(|number| registers::client(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let watchers = (0..WATCHERS)
                .filter(here)
                .map(|number| watcher(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let sharing = lockers.chain(registrars).chain(watchers);
            let callers = (0..CALLERS)
                .filter(here)
                .map(|number| caller(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let callees = (0..CALLEES)
                .filter(here)
                .map(|number| callee(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let keepers = (0..plan.keepers)
                .filter(here)
                .map(|number| keeper(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let born = (0..births::CLIENTS)
                .filter(here)
                .map(|number| born(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            let insiders = (0..if plan.rules { INSIDERS } else { 0 })
                .filter(here)
                .map(|number| insider(plan.clone(), number, shared.clone()))
                .map(tokio::task::spawn_local);
            // Only with wrong clocks: these take their time.
            let delays = (0..delays::CLIENTS).filter(here).filter(|_| plan.clocks.is_some());
            let delays = delays.flat_map(|number| {
                let leaver = leaver(plan.clone(), number, shared.clone());
                let absentee = absentee(plan.clone(), number, shared.clone());
                [tokio::task::spawn_local(leaver), tokio::task::spawn_local(absentee)]
            });
            let all = publishers.chain(readers).chain(probes).chain(sharing).chain(keepers);
            join_all(all.chain(callers).chain(callees).chain(insiders).chain(born).chain(delays))
                .await;
            Ok(())
        });
    }
}

fn simulate(plan: &Plan, shared: &Shared) -> Result<(), String> {
    let mut sim = builder(plan).build();
    let mut cluster = Cluster::new(&mut sim, plan);
    add_clients(&mut sim, plan, shared);
    shared.borrow_mut().trace(|| format!("{:?}", plan.tuning));
    let mut ongoing: Vec<(u64, Ongoing)> = Vec::new();
    let mut episodes = plan.episodes.iter().copied().peekable();
    loop {
        let now = shared.borrow().now;
        {
            let mut record = shared.borrow_mut();
            for at in (0..ongoing.len()).rev() {
                if ongoing[at].0 <= now {
                    let (_, fault) = ongoing.swap_remove(at);
                    cluster.end(&mut sim, fault, &mut record);
                }
            }
            while let Some(episode) = episodes.next_if(|episode| episode.begins <= now) {
                let fault = cluster.begin(&mut sim, episode.fault, &mut record);
                ongoing.push((episode.ends, fault));
            }
            if now == plan.quiet_from {
                record.trace(|| "at rest from here on".into());
                record.phase = Phase::Rest;
            }
        }
        sim.step().map_err(|error| format!("the simulation failed: {error}"))?;
        let mut record = shared.borrow_mut();
        record.now += 1;
        record.log.times.now = record.now;
        let overdue = record.log.delays.overdue(record.now);
        record.check(overdue);
        cluster.observe(&mut record);
        cluster.bury(&mut sim, &mut record);
        cluster.start_again(&mut sim, &mut record);
        if record.violation().is_some() {
            return Ok(());
        }
        if record.phase == Phase::Rest && now.is_multiple_of(20) {
            match unfinished(plan, &cluster, &record) {
                None if cluster.unmended().is_some() && now <= plan.quiet_from + REST => {}
                None => {
                    cluster.verdict(&mut record);
                    record.verdict();
                    record.counts.answers = record.registers.answered() as u64;
                    record.counts.joins = record.watches.joins();
                    record.counts.heard = record.insiders.heard();
                    record.counts.births = record.log.life.births;
                    record.counts.delayed = record.log.delays.published;
                    return coverage(plan, &record);
                }
                Some(reason) if now > plan.quiet_from + REST => {
                    return Err(format!("{REST} ms after the last fault, {reason}"));
                }
                Some(_) => {}
            }
        }
    }
}

fn unfinished(plan: &Plan, cluster: &Cluster, record: &Record) -> Option<String> {
    if !record.log.times.is_watched() {
        return Some("the order's time is not watched for long enough".into());
    }
    record.waiting(plan, READERS).or_else(|| cluster.unfinished(record))
}

fn coverage(plan: &Plan, record: &Record) -> Result<(), String> {
    let counts = record.counts;
    if plan.tuning.is_voting() && counts.early > 0 {
        return Err(format!("{} segments have their places without storage votes", counts.early));
    }
    let enough = counts.attempts >= LEAST.attempts
        && counts.acknowledged >= LEAST.acknowledged
        && counts.delivered >= LEAST.delivered
        // The target of a crash may have ended earlier because of its disk.
        && counts.crashes + counts.broken >= LEAST.crashes
        && counts.cuts >= LEAST.cuts
        && counts.grants >= LEAST.grants
        && counts.calls >= LEAST.calls
        && counts.results >= LEAST.results
        && counts.births >= LEAST.births;
    if enough {
        Ok(())
    } else {
        Err(format!("too little happened to mean anything: {counts:?}"))
    }
}
