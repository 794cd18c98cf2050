//! Whether a client is still there, whatever its session is busy with.
//!
//! Signs of life are every byte that comes from the client (on a slow link it can't send anything else within a large message)
//! and, while output waits for the socket, every byte that the socket takes (the client may be unable to answer while it has to
//! read). If nothing waits, bytes that the socket takes prove nothing: the operating system also takes them for a client that
//! is frozen.
//!
//! Invariant: a client without a sign of life is detected within the time of its terms, whether or not its socket is being
//! read.
//!
//! Deliberately absent: MQTT's keep-alive, which is the gate's; the gate is notified of signs that it can't see.

use vulpes_raft::mutant::{planted, Mutant};

use crate::types::limits;
use crate::types::moment::Moment;

/// What a client has to do to count as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    /// It is pinged when it is silent, and has to answer within the same time.
    Answers,
    /// It has to take at least some of the output that waits for it.
    Takes,
    /// It is checked elsewhere.
    Unwatched,
}

/// What is known of a client just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes that have come from it.
    pub(crate) came: u64,
    /// Bytes that its socket has taken.
    pub(crate) taken: u64,
    /// Something waits for its socket.
    pub(crate) waiting: bool,
    /// It is not read from, for reasons on our side.
    pub(crate) unheard: bool,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It has given a sign of life that only a socket shows.
    Sign,
    /// Nothing new.
    Nothing,
    /// It has to be pinged.
    Ask,
    Dead,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    last_sign: Moment,
    /// When it was pinged. Its time to answer begins then, however late that was.
    asked: Option<Moment>,
    seen: Seen,
}

impl Liveness {
    pub(crate) fn new(now: Moment) -> Self {
        Self { last_sign: now, asked: None, seen: Seen::default() }
    }

    /// Checks whether the client is alive by its terms.
    pub(crate) fn look(&mut self, now: Moment, terms: Terms, seen: Seen) -> Finding {
        let before = std::mem::replace(&mut self.seen, seen);
        let took = before.waiting && seen.taken > before.taken && !planted(Mutant::OverlookTaken);
        let busy = seen.waiting && planted(Mutant::JudgeWhileReading);
        let came = seen.came > before.came;
        let sign = came || took || before.unheard || seen.unheard || busy;
        let idle = match terms {
            Terms::Answers => false,
            Terms::Takes => !(before.waiting && seen.waiting),
            Terms::Unwatched => true,
        };
        if sign || idle {
            self.last_sign = now;
            self.asked = None;
            return if sign { Finding::Sign } else { Finding::Nothing };
        }
        match self.deadline(terms) {
            Some(deadline) if deadline <= now => {}
            _ => return Finding::Nothing,
        }
        if terms == Terms::Answers && self.asked.is_none() {
            self.asked = Some(now);
            // Output that waits is a ping already; another one would only queue behind it.
            return if seen.waiting { Finding::Nothing } else { Finding::Ask };
        }
        Finding::Dead
    }

    /// The time of the next check at the latest.
    pub(crate) fn deadline(&self, terms: Terms) -> Option<Moment> {
        let (since, patience) = match terms {
            Terms::Answers => (self.asked.unwrap_or(self.last_sign), limits::WAMP_SILENCE),
            Terms::Takes if self.seen.waiting => (self.last_sign, limits::SESSION_STALLED),
            Terms::Takes | Terms::Unwatched => return None,
        };
        Some(since.after(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Seen = Seen { came: 0, taken: 0, waiting: false, unheard: false };
    const STUCK: Seen = Seen { waiting: true, ..IDLE };

    /// Checks every second what a client shows then; returns the findings with their times, except `Nothing`.
    fn watch(terms: Terms, shows: impl Fn(u64) -> Seen) -> Vec<(u64, Finding)> {
        let mut liveness = Liveness::new(Moment(0));
        let mut found = Vec::new();
        for second in 0..200 {
            let finding = liveness.look(Moment(second * 1000), terms, shows(second));
            if finding != Finding::Nothing {
                found.push((second, finding));
            }
            if finding == Finding::Dead {
                break;
            }
        }
        found
    }

    #[test]
    fn a_silent_client_is_asked_and_then_dead() {
        assert_eq!(watch(Terms::Answers, |_| IDLE), [(5, Finding::Ask), (10, Finding::Dead)]);
    }

    /// A node that was stopped itself has to read the answer first.
    #[test]
    fn who_is_asked_late_has_its_time_to_answer() {
        let mut liveness = Liveness::new(Moment(0));
        let mut look = |second: u64| liveness.look(Moment(1000 * second), Terms::Answers, IDLE);
        assert_eq!([look(60), look(61), look(65)], [Finding::Ask, Finding::Nothing, Finding::Dead]);
    }

    #[test]
    fn a_frozen_client_with_a_backlog_is_as_dead() {
        assert_eq!(watch(Terms::Answers, |_| STUCK), [(10, Finding::Dead)]);
        let end = [(limits::SESSION_STALLED.as_secs(), Finding::Dead)];
        assert_eq!(watch(Terms::Takes, |_| STUCK), end);
        assert!(watch(Terms::Takes, |_| IDLE).is_empty());
        assert!(watch(Terms::Unwatched, |_| STUCK).is_empty());
    }

    #[test]
    fn what_the_system_takes_for_it_is_no_sign() {
        let trickle = |second| Seen { taken: 100 * second, ..IDLE };
        assert_eq!(watch(Terms::Answers, trickle), [(5, Finding::Ask), (10, Finding::Dead)]);
    }

    #[test]
    fn a_client_that_takes_what_waits_is_alive() {
        for terms in [Terms::Answers, Terms::Takes] {
            let slow = |second| Seen { taken: 10 * (second / 4), ..STUCK };
            let found = watch(terms, slow);
            assert!(found.iter().all(|(_, finding)| *finding == Finding::Sign), "{found:?}");
            assert_eq!(found.len(), 49);
        }
    }

    #[test]
    fn a_client_that_says_something_is_alive() {
        let says = |second| Seen { came: second / 4, ..STUCK };
        for terms in [Terms::Answers, Terms::Takes, Terms::Unwatched] {
            let found = watch(terms, says);
            assert!(found.iter().all(|(_, finding)| *finding == Finding::Sign), "{found:?}");
            assert_eq!(found.len(), 49);
        }
    }

    #[test]
    fn nobody_is_dead_for_not_being_listened_to() {
        let found = watch(Terms::Answers, |second| Seen { unheard: second < 100, ..IDLE });
        assert_eq!(found[100..], [(100, Finding::Sign), (105, Finding::Ask), (110, Finding::Dead)]);
    }
}
