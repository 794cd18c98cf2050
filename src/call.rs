//! Calls, independent of the protocol: the sessions' requests and answers, and the way between the caller's entry and
//! the callee's.
//!
//! In reading order:
//! - `wire`: the messages between two entries.
//! - `exchange`: the state machine of an entry's calls, pure.
//! - `meta`: the procedures that an entry answers by itself, from its own fold of the log.
//!
//! Calls are not logged: they are as durable as the nodes and clients that take part in them, which are known from
//! the log.
//!
//! Invariant: pure. A call is answered once, whatever happens to the callee, its entry or the connection to it.
//!
//! Deliberately absent: tasks and connections (`peer`, `server`), and repeating a call. Only the caller knows whether that is
//! harmless.

mod exchange;
mod meta;
mod wire;

use std::time::Duration;

use crate::types::event::{Payload, SessionId};
use crate::types::procedure::{Procedure, RegistrationId};

pub use self::exchange::{Chosen, Exchange, LinkId, Party, Site};
pub use self::meta::answer as answer_meta;
pub use self::wire::{CallNumber, CalleeSays, CallerSays, Invoke, Mode, Reply};

/// A caller's number for one of its calls, unique within its session while the call is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A callee's number for one of its invocations, unique within its session; counts from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvocationId(pub u64);

/// A session's request.
#[derive(Clone, Debug, PartialEq)]
pub enum CallRequest {
    /// Answered once, by a final [`CallMessage::Result`] or by [`CallMessage::Failed`].
    Call(Call),
    /// Cancels a call.
    Cancel { call: CallId, mode: Mode },
    /// The client knows of its registration, and can be invoked from now on.
    Serve(Serve),
    /// The client is about to learn that its registration has ended: it is not invoked any more.
    StopServing(RegistrationId),
    /// A callee's result, or a part of it.
    Yield { invocation: InvocationId, progress: bool, payload: Payload },
    /// A callee's error.
    Fail { invocation: InvocationId, uri: String, payload: Payload },
}

/// A call as its caller makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub id: CallId,
    pub procedure: Procedure,
    pub payload: Payload,
    pub receive_progress: bool,
    pub disclose_me: bool,
    /// How long its caller will wait.
    pub timeout: Option<Duration>,
}

/// A callee that can be invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serve {
    pub registration: RegistrationId,
    /// Calls that may be in flight at it; 0: unlimited.
    pub concurrency: u32,
    /// It accepts INTERRUPT.
    pub interrupts: bool,
}

/// A message to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum CallMessage {
    Invocation(Invocation),
    /// An invocation is canceled.
    Interrupt {
        invocation: InvocationId,
        mode: Mode,
    },
    Result {
        call: CallId,
        progress: bool,
        payload: Payload,
    },
    Failed {
        call: CallId,
        error: CallError,
    },
}

/// A call as its callee gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    pub id: InvocationId,
    pub registration: RegistrationId,
    /// The called procedure, if the registration is for more than one.
    pub procedure: Option<Procedure>,
    pub caller: Option<SessionId>,
    pub receive_progress: bool,
    pub payload: Payload,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum CallError {
    /// The callee's own error.
    #[error("{uri}")]
    Callee { uri: String, payload: Payload },
    #[error("no callee has registered this procedure")]
    NoSuchProcedure,
    /// The caller canceled it.
    #[error("the call was canceled")]
    Canceled,
    #[error("the callee or the connection to it is gone; it is not known whether the call was carried out")]
    CalleeLost,
    #[error("the callee's node can't be reached; the call was not carried out")]
    Unreachable,
    #[error("the time is up; it is not known whether the call was carried out")]
    Timeout,
    #[error("too many calls wait for this callee; the call was not carried out")]
    CalleeBusy,
    #[error("too many calls are in flight; the call was not carried out")]
    TooManyCalls,
    #[error("the caller or the connection to it is too slow; the callee's answer was dropped")]
    CallerSlow,
    /// The node's own error about a request.
    #[error("{sentence}")]
    Own { uri: String, sentence: String },
}
