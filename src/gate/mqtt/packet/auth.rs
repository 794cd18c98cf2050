//! AUTH packets of clients (MQTT 5 section 3.15), and the properties of a CONNECT that begin what they go on with.
//!
//! Invariant: what a client shows of itself is printed nowhere.
//!
//! Deliberately absent: what a method makes of them, and those that are sent (`answer`).

use bytes::Bytes;

use super::property::{self, Property, Value};
use super::reader::Reader;
use super::Violation;
use crate::types::access::Secret;

/// The only authentication method.
pub(crate) const SCRAM: &str = "SCRAM-SHA-256";

/// Reason codes of AUTH.
pub(crate) const CONTINUE: u8 = 0x18;
pub(crate) const AGAIN: u8 = 0x19;

/// A method, and what its client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authentication {
    pub(crate) method: String,
    pub(crate) data: Secret,
}

/// An AUTH of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    pub(crate) reason: u8,
    pub(crate) authentication: Authentication,
}

/// Gathers both properties.
#[derive(Default)]
pub(crate) struct Gathered<'a> {
    method: Option<&'a str>,
    data: Option<&'a [u8]>,
}

impl<'a> Gathered<'a> {
    pub(crate) fn take(&mut self, property: &Property<'a>) {
        match (property.id, property.value) {
            (property::AUTHENTICATION_METHOD, Value::Text(method)) => self.method = Some(method),
            // Its identifier and length come first.
            (property::AUTHENTICATION_DATA, _) => self.data = property.raw.get(3..),
            _ => {}
        }
    }

    pub(crate) fn authentication(self) -> Result<Option<Authentication>, Violation> {
        let data = Secret(Bytes::copy_from_slice(self.data.unwrap_or_default()));
        match self.method {
            Some(method) => Ok(Some(Authentication { method: method.to_owned(), data })),
            None if self.data.is_some() => {
                Err(Violation::protocol("authentication data without a method"))
            }
            None => Ok(None),
        }
    }
}

/// Reads the body of an AUTH. A client has to name the method each time, so there is always a body.
pub(crate) fn read(body: &[u8]) -> Result<Auth, Violation> {
    let mut reader = Reader::new(body);
    let reason = reader.u8()?;
    let mut gathered = Gathered::default();
    property::walk(reader.block()?, property::AUTH, |property| {
        gathered.take(&property);
        Ok(())
    })?;
    reader.end()?;
    if !matches!(reason, CONTINUE | AGAIN) {
        return Err(Violation::protocol("an AUTH has a reason code that no client sends"));
    }
    let authentication = gathered.authentication()?;
    let missing = || Violation::protocol("an AUTH names no authentication method");
    Ok(Auth { reason, authentication: authentication.ok_or_else(missing)? })
}
