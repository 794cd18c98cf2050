//! From a seed to a plan: which blows fall when, for how long, on whom.
//!
//! Each nemesis has a lane of its own, so that different ones overlap.
//!
//! Invariant: the same seed, nemeses and time give the same plan. Each nemesis is in it at least once.
//!
//! Deliberately absent: which node is the leader; that is seen when the blow falls.

use std::time::Duration;

use crate::dice::Dice;

/// Whom a blow is meant for.
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
}

/// A blow that is to fall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub nemesis: String,
    /// Which kind of it, where there are several.
    pub kind: &'static str,
    pub aim: Aim,
    /// Settles what is left to chance when it falls.
    pub seed: u64,
}

/// The first blows fall when clients have settled, the last ends this long before the run does.
const CALM: Duration = Duration::from_secs(3);

/// How long a nemesis rests between two blows, in milliseconds.
const REST: (u64, u64) = (1_000, 5_000);

/// Plans a run.
#[must_use]
pub fn plan(seed: u64, nemeses: &[String], length: Duration) -> Vec<Planned> {
    let dice = Dice::new(seed);
    let end = length.saturating_sub(CALM);
    let mut blows = Vec::new();
    for (lane, nemesis) in nemeses.iter().enumerate() {
        let mut dice = dice.fork(lane as u64 + 1_000);
        let mut at = CALM + Duration::from_millis(dice.below(REST.0));
        loop {
            let (shortest, longest) = lasting(nemesis);
            let lasts = Duration::from_millis(dice.between(shortest, longest));
            let first = !blows.iter().any(|blow: &Planned| &blow.nemesis == nemesis);
            if at + lasts > end && !first {
                break;
            }
            let kind = *dice.pick(kinds(nemesis));
            let aim = *dice.pick(aims(nemesis));
            let seed = dice.throw();
            blows.push(Planned { at, lasts, nemesis: nemesis.clone(), kind, aim, seed });
            at += lasts + Duration::from_millis(dice.between(REST.0, REST.1));
            if nemesis == "corrupt" {
                // One disk of a minority, once: what was damaged may be lost.
                break;
            }
        }
    }
    blows.sort_by_key(|blow| blow.at);
    blows
}

/// Shortest and longest, in milliseconds.
fn lasting(nemesis: &str) -> (u64, u64) {
    match nemesis {
        // Longer than a lease, so that a paused node comes back to a world that went on without it.
        "pause" => (3_500, 7_000),
        "partition" | "clock" => (2_000, 8_000),
        "power" => (100, 2_500),
        // Long enough for the others to go on without the damaged node.
        "corrupt" => (2_000, 4_000),
        "restart" => (500, 1_000),
        "deaf" => (4_000, 10_000),
        _ => (500, 5_000),
    }
}

fn kinds(nemesis: &str) -> &'static [&'static str] {
    match nemesis {
        "partition" => &["halves", "one", "ring", "bridge", "one-way"],
        "corrupt" => &["bits", "stale", "tail"],
        _ => &[""],
    }
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
        "slow" | "clock" => &[Aim::Leader, Aim::One, Aim::Majority, Aim::All],
        "restart" | "relay" | "storm" | "deaf" => &[Aim::All],
        "eio" | "enospc" => &[Aim::Leader, Aim::One],
        _ => &[Aim::Leader, Aim::Busiest, Aim::One, Aim::Minority],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_repeat_and_miss_nothing() {
        let nemeses: Vec<String> =
            super::super::NEMESES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let length = Duration::from_secs(45);
        for seed in 0..200 {
            let blows = plan(seed, &nemeses, length);
            assert_eq!(blows, plan(seed, &nemeses, length));
            for nemesis in &nemeses {
                let mine: Vec<_> = blows.iter().filter(|b| &b.nemesis == nemesis).collect();
                assert!(!mine.is_empty(), "{nemesis}");
                assert!(mine.windows(2).all(|two| two[0].at + two[0].lasts < two[1].at));
                assert!(mine.iter().all(|blow| blow.at + blow.lasts <= length), "{mine:?}");
            }
        }
    }
}
