//! Scenarios of the exchange.

mod chance;

use std::time::Duration;

use bytes::Bytes;
use vulpes_raft::ids::{NodeId, Slot};

use super::*;
use crate::call::{Invocation, Serve};
use crate::types::event::{Encoding, Payload};
use crate::types::procedure::{Matching, Procedure};

const CALLER: SessionId = SessionId(1);
const CALLEE: SessionId = SessionId(2);
const REGISTRATION: RegistrationId = RegistrationId(9);
const NOW: Moment = Moment(1000);

fn payload(text: &str) -> Payload {
    let args = Bytes::copy_from_slice(text.as_bytes());
    Payload { encoding: Encoding::Json, args, kwargs: Bytes::new() }
}

fn call(id: u64) -> Call {
    Call {
        id: CallId(id),
        procedure: Procedure::new("p", Matching::Exact).unwrap(),
        payload: payload(&format!("[{id}]")),
        receive_progress: true,
        disclose_me: false,
        timeout: None,
    }
}

fn chosen(site: Site) -> Chosen {
    Chosen {
        callee: CALLEE,
        registration: REGISTRATION,
        site,
        is_pattern: false,
        disclose_caller: false,
        seen: Slot(1),
    }
}

fn serve(concurrency: u32, interrupts: bool) -> Serve {
    Serve { registration: REGISTRATION, concurrency, interrupts }
}

/// Caller and callee at one entry.
fn one(concurrency: u32, interrupts: bool) -> Exchange {
    let mut exchange = Exchange::default();
    exchange.attach(CALLER);
    exchange.attach(CALLEE);
    exchange.serve(CALLEE, serve(concurrency, interrupts));
    exchange
}

fn told(exchange: &mut Exchange, session: SessionId) -> Vec<CallMessage> {
    std::iter::from_fn(|| exchange.take_told(session)).collect()
}

/// The invocations that a callee gets.
fn invoked(exchange: &mut Exchange) -> Vec<InvocationId> {
    let told = told(exchange, CALLEE).into_iter();
    told.filter_map(|told| match told {
        CallMessage::Invocation(invocation) => Some(invocation.id),
        _ => None,
    })
    .collect()
}

fn result(id: u64, text: &str) -> CallMessage {
    CallMessage::Result { call: CallId(id), progress: false, payload: payload(text) }
}

fn progress(id: u64, text: &str) -> CallMessage {
    CallMessage::Result { call: CallId(id), progress: true, payload: payload(text) }
}

fn failed(id: u64, error: CallError) -> CallMessage {
    CallMessage::Failed { call: CallId(id), error }
}

fn interrupt(id: u64, mode: Mode) -> CallMessage {
    CallMessage::Interrupt { invocation: InvocationId(id), mode }
}

/// Nothing is left over.
fn is_empty(exchange: &Exchange) -> bool {
    exchange.calls.is_empty()
        && exchange.callees.is_empty()
        && exchange.deadlines.is_empty()
        && exchange.arrived.is_empty()
        && exchange.outgoing.values().all(|outgoing| outgoing.calls.is_empty())
        && exchange.sessions.values().all(|member| {
            let wanted = member.invocations.values().any(|active| active.origin.is_some());
            member.calls.is_empty() && member.waiting.is_empty() && !wanted
        })
}

#[test]
fn a_call_is_answered_where_it_was_made() {
    let mut exchange = one(0, false);
    exchange.call(CALLER, call(5), chosen(Site::Here), NOW);
    assert_eq!(exchange.rung(), [Party::Session(CALLEE)]);
    let invocation = Invocation {
        id: InvocationId(1),
        registration: REGISTRATION,
        procedure: None,
        caller: None,
        receive_progress: true,
        payload: payload("[5]"),
    };
    assert_eq!(told(&mut exchange, CALLEE), [CallMessage::Invocation(invocation)]);
    exchange.yielded(CALLEE, InvocationId(1), true, payload("[half]"));
    exchange.yielded(CALLEE, InvocationId(1), false, payload("[all]"));
    exchange.yielded(CALLEE, InvocationId(1), false, payload("[again]"));
    exchange.failed(CALLEE, InvocationId(1), "x".into(), payload(""));
    assert_eq!(told(&mut exchange, CALLER), [progress(5, "[half]"), result(5, "[all]")]);
    assert!(is_empty(&exchange));
    assert_eq!(exchange.total.bytes(), 0);
}

