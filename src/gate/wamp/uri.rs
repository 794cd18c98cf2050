//! The URIs that clients may see: WAMP's own, and ours where WAMP has none.
//!
//! Invariant: clients act on these, so they never change.
//!
//! Deliberately absent: the sentences beside them, which may change.

use std::borrow::Cow;

use crate::call::CallError;
use crate::gate::waits::TooMany;
use crate::gate::{EndReason, OpenRefusal};
use crate::types::act::Refusal;
use crate::types::answer::PublishError;
use crate::types::subscription::SubscribeError;

const HISTORY_GONE: &str = "vulpes.error.history_gone";
/// A topic on which this router never publishes.
pub(super) const FEATURE_NOT_SUPPORTED: &str = "wamp.error.feature_not_supported";
pub(super) const INVALID_URI: &str = "wamp.error.invalid_uri";
pub(super) const INVALID_ARGUMENT: &str = "wamp.error.invalid_argument";
pub(super) const NO_SUCH_SUBSCRIPTION: &str = "wamp.error.no_such_subscription";
pub(super) const AUTHENTICATION_FAILED: &str = "wamp.error.authentication_failed";
pub(super) const NOT_AUTHORIZED: &str = "wamp.error.not_authorized";
pub(super) const UNAVAILABLE: &str = "vulpes.error.unavailable";
pub(super) const NO_MATCHING_AUTH_METHOD: &str = "wamp.error.no_matching_auth_method";
pub(super) const PAYLOAD_SIZE_EXCEEDED: &str = "wamp.error.payload_size_exceeded";
pub(super) const PROTOCOL_VIOLATION: &str = "wamp.error.protocol_violation";
pub(super) const GOODBYE_AND_OUT: &str = "wamp.close.goodbye_and_out";

/// Whether a text is a URI in WAMP's loose sense: non-empty parts without white space and `#`.
pub(super) fn is_uri(text: &str) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '#';
    !text.contains(is_bad) && !text.split('.').any(str::is_empty)
}

/// An option or message that WAMP or this router defines, but this release lacks.
pub(super) const NOT_IMPLEMENTED: &str = "vulpes.error.not_implemented";

/// Why a snapshot subscription ended.
pub(super) const SNAPSHOT_COMPLETE: &str = "vulpes.close.snapshot_complete";

/// A session has reached its limit of undecided publishes.
const TOO_MANY_WAITS: &str = "vulpes.error.too_many_waits";
const TOO_MANY_WILLS: &str = "vulpes.error.too_many_wills";

/// The user, or the address, has as much as it may have.
const QUOTA_EXCEEDED: &str = "vulpes.error.quota_exceeded";

/// The disk of a storage runs low.
const DISK_FULL: &str = "vulpes.error.disk_full";

/// The filters of a session's subscriptions have reached their size limit.
pub(super) const TOO_LARGE_FILTERS: &str = "vulpes.error.too_large_filters";

/// Why a conditional publish or a registration was refused; the first is fox-wamp's.
pub(super) fn of_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotAccepted => "fox.error.not_accepted",
        Refusal::LineFull => "vulpes.error.line_full",
        // WAMP has no exchanges.
        Refusal::SessionEnded | Refusal::TooManyExchanges => "vulpes.error.session_ended",
        Refusal::ProcedureExists => "wamp.error.procedure_already_exists",
        Refusal::OtherPolicy(_) => "wamp.error.procedure_exists_with_different_invocation_policy",
        Refusal::TooManyRegistrations => "vulpes.error.too_many_registrations",
        Refusal::TooManyCallees => "vulpes.error.too_many_callees",
        Refusal::NoSuchRegistration => "wamp.error.no_such_registration",
        Refusal::NotAllowed => NOT_AUTHORIZED,
    }
}

