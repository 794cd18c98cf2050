//! Decides whether a member may take part: it asks the others how much of the log it has acknowledged to them, and compares
//! that with what it has.
//!
//! A member that comes back with less has forgotten votes it gave, or entries it acknowledged, because its folder was replaced
//! with an older copy. It could vote twice in a term, or help a quorum for an order that contradicts the earlier one. Its own
//! files can't show this, since all of them are from the same copy. The order can: it records for each member how far it held
//! the log, and in which term; and for each storage, how far it had the order on disk.
//!
//! Invariant: until enough others have answered to make a majority together with this member, it neither votes, nor
//! stands for election, nor takes entries. Every member answers this question at any time, admitted or not, so that
//! members that all start at once admit each other.
//!
//! Deliberately absent: certainty about the last moments. What was acknowledged within about a second before everything stopped
//! may not be recorded in the order. And a group of one member has no other member to ask.

use std::time::Duration;

use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::Inner;
use crate::mutant::{planted, Mutant};
use crate::sequencer::Held;
use crate::service::{Known, ADMISSION_WAIT};

/// How long to wait before the others are asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// What this member has on its disk.
pub(super) async fn held_here(node: &Inner) -> std::io::Result<Held> {
    let mut log = node.log.clone();
    let last = log.get_log_state().await?.last_log_id.map_or(0, |last| last.index);
    let covered = node.applied.state().last.map_or(0, |last| last.index);
    let term = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    Ok(Held { term, index: last.max(covered) })
}

/// Asks until it is certain that this member still has everything it acknowledged to others, and then lets it take part; or
/// ends the node.
pub(super) async fn admit(node: &Inner, held: Held) {
    let members = node.config.members.len();
    let own = node.own().node;
    let mut told = false;
    loop {
        let answers = node.router.known(own, ADMISSION_WAIT).await;
        // What it has by now: the member that forms the group stands for election at once, and may have taken entries
        // since it started. A member with an older copy has taken none.
        let held = held_here(node).await.unwrap_or(held);
        if let Some(less) = answers.iter().find_map(|known| less(held, *known)) {
            if !planted(Mutant::AcceptOlderDisk) {
                (node.host.fatal)(&format!(
                    "node {own} has less than it has told the other sync members: {less}. Its data directory was put \
                     back from an older copy, or its disk lost what was written; give it the newest one, or an empty data \
                     directory and a new number"
                ));
                return;
            }
        }
        if answers.len() + 1 > members / 2 {
            node.admitted.send_replace(true);
            node.raft.runtime_config().elect(true);
            return;
        }
        if !told {
            tracing::info!("waiting for other sync members, to learn what this one has told them");
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What this member lacks compared with what others know of it, if anything.
fn less(held: Held, known: Known) -> Option<String> {
    let Held { term, index } = known.held;
    if index > held.index {
        return Some(format!("the log up to entry {index}, and has it up to {}", held.index));
    }
    (term > held.term).then(|| format!("that it was in term {term}, and was in {}", held.term))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;

    #[test]
    fn less_than_was_told_is_noticed() {
        for ((term, index), (known_term, known_index), is_less) in [
            ((0, 0), (0, 0), false),
            ((3, 9), (0, 0), false),
            ((3, 9), (3, 9), false),
            ((4, 10), (3, 9), false),
            ((3, 9), (3, 10), true),
            ((3, 9), (4, 9), true),
            ((3, 9), (4, 10), true),
            ((0, 0), (1, 1), true),
        ] {
            let known =
                Known { held: Held { term: known_term, index: known_index }, stored: Slot(0) };
            assert_eq!(less(Held { term, index }, known).is_some(), is_less, "{known:?}");
        }
    }
}
