//! Every limit of a node, in one place, with the relations between them checked when the crate is built.
//!
//! Invariant: every queue, frame, table and wait in this crate has a limit with a name here, in the configuration, or
//! at the top of the one file that owns it.

use std::time::Duration;

/// Largest segment body in bytes. Just under a power of two, because the store rounds allocations up to one.
pub const SEGMENT_BODY: usize = (2 << 20) - 200;

/// Size in bytes at which a segment takes no more events, even if it still waits for credit.
pub const SEGMENT_TARGET: usize = (256 << 10) - 200;

/// Most events in one segment.
pub const SEGMENT_EVENTS: usize = 65_536;

/// Room in a body for its header, footer and the dictionaries of one event.
pub const SEGMENT_OVERHEAD: usize = 80 << 10;

/// Largest event with all its parts, in bytes: a payload of a mebibyte, plus metadata.
pub const EVENT: usize = (1 << 20) + (16 << 10);

/// Most extension fields of one event. A reader refuses a body with more: raising it needs another log format.
pub const EXTENSION_FIELDS: usize = 32;

/// Bytes of an event's extension fields, all together, with their tags and lengths. As above.
pub const EXTENSION_BYTES: usize = 64 << 10;

/// Longest topic or pattern, in bytes of its canonical text: MQTT's maximum. It may have any number of parts.
pub const TOPIC: usize = MQTT_TEXT;

/// Longest procedure or pattern of procedures, in bytes of its text.
pub const PROCEDURE: usize = 4096;

/// Most parts of a procedure or pattern. The search for wildcard registrations recurses over them.
pub const PROCEDURE_PARTS: usize = 128;

/// Longest realm name, in bytes.
pub const REALM: usize = 128;

/// Largest message from a client, in bytes: an event and the protocol's overhead.
pub const CLIENT_MESSAGE: usize = EVENT + (16 << 10);

/// How many times as large a message may become in another serializer. An empty byte string, one byte in CBOR, takes nine in
/// JSON with the comma after it.
pub const GROWTH: usize = 9;

/// Largest output of a WAMP session: what may wait already, and one message as large as it may become.
pub const CLIENT_OUTPUT: usize = SESSION_OUTPUT_MOST + GROWTH * CLIENT_MESSAGE;

/// Deepest nesting of lists and dictionaries in a payload.
pub const PAYLOAD_DEPTH: usize = 64;

/// Largest value of the options `when`, `will` and `filter`, in bytes as sent.
pub const CONDITION: usize = 64 << 10;

/// Most values in one such value: itself, and everything in its lists and dictionaries.
pub const CONDITION_VALUES: usize = 4096;

/// Deepest nesting of lists and dictionaries in one.
pub const CONDITION_DEPTH: usize = 32;

/// Bytes that the `filter`s of one session's subscriptions take in memory, all together.
pub const SESSION_FILTERS: usize = 1 << 20;

/// Longest text or binary field of an MQTT packet, in bytes (MQTT 5 section 1.5.4).
pub const MQTT_TEXT: usize = u16::MAX as usize;

/// Bytes that all nodes store about the sessions of one node: names, wills and details. Further sessions are refused.
pub const SESSION_STATES_BYTES: usize = 64 << 20;

/// Unread bytes that each client connection may hold without a budget: room for one read of a client that sends
/// little.
pub const INPUT_FREE: usize = 4 << 10;

/// Bytes beyond that, of all clients together: input that the entry has not taken yet, and large messages on their way. A
/// client that finds no room waits in the queue, and its socket is not read meanwhile. While the budget is short, room is
/// granted to a message in steps, as it arrives.
pub const INPUT_BYTES: usize = 64 << 20;

/// The same for all connections whose session is not open yet.
pub const LOGIN_BYTES: usize = 16 << 20;

/// One part in this many of a budget for input is a reserve: the first in the queue gets all the rest of its message out of it.
pub const RESERVES: usize = 4;

/// Slowest speed of a client's large message while others wait for the room that it takes: this many bytes a second,
/// in each window of this length.
pub const INPUT_PACE: (Duration, usize) = (Duration::from_secs(2), 64 << 10);

/// Bytes that each session may have waiting for its socket without a budget, and as many for one more event.
pub const OUTPUT_FREE: usize = 16 << 10;

/// Bytes beyond that, of all sessions together. While there is no room, a session gets small events one by one, and waits in
/// the queue for a large one.
pub const OUTPUT_BYTES: usize = 128 << 20;

/// Slowest speed at which a client reads its part of these bytes while others wait: this many bytes a second, in each window of
/// this length.
pub const OUTPUT_PACE: (Duration, usize) = (Duration::from_secs(2), 64 << 10);

