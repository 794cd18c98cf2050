//! Decodes a client's message: one message, checked and taken apart, its payload left as it came.
//!
//! Invariant: a decoded message has the elements that its type requires, each of the right kind, and is well-formed
//! to its last byte. If it holds a value that can't be passed on, this is reported next to it.
//!
//! Deliberately absent: when a message is allowed (`wamp`), and what options mean (`options`).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::call::InvocationId;
use crate::payload::{elements, Elements, Kind, Malformed, Serializer};
use crate::types::procedure::RegistrationId;
use crate::types::subscription::SubscriptionId;

/// Largest id (WAMP basic profile, "IDs").
const LARGEST_ID: u64 = 1 << 53;

/// Message codes (WAMP basic profile, "Message Codes and Direction").
pub(super) mod code {
    pub(in super::super) const HELLO: u64 = 1;
    pub(in super::super) const WELCOME: u64 = 2;
    pub(in super::super) const ABORT: u64 = 3;
    pub(in super::super) const CHALLENGE: u64 = 4;
    pub(in super::super) const AUTHENTICATE: u64 = 5;
    pub(in super::super) const GOODBYE: u64 = 6;
    pub(in super::super) const ERROR: u64 = 8;
    pub(in super::super) const PUBLISH: u64 = 16;
    pub(in super::super) const PUBLISHED: u64 = 17;
    pub(in super::super) const SUBSCRIBE: u64 = 32;
    pub(in super::super) const SUBSCRIBED: u64 = 33;
    pub(in super::super) const UNSUBSCRIBE: u64 = 34;
    pub(in super::super) const UNSUBSCRIBED: u64 = 35;
    pub(in super::super) const EVENT: u64 = 36;
    pub(in super::super) const CALL: u64 = 48;
    pub(in super::super) const CANCEL: u64 = 49;
    pub(in super::super) const RESULT: u64 = 50;
    pub(in super::super) const REGISTER: u64 = 64;
    pub(in super::super) const REGISTERED: u64 = 65;
    pub(in super::super) const UNREGISTER: u64 = 66;
    pub(in super::super) const UNREGISTERED: u64 = 67;
    pub(in super::super) const INVOCATION: u64 = 68;
    pub(in super::super) const INTERRUPT: u64 = 69;
    pub(in super::super) const YIELD: u64 = 70;
}

/// The number a client gave to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId(pub(super) u64);

/// A message from a client.
#[derive(Debug)]
pub(super) enum Message<'a> {
    Hello {
        realm: Cow<'a, str>,
        details: &'a [u8],
    },
    Abort,
    Authenticate {
        signature: Cow<'a, str>,
        extra: &'a [u8],
    },
    Goodbye,
    Publish(Publish<'a>),
    Subscribe {
        request: RequestId,
        options: &'a [u8],
        topic: Cow<'a, str>,
    },
    Unsubscribe {
        request: RequestId,
        subscription: SubscriptionId,
    },
    Call(Call<'a>),
    Cancel {
        request: RequestId,
        options: &'a [u8],
    },
    Register {
        request: RequestId,
        options: &'a [u8],
        procedure: Cow<'a, str>,
    },
    Unregister {
        request: RequestId,
        registration: RegistrationId,
    },
    Yield {
        invocation: InvocationId,
        options: &'a [u8],
        carried: Carried<'a>,
    },
    /// ERROR, to an INVOCATION.
    Error {
        invocation: InvocationId,
        uri: Cow<'a, str>,
        carried: Carried<'a>,
    },
}

/// A message's payload.
#[derive(Debug)]
pub(super) struct Carried<'a> {
    /// An encoded list, or empty if there are no arguments and no keyword arguments.
    pub(super) args: &'a [u8],
    /// An encoded dictionary that is not empty, or no bytes.
    pub(super) kwargs: &'a [u8],
    /// Both have to be rewritten before they are passed on.
    pub(super) odd: bool,
}

/// PUBLISH.
#[derive(Debug)]
pub(super) struct Publish<'a> {
    pub(super) request: RequestId,
    pub(super) options: &'a [u8],
    pub(super) topic: Cow<'a, str>,
    pub(super) carried: Carried<'a>,
}

