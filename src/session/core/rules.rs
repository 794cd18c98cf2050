//! What the session's client may do, kept current while rules change.
//!
//! Invariant: the gate goes by rules that are at least as new as those at every position that the session has read.
//!
//! Deliberately absent: what is done about a refusal (`gate`).

use vulpes_raft::ids::Position;
use vulpes_raft::mutant::{planted, Mutant};

use super::{Core, Node};
use crate::gate::{Gate, OpenRefusal};
use crate::realm::PastPermissions;
use crate::rules::Permissions;
use crate::types::act::{Join, Will};
use crate::types::topic::Realm;

impl<G: Gate, R> Core<G, R> {
    /// Whether the client may begin this session, as far as this node knows. All nodes decide about its user and name again where the
    /// session begins, and about its will where that is published.
    pub(super) fn admit(
        &mut self,
        realm: &Realm,
        join: &Join,
        user: Option<&str>,
        node: &impl Node,
    ) -> Result<(), OpenRefusal> {
        node.admit(user, join.client.as_deref(), realm)?;
        let (mut may, changed) = node.permissions(user, join.client.as_deref(), realm);
        self.sight.changed(changed);
        let allowed = |will: &Will| may.allow_publish(&will.topic, will.retain);
        if !join.will.as_ref().is_none_or(allowed) {
            return Err(OpenRefusal::WillNotAllowed);
        }
        *self.gate.permissions() = may;
        Ok(())
    }

    /// Takes the newest permissions that the node knows: at least those at every position that the session has read.
    pub(super) fn follow_rules(&mut self, node: &impl Node) {
        let newest = node.access_changed();
        if newest == self.sight.newest() || !self.listens() || planted(Mutant::KeepOldRules) {
            return;
        }
        let (may, changed) = match node.own_permissions() {
            Some(may) => may,
            // It is over, and has not learned that yet.
            None if self.is_open() => (Permissions::nothing(), newest),
            None => return,
        };
        *self.gate.permissions() = may;
        self.sight.changed(changed);
    }

    /// The session has come to an event from before the last change.
    pub(super) fn look_back(&mut self, at: Position, node: &impl Node) {
        let over = PastPermissions {
            permissions: Permissions::nothing(),
            from: Position(0),
            until: self.sight.newest(),
        };
        self.sight.look_back(node.past_permissions(at).unwrap_or(over));
    }
}
