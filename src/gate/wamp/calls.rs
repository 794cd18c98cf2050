//! Calls in WAMP: the session as a caller and as a callee.
//!
//! Invariant: no two calls in flight have the same number. A client gets INTERRUPT only if it announced that it takes
//! it.
//!
//! Deliberately absent: the choice of the callee, and the end of a call (`crate::call`).

mod options;
mod reply;

use std::collections::BTreeSet;

use bytes::Bytes;

pub(super) use self::options::announces_canceling;
use self::options::{cancel_mode, is_progress, CallOptions, RegisterOptions};
use super::message::{code, Call, Carried, RequestId, Violation};
use super::publishes::Undecided;
use super::{uri, WampGate};
use crate::call::{self, CallError, CallId, CallMessage, CallRequest, InvocationId, Serve};
use crate::gate::Request;
use crate::payload::{encode, mended, Serializer};
use crate::types::act::Act;
use crate::types::event::{Encoding, Event, Payload};
use crate::types::limits;
use crate::types::procedure::{Matching, Procedure, Register, RegistrationId};
use crate::types::topic::Realm;
use crate::types::value::Value;

/// What a session needs to know about its calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    in_flight: BTreeSet<CallId>,
    /// The client takes INTERRUPT.
    pub(super) interrupts: bool,
}

/// The log topic of registrations. No subscriber sees it.
const REGISTER_TOPIC: &str = "wamp/registration/register";
const UNREGISTER_TOPIC: &str = "wamp/registration/unregister";

impl WampGate {
    pub(super) fn call(&mut self, input: &Bytes, call: &Call<'_>) -> Result<(), Violation> {
        let id = CallId(call.request.0);
        if self.calls.in_flight.contains(&id) {
            let when = "with the number of another one that is not answered";
            return Err(Violation::Unexpected { message: "CALL", when });
        }
        let options = match CallOptions::read(self.serializer, call.options)? {
            Ok(options) => options,
            Err(error) => {
                self.refuse(code::CALL, call.request, error.uri(), &error.to_string());
                return Ok(());
            }
        };
        let procedure = match Procedure::new(&call.procedure, Matching::Exact) {
            Ok(procedure) => procedure,
            Err(error) => {
                self.refuse(code::CALL, call.request, uri::INVALID_URI, &error.to_string());
                return Ok(());
            }
        };
        if !self.permissions.allow_call(&procedure) {
            let sentence = "the user may not call this procedure";
            self.refuse(code::CALL, call.request, uri::NOT_AUTHORIZED, sentence);
            return Ok(());
        }
        let payload = self.payload(input, &call.carried);
        if payload.len() > limits::EVENT {
            let sentence = format!("a call has {} bytes at most", limits::EVENT);
            self.refuse(code::CALL, call.request, uri::PAYLOAD_SIZE_EXCEEDED, &sentence);
            return Ok(());
        }
        self.calls.in_flight.insert(id);
        let CallOptions { receive_progress, disclose_me, timeout } = options;
        let call = call::Call { id, procedure, payload, receive_progress, disclose_me, timeout };
        self.ask(CallRequest::Call(call));
        Ok(())
    }

    pub(super) fn cancel(&mut self, request: RequestId, options: &[u8]) -> Result<(), Violation> {
        let mode = match cancel_mode(self.serializer, options)? {
            Ok(mode) => mode,
            Err(error) => {
                // CANCEL has no answer of its own.
                self.dropped("CANCEL", request.0, &error.to_string());
                return Ok(());
            }
        };
        let call = CallId(request.0);
        // It may have been answered meanwhile.
        if self.calls.in_flight.contains(&call) {
            self.ask(CallRequest::Cancel { call, mode });
        }
        Ok(())
    }

    pub(super) fn register(
        &mut self,
        realm: Realm,
        request: RequestId,
        options: &[u8],
        procedure: &str,
    ) -> Result<(), Violation> {
        let options = match RegisterOptions::read(self.serializer, options)? {
            Ok(options) => options,
            Err(error) => {
                self.refuse(code::REGISTER, request, error.uri(), &error.to_string());
                return Ok(());
            }
        };
        let RegisterOptions { matching, invoke, concurrency, disclose_caller } = options;
        let procedure = match Procedure::new(procedure, matching) {
            Ok(procedure) if procedure.is_reserved() => {
                let sentence = "procedures that begin with wamp are the router's own";
                self.refuse(code::REGISTER, request, uri::INVALID_URI, sentence);
                return Ok(());
            }
            Ok(procedure) => procedure,
            Err(error) => {
                self.refuse(code::REGISTER, request, uri::INVALID_URI, &error.to_string());
                return Ok(());
            }
        };
        if !self.permissions.allow_registration(&procedure, matching) {
            let sentence = "the user may not register this procedure";
            self.refuse(code::REGISTER, request, uri::NOT_AUTHORIZED, sentence);
            return Ok(());
        }
        let register = Register { procedure, matching, invoke, concurrency, disclose_caller };
        self.decide(realm, REGISTER_TOPIC, &Act::Register(register));
        self.publishes.begin_registering(Undecided::Register { request, concurrency });
        Ok(())
    }