/// Bytes of segments that sessions hold while they wait for their sockets, all together. A session that finds no room
/// drops its segments, and reads them again when it continues.
pub const SEGMENTS_HELD: usize = 64 << 20;

/// Unread bytes that a connection of another node may hold without a budget.
pub const PEER_FREE: usize = 64 << 10;

/// Bytes of larger frames on their way from other nodes, all together.
pub const PEER_BYTES: usize = 64 << 20;

/// The same for Raft alone, so that no other service can hold it up.
pub const RAFT_BYTES: usize = 64 << 20;

/// Slowest speed of such a frame while others wait for the room that it takes: this many bytes a second, in each
/// window of this length.
pub const PEER_PACE: (Duration, usize) = (Duration::from_secs(3), 1 << 20);

/// Connections of other nodes that may be open at once: several services from each, and some that are being replaced.
pub const PEER_CONNECTIONS: usize = 1024;

/// Connections to the node port that have not identified themselves.
pub const PEER_STRANGERS: usize = 256;

/// Client connections a node accepts; further ones are refused.
pub const CONNECTIONS: usize = 20_000;

/// Open files that are reserved for other nodes, operators and the disk, out of the process's limit.
pub const RESERVED_FILES: usize = 256;

/// Addresses whose clients a node counts, each kind of quota by itself; further ones count as one. An IPv6 address counts with all
/// of its /64.
pub const QUOTA_ADDRESSES: usize = 100_000;

/// Connections beyond that get a refusal, this many at a time; others are closed silently.
pub const REFUSALS: usize = 64;

/// Time limit from connecting to an open session.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// TLS handshakes of clients that go on at once; further clients wait in line, unread.
pub const TLS_HANDSHAKES: usize = 1024;

/// While others wait in line, a handshake that has taken this long makes room for one of them.
pub const TLS_HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);

/// Time limit to write a connection's last message, and then for the client to read it and disconnect.
pub const LINGER: Duration = Duration::from_secs(2);

/// Bytes that a client may still send meanwhile: they are read and dropped, so that the last message is not lost.
pub const LINGER_BYTES: usize = 16 << 20;

/// How long a WAMP client may be silent before it is pinged, and then until its connection is closed. While output
/// waits for its socket, reading some of it is a sign of life, and reading nothing is silence.
pub const WAMP_SILENCE: Duration = Duration::from_secs(5);

/// Bytes of the topics and patterns of one session's subscriptions, all together. Patterns that no index has count
/// several times (`topic::weight`).
pub const SESSION_PATTERNS: usize = 1 << 20;

/// How long an MQTT client without a keep-alive may read nothing of its pending output.
pub const SESSION_STALLED: Duration = Duration::from_secs(60);

/// Bytes that the subscriptions of all sessions at a node take, roughly. Further ones are refused.
pub const SUBSCRIPTIONS_BYTES: usize = 1 << 30;

/// Bytes that a subscription takes in addition to its pattern and filter, roughly.
pub const SUBSCRIPTION_OVERHEAD: usize = 512;

/// Subscriptions of one session.
pub const SESSION_SUBSCRIPTIONS: usize = 10_000;

/// Events of one session that wait for their position; at this limit, its socket is not read.
pub const SESSION_UNANSWERED: usize = 8192;

/// Bytes of such events; one more batch may exceed it.
pub const SESSION_UNANSWERED_BYTES: usize = 4 << 20;

/// Batches of one session that wait for their positions; at this limit, its socket is not read.
pub const SESSION_BATCHES: usize = 64;

/// Bytes one session may have waiting for its socket before it takes no more events from the log.
pub const SESSION_OUTPUT: usize = 256 << 10;

/// Bytes one session may have waiting for its socket before its input is not read. All events but one leave room below that, so
/// that input of a slow reader is still read, and answered. An event that has grown in translation may exceed it: then the
/// client is read from as soon as it has taken enough of it.
pub const SESSION_OUTPUT_MOST: usize = SESSION_OUTPUT + CLIENT_MESSAGE + (64 << 10);

/// Bytes read from a client's socket in one turn.
pub const SESSION_READ: usize = 64 << 10;

/// Segments handed to a session that it has not processed yet; beyond it, the session reads the log by itself. They
/// are not kept alive for it: one that left the recent bodies meanwhile is read from the log, too.
pub const SESSION_DELIVERIES: usize = 64;

/// Users of a cluster.
pub const USERS: usize = 100_000;

/// Longest name of a user or a role, in bytes.
pub const USER_NAME: usize = 256;

/// Roles of one user.
pub const USER_ROLES: usize = 16;

