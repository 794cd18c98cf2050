//! What a session's client may see of the log: by the rules at each event's own position.
//!
//! The gate holds what the client may do now. A session that is behind also knows what held before the last changes, one piece
//! at a time: it asks its node for the next piece when it comes to an event that no piece is about.
//!
//! Invariant: no event goes by earlier rules than those at its position, nor by earlier ones than those when the client asked
//! to read it.
//!
//! Deliberately absent: where the rules come from (`core`).

use vulpes_raft::ids::Position;
use vulpes_raft::mutant::{planted, Mutant};

use crate::realm::PastPermissions;
use crate::rules::Permissions;
use crate::types::rule::Action;
use crate::types::topic::Topic;

#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// The last change of users or roles that the gate's permissions contain.
    newest: Position,
    /// The last change before the client asked for older events: those go by the rules behind it.
    begun: Position,
    past: Option<Box<PastPermissions>>,
}

impl Sight {
    /// The gate has the permissions as of this change.
    pub(crate) fn changed(&mut self, newest: Position) {
        self.newest = newest;
    }

    /// As of which change the gate has permissions.
    pub(crate) fn newest(&self) -> Position {
        self.newest
    }

    /// The client asks for events that may be older.
    pub(crate) fn begin(&mut self) {
        self.begun = self.newest;
    }

    /// What held at a position that the client has come to.
    pub(crate) fn look_back(&mut self, past: PastPermissions) {
        self.past = Some(Box::new(past));
    }

    /// Forgets what held before.
    pub(crate) fn rest(&mut self) {
        self.past = None;
    }

    /// Whether the client may see an event of a topic at a position. `now` is what it may do now.
    ///
    /// # Errors
    /// A position: what held there has to be looked up first.
    pub(crate) fn may_see(
        &mut self,
        now: &mut Permissions,
        topic: &Topic,
        at: Position,
    ) -> Result<bool, Position> {
        let at = at.max(Position(self.begun.0 + 1));
        if at > self.newest || planted(Mutant::SeeByTheNewest) {
            return Ok(may_see(now, topic));
        }
        match &mut self.past {
            Some(past) if past.from < at && at <= past.until => {
                Ok(may_see(&mut past.permissions, topic))
            }
            _ => Err(at),
        }
    }
}

/// Whether a client with these permissions may see events of a topic.
pub(crate) fn may_see(permissions: &mut Permissions, topic: &Topic) -> bool {
    permissions.allow(Action::Subscribe, topic) || planted(Mutant::DeliverForbidden)
}