    pub(super) fn unregister(
        &mut self,
        realm: Realm,
        request: RequestId,
        registration: RegistrationId,
    ) {
        self.decide(realm, UNREGISTER_TOPIC, &Act::Unregister(registration));
        self.publishes.begin_registering(Undecided::Unregister { request, registration });
    }

    /// Puts an act into the log that only the state sees.
    fn decide(&mut self, realm: Realm, topic: &str, act: &Act) {
        let event = Event::of_act(realm, topic, self.session, act.encode());
        // Like its other publishes, for readers of the log.
        self.requests.push_back(Request::Decide(Event { exclude_me: true, ..event }));
    }

    pub(super) fn registered(&mut self, request: RequestId, concurrency: u32, id: RegistrationId) {
        self.grant(code::REGISTERED, request, Some(id.0));
        let interrupts = self.calls.interrupts;
        self.ask(CallRequest::Serve(Serve { registration: id, concurrency, interrupts }));
    }

    pub(super) fn unregistered(&mut self, request: RequestId, id: RegistrationId) {
        self.ask(CallRequest::StopServing(id));
        self.grant(code::UNREGISTERED, request, None);
    }

    pub(super) fn yielded(
        &mut self,
        input: &Bytes,
        invocation: InvocationId,
        options: &[u8],
        carried: &Carried<'_>,
    ) -> Result<(), Violation> {
        let progress = match is_progress(self.serializer, options)? {
            Ok(progress) => progress,
            Err(error) => {
                // YIELD has no answer, but its call has.
                self.fail(invocation, error.uri(), &error.to_string());
                return Ok(());
            }
        };
        let payload = self.payload(input, carried);
        if payload.len() > limits::EVENT {
            self.result_too_large(invocation);
        } else {
            self.ask(CallRequest::Yield { invocation, progress, payload });
        }
        Ok(())
    }

    pub(super) fn failed(
        &mut self,
        input: &Bytes,
        invocation: InvocationId,
        uri: &str,
        carried: &Carried<'_>,
    ) {
        let payload = self.payload(input, carried);
        // Stock clients close the connection on an ERROR without a valid URI.
        let uri = if uri::is_uri(uri) { uri } else { uri::INVALID_URI };
        if payload.len() + uri.len() > limits::EVENT {
            self.result_too_large(invocation);
        } else {
            self.ask(CallRequest::Fail { invocation, uri: uri.to_owned(), payload });
        }
    }

    fn result_too_large(&mut self, invocation: InvocationId) {
        let sentence = format!("a result has {} bytes at most", limits::EVENT);
        self.fail(invocation, uri::PAYLOAD_SIZE_EXCEEDED, &sentence);
    }

    /// Tells the caller why it gets no result.
    pub(super) fn fail(&mut self, invocation: InvocationId, uri: &str, sentence: &str) {
        let list = Value::List(vec![Value::Str(sentence.to_owned())]);
        let args = encode(Serializer::Json, &list).into();
        let payload = Payload { encoding: Encoding::Json, args, kwargs: Bytes::new() };
        self.ask(CallRequest::Fail { invocation, uri: uri.to_owned(), payload });
    }

    fn ask(&mut self, asked: CallRequest) {
        self.requests.push_back(Request::Call(asked));
    }

    /// A message's payload as it came, unless it would break its receivers.
    pub(super) fn payload(&self, input: &Bytes, carried: &Carried<'_>) -> Payload {
        let slice = |part: &[u8]| match part.is_empty() {
            true => Bytes::new(),
            false if carried.odd => mended(self.serializer, part),
            false => input.slice_ref(part),
        };
        let encoding = self.serializer.encoding();
        Payload { encoding, args: slice(carried.args), kwargs: slice(carried.kwargs) }
    }

    pub(super) fn told_of_calls(&mut self, told: &CallMessage) {
        let serializer = self.serializer;
        match told {
            CallMessage::Invocation(invocation) => {
                self.send(reply::invocation(serializer, invocation))
            }
            CallMessage::Interrupt { invocation, mode } => {
                if self.calls.interrupts {
                    self.send(reply::interrupt(serializer, *invocation, *mode));
                }
            }
            CallMessage::Result { call, progress, payload } => {
                if !progress {
                    self.calls.in_flight.remove(call);
                }
                self.send(reply::result(serializer, *call, *progress, payload));
            }
            CallMessage::Failed { call, error } => {
                self.calls.in_flight.remove(call);
                match error {
                    CallError::Callee { uri, payload } => {
                        self.send(reply::error(serializer, *call, uri, payload));
                    }
                    own => {
                        let (uri, sentence) = (uri::of_call_error(own), own.to_string());
                        self.refuse(code::CALL, RequestId(call.0), uri, &sentence);
                    }
                }
            }
        }
    }
}
