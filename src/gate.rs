//! Gates: each is one protocol's session as a state machine without I/O. This file has what they share.
//!
//! A driver (`server`) owns the socket. It hands a gate the client's input ([`Gate::receive`]), the outcomes of its
//! requests, and the events of its subscriptions. Then it drains [`Gate::poll_request`] and [`Gate::poll_output`]
//! before the next input.
//!
//! Invariant: a gate never waits, never reads a clock, and never panics on a client's input. After [`Request::Close`]
//! it makes no more requests.
//!
//! Deliberately absent: subscription matching, batching and time-outs of publishes; the driver and the entry do these
//! for both protocols.

mod details;
pub mod mqtt;
mod terms;
mod waits;
pub mod wamp;

use bytes::Bytes;
use vulpes_raft::ids::{EventId, Position};
use vulpes_raft::mutant::{planted, Mutant};

use crate::call;
use crate::payload::Serializer;
use crate::rules::Permissions;
use crate::segment::StoredEvent;
use crate::types::access::LoginRefusal;
use crate::types::act::{Act, Attach, InFlight, Join, PersistentSubscription, Refusal, Terms};
use crate::types::answer::{Answer, Stored};
use crate::types::event::{Event, SessionId};
use crate::types::login::{LoginReply, LoginStep};
use crate::types::moment::Moment;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::{Pattern, Realm, Topic};
use crate::types::value::Value;
pub use terms::MergingRealms;
pub use waits::Allowed;

/// What a gate asks its driver to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Check a step of a client's login; answered by [`Gate::logged_in`].
    Login(LoginStep),
    /// Begin a session in this realm; answered by [`Gate::opened`] once all nodes know of it. A client with a name
    /// (MQTT client identifier) takes over from an older session of that name in the realm.
    Open { realm: Realm, join: Join, user: Option<String> },
    /// Begin a persistent session; answered like [`Request::Open`], preceded by [`Gate::resume`].
    Attach { realm: Realm, attach: Attach, user: Option<String> },
    /// Read the log at one cursor for all persistent subscriptions, from where an earlier session stopped.
    Resume(Vec<PersistentReading>),
    /// Put an act into the log and change the subscriptions at its position: no event comes until [`Gate::noted`].
    Persist { act: Act, subscribe: Vec<PersistentReading>, unsubscribe: Vec<SubscriptionId> },
    /// Put an event into the log, which has these terms encoded if they are not plain. The n-th of a session (from 0, each
    /// [`Request::Decide`] included) is answered as sequence n, in order, by [`Gate::answered`], whether or not its publisher
    /// wants an answer. If the terms are conditional, [`Gate::decided`] follows, maybe much later. It also follows if the event
    /// is to be published `once`, however often its client sends it.
    Publish { event: Event, terms: Terms, once: bool },
    /// Put an event into the log that only the state sees. It is answered like a publish, and then decided like a
    /// conditional one.
    Decide(Event),
    /// Begin a subscription; answered by [`Gate::subscribed`] before its first event.
    Subscribe(Subscription),
    /// End a subscription; answered by [`Gate::unsubscribed`], after which no event of it comes.
    Unsubscribe(SubscriptionId),
    /// Take part in calls; [`Gate::told`] reports the outcome.
    Call(call::CallRequest),
    /// Close the connection once all output is written. The session's MQTT will is published, unless it is dropped.
    Close { drop_will: bool },
}

/// What a session wants to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub pattern: Pattern,
    /// Replay the log after this, then go on live. `None`: live only.
    pub after: Option<After>,
    /// End by itself, with [`Gate::ended`], when the replay has reached the tail as of the start; with `retained`,
    /// after the last retained value.
    pub snapshot: bool,
    /// Whether retained values come first. With `after`, as soon as this node has read the log up to there.
    pub retained: RetainedMode,
    /// Only events whose value matches this.
    pub filter: Option<Value>,
}

