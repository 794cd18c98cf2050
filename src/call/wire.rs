//! The messages between a caller's entry and a callee's entry over `Service::Calls`.
//!
//! Invariant: sent between nodes; variants and fields keep their order, new ones go last.
//!
//! Deliberately absent: connections and batches (`peer`).

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Slot;

use super::CallError;
use crate::types::event::{Payload, SessionId};
use crate::types::procedure::{Procedure, RegistrationId};

/// A call's number, unique within one life of the caller's entry.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct CallNumber(pub u64);

/// How a call is canceled (WAMP advanced profile, "Call Canceling").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The callee continues; the caller is answered at once.
    Skip,
    /// The callee is interrupted, and the caller gets the callee's answer.
    Kill,
    /// The callee is interrupted; the caller is answered at once.
    KillNoWait,
}

/// A call on its way to its callee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    pub callee: SessionId,
    pub registration: RegistrationId,
    /// The called procedure, if the registration is for more than one.
    pub procedure: Option<Procedure>,
    pub caller: Option<SessionId>,
    pub receive_progress: bool,
    pub payload: Payload,
    /// The caller's entry had read the order up to here when it chose the callee.
    pub seen: Slot,
}

/// A result of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Progress(Payload),
    Result(Payload),
    Failed(CallError),
}

/// Messages of the caller's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallerSays {
    Invoke { call: CallNumber, invoke: Box<Invoke> },
    Cancel { call: CallNumber, mode: Mode },
}

/// A message of the callee's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalleeSays {
    pub call: CallNumber,
    pub reply: Reply,
}

/// The approximate size of a message without its payload.
const OVERHEAD: usize = 64;

impl Invoke {
    /// Its approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let procedure = self.procedure.as_ref().map_or(0, |procedure| procedure.as_str().len());
        OVERHEAD + procedure + self.payload.len()
    }
}

impl Reply {
    /// Its approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Progress(payload) | Self::Result(payload) => payload.len(),
                Self::Failed(error) => error.size(),
            }
    }
}

impl CallError {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Callee { uri, payload } => uri.len() + payload.len(),
            Self::Own { uri, sentence } => uri.len() + sentence.len(),
            _ => 0,
        }
    }
}

impl CallerSays {
    /// Its approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Invoke { invoke, .. } => invoke.size(),
            Self::Cancel { .. } => OVERHEAD,
        }
    }
}

impl CalleeSays {
    /// Its approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.reply.size()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vulpes_raft::net::wire::{decode, encode};

    use super::*;
    use crate::types::event::Encoding;
    use crate::types::procedure::Matching;

    fn payload() -> Payload {
        Payload { encoding: Encoding::Json, args: "[1]".into(), kwargs: Bytes::new() }
    }

    #[test]
    fn golden_bytes() {
        let call = CallNumber(300);
        let invoke = Invoke {
            callee: SessionId(5),
            registration: RegistrationId(7),
            procedure: Some(Procedure::new("a.b", Matching::Exact).unwrap()),
            caller: None,
            receive_progress: true,
            payload: payload(),
            seen: Slot(9),
        };
        let invoke = CallerSays::Invoke { call, invoke: invoke.into() };
        let bytes =
            [0, 251, 44, 1, 5, 7, 1, 3, b'a', b'.', b'b', 0, 1, 1, 3, b'[', b'1', b']', 0, 9];
        assert_eq!(encode(&invoke), bytes);
        assert_eq!(decode::<CallerSays>(&bytes).unwrap(), invoke);
        for (mode, byte) in [(Mode::Skip, 0), (Mode::Kill, 1), (Mode::KillNoWait, 2)] {
            assert_eq!(encode(&CallerSays::Cancel { call, mode }), [1, 251, 44, 1, byte]);
        }

        let errors = [
            CallError::NoSuchProcedure,
            CallError::Canceled,
            CallError::CalleeLost,
            CallError::Unreachable,
            CallError::Timeout,
            CallError::CalleeBusy,
            CallError::TooManyCalls,
            CallError::CallerSlow,
        ];
        for (error, tag) in errors.into_iter().zip(1..) {
            let says = CalleeSays { call: CallNumber(1), reply: Reply::Failed(error) };
            assert_eq!(encode(&says), [1, 2, tag]);
            assert_eq!(decode::<CalleeSays>(&[1, 2, tag]).unwrap(), says);
        }
        let own = CallError::Own { uri: "u".into(), sentence: "s".into() };
        assert_eq!(encode(&own), [9, 1, b'u', 1, b's']);
        let callee = CallError::Callee { uri: "u".into(), payload: payload() };
        assert_eq!(encode(&callee), [0, 1, b'u', 1, 3, b'[', b'1', b']', 0]);
        for (reply, tag) in [(Reply::Progress(payload()), 0), (Reply::Result(payload()), 1)] {
            let says = CalleeSays { call: CallNumber(1), reply };
            assert_eq!(encode(&says), [1, tag, 1, 3, b'[', b'1', b']', 0]);
        }
    }
}
