//! SUBSCRIBE and UNSUBSCRIBE: from a client's message to a request of the session.
//!
//! Invariant: a SUBSCRIBE to topics on which nothing is ever published is refused.
//!
//! Deliberately absent: which subscriptions there are (`subscriptions`).

use super::message::{code, RequestId, Violation};
use super::options::SubscribeOptions;
use super::subscriptions::{Kind, Subscribe};
use super::{uri, WampGate};
use crate::gate::{Request, RetainedMode, Subscription};
use crate::types::limits;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::SILENT_TEXT;

impl WampGate {
    pub(super) fn subscribe(
        &mut self,
        request: RequestId,
        options: &[u8],
        topic: &str,
    ) -> Result<(), Violation> {
        let options = match SubscribeOptions::read(self.serializer, options)? {
            Ok(options) => options,
            Err(error) => {
                self.refuse(code::SUBSCRIBE, request, error.uri(), &error.to_string());
                return Ok(());
            }
        };
        let pattern = match options.pattern(topic) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.refuse(code::SUBSCRIBE, request, uri::INVALID_URI, &error.to_string());
                return Ok(());
            }
        };
        if pattern.is_silent() {
            self.refuse(code::SUBSCRIBE, request, uri::FEATURE_NOT_SUPPORTED, SILENT_TEXT);
            return Ok(());
        }
        if !self.permissions.allow_subscription(&pattern) {
            self.refuse_subscription(request, SubscribeError::NotAllowed);
            return Ok(());
        }
        let kind = Kind {
            own: options.is_own(),
            changes: options.retained == RetainedMode::Changes,
            text: pattern.weight(),
            filter: options.filter.as_ref().map_or(0, |value| value.held()),
        };
        match self.subscriptions.subscribe(request, &pattern, kind) {
            Subscribe::Ask(id) => {
                let SubscribeOptions { after, snapshot, retained, filter, .. } = options;
                let subscription = Subscription { id, pattern, after, snapshot, retained, filter };
                self.requests.push_back(Request::Subscribe(subscription));
            }
            Subscribe::Answer(id) => self.grant(code::SUBSCRIBED, request, Some(id.0)),
            Subscribe::Wait => {}
            Subscribe::TooMany => self.refuse_subscription(request, SubscribeError::TooMany),
            Subscribe::TooLargeFilters => {
                let sentence = format!(
                    "the filters of a session's subscriptions take {} bytes at most, all together",
                    limits::SESSION_FILTERS
                );
                self.refuse(code::SUBSCRIBE, request, uri::TOO_LARGE_FILTERS, &sentence);
            }
        }
        Ok(())
    }

    fn refuse_subscription(&mut self, request: RequestId, error: SubscribeError) {
        let uri = uri::of_subscribe_error(error);
        self.refuse(code::SUBSCRIBE, request, uri, &error.to_string());
    }

    pub(super) fn unsubscribe(&mut self, request: RequestId, id: SubscriptionId) {
        if self.subscriptions.unsubscribe(request, id) {
            self.requests.push_back(Request::Unsubscribe(id));
        } else {
            let sentence = format!("this session has no subscription {}", id.0);
            self.refuse(code::UNSUBSCRIBE, request, uri::NO_SUCH_SUBSCRIPTION, &sentence);
        }
    }
}