/// Longest password, in bytes, before and after it is prepared.
pub const PASSWORD: usize = 1024;

/// Bytes of what one user's password is verified with.
pub const USER_VERIFIER: usize = 1024;

/// Public keys of one user.
pub const USER_KEYS: usize = 16;

/// Roles with rules.
pub const ROLES: usize = 1_000;

/// Rules of one role.
pub const ROLE_RULES: usize = 10_000;

/// Longest pattern of a rule, in bytes of its canonical text, and its most parts.
pub const RULE_PATTERN: usize = 512;
pub const RULE_PARTS: usize = 32;

/// What a rule counts beside the text of its pattern.
pub const RULE_OVERHEAD: usize = 64;

/// What a part of a rule's pattern counts, about as much as the tree of patterns holds for it.
pub const RULE_PART: usize = 256;

/// Nodes of the tree of patterns that are visited to find out whether some topic is allowed that a subscription with wildcards is
/// for. Beyond this, it is made, and what it gets is decided topic by topic all the same.
pub const RULE_VISITS: usize = 512;

/// Filters of one SUBSCRIBE that may be refused because of rules; with more, the connection is closed.
pub const FORBIDDEN_FILTERS: usize = 1_000;

/// Bytes of the rules of all roles, as they are counted.
pub const RULES_BYTES: usize = 64 << 20;

/// Changes of roles in one request.
pub const ROLE_CHANGES: usize = 16;

/// Bytes of the body of such a request. All rules that it has are one event.
pub const ROLE_CHANGES_BODY: usize = EVENT;

/// Bans of a cluster.
pub const BANS: usize = 10_000;

/// Longest client's name that can be banned, in bytes.
pub const BAN_NAME: usize = 1024;

/// Longest reason of a ban, in bytes.
pub const BAN_REASON: usize = 256;

/// Changes of bans in one request.
pub const BAN_CHANGES: usize = 64;

/// Bans in one answer to an operator. Those that were made together come together, so it may be fewer than [`BAN_CHANGES`] more.
pub const BANS_SHOWN: usize = 500;

/// Changes of users, roles and bans that are remembered; the oldest are forgotten.
pub const AUDIT_ENTRIES: usize = 10_000;

/// Bytes of what is remembered of them, all together.
pub const AUDIT_BYTES: usize = 16 << 20;

/// Such changes in one answer to an operator, and bytes of them; one more may exceed these.
pub const AUDIT_SHOWN: usize = 500;
pub const AUDIT_SHOWN_BYTES: usize = 1 << 20;

/// Changes of users in one request.
pub const USER_CHANGES: usize = 64;

/// Bytes of the body of such a request.
pub const USER_CHANGES_BODY: usize = 256 << 10;

/// Changes of users and roles for which a node knows what held before, for sessions that are behind.
pub const PAST_CHANGES: usize = 1_000;

/// Bytes of roles and users that only those hold.
pub const PAST_BYTES: usize = 32 << 20;

/// What a user counts there.
pub const PAST_USER: usize = 4 << 10;

/// Requests to change users that a node handles at once; further ones wait.
pub const USER_CHANGES_AT_ONCE: usize = 1;

/// Time limit for one, with its wait.
pub const USER_CHANGES_TIME: Duration = Duration::from_secs(8);

/// Users in one answer to an operator.
pub const USERS_SHOWN: usize = 500;

/// Passwords that a node checks at once. Each takes a core for some tens of milliseconds, and 19 MiB.
pub const LOGINS_CHECKED: usize = 2;

/// Logins that a node checks or that wait for it; further ones are refused.
pub const LOGINS_WAITING: usize = 256;

/// Logins for one name that a node checks or that wait for it; further ones are refused.
pub const LOGINS_OF_A_NAME: usize = 64;

/// Users whose password a node recognizes without checking it again.
pub const LOGINS_REMEMBERED: usize = 10_000;

/// Names whose failed logins a node remembers.
pub const LOGIN_FAILURES: usize = 10_000;

/// Conditional publishes of one session that are not decided yet; further ones are refused.
pub const SESSION_WAITS: usize = 64;

/// Bytes of the conditional publishes of all sessions at a node that wait, with their conditions. Further ones are refused.
pub const WAITS_BYTES: usize = 16 << 20;

/// Bytes that publishes of one node make every node look at and that are not applied yet: values that they are compared or
/// merged with, conditions of publishes that wait for another value, and large retained values themselves. Sessions that need
/// more wait in a queue.
pub const COMPARED_BYTES: usize = 1 << 20;

/// The least that each of them counts: the value may have grown when the publish gets its position.
pub const COMPARED_LEAST: usize = 8 << 10;

