//! Messages that have no effect: refused if WAMP has an answer, dropped if it has none.
//!
//! Invariant: the session continues.
//!
//! Deliberately absent: finding values that can't be passed on (`payload`), and protocol violations, which end a
//! session.

use super::message::{code, Message, Violation};
use super::options::PublishOptions;
use super::{uri, WampGate};
use crate::gate::Dropped;
use crate::payload::Malformed;

impl WampGate {
    /// Refuses a message that holds a value that can't be passed on; false if nothing of the message is passed on
    /// anyway.
    pub(super) fn refuse_unfit(
        &mut self,
        message: &Message<'_>,
        unfit: Malformed,
    ) -> Result<bool, Violation> {
        let sentence = format!("{unfit} can't be passed on to everybody");
        let (code, request) = match message {
            Message::Publish(publish) => {
                let options = PublishOptions::read(self.serializer, publish.options)?;
                let uri = uri::INVALID_ARGUMENT;
                self.refuse_publish(&options, publish.request, uri, &sentence);
                return Ok(true);
            }
            Message::Yield { invocation, .. } | Message::Error { invocation, .. } => {
                self.fail(*invocation, uri::INVALID_ARGUMENT, &sentence);
                return Ok(true);
            }
            Message::Call(call) => (code::CALL, call.request),
            Message::Subscribe { request, .. } => (code::SUBSCRIBE, *request),
            Message::Register { request, .. } => (code::REGISTER, *request),
            _ => return Ok(false),
        };
        self.refuse(code, request, uri::INVALID_ARGUMENT, &sentence);
        Ok(true)
    }

    /// A message has no effect, and WAMP has no answer to it.
    pub(super) fn dropped(&mut self, message: &str, number: u64, sentence: &str) {
        let dropped = self.dropped.get_or_insert(Dropped { count: 0, reason: String::new() });
        dropped.count += 1;
        dropped.reason = format!("{message} {number}: {sentence}");
    }
}
