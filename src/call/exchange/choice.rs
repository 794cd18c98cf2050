//! Chooses the callee of a call, by an entry's fold of the log.
//!
//! Invariant: pure; the same fold, turn and random number choose the same callee.
//!
//! Deliberately absent: callees' load. Only their own entries know it.

use vulpes_raft::ids::{NodeId, Slot};

use super::Exchange;
use crate::realm::Realms;
use crate::types::event::SessionId;
use crate::types::procedure::{Invoke, Matching, RegistrationId};
use crate::types::topic::Realm;

/// A callee's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    Here,
    Node(NodeId),
}

/// The chosen callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub callee: SessionId,
    pub registration: RegistrationId,
    pub site: Site,
    /// The registration is for more than one procedure.
    pub is_pattern: bool,
    pub disclose_caller: bool,
    /// The slot up to which the fold had read.
    pub seen: Slot,
}

impl Exchange {
    /// Chooses for a call at entry `own`. `chance` is a random number.
    pub fn choose(
        &mut self,
        realms: &Realms,
        own: NodeId,
        (realm, procedure): (&Realm, &str),
        chance: u64,
    ) -> Option<Chosen> {
        let (matching, registration) = realms.registered_for(realm, procedure)?;
        let count = registration.callees.len() as u64;
        let at = match registration.invoke {
            Invoke::Single | Invoke::First => 0,
            Invoke::Last => count.saturating_sub(1),
            Invoke::RoundRobin => self.turn(registration.id) % count.max(1),
            Invoke::Random => chance % count.max(1),
        };
        let callee = registration.callees.get(usize::try_from(at).unwrap_or(0))?;
        let entry = realms.session(callee.session)?.entry;
        Some(Chosen {
            callee: callee.session,
            registration: registration.id,
            site: if entry == own { Site::Here } else { Site::Node(entry) },
            is_pattern: matching != Matching::Exact,
            disclose_caller: callee.disclose_caller,
            seen: realms.next(),
        })
    }
}
