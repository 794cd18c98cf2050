//! Encodes the messages to callers and callees: see `super::super::reply`.
//!
//! Invariant: every id is an integer; a missing field is left out, never null.
//!
//! Deliberately absent: when a message is sent (`calls`).

use crate::call::{CallId, Invocation, InvocationId, Mode};
use crate::gate::wamp::message::code;
use crate::gate::wamp::reply::{finish, message, pair, SMALL};
use crate::payload::{to_wamp, Arguments, Serializer, Writer};
use crate::types::event::Payload;
use crate::types::value::Value;

pub(super) fn invocation(serializer: Serializer, invocation: &Invocation) -> Vec<u8> {
    let carried = to_wamp(&invocation.payload, serializer);
    let procedure = invocation.procedure.as_ref();
    let room = size(&carried) + procedure.map_or(0, |procedure| procedure.as_str().len());
    let mut writer = message(serializer, 2 * SMALL + room, 4 + count(&carried), code::INVOCATION);
    writer.integer(invocation.id.0);
    writer.integer(invocation.registration.0);
    let progress = invocation.receive_progress;
    let details = usize::from(procedure.is_some())
        + usize::from(invocation.caller.is_some())
        + usize::from(progress);
    writer.begin_dict(details);
    if let Some(procedure) = procedure {
        pair(&mut writer, "procedure", procedure.as_str());
    }
    if let Some(caller) = invocation.caller {
        writer.key("caller");
        writer.integer(caller.0);
    }
    if progress {
        flag(&mut writer, "receive_progress");
    }
    writer.end_dict();
    carry(&mut writer, &carried);
    finish(writer)
}

pub(super) fn interrupt(serializer: Serializer, invocation: InvocationId, mode: Mode) -> Vec<u8> {
    let mut writer = message(serializer, SMALL, 3, code::INTERRUPT);
    writer.integer(invocation.0);
    writer.begin_dict(1);
    let mode = match mode {
        Mode::Skip => "skip",
        Mode::Kill => "kill",
        Mode::KillNoWait => "killnowait",
    };
    pair(&mut writer, "mode", mode);
    writer.end_dict();
    finish(writer)
}

pub(super) fn result(
    serializer: Serializer,
    call: CallId,
    progress: bool,
    payload: &Payload,
) -> Vec<u8> {
    let carried = to_wamp(payload, serializer);
    let mut writer = message(serializer, SMALL + size(&carried), 3 + count(&carried), code::RESULT);
    writer.integer(call.0);
    writer.begin_dict(usize::from(progress));
    if progress {
        flag(&mut writer, "progress");
    }
    writer.end_dict();
    carry(&mut writer, &carried);
    finish(writer)
}

/// The callee's own error.
pub(super) fn error(serializer: Serializer, call: CallId, uri: &str, payload: &Payload) -> Vec<u8> {
    let carried = to_wamp(payload, serializer);
    let room = 2 * SMALL + uri.len() + size(&carried);
    let mut writer = message(serializer, room, 5 + count(&carried), code::ERROR);
    writer.integer(code::CALL);
    writer.integer(call.0);
    writer.begin_dict(0);
    writer.end_dict();
    writer.text(uri);
    carry(&mut writer, &carried);
    finish(writer)
}

fn flag(writer: &mut Writer, key: &str) {
    writer.key(key);
    writer.value(&Value::Bool(true));
}

fn size(carried: &Arguments) -> usize {
    carried.args.len() + carried.kwargs.len()
}

/// How many elements a payload takes at the end of a message.
fn count(carried: &Arguments) -> usize {
    match (carried.args.is_empty(), carried.kwargs.is_empty()) {
        (true, true) => 0,
        (false, true) => 1,
        (_, false) => 2,
    }
}

fn carry(writer: &mut Writer, Arguments { args, kwargs }: &Arguments) {
    if !args.is_empty() {
        writer.raw(args);
    } else if !kwargs.is_empty() {
        writer.begin_list(0);
        writer.end_list();
    }
    if !kwargs.is_empty() {
        writer.raw(kwargs);
    }
}
