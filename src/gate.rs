//! Gates: one protocol's session each, as a state machine without I/O. What they share is here.
//!
//! A driver (`server`) owns the socket. It hands a gate what the client sent ([`Gate::receive`]), what became of its
//! requests, and the events of its subscriptions; then it drains [`Gate::poll_request`] and [`Gate::poll_output`]
//! before the next input.
//!
//! Invariant: a gate never waits, never reads a clock, and never panics on what a client sent. After it has asked for
//! [`Request::Close`] it asks for nothing more.
//!
//! Deliberately absent: subscription matching, batching and time-outs of publishes, which the driver and the entry do
//! for both protocols alike.

mod details;
pub mod mqtt;
mod terms;
mod waits;
pub mod wamp;

use bytes::Bytes;
use vulpes_raft::ids::{EventId, Position};
use vulpes_raft::mutant::{planted, Mutant};

use crate::call;
use crate::segment::StoredEvent;
use crate::types::act::{Act, Attach, InFlight, Join, KeptSubscription, Refusal};
use crate::types::answer::{Answer, Stored};
use crate::types::event::{Event, SessionId};
use crate::types::moment::Moment;
use crate::types::subscription::{After, SubscribeError, SubscriptionId};
use crate::types::topic::{Pattern, Realm, Topic};
use crate::types::value::Value;
pub use terms::MergingRealms;

/// What a gate wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Begin a session in this realm; answered by [`Gate::opened`] once all nodes know of it. A client with a name
    /// (MQTT client identifier) takes over from an older session of that name in the realm.
    Open { realm: Realm, join: Join },
    /// Begin a session that outlives its connection; answered as [`Request::Open`] is, with [`Gate::resume`] before.
    Attach { realm: Realm, attach: Attach },
    /// Read the log at one cursor for all that is kept, from where an earlier session left it.
    Resume(Vec<KeptReading>),
    /// Put an act into the log and change what is read at that very place: no event comes until [`Gate::noted`].
    Keep { act: Act, subscribe: Vec<KeptReading>, unsubscribe: Vec<SubscriptionId> },
    /// Put an event into the log. The n-th of a session (from 0) is answered as sequence n, in order, by
    /// [`Gate::answered`], whether or not its publisher wants to know. Where its fate is decided in the order
    /// ([`crate::types::act::Act::is_decided`]), [`Gate::decided`] follows when it is, maybe much later.
    Publish(Event),
    /// Begin a subscription; answered by [`Gate::subscribed`] before its first event.
    Subscribe(Subscription),
    /// End a subscription; answered by [`Gate::unsubscribed`], after which no event of it comes.
    Unsubscribe(SubscriptionId),
    /// Take part in calls; what comes of it is said by [`Gate::told`].
    Call(call::Asked),
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
    /// End by itself, with [`Gate::ended`], when the replay has reached where the tail was at the start; with
    /// `retained`, behind the last retained value.
    pub snapshot: bool,
    /// Whether retained values come first. With `after`, as soon as this node has read the log up to there.
    pub retained: RetainedMode,
    /// Only events whose value fits this.
    pub filter: Option<Value>,
}

/// What a subscription has to do with retained values.
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

/// A subscription that outlives its session, as it is read. Its retained values, if it has any, come beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptReading {
    pub id: SubscriptionId,
    pub pattern: Pattern,
    pub retained: RetainedMode,
    /// Only events that change a retained value.
    pub changes: bool,
    pub condition: Option<Value>,
    /// The first position it is for; where it is only asked for, that is decided in the order.
    pub from: Option<Position>,
}

/// What a session finds of earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// There was something.
    pub present: bool,
    pub in_flight: Vec<InFlight>,
    pub filters: Vec<(String, KeptSubscription, Position)>,
    /// Events before this place are of the time away.
    pub back_at: Position,
}

/// What a session leaves to later ones, beside where it reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parting {
    /// Ascending by position.
    pub in_flight: Vec<InFlight>,
    /// The client has changed its mind about it.
    pub expiry: Option<u32>,
}

/// How an event comes to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// Beside the session's cursor: a later session knows nothing of it.
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
    #[error("this node has as many connections as it takes")]
    TooManyConnections,
    #[error("the names and wills of this node's clients take as much room as there is")]
    NoRoom,
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
    /// It is what the topic has kept, and not the event as it comes by.
    pub retained: bool,
    pub sending: Sending,
    /// Ascending; at least one, unless it is sent again.
    pub subscriptions: &'a [SubscriptionId],
}

