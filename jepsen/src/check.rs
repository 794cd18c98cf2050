//! Judging a run: from its history to a verdict.
//!
//! Invariant: pure, and without any of the router's code. A check reports only what no correct cluster could have answered; an
//! operation with an unknown outcome may have happened or not. A check without enough data reports that, and a run with such a
//! check does not pass.
//!
//! Deliberately absent: how a run was made (`crate::run`), and what to do about the verdict.
//!
//! In reading order: [`story`] (the history in the checks' terms), then one file per question.

mod calls;
mod consumers;
mod convergence;
mod coverage;
mod locks;
mod loss;
mod order;
mod positions;
mod publishers;
mod register;
mod retained;
mod sessions;
pub mod story;
mod wills;

#[cfg(test)]
mod bad;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod ideal;
#[cfg(test)]
mod keepers;

use serde_json::{json, Value};

pub use calls::UNANSWERED;
pub use convergence::MARK;
pub use story::Story;

/// Most problems that are reported in full; the rest are only counted.
const TOLD: usize = 10;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many assertions it checked.
    pub looked_at: u64,
    /// How many of them were wrong.
    pub wrong: u64,
    /// The first of them.
    pub problems: Vec<String>,
    /// Why it could not check anything.
    pub blind: Option<String>,
}

impl Findings {
    fn look(&mut self) {
        self.looked_at += 1;
    }

    fn problem(&mut self, text: String) {
        self.wrong += 1;
        if self.problems.len() < TOLD {
            self.problems.push(text);
        }
    }

    /// Checks one thing, which must hold.
    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.look();
        if !holds {
            self.problem(otherwise());
        }
    }

    fn blind(reason: &str) -> Self {
        Self { blind: Some(reason.to_owned()), ..Self::default() }
    }
}

/// A check that is applied to every run.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub name: &'static str,
    /// What must hold.
    pub claim: &'static str,
    find: fn(&Story) -> Findings,
}

/// All checks, in the order in which they are reported.
pub const CHECKS: [Check; 15] = [
    Check {
        name: "loss",
        claim: "every acknowledged event is in the log, at the reported position",
        find: loss::lost,
    },
    Check {
        name: "phantom",
        claim: "every event that was seen was published before, and not refused",
        find: loss::phantom,
    },
    Check {
        name: "positions",
        claim: "a position holds one event for everybody, and an event has one position",
        find: positions::check,
    },
    Check {
        name: "order",
        claim:
            "slots and positions are dense, segments come once and in order, at all nodes the same",
        find: order::check,
    },
    Check {
        name: "consumers",
        claim: "each consumer sees an unbroken run of the log, over all its connections",
        find: consumers::check,
    },
    Check {
        name: "publishers",
        claim: "the log keeps the order of each session's events",
        find: publishers::own_order,
    },
    Check {
        name: "real-time",
        claim: "an event published after an acknowledgement comes after it in the log",
        find: publishers::real_time,
    },
    Check {
        name: "register",
        claim: "retained values are linearizable registers with compare-and-set",
        find: register::check,
    },
    Check {
        name: "locks",
        claim: "a lock has one holder, and tokens only grow",
        find: locks::check,
    },
    Check {
        name: "retained",
        claim: "a subscription begins with the values as of one position and continues after it",
        find: retained::check,
    },
    Check {
        name: "wills",
        claim: "the will of a session that ends comes once, unless it was unbound, and before its client's next publishes",
        find: wills::check,
    },
    Check {
        name: "sessions",
        claim: "a session that outlives its connections misses nothing, and marks what comes again",
        find: sessions::check,
    },
    Check {
        name: "calls",
        claim: "each call is answered once, by its own result or an error, and carried out once at most",
        find: calls::check,
    },
    Check {
        name: "convergence",
        claim: "once healed, all nodes serve again and come to the same state",
        find: convergence::check,
    },
    Check {
        name: "coverage",
        claim: "each fault really happened, and operations succeeded meanwhile",
        find: coverage::check,
    },
];

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was requested was checked, and nothing was wrong.
    Passed,
    /// The cluster broke a promise.
    Violated,
    /// The run does not contain enough to decide.
    Inconclusive,
}

/// What all checks found.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub findings: Vec<(Check, Findings)>,
    pub outcome: Outcome,
}

/// Runs all checks.
#[must_use]
pub fn judge(story: &Story) -> Verdict {
    let findings: Vec<_> = CHECKS.iter().map(|check| (*check, (check.find)(story))).collect();
    let violated = |(check, found): &(Check, Findings)| found.wrong > 0 && check.name != "coverage";
    let lacking = |(_, found): &(Check, Findings)| found.wrong > 0 || found.blind.is_some();
    let outcome = if findings.iter().any(violated) {
        Outcome::Violated
    } else if findings.iter().any(lacking) {
        Outcome::Inconclusive
    } else {
        Outcome::Passed
    };
    Verdict { findings, outcome }
}

impl Verdict {
    /// Names of the checks that found something wrong.
    #[must_use]
    pub fn red(&self) -> Vec<&'static str> {
        self.findings.iter().filter(|(_, f)| f.wrong > 0).map(|(check, _)| check.name).collect()
    }

    /// The verdict in the form of `results.edn`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let valid = match self.outcome {
            Outcome::Passed => json!(true),
            Outcome::Violated => json!(false),
            Outcome::Inconclusive => json!("unknown"),
        };
        let mut value = json!({ "valid?": valid });
        for (check, found) in &self.findings {
            let valid = match (&found.blind, found.wrong) {
                (_, 1..) => json!(false),
                (Some(_), 0) => json!("unknown"),
                (None, 0) => json!(true),
            };
            value[check.name] = json!({
                "valid?": valid,
                "looked-at": found.looked_at,
                "wrong": found.wrong,
                "problems": found.problems,
                "blind": found.blind,
            });
        }
        value
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (check, found) in &self.findings {
            let word = match (&found.blind, found.wrong, found.looked_at) {
                (_, 1.., _) => "WRONG",
                (Some(_), ..) => "BLIND",
                (None, 0, 0) => "-",
                _ => "ok",
            };
            writeln!(f, "{word:>5}  {:<12} {:>8}  {}", check.name, found.looked_at, check.claim)?;
            if let Some(reason) = &found.blind {
                writeln!(f, "         could not look: {reason}")?;
            }
            for problem in &found.problems {
                writeln!(f, "         {problem}")?;
            }
            let untold = found.wrong - found.problems.len() as u64;
            if untold > 0 {
                writeln!(f, "         and {untold} more")?;
            }
        }
        match self.outcome {
            Outcome::Passed => write!(f, "passed"),
            Outcome::Violated => write!(f, "VIOLATED"),
            Outcome::Inconclusive => {
                write!(f, "no verdict: the run does not show what it was made for")
            }
        }
    }
}