/// Memory of large retained values that a node keeps as it has read them for conditions, in bytes.
pub const READ_VALUES_BYTES: usize = 16 << 20;

/// Retained values that change when one session ends. Further publishes with a will are refused.
pub const SESSION_WILLS: usize = 10_000;

/// Bytes of such publishes, all together. Each is kept while it waits.
pub const SESSION_WAIT_BYTES: usize = 4 << 20;

/// Registrations of one session.
pub const SESSION_REGISTRATIONS: usize = 10_000;

/// Callees that share one registration.
pub const REGISTRATION_CALLEES: usize = 1024;

/// REGISTERs and UNREGISTERs of one session that are not decided yet; at this limit, its socket is not read. The
/// input of one turn may exceed it.
pub const SESSION_REGISTERS: usize = 64;

/// Requests of one session to add or remove persistent filters that are not done yet; at this limit, its socket is not read.
pub const SESSION_FILTER_CHANGES: usize = 16;

/// Notices of the realms' state that one session has not received yet: two for each publish that waits and each
/// undecided registration, and one for each filter.
pub const SESSION_SIGNALS: usize =
    2 * SESSION_WAITS + 2 * SESSION_REGISTERS + SESSION_FILTER_CHANGES + 8;

/// Conditional publishes that wait in the queue of one topic; further ones are refused.
pub const TOPIC_WAITERS: usize = 10_000;

/// Calls of one session that are not answered; further ones are refused.
pub const SESSION_CALLS: usize = 1024;

/// Bytes of messages about calls that one session has not taken; results beyond it are dropped, and their callers are
/// told so.
pub const SESSION_CALL_BYTES: usize = 16 << 20;

/// Calls that one callee has in flight or in its queue; further ones are refused.
pub const CALLEE_CALLS: usize = 8192;

/// Bytes of the calls that one callee has not taken; further ones are refused.
pub const CALLEE_BYTES: usize = 16 << 20;

/// How long a call waits for its callee's client to know of the call's registration.
pub const CALLEE_UNAWARE: Duration = Duration::from_secs(1);

/// Calls in flight at one entry, as the caller's and as the callee's; further ones are refused.
pub const ENTRY_CALLS: usize = 100_000;

/// Bytes that one entry holds for all its calls before it refuses those of its own sessions; it refuses those from
/// other entries at twice as many.
pub const ENTRY_CALL_BYTES: usize = 128 << 20;

/// Registrations with `roundrobin` whose turn an entry remembers.
pub const ENTRY_TURNS: usize = 10_000;

/// Calls in flight between two entries, each way; further ones are refused.
pub const LINK_CALLS: usize = 50_000;

/// Bytes that wait to be sent to another entry for calls, each way.
pub const LINK_BYTES: usize = 32 << 20;

/// Clients with persistent sessions, over all realms; beyond it, a session ends with its connection. The fold decides by these
/// limits: all nodes of a cluster need the same ones.
pub const PERSISTENT_SESSIONS: usize = 100_000;

/// Filters of persistent sessions, over all realms.
pub const PERSISTENT_FILTERS: usize = 1_000_000;

/// Bytes of their names, filters and conditions.
pub const PERSISTENT_BYTES: usize = 256 << 20;

/// Publishes of QoS 2 of one client whose exchange is not complete.
pub const SESSION_EXCHANGES: usize = SESSION_UNANSWERED;

/// What each counts among the bytes of persistent sessions, beside its client's name.
pub const EXCHANGE_OVERHEAD: usize = 64;

/// Batches waiting for the entry's segment writer, over all sessions.
pub const ENTRY_BATCHES: usize = 1024;

/// Bytes of the events in such batches; sessions with more wait with theirs.
pub const ENTRY_BATCH_BYTES: usize = 16 << 20;

/// Sealed segments of an entry that are not resolved yet; at this limit, sealing waits, and then taking batches does.
pub const ENTRY_PENDING: usize = 64;

/// Bytes of sealed segments of an entry that are not resolved yet.
pub const ENTRY_PENDING_BYTES: usize = 16 << 20;

/// How long a publisher waits for its answer before it is told that the outcome is unknown.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Most segments one entry may have on the way to a quorum of storages before it seals the next one: this paces
/// sealing.
pub const STORAGE_CREDIT: u32 = 4;

/// Bodies one entry may have on the way to one storage, however slow it is; the storage is told which ones it is not
/// sent.
pub const STORAGE_SENDS: usize = 64;

/// Bytes of such bodies.
pub const STORAGE_SENT_BYTES: usize = 8 << 20;

/// Jobs waiting for the storage's group commit.
pub const STORAGE_QUEUE: usize = 1024;