/// CALL.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) request: RequestId,
    pub(super) options: &'a [u8],
    pub(super) procedure: Cow<'a, str>,
    pub(super) carried: Carried<'a>,
}

impl Message<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "HELLO",
            Self::Abort => "ABORT",
            Self::Authenticate { .. } => "AUTHENTICATE",
            Self::Goodbye => "GOODBYE",
            Self::Publish(_) => "PUBLISH",
            Self::Subscribe { .. } => "SUBSCRIBE",
            Self::Unsubscribe { .. } => "UNSUBSCRIBE",
            Self::Call(_) => "CALL",
            Self::Cancel { .. } => "CANCEL",
            Self::Register { .. } => "REGISTER",
            Self::Unregister { .. } => "UNREGISTER",
            Self::Yield { .. } => "YIELD",
            Self::Error { .. } => "ERROR",
        }
    }
}

/// A client's protocol violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("this is not a message: {0}")]
    Malformed(#[from] Malformed),
    #[error("a message begins with its type, an integer")]
    NoType,
    #[error("clients do not send messages of type {0}")]
    UnknownType(u64),
    #[error("{message} has {least} elements, not {found}")]
    Length { message: &'static str, least: usize, found: usize },
    #[error("{message} has {least} to {most} elements, not {found}")]
    LengthRange { message: &'static str, least: usize, most: usize, found: usize },
    #[error("element {at} of {message}, its {part}, has to be {expected}")]
    Element { message: &'static str, at: usize, part: &'static str, expected: &'static str },
    #[error("{message} {when}")]
    Unexpected { message: &'static str, when: &'static str },
}

/// Takes a message apart, and reports what it holds that can't be passed on.
pub(super) fn decode(
    serializer: Serializer,
    input: &[u8],
) -> Result<(Message<'_>, Option<Malformed>), Violation> {
    let elements = elements(serializer, input)?;
    Ok((take_apart(&elements)?, elements.unfit()))
}

fn take_apart<'a>(elements: &Elements<'a>) -> Result<Message<'a>, Violation> {
    let number = elements.get(0).integer().ok_or(Violation::NoType)?;
    let parts = |message, length| Parts::new(message, elements, length);
    match number {
        code::HELLO => {
            let parts = parts("HELLO", 3..=3)?;
            let details = parts.dict(2, "details")?;
            Ok(Message::Hello { realm: parts.text(1, "realm")?, details })
        }
        code::ABORT => Ok(Message::Abort),
        code::AUTHENTICATE => {
            let parts = parts("AUTHENTICATE", 3..=3)?;
            let extra = parts.dict(2, "extra")?;
            Ok(Message::Authenticate { signature: parts.text(1, "signature")?, extra })
        }
        code::GOODBYE => {
            let parts = parts("GOODBYE", 3..=3)?;
            parts.dict(1, "details")?;
            parts.text(2, "reason")?;
            Ok(Message::Goodbye)
        }
        code::PUBLISH => publish(&parts("PUBLISH", 4..=6)?).map(Message::Publish),
        code::SUBSCRIBE => {
            let parts = parts("SUBSCRIBE", 4..=4)?;
            let (request, options) = (parts.request()?, parts.dict(2, "options")?);
            Ok(Message::Subscribe { request, options, topic: parts.text(3, "topic")? })
        }
        code::UNSUBSCRIBE => {
            let parts = parts("UNSUBSCRIBE", 3..=4)?;
            let subscription = SubscriptionId(parts.id(2, "subscription")?);
            Ok(Message::Unsubscribe { request: parts.request()?, subscription })
        }
        code::CALL => {
            let parts = parts("CALL", 4..=6)?;
            let (request, options) = (parts.request()?, parts.dict(2, "options")?);
            let procedure = parts.text(3, "procedure")?;
            Ok(Message::Call(Call { request, options, procedure, carried: parts.carried(4)? }))
        }
        code::CANCEL => {
            let parts = parts("CANCEL", 3..=3)?;
            Ok(Message::Cancel { request: parts.request()?, options: parts.dict(2, "options")? })
        }
        code::REGISTER => {
            let parts = parts("REGISTER", 4..=4)?;
            let (request, options) = (parts.request()?, parts.dict(2, "options")?);
            Ok(Message::Register { request, options, procedure: parts.text(3, "procedure")? })
        }
        code::UNREGISTER => {
            let parts = parts("UNREGISTER", 3..=4)?;
            let registration = RegistrationId(parts.id(2, "registration")?);
            Ok(Message::Unregister { request: parts.request()?, registration })
        }
        code::YIELD => {
            let parts = parts("YIELD", 3..=5)?;
            let invocation = InvocationId(parts.id(1, "request")?);
            let (options, carried) = (parts.dict(2, "options")?, parts.carried(3)?);
            Ok(Message::Yield { invocation, options, carried })
        }
        code::ERROR => error(&parts("ERROR", 5..=7)?),
        other => Err(Violation::UnknownType(other)),
    }
}

/// Clients may only answer an INVOCATION with ERROR.
fn error<'a>(parts: &Parts<'a, '_>) -> Result<Message<'a>, Violation> {
    if parts.elements.get(1).integer() != Some(code::INVOCATION) {
        return Err(parts.wrong(1, "request type", "68, of an INVOCATION"));
    }
    let invocation = InvocationId(parts.id(2, "request")?);
    parts.dict(3, "details")?;
    let uri = parts.text(4, "error")?;
    Ok(Message::Error { invocation, uri, carried: parts.carried(5)? })
}

fn publish<'a>(parts: &Parts<'a, '_>) -> Result<Publish<'a>, Violation> {
    let (request, options) = (parts.request()?, parts.dict(2, "options")?);
    let topic = parts.text(3, "topic")?;
    Ok(Publish { request, options, topic, carried: parts.carried(4)? })
}

/// The elements of a message of a known type.
struct Parts<'a, 'e> {
    message: &'static str,
    elements: &'e Elements<'a>,
}

impl<'a, 'e> Parts<'a, 'e> {
    fn new(
        message: &'static str,
        elements: &'e Elements<'a>,
        length: RangeInclusive<usize>,
    ) -> Result<Self, Violation> {
        let found = elements.count();
        if !length.contains(&found) {
            let (least, most) = (*length.start(), *length.end());
            return Err(match least == most {
                true => Violation::Length { message, least, found },
                false => Violation::LengthRange { message, least, most, found },
            });
        }
        Ok(Self { message, elements })
    }

    fn request(&self) -> Result<RequestId, Violation> {
        self.id(1, "request").map(RequestId)
    }

    fn id(&self, at: usize, part: &'static str) -> Result<u64, Violation> {
        let number = self.elements.get(at).integer();
        let id = number.filter(|number| (1..=LARGEST_ID).contains(number));
        id.ok_or_else(|| self.wrong(at, part, "an integer from 1 to 2^53"))
    }

    fn text(&self, at: usize, part: &'static str) -> Result<Cow<'a, str>, Violation> {
        self.elements.get(at).text().ok_or_else(|| self.wrong(at, part, "a string"))
    }

    fn dict(&self, at: usize, part: &'static str) -> Result<&'a [u8], Violation> {
        let element = self.elements.get(at);
        match element.kind() {
            Kind::Dict => Ok(element.raw),
            _ => Err(self.wrong(at, part, "a dictionary")),
        }
    }

    /// The payload, from one element on.
    fn carried(&self, at: usize) -> Result<Carried<'a>, Violation> {
        let count = self.elements.count();
        let mut args = if count > at { self.list(at, "arguments")? } else { &[] };
        let mut kwargs = if count > at + 1 { self.dict(at + 1, "keyword arguments")? } else { &[] };
        if count > at + 1 && self.elements.get(at + 1).items == 0 {
            kwargs = &[];
        }
        if kwargs.is_empty() && count > at && self.elements.get(at).items == 0 {
            args = &[];
        }
        Ok(Carried { args, kwargs, odd: self.elements.is_odd() })
    }

    fn list(&self, at: usize, part: &'static str) -> Result<&'a [u8], Violation> {
        let element = self.elements.get(at);
        match element.kind() {
            Kind::List => Ok(element.raw),
            _ => Err(self.wrong(at, part, "a list")),
        }
    }

    fn wrong(&self, at: usize, part: &'static str, expected: &'static str) -> Violation {
        Violation::Element { message: self.message, at, part, expected }
    }
}
