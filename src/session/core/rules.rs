//! What the session's client may do, kept current while rules change.
//!
//! Invariant: the gate never goes by older rules than those at the position of an event that is handed to it.
//!
//! Deliberately absent: what is done about a refusal (`gate`).

use vulpes_raft::mutant::{planted, Mutant};

use super::{Core, Node};
use crate::gate::{Gate, OpenRefusal};
use crate::rules::Permissions;
use crate::types::act::{Join, Will};
use crate::types::topic::Realm;

impl<G: Gate, R> Core<G, R> {
    /// Whether the client may begin this session, as far as this node knows. All nodes decide about its user again where the
    /// session begins, and about its will where that is published.
    pub(super) fn admit(
        &mut self,
        realm: &Realm,
        join: &Join,
        user: Option<&str>,
        node: &impl Node,
    ) -> Result<(), OpenRefusal> {
        node.admit(user)?;
        self.access_revision = node.access_revision();
        let mut may = node.permissions(user, join.client.as_deref(), realm);
        let allowed = |will: &Will| may.allow_publish(&will.topic, will.retain);
        if !join.will.as_ref().is_none_or(allowed) {
            return Err(OpenRefusal::WillNotAllowed);
        }
        *self.gate.permissions() = may;
        Ok(())
    }

    /// Goes by the newest rules that the node knows: at least those of everything that the session has read.
    pub(super) fn follow_rules(&mut self, node: &impl Node) {
        let revision = node.access_revision();
        if revision == self.access_revision || !self.listens() || planted(Mutant::KeepOldRules) {
            return;
        }
        let may = match node.own_permissions() {
            Some(may) => may,
            // It is over, and has not learned that yet.
            None if self.is_open() => Permissions::nothing(),
            None => return,
        };
        *self.gate.permissions() = may;
        self.access_revision = revision;
    }
}
