//! From a seed to a plan: which faults happen when, for how long, and to which nodes.
//!
//! Each nemesis runs in its own lane, so different ones overlap.
//!
//! Invariant: the same seed, nemeses and time give the same plan. Each nemesis is in it at least once. A nemesis that has
//! smaller targets does not take the quorum away twice in a row, because acknowledgements between such faults show nothing.
//!
//! Deliberately absent: which node is the leader; that is found out when the fault happens.

use std::time::Duration;

use crate::dice::Dice;
use crate::network::weather::WEATHERS;
use crate::node::Role;

/// The target of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Leader,
    /// The entry that has the most clients.
    Busiest,
    One,
    Minority,
    Majority,
    All,
}

impl Aim {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Busiest => "busiest",
            Self::One => "one",
            Self::Minority => "minority",
            Self::Majority => "majority",
            Self::All => "all",
        }
    }

    /// Nothing is acknowledged while it lasts.
    fn takes_the_quorum(self) -> bool {
        matches!(self, Self::Majority | Self::All)
    }
}

/// The targets in turn with split roles: the nodes with a role, or all.
const ROUND: [Group; 4] = [Some(Role::Sync), Some(Role::Storage), Some(Role::Entry), None];

/// The nodes that a fault can be aimed at: those with this role, or all.
pub type Group = Option<Role>;

/// A planned fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub nemesis: String,
    /// The kind of the fault, if there are several.
    pub kind: &'static str,
    pub aim: Aim,
    pub group: Group,
    /// The seed of the random choices when it happens.
    pub seed: u64,
}

/// How long after the run's beginning the first faults happen, once clients have settled, and how long before the run's end the
/// last one ends.
const CALM: Duration = Duration::from_secs(3);

/// The pause of a nemesis between two faults, in milliseconds.
const REST: (u64, u64) = (1_000, 5_000);

/// Plans a run; with split roles, each nemesis takes them in turn.
#[must_use]
pub fn plan(seed: u64, nemeses: &[String], length: Duration, split: bool) -> Vec<Planned> {
    let dice = Dice::new(seed);
    let end = length.saturating_sub(CALM);
    let mut blows = Vec::new();
    for (lane, nemesis) in nemeses.iter().enumerate() {
        let mut dice = dice.fork(lane as u64 + 1_000);
        let mut at = CALM + Duration::from_millis(dice.below(REST.0));
        let mut round = if split { groups(nemesis).to_vec() } else { vec![None] };
        dice.clone().shuffle(&mut round);
        let mut last = None;
        for group in round.into_iter().cycle() {
            let (shortest, longest) = lasting(nemesis);
            let lasts = Duration::from_millis(dice.between(shortest, longest));
            let first = !blows.iter().any(|blow: &Planned| &blow.nemesis == nemesis);
            if at + lasts > end && !first {
                break;
            }
            let mut kinds = kinds(nemesis).to_vec();
            if split && nemesis == "partition" {
                kinds.extend(BETWEEN);
            }
            let kind = *dice.pick(&kinds);
            let aim = *dice.pick(&aims_after(last, nemesis, group));
            last = Some(aim);
            let seed = dice.throw();
            blows.push(Planned { at, lasts, nemesis: nemesis.clone(), kind, aim, group, seed });
            at += lasts + Duration::from_millis(dice.between(REST.0, REST.1));
            if nemesis == "corrupt" {
                // One disk of a minority, once: a damaged one may be lost.
                break;
            }
        }
    }
    blows.sort_by_key(|blow| blow.at);
    blows
}

/// How soon a failed fault is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// When each fault happens: the plan, and faults that failed, for example because a node was down. Such a fault is tried again
/// while there is time: a run that was made for this fault should not end without it. A disk is damaged only after `relay` has
/// struck once, because the node may be lost with its disk, and `relay` needs three.
#[derive(Debug)]
pub struct Agenda {
    /// In reverse order: the next fault is the last element.
    blows: Vec<(Duration, Planned)>,
    length: Duration,
    relay_is_due: bool,
}