/// How a subscription uses retained values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainedMode {
    /// Nothing: events only.
    #[default]
    None,
    /// First the retained values, then every event that changes one.
    Changes,
    /// First the retained values, then all events.
    State,
}

/// How to read a persistent subscription. Its retained values, if any, are read separately.
#[derive(Debug, Clone, PartialEq)]
pub struct PersistentReading {
    pub id: SubscriptionId,
    pub pattern: Pattern,
    pub retained: RetainedMode,
    /// Only events that change a retained value.
    pub changes: bool,
    pub condition: Option<Value>,
    /// The first position it covers; while it is being requested, this is decided in the order.
    pub from: Option<Position>,
}

/// What earlier sessions of the client left to this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Earlier sessions left something.
    pub present: bool,
    pub in_flight: Vec<InFlight>,
    /// Packet identifiers of publishes of QoS 2 whose exchange is not complete.
    pub received: Vec<u16>,
    pub filters: Vec<(String, PersistentSubscription, Position)>,
    /// Events before this position are from the offline period.
    pub back_at: Position,
}

/// What a session leaves to later ones, besides its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handover {
    /// Ascending by position.
    pub in_flight: Vec<InFlight>,
    /// The client changed it in its DISCONNECT.
    pub expiry: Option<u32>,
}

/// How an event reaches a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Separate from the session's cursor: a later session knows nothing of it.
    Aside,
    First,
    /// It may have been sent to an earlier session.
    Doubtful,
    /// It was sent to an earlier session, under this packet identifier, and not acknowledged.
    Again(u16),
}

/// Why a session was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    #[error("no such realm")]
    NoSuchRealm,
    #[error("this cluster has users: log in as one of them")]
    LoginNeeded,
    #[error("an administrator has banned this user or client")]
    Banned,
    #[error("this node has as many connections as it takes")]
    TooManyConnections,
    #[error("this node is stopping; connect to another one")]
    Stopping,
    #[error("there is no room for more names and wills of this node's clients")]
    NoRoom,
    #[error("the user, or the address, has as many connections to this node as it may have")]
    QuotaReached,
    #[error("clients connect faster than this node lets them; wait before you try again")]
    TooFast,
    #[error("the user may not publish to the topic of the will")]
    WillNotAllowed,
    #[error("no quorum answers right now; try again, or at another node")]
    Unavailable,
}

/// How many subscriptions a session may have.
pub(crate) fn most_subscriptions() -> usize {
    crate::types::limits::SESSION_SUBSCRIPTIONS
        + usize::from(planted(Mutant::OneSubscriptionTooMany))
}

/// One event for one session, with the subscriptions it is for.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    pub event: &'a StoredEvent,
    pub topic: &'a Topic,
    pub position: Position,
    pub id: EventId,
    /// It is the topic's retained value, not a live event.
    pub retained: bool,
    pub sending: Sending,
    /// Ascending; at least one, unless the event is sent again.
    pub subscriptions: &'a [SubscriptionId],
}

/// Why this node ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node is stopping; the client may connect to another one.
    Shutdown,
    /// Another connection took the session over.
    TakenOver,
    /// A publish has stayed unanswered for longer than the time limit.
    Unavailable,
    /// The node lost its lease: for all other nodes the session is over.
    Lost,
    /// The client's user was removed or disabled, or it has none and needs one.
    Revoked,
    /// The client's user, name or address was banned.
    Banned,
    /// What the client logged in with is no longer valid.
    Expired,
    /// The client has been too slow with its handshake.
    HandshakeTimeout,
    /// A large message arrives so slowly that it keeps those of others waiting.
    TooSlow,
    /// The client reads so slowly that its place in the log was released.
    FellBehind { oldest: Position },
}

/// Messages of a client that were dropped because its protocol has no answer for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    pub count: u64,
    /// Why the last one was dropped.
    pub reason: String,
}

/// What the transport tells a client when its gate closes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Farewell {
    /// The gate has said everything.
    #[default]
    Said,
    /// The node is stopping: the client may connect to another one, and to this one once it is back.
    Away(String),
    /// The session is over, and the client may begin another one.
    Again(String),
}