#[test]
fn who_calls_is_told_to_whom_it_may_be() {
    let mut exchange = one(0, false);
    let pattern = Chosen { is_pattern: true, disclose_caller: true, ..chosen(Site::Here) };
    exchange.call(CALLER, call(1), pattern, NOW);
    let disclosed = Call { disclose_me: true, receive_progress: false, ..call(2) };
    exchange.call(CALLER, disclosed, chosen(Site::Here), NOW);
    let shown: Vec<_> = told(&mut exchange, CALLEE)
        .into_iter()
        .map(|told| match told {
            CallMessage::Invocation(i) => (i.procedure.is_some(), i.caller, i.receive_progress),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, [(true, Some(CALLER), true), (false, Some(CALLER), false)]);
    // Parts that were not asked for are dropped.
    exchange.yielded(CALLEE, InvocationId(2), true, payload("[x]"));
    assert_eq!(told(&mut exchange, CALLER), []);
}

#[test]
fn a_callee_has_so_many_in_flight_and_the_others_wait_in_line() {
    let mut exchange = one(2, false);
    for id in 1..=5 {
        exchange.call(CALLER, call(id), chosen(Site::Here), NOW);
    }
    assert_eq!(invoked(&mut exchange), [InvocationId(1), InvocationId(2)]);
    exchange.yielded(CALLEE, InvocationId(2), true, payload("[part]"));
    assert_eq!(invoked(&mut exchange), []);
    exchange.yielded(CALLEE, InvocationId(2), false, payload("[2]"));
    exchange.failed(CALLEE, InvocationId(1), "x".into(), payload(""));
    let told_of = told(&mut exchange, CALLEE);
    let payloads: Vec<_> = told_of
        .iter()
        .map(|told| match told {
            CallMessage::Invocation(invocation) => invocation.payload.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [payload("[3]"), payload("[4]")], "first come, first served");
    // A call in the queue is canceled without having been invoked, and frees no place in flight.
    exchange.cancel(CALLER, CallId(5), Mode::Kill);
    let last = told(&mut exchange, CALLER).pop();
    assert_eq!(last, Some(failed(5, CallError::Canceled)));
    exchange.yielded(CALLEE, InvocationId(3), false, payload("[]"));
    assert_eq!(invoked(&mut exchange), []);
}

#[test]
fn what_finds_no_room_is_refused() {
    let mut exchange = one(1, false);
    for id in 0..=limits::SESSION_CALLS as u64 {
        exchange.call(CALLER, call(id), chosen(Site::Here), NOW);
    }
    let last = limits::SESSION_CALLS as u64;
    assert_eq!(told(&mut exchange, CALLER), [failed(last, CallError::TooManyCalls)]);
    // Others fill the callee's queue.
    let mut refused = 0;
    for session in 10..10 + (limits::CALLEE_CALLS / limits::SESSION_CALLS) as u64 {
        let session = SessionId(session);
        exchange.attach(session);
        for id in 0..limits::SESSION_CALLS as u64 {
            exchange.call(session, call(id), chosen(Site::Here), NOW);
        }
        let told = told(&mut exchange, session);
        assert!(told.iter().all(|told| {
            matches!(told, CallMessage::Failed { error: CallError::CalleeBusy, .. })
        }));
        refused += told.len();
    }
    assert_eq!(refused, limits::SESSION_CALLS);
}

#[test]
fn a_slow_callee_and_a_slow_caller_hold_so_much_and_no_more() {
    let mut exchange = one(0, true);
    let large = "x".repeat(limits::EVENT);
    let fit = limits::CALLEE_BYTES / (limits::EVENT + 200);
    for id in 1..=fit as u64 + 1 {
        let call = Call { payload: payload(&large), ..call(id) };
        exchange.call(CALLER, call, chosen(Site::Here), NOW);
    }
    assert_eq!(told(&mut exchange, CALLER), [failed(fit as u64 + 1, CallError::CalleeBusy)]);
    assert_eq!(invoked(&mut exchange).len(), fit);
    // The caller takes nothing: a result beyond the limit is dropped, a part beyond it ends its call.
    for id in 2..=fit as u64 {
        exchange.yielded(CALLEE, InvocationId(id), false, payload(&large));
    }
    for _ in 0..3 {
        exchange.yielded(CALLEE, InvocationId(1), true, payload(&large));
    }
    assert!(exchange.total.bytes() <= limits::SESSION_CALL_BYTES + 1000);
    let told_of = told(&mut exchange, CALLER);
    assert_eq!(told_of.last(), Some(&failed(1, CallError::CallerSlow)));
    assert_eq!(told(&mut exchange, CALLEE), [interrupt(1, Mode::KillNoWait)]);
    assert!(is_empty(&exchange));
}

#[test]
fn a_call_is_taken_back_in_three_ways() {
    for (mode, interrupts, answered, interrupted) in [
        (Mode::Skip, true, true, false),
        (Mode::Skip, false, true, false),
        (Mode::KillNoWait, true, true, true),
        (Mode::KillNoWait, false, true, false),
        (Mode::Kill, true, false, true),
        (Mode::Kill, false, true, false),
    ] {
        let mut exchange = one(0, interrupts);
        exchange.call(CALLER, call(1), chosen(Site::Here), NOW);
        assert_eq!(invoked(&mut exchange).len(), 1);
        exchange.cancel(CALLER, CallId(1), mode);
        exchange.cancel(CALLER, CallId(1), mode);
        let context = format!("{mode:?} {interrupts}");
        let canceled = failed(1, CallError::Canceled);
        let expected = if answered { vec![canceled] } else { vec![] };
        assert_eq!(told(&mut exchange, CALLER), expected, "{context}");
        let expected = if interrupted { vec![interrupt(1, mode)] } else { vec![] };
        assert_eq!(told(&mut exchange, CALLEE), expected, "{context}");
        // The caller that waits gets the callee's answer to that.
        exchange.failed(CALLEE, InvocationId(1), "stopped".into(), payload(""));
        let stopped = CallError::Callee { uri: "stopped".into(), payload: payload("") };
        let expected = if answered { vec![] } else { vec![failed(1, stopped)] };
        assert_eq!(told(&mut exchange, CALLER), expected, "{context}");
        assert!(is_empty(&exchange), "{context}");
    }
}

#[test]
fn a_call_has_its_time() {
    let mut exchange = one(0, true);
    let in_time = Call { timeout: Some(Duration::from_millis(50)), ..call(1) };
    exchange.call(CALLER, in_time.clone(), chosen(Site::Here), NOW);
    exchange.call(CALLER, Call { id: CallId(2), ..in_time }, chosen(Site::Here), NOW);
    assert_eq!(exchange.deadline(), Some(Moment(1050)));
    assert_eq!(invoked(&mut exchange).len(), 2);
    exchange.yielded(CALLEE, InvocationId(2), false, payload("[]"));
    exchange.expire(Moment(1049));
    assert_eq!(told(&mut exchange, CALLER), [result(2, "[]")]);
    exchange.expire(Moment(1050));
    assert_eq!(told(&mut exchange, CALLER), [failed(1, CallError::Timeout)]);
    assert_eq!(told(&mut exchange, CALLEE), [interrupt(1, Mode::KillNoWait)]);
    assert_eq!((exchange.deadline(), is_empty(&exchange)), (None, true));
}

#[test]
fn a_callee_that_goes_ends_its_calls_and_a_caller_that_goes_its_own() {
    let mut exchange = one(1, true);
    exchange.call(CALLER, call(1), chosen(Site::Here), NOW);
    exchange.call(CALLER, call(2), chosen(Site::Here), NOW);
    exchange.ended(CALLEE);
    let lost = |id| failed(id, CallError::CalleeLost);
    assert_eq!(told(&mut exchange, CALLER), [lost(2), lost(1)]);
    exchange.detach(CALLEE);
    assert!(is_empty(&exchange));

    let mut exchange = one(1, true);
    exchange.call(CALLER, call(1), chosen(Site::Here), NOW);
    exchange.call(CALLER, call(2), chosen(Site::Here), NOW);
    assert_eq!(invoked(&mut exchange).len(), 1);
    exchange.detach(CALLER);
    assert_eq!(told(&mut exchange, CALLEE), [interrupt(1, Mode::KillNoWait)]);
    exchange.yielded(CALLEE, InvocationId(1), false, payload("[]"));
    assert_eq!(invoked(&mut exchange), []);
    assert!(is_empty(&exchange));

    // A session that calls itself.
    let mut exchange = one(1, true);
    exchange.call(CALLEE, call(1), chosen(Site::Here), NOW);
    exchange.detach(CALLEE);
    assert!(is_empty(&exchange));
    assert_eq!(exchange.total.bytes(), 0);
}

#[test]
fn a_callee_is_not_invoked_before_it_knows_or_after() {
    let mut exchange = Exchange::default();
    exchange.attach(CALLER);
    exchange.attach(CALLEE);
    exchange.call(CALLER, call(1), chosen(Site::Here), NOW);
    assert_eq!(told(&mut exchange, CALLEE), []);
    exchange.serve(CALLEE, serve(1, false));
    assert_eq!(invoked(&mut exchange), [InvocationId(1)]);
    exchange.call(CALLER, call(2), chosen(Site::Here), NOW);
    exchange.stop_serving(CALLEE, REGISTRATION);
    assert_eq!(told(&mut exchange, CALLER), [failed(2, CallError::NoSuchProcedure)]);
    // It may finish what it has begun.
    exchange.yielded(CALLEE, InvocationId(1), false, payload("[]"));
    assert_eq!(told(&mut exchange, CALLER), [result(1, "[]")]);
    // A callee that never learns of it.
    exchange.call(CALLER, call(3), chosen(Site::Here), NOW);
    let deadline = exchange.deadline().unwrap();
    exchange.expire(deadline);
    assert_eq!(told(&mut exchange, CALLER), [failed(3, CallError::NoSuchProcedure)]);
    assert_eq!((exchange.deadline(), is_empty(&exchange)), (None, true));
}

#[test]
fn a_call_to_another_entry_ends_with_its_link() {
    let node = NodeId(2);
    let mut here = Exchange::default();
    here.attach(CALLER);
    here.call(CALLER, call(1), chosen(Site::Node(node)), NOW);
    assert!(here.has_something_for(Party::Node(node)) && here.waits_for(node));
    assert_eq!(here.take_for_node(node, 1).len(), 1);
    here.call(CALLER, call(2), chosen(Site::Node(node)), NOW);
    here.node_lost(node);
    let told_of = told(&mut here, CALLER);
    // A call that was never sent was certainly not carried out.
    assert_eq!(told_of, [failed(1, CallError::CalleeLost), failed(2, CallError::Unreachable)]);
    assert!(is_empty(&here) && !here.waits_for(node));
    // An answer from an earlier link, or from another entry, is ignored.
    here.call(CALLER, call(3), chosen(Site::Node(node)), NOW);
    let says = |call| CalleeSays { call: CallNumber(call), reply: Reply::Result(payload("[]")) };
    here.heard_from_node(NodeId(3), vec![says(3)]);
    here.heard_from_node(node, vec![says(1)]);
    assert_eq!(told(&mut here, CALLER), []);
    here.ended(CALLEE);
    here.heard_from_node(node, vec![says(3)]);
    assert_eq!(told(&mut here, CALLER), [failed(3, CallError::CalleeLost)]);
}

#[test]
fn calls_from_another_entry_end_with_its_link() {
    let mut there = Exchange::default();
    there.attach(CALLEE);
    there.serve(CALLEE, serve(1, true));
    let link = there.link_opened();
    let invoke = |number| {
        let invoke = Invoke {
            callee: CALLEE,
            registration: REGISTRATION,
            procedure: None,
            caller: None,
            receive_progress: true,
            payload: payload("[]"),
            seen: Slot(1),
        };
        CallerSays::Invoke { call: CallNumber(number), invoke: Box::new(invoke) }
    };
    there.heard_from_link(link, vec![invoke(1), invoke(2), invoke(2)], |_| false, NOW);
    assert_eq!(invoked(&mut there), [InvocationId(1)]);
    there.yielded(CALLEE, InvocationId(1), true, payload("[half]"));
    let says = |number, reply| CalleeSays { call: CallNumber(number), reply };
    let half = says(1, Reply::Progress(payload("[half]")));
    assert_eq!(there.take_for_link(link, usize::MAX), [half]);
    // A canceled call in the queue is answered; the one in flight is interrupted with the link.
    let cancel = CallerSays::Cancel { call: CallNumber(2), mode: Mode::Kill };
    there.heard_from_link(link, vec![cancel, invoke(3)], |_| false, NOW);
    let canceled = says(2, Reply::Failed(CallError::Canceled));
    assert_eq!(there.take_for_link(link, usize::MAX), [canceled]);
    there.link_lost(link);
    assert_eq!(told(&mut there, CALLEE), [interrupt(1, Mode::KillNoWait)]);
    assert!(is_empty(&there) && !there.owes(link));
    there.yielded(CALLEE, InvocationId(1), false, payload("[]"));
    assert_eq!(told(&mut there, CALLEE), [], "nobody waits in line any more");

    // Calls of registrations that it does not have, or no longer has, are not carried out.
    let link = there.link_opened();
    there.stop_serving(CALLEE, REGISTRATION);
    there.heard_from_link(link, vec![invoke(4)], |_| false, NOW);
    let none = says(4, Reply::Failed(CallError::NoSuchProcedure));
    assert_eq!(there.take_for_link(link, usize::MAX), [none]);
}