/// Why a session ends from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The node is stopping; the client may go to another one.
    Shutdown,
    /// Another connection took the session over.
    TakenOver,
    /// A publish stays unanswered for longer than publishers are made to wait.
    Unavailable,
    /// The node lost its lease: for all others the session is over.
    Lost,
    /// The client has been too slow with its handshake.
    HandshakeTimeout,
    /// A large message comes so slowly that it keeps those of others waiting.
    TooSlow,
    /// The client reads so slowly that the log is not kept any more where it is.
    FellBehind { oldest: Position },
}

/// Messages of a client that came to nothing, and that its protocol has no answer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    pub count: u64,
    /// What was wrong with the last one.
    pub reason: String,
}

/// What a client is told beneath its protocol when its gate closes, where the transport has words of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Farewell {
    /// The gate has said all.
    #[default]
    Said,
    /// The node goes away: the client is welcome at another one, and here once the node is back.
    Away(String),
    /// The session is over, and the client is welcome to begin another one.
    Again(String),
}

/// A protocol's session.
pub trait Gate: Send {
    /// Takes what the client sent: for WAMP one WebSocket message, for MQTT one or more whole packets.
    fn receive(&mut self, input: Bytes, now: Moment);

    /// The session's realm is open, or not.
    fn opened(&mut self, result: Result<(), OpenRefusal>);

    /// Before it is open: what it finds of earlier sessions. Not called where nothing is kept.
    fn resume(&mut self, _resumed: Resumed) {}

    /// What the gate asked to be kept or dropped is, or not for lack of room. In the order of its asking.
    fn noted(&mut self, _room: bool) {}

    /// What it leaves to later sessions, as of now.
    fn parting(&self) -> Parting {
        Parting::default()
    }

    /// Publishes found their fate, in the order in which they were made.
    fn answered(&mut self, answer: Answer);

    /// What stands at this sequence number, answered as stored before, found its fate in the order.
    fn decided(&mut self, sequence: u64, outcome: Result<Stored, Refusal>);

    /// Something about the session's calls. Sessions of a protocol without calls are told nothing.
    fn told(&mut self, _told: call::Told) {}

    /// A subscription stands, or does not.
    fn subscribed(&mut self, id: SubscriptionId, result: Result<(), SubscribeError>);

    /// A subscription was ended at the gate's request.
    fn unsubscribed(&mut self, id: SubscriptionId);

    /// A snapshot subscription has shown all there was.
    fn ended(&mut self, id: SubscriptionId);

    /// Takes an event; only called while [`Gate::can_deliver`].
    fn deliver(&mut self, delivery: Delivery<'_>);

    /// Whether every subscription gets an event of its own, so that one event may be handed over for some of them at a time.
    fn sends_each(&self) -> bool {
        false
    }

    /// Whether the client may be sent events now: its session is open, and its window of unacknowledged ones has room.
    fn can_deliver(&self) -> bool;

    /// The client is there, though it said nothing: it takes what waits for it, or it is not being listened to.
    fn alive(&mut self, _now: Moment) {}

    /// When [`Gate::tick`] wants to be called at the latest.
    fn deadline(&self) -> Option<Moment>;

    /// Time has passed.
    fn tick(&mut self, now: Moment);

    /// The session ends from our side: says so as the protocol does, then asks for [`Request::Close`].
    fn end(&mut self, reason: EndReason);

    /// What was dropped without an answer since this was asked last.
    fn poll_dropped(&mut self) -> Option<Dropped> {
        None
    }

    /// What the transport is to say at the end.
    fn farewell(&self) -> Farewell {
        Farewell::Said
    }

    /// The next thing it wants done.
    fn poll_request(&mut self) -> Option<Request>;

    /// The next bytes for the client: for WAMP one message, for MQTT all there is so far.
    fn poll_output(&mut self) -> Option<Bytes>;

    /// Bytes waiting in [`Gate::poll_output`].
    fn output_size(&self) -> usize;

    /// The session's number, which its events carry as their publisher.
    fn session(&self) -> SessionId;
}