impl Agenda {
    #[must_use]
    pub fn new(plan: Vec<Planned>, length: Duration) -> Self {
        let relay_is_due = plan.iter().any(|blow| blow.nemesis == "relay");
        let mut agenda = Self { blows: Vec::new(), length, relay_is_due };
        agenda.blows.extend(plan.into_iter().map(|blow| (blow.at, blow)));
        agenda.sort();
        agenda
    }

    fn sort(&mut self) {
        self.blows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// When the next fault is due, since the run began.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.blows.last().map(|(at, _)| *at)
    }

    /// The fault that is due.
    pub fn take(&mut self, now: Duration) -> Option<Planned> {
        self.next().filter(|at| *at <= now)?;
        let (_, blow) = self.blows.pop()?;
        if blow.nemesis == "corrupt" && self.relay_is_due {
            self.again(blow, now);
            return None;
        }
        Some(blow)
    }

    /// A fault of this nemesis has struck.
    pub fn struck(&mut self, nemesis: &str) {
        self.relay_is_due &= nemesis != "relay";
    }

    /// Schedules a failed fault again, if there is time for it.
    pub fn again(&mut self, blow: Planned, now: Duration) {
        let at = now + AGAIN;
        if at + blow.lasts <= self.length {
            self.blows.push((at, blow));
            self.sort();
        }
    }
}

/// Shortest and longest duration, in milliseconds.
fn lasting(nemesis: &str) -> (u64, u64) {
    match nemesis {
        // Longer than a lease, so that a paused node comes back to a cluster that continued without it.
        "pause" => (3_500, 7_000),
        "partition" | "clock" | "flaky" => (2_000, 8_000),
        "power" => (100, 2_500),
        // Long enough for the others to continue without the damaged node.
        "corrupt" => (2_000, 4_000),
        "restart" => (500, 1_000),
        "deaf" => (4_000, 10_000),
        _ => (500, 5_000),
    }
}

/// The targets of a nemesis with split roles.
fn groups(nemesis: &str) -> &'static [Group] {
    match nemesis {
        // Only entries have clients.
        "storm" | "deaf" => &[Some(Role::Entry)],
        "restart" => &[None],
        // Entries have nothing on disk.
        "relay" | "corrupt" | "eio" | "enospc" | "slow" => &[Some(Role::Sync), Some(Role::Storage)],
        _ => &ROUND,
    }
}

/// The roles that a nemesis hits, given some time.
#[must_use]
pub fn reached(nemesis: &str) -> Vec<Role> {
    match nemesis {
        // It happens once.
        "corrupt" => Vec::new(),
        "restart" => Role::ALL.to_vec(),
        _ => groups(nemesis).iter().copied().flatten().collect(),
    }
}

/// Partitions between the nodes of two roles, where roles are split.
pub const BETWEEN: [&str; 3] = ["entry-sync", "storage-sync", "entry-storage"];

fn kinds(nemesis: &str) -> &'static [&'static str] {
    match nemesis {
        "flaky" => &WEATHERS,
        "partition" => &["halves", "one", "ring", "bridge", "one-way"],
        "corrupt" => &["bits", "stale", "tail", "backup"],
        _ => &[""],
    }
}

/// The possible targets of a nemesis among the nodes of a group, after its last target.
fn aims_after(last: Option<Aim>, nemesis: &str, group: Group) -> Vec<Aim> {
    let fits = |aim: &Aim| match aim {
        Aim::Leader => group.is_none_or(|role| role == Role::Sync),
        Aim::Busiest => group.is_none_or(|role| role == Role::Entry),
        _ => true,
    };
    let mut aims: Vec<Aim> = aims(nemesis).iter().copied().filter(fits).collect();
    let can_hit_less = aims.iter().any(|aim| !aim.takes_the_quorum());
    if can_hit_less && last.is_some_and(Aim::takes_the_quorum) {
        aims.retain(|aim| !aim.takes_the_quorum());
    }
    aims
}

