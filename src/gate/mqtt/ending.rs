//! What a client is told when its node ends the session.
//!
//! Deliberately absent: how it is told, which depends on its version (`mqtt`).

use super::packet::{Reason, Violation};
use crate::gate::EndReason;
use crate::types::subscription::SubscribeError;

/// The code and text of a DISCONNECT, or of a CONNACK if the session is not open yet.
pub(super) fn of_end(reason: EndReason) -> Violation {
    let (reason, text) = match reason {
        EndReason::Shutdown => (Reason::ServerShuttingDown, "the node is shutting down"),
        EndReason::TakenOver => {
            (Reason::SessionTakenOver, "another connection took the session over")
        }
        EndReason::Unavailable => {
            (Reason::ServerBusy, "a message stays unanswered; it may or may not be stored")
        }
        EndReason::Lost => {
            (Reason::ServerBusy, "the node lost its lease; the session is over everywhere")
        }
        EndReason::Revoked => {
            (Reason::NotAuthorized, "the user was removed or disabled, or has to log in")
        }
        EndReason::Banned => {
            (Reason::AdministrativeAction, "an administrator has banned this client")
        }
        EndReason::Expired => {
            (Reason::NotAuthorized, "the token has expired; log in with a new one")
        }
        EndReason::TooSlow => {
            (Reason::ServerBusy, "a large message came too slowly while others waited")
        }
        EndReason::HandshakeTimeout => {
            (Reason::ServerUnavailable, "the session was not opened in time")
        }
        EndReason::FellBehind { oldest } => {
            let text = SubscribeError::Gone { oldest }.to_string();
            return Violation::new(Reason::ImplementationSpecific, text);
        }
    };
    Violation::new(reason, text)
}
