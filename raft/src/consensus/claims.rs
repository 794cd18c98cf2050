//! What a member may claim about itself when it leads or stands for election.
//!
//! Invariant: a member speaks in its own name, and in a term that the others can go on from.
//!
//! Deliberately absent: whether it has won its election, which Raft decides.

use super::types::Vote;
use crate::ids::NodeId;

/// How far ahead of this member's term another's may be: more than there are elections in a cluster's life. No member could go
/// on from the last term that there is.
const TERMS_AHEAD: u64 = 1 << 32;

/// Checks that a member speaks for itself, in a term that this member may follow it to.
pub(super) fn check(vote: &Vote, peer: NodeId, own_term: u64) -> Result<(), String> {
    let (node, term) = (vote.leader_id.node_id, vote.leader_id.term);
    if node != peer {
        return Err(format!("node {peer} speaks for itself, not for node {node}"));
    }
    if term > own_term.saturating_add(TERMS_AHEAD) {
        return Err(format!("node {peer} comes with term {term}, while this is term {own_term}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_speaks_for_itself_in_a_term_that_others_can_follow() {
        let vote = |term, node| Vote::new(term, NodeId(node));
        for (own, term) in [(0, 0), (0, 1), (7, 3), (7, 8), (7, 7 + TERMS_AHEAD), (u64::MAX, 9)] {
            assert_eq!(check(&vote(term, 2), NodeId(2), own), Ok(()), "{term} at {own}");
        }
        let other = check(&vote(8, 3), NodeId(2), 7).unwrap_err();
        assert_eq!(other, "node 2 speaks for itself, not for node 3");
        for (own, term) in [(0, 1 + TERMS_AHEAD), (7, u64::MAX), (7, u64::MAX / 2)] {
            let far = check(&vote(term, 2), NodeId(2), own).unwrap_err();
            assert!(far.contains("comes with term"), "{far}");
        }
    }
}