/// A protocol's session.
pub trait Gate: Send {
    /// What the client may do. The driver sets it, and keeps it current.
    fn permissions(&mut self) -> &mut Permissions;

    /// Takes the client's input: for WAMP one WebSocket message, for MQTT one or more whole packets.
    fn receive(&mut self, input: Bytes, now: Moment);

    /// The client's login has got one step further, or was refused.
    fn logged_in(&mut self, _result: Result<LoginReply, LoginRefusal>) {}

    /// Before the session is open, everything that has come is done with: the client has to answer.
    fn awaits_answer(&self) -> bool {
        false
    }

    /// The session's realm was opened, or refused.
    fn opened(&mut self, result: Result<(), OpenRefusal>);

    /// Called before the session opens, with what earlier ones left. Not called if the session is not persistent.
    fn resume(&mut self, _resumed: Resumed) {}

    /// The gate's oldest [`Request::Persist`] is done, or failed for lack of room.
    fn noted(&mut self, _room: bool) {}

    /// What it leaves to later sessions, as of now.
    fn handover(&self) -> Handover {
        Handover::default()
    }

    /// The outcome of publishes, in the order in which they were made.
    fn answered(&mut self, answer: Answer);

    /// The outcome, decided in the order, of the publish with this sequence number, which was answered as stored
    /// before.
    fn decided(&mut self, sequence: u64, outcome: Result<Stored, Refusal>);

    /// A message about the session's calls. Protocols without calls ignore it.
    fn told(&mut self, _told: call::CallMessage) {}

    /// A subscription was made, or failed.
    fn subscribed(&mut self, id: SubscriptionId, result: Result<(), SubscribeError>);

    /// A subscription was ended at the gate's request.
    fn unsubscribed(&mut self, id: SubscriptionId);

    /// A snapshot subscription is complete.
    fn ended(&mut self, id: SubscriptionId);

    /// Takes an event; only called while [`Gate::can_deliver`].
    fn deliver(&mut self, delivery: Delivery<'_>);

    /// The event that an earlier session sent under this packet identifier is not sent again: the client may not see it.
    fn give_up(&mut self, _packet_id: u16) {}

    /// Lets go of memory that is free: nothing has happened for a while.
    fn rest(&mut self) {}

    /// The serializer in which the client gets payloads; none if it gets an MQTT client's bytes.
    fn serializer(&self) -> Option<Serializer> {
        None
    }

    /// Whether every subscription gets its own copy, so that one event may be delivered to some of them at a time.
    fn sends_each(&self) -> bool {
        false
    }

    /// Whether the client may be sent events now: its session is open, and its window of unacknowledged ones has
    /// room.
    fn can_deliver(&self) -> bool;

    /// The client counts as alive without having sent anything: it reads its backlog, or we are not reading its
    /// input.
    fn alive(&mut self, _now: Moment) {}

    /// When [`Gate::tick`] has to be called at the latest.
    fn deadline(&self) -> Option<Moment>;

    /// Time has passed.
    fn tick(&mut self, now: Moment);

    /// This node ends the session: tells the client as the protocol does, then makes [`Request::Close`].
    fn end(&mut self, reason: EndReason);

    /// Sets what the node has room for. Before the first call it is everything.
    fn allow(&mut self, allowed: Allowed);

    /// Messages dropped without an answer since the last call.
    fn poll_dropped(&mut self) -> Option<Dropped> {
        None
    }

    /// What the transport should say at the end.
    fn farewell(&self) -> Farewell {
        Farewell::Said
    }

    /// The next request.
    fn poll_request(&mut self) -> Option<Request>;

    /// The next bytes for the client: for WAMP one message, for MQTT everything so far.
    fn poll_output(&mut self) -> Option<Bytes>;

    /// Bytes waiting in [`Gate::poll_output`].
    fn output_size(&self) -> usize;

    /// The session's number, which its events carry as their publisher.
    fn session(&self) -> SessionId;
}