/// The URI of a failed call; an error from the callee has its own.
pub(super) fn of_call_error(error: &CallError) -> &str {
    match error {
        CallError::Callee { uri, .. } | CallError::Own { uri, .. } => uri,
        CallError::NoSuchProcedure => "wamp.error.no_such_procedure",
        // WAMP treats a lost callee as a call canceled by the router.
        CallError::Canceled | CallError::CalleeLost => "wamp.error.canceled",
        CallError::Timeout => "wamp.error.timeout",
        CallError::Unreachable => "vulpes.error.unavailable",
        CallError::CalleeBusy => "vulpes.error.callee_busy",
        CallError::TooManyCalls => "vulpes.error.too_many_calls",
        CallError::CallerSlow => "vulpes.error.result_dropped",
    }
}

pub(super) fn of_publish_error(error: PublishError) -> &'static str {
    match error {
        PublishError::Unknown => "vulpes.error.unknown_outcome",
        PublishError::NotStored => "vulpes.error.not_stored",
    }
}

pub(super) fn of_subscribe_error(error: SubscribeError) -> &'static str {
    match error {
        SubscribeError::Gone { .. } => HISTORY_GONE,
        SubscribeError::Ahead { .. } => "vulpes.error.no_such_position",
        SubscribeError::TooMany | SubscribeError::NodeFull | SubscribeError::NoRoom => {
            "vulpes.error.too_many_subscriptions"
        }
        SubscribeError::QuotaReached => QUOTA_EXCEEDED,
        SubscribeError::Unavailable => "vulpes.error.unavailable",
        SubscribeError::NotAllowed => NOT_AUTHORIZED,
    }
}

pub(super) fn of_open_refusal(refusal: OpenRefusal) -> &'static str {
    match refusal {
        OpenRefusal::LoginNeeded | OpenRefusal::Banned | OpenRefusal::WillNotAllowed => {
            NOT_AUTHORIZED
        }
        OpenRefusal::NoSuchRealm => "wamp.error.no_such_realm",
        OpenRefusal::TooManyConnections | OpenRefusal::NoRoom => {
            "vulpes.error.too_many_connections"
        }
        OpenRefusal::QuotaReached => QUOTA_EXCEEDED,
        OpenRefusal::TooFast => "vulpes.error.connection_rate_exceeded",
        OpenRefusal::Unavailable | OpenRefusal::Stopping => UNAVAILABLE,
    }
}

/// The URI and its sentence.
pub(super) fn of_too_many(error: TooMany) -> &'static str {
    match error {
        TooMany::Waits | TooMany::WaitsOfNode => TOO_MANY_WAITS,
        TooMany::Wills => TOO_MANY_WILLS,
        TooMany::Disk => DISK_FULL,
    }
}

pub(super) fn of_end(reason: EndReason) -> (&'static str, Cow<'static, str>) {
    let (uri, sentence) = match reason {
        EndReason::Shutdown => {
            ("wamp.close.system_shutdown", "this node is stopping; connect to another one")
        }
        EndReason::TakenOver => ("wamp.close.killed", "another connection took this session over"),
        EndReason::Revoked => {
            ("wamp.close.killed", "the user was removed or disabled, or has to log in")
        }
        EndReason::Banned => ("wamp.close.killed", "an administrator has banned this client"),
        EndReason::Expired => ("wamp.close.killed", "the token has expired; log in with a new one"),
        EndReason::Unavailable => (
            UNAVAILABLE,
            "no quorum answers; publishes not acknowledged so far may or may not be stored",
        ),
        EndReason::Lost => (
            "vulpes.error.session_lost",
            "this node lost its lease, and with it the session is over everywhere; reconnect",
        ),
        EndReason::TooSlow => (
            "vulpes.error.too_slow",
            "a large message came too slowly while others waited; reconnect and send it again",
        ),
        EndReason::HandshakeTimeout => {
            ("vulpes.error.handshake_timeout", "the session was not opened in time; send HELLO")
        }
        EndReason::FellBehind { oldest } => {
            return (HISTORY_GONE, SubscribeError::Gone { oldest }.to_string().into());
        }
    };
    (uri, sentence.into())
}