fn aims(nemesis: &str) -> &'static [Aim] {
    match nemesis {
        "kill" => &[
            Aim::Leader,
            Aim::Leader,
            Aim::Busiest,
            Aim::One,
            Aim::Minority,
            Aim::Majority,
            Aim::All,
        ],
        "pause" => &[Aim::Leader, Aim::Busiest, Aim::One, Aim::Minority, Aim::Majority],
        "power" => &[Aim::Leader, Aim::One, Aim::Majority, Aim::All, Aim::All],
        "slow" | "clock" | "flaky" => &[Aim::Leader, Aim::One, Aim::Majority, Aim::All],
        "restart" | "relay" | "storm" | "deaf" => &[Aim::All],
        "eio" | "enospc" => &[Aim::Leader, Aim::One],
        _ => &[Aim::Leader, Aim::Busiest, Aim::One, Aim::Minority],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blow_that_failed_is_tried_again_while_there_is_time() {
        let seconds = Duration::from_secs;
        let nemeses = ["kill".to_owned()];
        let planned = plan(1, &nemeses, seconds(60), false).into_iter().take(2);
        let [mut first, mut second] = planned.collect::<Vec<_>>().try_into().unwrap();
        (first.at, first.lasts) = (seconds(3), seconds(2));
        (second.at, second.lasts) = (seconds(5), seconds(2));
        let mut agenda = Agenda::new(vec![first.clone(), second.clone()], seconds(10));
        assert_eq!(agenda.next(), Some(seconds(3)));
        assert_eq!(agenda.take(seconds(2)), None);
        assert_eq!(agenda.take(seconds(4)), Some(first.clone()));
        agenda.again(first.clone(), seconds(5));
        assert_eq!(agenda.take(seconds(6)), Some(second));
        assert_eq!(agenda.take(seconds(6)), Some(first.clone()));
        // A fault that would outlast the run is left out.
        agenda.again(first, seconds(8));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn no_disk_is_damaged_before_what_needs_all_nodes() {
        let seconds = Duration::from_secs;
        let nemeses = ["corrupt".to_owned(), "relay".to_owned()];
        let mut planned = plan(1, &nemeses, seconds(60), false);
        planned.sort_by(|one, other| one.nemesis.cmp(&other.nemesis));
        for (at, blow) in planned.iter_mut().enumerate() {
            (blow.at, blow.lasts) = (seconds(3 + at as u64), seconds(2));
        }
        let [corrupt, relay] = [planned[0].clone(), planned[1].clone()];
        let mut agenda = Agenda::new(vec![corrupt.clone(), relay.clone()], seconds(60));
        assert_eq!(agenda.take(seconds(3)), None);
        assert_eq!(agenda.take(seconds(5)), None, "it is put off again");
        assert_eq!(agenda.take(seconds(5)), Some(relay.clone()));
        agenda.again(relay.clone(), seconds(6));
        assert_eq!(agenda.take(seconds(7)), None, "the relay has not struck yet");
        assert_eq!(agenda.take(seconds(7)), Some(relay));
        agenda.struck("relay");
        assert_eq!(agenda.take(seconds(9)), Some(corrupt));
    }

    #[test]
    fn plans_repeat_and_miss_nothing() {
        let nemeses: Vec<String> =
            super::super::NEMESES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let length = Duration::from_secs(45);
        for seed in 0..200 {
            let split = seed % 2 == 1;
            let blows = plan(seed, &nemeses, length, split);
            assert_eq!(blows, plan(seed, &nemeses, length, split));
            for nemesis in &nemeses {
                let mine: Vec<_> = blows.iter().filter(|b| &b.nemesis == nemesis).collect();
                assert!(!mine.is_empty(), "{nemesis}");
                assert!(mine.windows(2).all(|two| two[0].at + two[0].lasts < two[1].at));
                assert!(mine.iter().all(|blow| blow.at + blow.lasts <= length), "{mine:?}");
                let can_hit_less = aims(nemesis).iter().any(|aim| !aim.takes_the_quorum());
                let outages = |two: &[&Planned]| two.iter().all(|b| b.aim.takes_the_quorum());
                assert!(!can_hit_less || !mine.windows(2).any(outages), "{mine:?}");
                let hit: Vec<Group> = mine.iter().map(|blow| blow.group).collect();
                if !split {
                    assert!(hit.iter().all(Option::is_none), "{nemesis}: {hit:?}");
                } else if mine.len() >= ROUND.len() {
                    assert!(
                        reached(nemesis)
                            .iter()
                            .all(|role| { hit.contains(&Some(*role)) || nemesis == "restart" }),
                        "{nemesis}: {hit:?}"
                    );
                }
            }
        }
    }
}
