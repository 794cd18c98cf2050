//! The service for all nodes: which member answers which request.
//!
//! Invariant: only a member that leads starts a leader's work.
//!
//! Deliberately absent: that work (`leader`), and the connections of requests.

use std::time::Duration;

use super::SyncNode;
use crate::ids::NodeId;
use crate::order::CloseReason;
use crate::router::Local;
use crate::sequencer::Proposal;
use crate::service::{Known, SyncCall, SyncReply, CALL_TIMEOUT};

impl SyncNode {
    /// Answers a request of another node.
    pub(super) async fn answer(&self, peer: NodeId, call: SyncCall) -> SyncReply {
        if let Err(reason) = call.check_speaker(peer) {
            return SyncReply::Unavailable(reason);
        }
        match call {
            SyncCall::Who => match self.inner.raft.is_initialized().await {
                Ok(initialized) => SyncReply::Who { blank: !initialized },
                Err(error) => SyncReply::Unavailable(error.to_string()),
            },
            SyncCall::Groups => match self.inner.groups(CALL_TIMEOUT / 4).await {
                Ok(groups) => SyncReply::Groups(groups),
                Err(error) => SyncReply::Unavailable(error.to_string()),
            },
            SyncCall::Known { node } => {
                let (held, stored) = self.inner.applied.state().sequencer.told_by(node);
                SyncReply::Known(Known { held, stored })
            }
            // This member has no order yet, or no longer. Without this answer, a follower that keeps asking a member whose disk
            // was wiped would never get anything.
            SyncCall::Follow { .. } if self.inner.applied.state().sequencer.groups().is_empty() => {
                SyncReply::Unavailable("this member has no storage groups yet".into())
            }
            SyncCall::Follow { from, max, wait_ms } => {
                let wait = Duration::from_millis(u64::from(wait_ms));
                match self.follow(from, max as usize, wait).await {
                    Ok(followed) => SyncReply::Followed(followed),
                    Err(error) => SyncReply::Unavailable(error.to_string()),
                }
            }
            call => self.lead(call).await,
        }
    }
}

impl Local for SyncNode {
    fn id(&self) -> NodeId {
        Self::id(self)
    }

    fn leader(&self) -> Option<NodeId> {
        Self::leader(self)
    }

    /// Carries out a leader's request, if this member leads.
    async fn lead(&self, call: SyncCall) -> SyncReply {
        if *self.inner.stopping.borrow() {
            return SyncReply::Unavailable("the node is shutting down".into());
        }
        let Some(_term) = self.inner.leading() else {
            let leader = self.leader().filter(|leader| *leader != self.id());
            return SyncReply::NotLeader { leader };
        };
        match call {
            SyncCall::Propose(segments) => self.inner.propose(segments).await,
            SyncCall::Open { entry, request } => self.inner.open(entry, request).await,
            SyncCall::Renew { entry, incarnation } => {
                SyncReply::Lease(self.inner.renew(entry, incarnation))
            }
            SyncCall::Close { entry, incarnation } => {
                let reason = CloseReason::Left;
                self.inner.done(Proposal::Close { entry, incarnation, reason }).await
            }
            SyncCall::Stored { storage, through } => {
                self.inner.done(Proposal::Stored { storage, through }).await
            }
            SyncCall::Confirm if self.inner.is_confirmed() => SyncReply::Done,
            SyncCall::Confirm => {
                SyncReply::Unavailable("the leader hears from no majority of the sync nodes".into())
            }
            SyncCall::Who | SyncCall::Groups | SyncCall::Follow { .. } | SyncCall::Known { .. } => {
                SyncReply::Unavailable("any member answers this".into())
            }
        }
    }
}
