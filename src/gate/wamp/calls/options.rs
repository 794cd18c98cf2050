//! The options of CALL, CANCEL, REGISTER and YIELD, and what a client announces about itself as a callee.
//!
//! Invariant: like all options (`options`), one that would change the outcome and is not supported is refused by
//! name.
//!
//! Deliberately absent: the answer to a bad option (`calls`).

use std::time::Duration;

use crate::call::Mode;
use crate::gate::wamp::options::{Names, OptionError, Reader};
use crate::payload::{decode, entries, Malformed, Serializer};
use crate::types::procedure::{Invoke, Matching};
use crate::types::value::Value;

/// The options of CALL.
#[derive(Debug, Default)]
pub(super) struct CallOptions {
    pub(super) receive_progress: bool,
    pub(super) disclose_me: bool,
    pub(super) timeout: Option<Duration>,
}

impl CallOptions {
    pub(super) fn read(
        serializer: Serializer,
        raw: &[u8],
    ) -> Result<Result<Self, OptionError>, Malformed> {
        let mut options = Self::default();
        let mut error = None;
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let mut progress = false;
            let read = match key {
                "receive_progress" => {
                    reader.flag("receive_progress", &mut options.receive_progress)
                }
                "disclose_me" => reader.flag("disclose_me", &mut options.disclose_me),
                "timeout" => {
                    let expected = "milliseconds, an integer that is not negative";
                    let read = integer(&reader, "timeout", expected, u32::MAX);
                    read.map(|ms| {
                        // WAMP's 0 is no timeout.
                        options.timeout =
                            ms.filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms.into()));
                    })
                }
                "progress" => match reader.flag("progress", &mut progress) {
                    Ok(()) if progress => Err(OptionError::NotImplemented("progress")),
                    read => read,
                },
                _ => Ok(()),
            };
            error = error.or(read.err());
        })?;
        Ok(error.map_or(Ok(options), Err))
    }
}

/// The options of REGISTER.
#[derive(Debug)]
pub(super) struct RegisterOptions {
    pub(super) matching: Matching,
    pub(super) invoke: Invoke,
    pub(super) concurrency: u32,
    pub(super) disclose_caller: bool,
}

const REGISTER_OPTIONS: &[&str] =
    &["match", "invoke", "concurrency", "disclose_caller", "force_reregister"];

impl RegisterOptions {
    pub(super) fn read(
        serializer: Serializer,
        raw: &[u8],
    ) -> Result<Result<Self, OptionError>, Malformed> {
        let mut options = Self {
            matching: Matching::Exact,
            invoke: Invoke::Single,
            concurrency: 0,
            disclose_caller: false,
        };
        let mut error = None;
        let mut names = Names::new(REGISTER_OPTIONS);
        entries(serializer, raw, |key, value| {
            let reader = Reader { serializer, value };
            let mut force = false;
            let name = names.option(key);
            let twice = name.err();
            let read = match name.ok().flatten().unwrap_or_default() {
                "match" => {
                    let expected = "\"exact\", \"prefix\" or \"wildcard\"";
                    let read = word(&reader, "match", expected, Matching::from_word);
                    read.map(|matching| options.matching = matching.unwrap_or(Matching::Exact))
                }
                "invoke" => {
                    let expected = "\"single\", \"roundrobin\", \"random\", \"first\" or \"last\"";
                    let read = word(&reader, "invoke", expected, Invoke::from_word);
                    read.map(|invoke| options.invoke = invoke.unwrap_or(Invoke::Single))
                }
                "concurrency" => {
                    let read = integer(&reader, "concurrency", "an integer from 1", u32::MAX);
                    match read {
                        Ok(Some(0)) => Err(OptionError::Wrong {
                            option: "concurrency",
                            expected: "an integer from 1",
                        }),
                        read => read.map(|number| options.concurrency = number.unwrap_or(0)),
                    }
                }
                "disclose_caller" => reader.flag("disclose_caller", &mut options.disclose_caller),
                "force_reregister" => match reader.flag("force_reregister", &mut force) {
                    Ok(()) if force => Err(OptionError::NotImplemented("force_reregister")),
                    read => read,
                },
                _ => Ok(()),
            };
            error = error.or(twice).or(read.err());
        })?;
        Ok(error.map_or(Ok(options), Err))
    }
}

/// How a CANCEL wants its call to end.
pub(super) fn cancel_mode(
    serializer: Serializer,
    raw: &[u8],
) -> Result<Result<Mode, OptionError>, Malformed> {
    let mut mode = Ok(Mode::KillNoWait);
    entries(serializer, raw, |key, value| {
        if key == "mode" {
            let expected = "\"skip\", \"kill\" or \"killnowait\"";
            let read = |word: &str| match word {
                "skip" => Some(Mode::Skip),
                "kill" => Some(Mode::Kill),
                "killnowait" => Some(Mode::KillNoWait),
                _ => None,
            };
            let read = word(&Reader { serializer, value }, "mode", expected, read);
            mode = read.map(|mode| mode.unwrap_or(Mode::KillNoWait));
        }
    })?;
    Ok(mode)
}

/// Whether a YIELD is only a part of the result.
pub(super) fn is_progress(
    serializer: Serializer,
    raw: &[u8],
) -> Result<Result<bool, OptionError>, Malformed> {
    let mut progress = false;
    let mut read = Ok(());
    entries(serializer, raw, |key, value| {
        if key == "progress" {
            read = Reader { serializer, value }.flag("progress", &mut progress);
        }
    })?;
    Ok(read.map(|()| progress))
}

/// Whether the details of HELLO announce that the client can be interrupted as a callee.
pub(in super::super) fn announces_canceling(
    serializer: Serializer,
    details: &[u8],
) -> Result<bool, Malformed> {
    let mut announces = false;
    entries(serializer, details, |key, value| {
        if key == "roles" {
            let roles = decode(serializer, value).ok();
            let callee = roles.as_ref().and_then(|roles| roles.get("callee"));
            let features = callee.and_then(|callee| callee.get("features"));
            let canceling = features.and_then(|features| features.get("call_canceling"));
            announces = canceling == Some(&Value::Bool(true));
        }
    })?;
    Ok(announces)
}

/// One of several words; `None` for null.
fn word<T>(
    reader: &Reader<'_>,
    option: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, OptionError> {
    match reader.read() {
        Some(Value::Null) => Ok(None),
        Some(Value::Str(word)) => {
            read(&word).map(Some).ok_or(OptionError::Wrong { option, expected })
        }
        _ => Err(OptionError::Wrong { option, expected }),
    }
}

/// A number up to `most`; larger ones are reduced to it. `None` for null.
fn integer(
    reader: &Reader<'_>,
    option: &'static str,
    expected: &'static str,
    most: u32,
) -> Result<Option<u32>, OptionError> {
    match reader.read() {
        Some(Value::Null) => Ok(None),
        value => match value.as_ref().and_then(Value::whole) {
            Some(number) => Ok(Some(u32::try_from(number).unwrap_or(most))),
            None => Err(OptionError::Wrong { option, expected }),
        },
    }
}
