//! A gate for scripts: its client sends and receives words.
//!
//! Invariant: each line of the client is one request, and each message to it is one line.
//!
//! Deliberately absent: a protocol.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::gate::{
    Allowed, Delivery, EndReason, Gate, Handover, OpenRefusal, PersistentReading, Request, Resumed,
    RetainedMode, Sending, Subscription,
};
use crate::rules::Permissions;
use crate::session::testing::{event, realm};
use crate::types::act::{Act, Attach, Join, PersistentSubscription, Refusal, Terms};
use crate::types::answer::{Answer, Stored};
use crate::types::event::{Event, Qos, SessionId};
use crate::types::moment::Moment;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::Pattern;
use crate::types::value::Value;
use vulpes_raft::ids::Position;

pub(super) struct Words {
    session: SessionId,
    open: bool,
    /// How many filter changes are not done.
    filter_changes: usize,
    requests: VecDeque<Request>,
    output: VecDeque<Bytes>,
    permissions: Permissions,
}

fn pattern(text: &str) -> Pattern {
    Pattern::from_mqtt(text).unwrap()
}

fn reading(id: u64, text: &str, from: Option<Position>) -> PersistentReading {
    PersistentReading {
        id: SubscriptionId(id),
        pattern: pattern(text),
        retained: RetainedMode::None,
        changes: false,
        condition: None,
        from,
    }
}

impl Words {
    pub(super) fn new(session: SessionId) -> Self {
        let (requests, output) = (VecDeque::new(), VecDeque::new());
        Self {
            session,
            open: false,
            filter_changes: 0,
            requests,
            output,
            permissions: Permissions::default(),
        }
    }

    fn tell(&mut self, text: String) {
        self.output.push_back(text.into());
    }

    fn persist(&mut self, id: u64, text: &str) {
        let persistent = PersistentSubscription {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            changes: false,
            identifier: None,
            condition: None,
        };
        self.filter_changes += 1;
        self.requests.push_back(Request::Persist {
            act: Act::Subscribe(vec![(text.to_owned(), persistent)]),
            subscribe: vec![reading(id, text, None)],
            unsubscribe: Vec::new(),
        });
    }

    fn publish(&mut self, words: &[&str]) {
        let when = words.contains(&"when").then_some(Value::Null);
        let terms = Terms { when, watch: true, ..Terms::default() };
        let retain = words.contains(&"retain");
        let event = Event { publisher: self.session, retain, ..event(words[0]) };
        let event = Event { act: terms.encode(), ..event };
        self.requests.push_back(Request::Publish { event, terms, once: false });
    }
}

impl Gate for Words {
    fn permissions(&mut self) -> &mut Permissions {
        &mut self.permissions
    }

    fn receive(&mut self, input: Bytes, _: Moment) {
        let text = String::from_utf8(input.to_vec()).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let request = match words[0] {
            "open" => Request::Open { realm: realm(), join: Join::default(), user: None },
            "attach" => {
                let join = Join { client: Some("c".into()), ..Join::default() };
                Request::Attach {
                    realm: realm(),
                    attach: Attach { join, clean: false, expiry: 9 },
                    user: None,
                }
            }
            "publish" => return self.publish(&words[1..]),
            "persist" => return self.persist(number(1), words[2]),
            "subscribe" => Request::Subscribe(Subscription {
                id: SubscriptionId(number(1)),
                pattern: pattern(words[2]),
                after: words.get(4).map(|_| After::Position(Position(number(4)))),
                snapshot: false,
                retained: RetainedMode::None,
                filter: None,
            }),
            "bye" => Request::Close { drop_will: true },
            _ => panic!("not a word: {text}"),
        };
        self.requests.push_back(request);
    }

    fn opened(&mut self, result: Result<(), OpenRefusal>) {
        self.open = result.is_ok();
        self.tell(result.map_or_else(|refusal| refusal.to_string(), |()| "opened".to_owned()));
    }

    fn resume(&mut self, resumed: Resumed) {
        let filters = (1..).zip(resumed.filters);
        let readings = filters.map(|(id, (text, _, from))| reading(id, &text, Some(from)));
        self.requests.push_back(Request::Resume(readings.collect()));
        self.tell(if resumed.present { "resumed" } else { "anew" }.to_owned());
    }

    fn noted(&mut self, room: bool) {
        self.filter_changes -= 1;
        self.tell(if room { "persistent" } else { "no room" }.to_owned());
    }

    fn handover(&self) -> Handover {
        Handover::default()
    }

    fn answered(&mut self, answer: Answer) {
        let outcome = match answer.outcome {
            Ok(stored) => format!("at {}", stored.position),
            Err(error) => error.to_string(),
        };
        self.tell(format!("stored {}+{} {outcome}", answer.first, answer.count));
    }

    fn decided(&mut self, sequence: u64, outcome: Result<Stored, Refusal>) {
        let outcome = outcome.map_or_else(|refusal| refusal.to_string(), |_| "yes".to_owned());
        self.tell(format!("decided {sequence} {outcome}"));
    }

    fn subscribed(&mut self, id: SubscriptionId, result: Result<(), SubscribeError>) {
        assert_eq!(result, Ok(()));
        self.tell(format!("subscribed {}", id.0));
    }

    fn unsubscribed(&mut self, id: SubscriptionId) {
        self.tell(format!("unsubscribed {}", id.0));
    }

    fn ended(&mut self, id: SubscriptionId) {
        self.tell(format!("ended {}", id.0));
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        let doubtful = delivery.sending == Sending::Doubtful;
        let doubt = if doubtful { " perhaps again" } else { "" };
        self.tell(format!("event {} {}{doubt}", delivery.position, delivery.topic));
    }

    fn can_deliver(&self) -> bool {
        self.open && self.filter_changes == 0
    }

    fn deadline(&self) -> Option<Moment> {
        None
    }

    fn tick(&mut self, _: Moment) {}

    fn end(&mut self, reason: EndReason) {
        self.open = false;
        self.tell(format!("end {reason:?}"));
        self.requests.push_back(Request::Close { drop_will: false });
    }

    fn allow(&mut self, _: Allowed) {}

    fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    fn poll_output(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    fn output_size(&self) -> usize {
        self.output.iter().map(Bytes::len).sum()
    }

    fn session(&self) -> SessionId {
        self.session
    }
}