/// Reads of a storage's file that a node does at once for its clients; further ones wait in a queue.
pub const CLIENT_READS: usize = 4;

/// The same for other nodes.
pub const PEER_READS: usize = 4;

/// The same for the node itself, which reads only for its replica.
pub const OWN_READS: usize = 4;

/// Bytes of bodies and rows waiting for the storage's group commit; beyond it, they wait with their callers. One commit takes
/// everything that waits.
pub const STORAGE_QUEUE_BYTES: usize = 32 << 20;

/// Bytes of recent bodies a node keeps in memory for readers near the tail.
pub const RECENT_BODIES: usize = 24 << 20;

/// Rows requested or answered in one read of the order.
pub const READ_ROWS: usize = 1024;

/// Bytes of bodies answered in one read.
pub const READ_BYTES: usize = 4 << 20;

/// Batches of rows the entry has not processed yet.
pub const OBSERVED_BATCHES: usize = 64;

/// Bytes of bodies one session reads ahead in the log; one more body may exceed it.
pub const SESSION_READ_AHEAD: usize = 512 << 10;

/// Commands from sessions waiting for the dispatcher.
pub const DISPATCH_COMMANDS: usize = 1024;

const _: () = {
    assert!(EVENT + SEGMENT_OVERHEAD <= SEGMENT_BODY);
    assert!(SEGMENT_TARGET <= SEGMENT_BODY);
    assert!(EXTENSION_BYTES < EVENT);
    // The largest change of users is an event.
    assert!(USER_CHANGES * (USER_VERIFIER + (USER_ROLES + 1) * (USER_NAME + 8) + 64) < EVENT / 2);
    assert!(BAN_CHANGES * (BAN_NAME + REALM + BAN_REASON + 64) < USER_CHANGES_BODY / 2);
    assert!(EVENT < AUDIT_BYTES, "the largest change is remembered");
    assert!(PUBLISH_TIMEOUT.as_secs() > USER_CHANGES_TIME.as_secs());
    assert!(SEGMENT_BODY < vulpes_raft::net::wire::MAX_FRAME / 2);
    assert!(READ_BYTES + SEGMENT_BODY < vulpes_raft::net::wire::MAX_FRAME);
    assert!(TOPIC + REALM + 1024 < SEGMENT_OVERHEAD);
    assert!(4 * TOPIC <= SESSION_PATTERNS);
    assert!(EVENT < CLIENT_MESSAGE);
    assert!(SESSION_STATES_BYTES / 1024 > 3 * CONNECTIONS, "room for plain sessions");
    // There is room for the largest message of each kind, and for some others.
    assert!(CLIENT_MESSAGE < LOGIN_BYTES / RESERVES);
    assert!(vulpes_raft::net::wire::MAX_FRAME < PEER_BYTES / RESERVES && PEER_BYTES <= RAFT_BYTES);
    assert!(8 * CLIENT_MESSAGE <= LOGIN_BYTES && LOGIN_BYTES <= INPUT_BYTES);
    assert!(8 * CLIENT_MESSAGE <= OUTPUT_BYTES && 2 * OUTPUT_FREE < SESSION_OUTPUT);
    assert!(4 * vulpes_raft::net::wire::MAX_FRAME <= PEER_BYTES);
    assert!(8 * (SEGMENT_BODY + SESSION_READ_AHEAD) <= SEGMENTS_HELD);
    assert!(EVENT <= SESSION_WAIT_BYTES);
    assert!(4 * CLIENT_MESSAGE < LINGER_BYTES);
    assert!(4 * TLS_HANDSHAKE_PATIENCE.as_secs() < HANDSHAKE.as_secs(), "who waits has its turn");
    // A will becomes an argument, and its retained value is merged with others and goes through every gate.
    assert!(CONDITION_DEPTH + 2 <= PAYLOAD_DEPTH);
    assert!(4 * CONDITION < EVENT);
    assert!(SESSION_READ_AHEAD <= READ_BYTES);
    assert!(CLIENT_MESSAGE + SESSION_READ <= ENTRY_BATCH_BYTES);
    // A sealed segment can be sent to every storage with credit.
    assert!(STORAGE_CREDIT as usize * SEGMENT_BODY <= STORAGE_SENT_BYTES);
    assert!(STORAGE_CREDIT as usize <= STORAGE_SENDS);
    // A storage takes what some entries have on the way to it without making them wait.
    assert!(3 * STORAGE_SENT_BYTES <= STORAGE_QUEUE_BYTES);
    assert!(ENTRY_PENDING < 256, "sync remembers the places of an entry's last 256 segments");
};
