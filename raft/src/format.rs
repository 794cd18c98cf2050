//! The format of the log: one number for everything that all nodes of a cluster have to interpret in the same way.
//!
//! It covers the bytes on disk, the encoding of commands and rows, and the rules by which the sequencer and the fold
//! of the realms turn them into state. Two releases that differ in any of these would come to different states from
//! the same log, without noticing.
//!
//! Invariant: a node with another number neither opens this node's file ([`crate::disk::file`]) nor talks to this node
//! ([`crate::net::wire`]). So no log is ever folded by two sets of rules.
//!
//! A file of an older format down to [`OLDEST_LOG_FORMAT`] is opened, and gets this release's format: the older
//! release, which can't read what this one adds, no longer opens it.
//!
//! Deliberately absent: migrations that change bytes, and rolling upgrades. A log of any other format is refused,
//! with a message that says what to do.

/// The format that this release reads and writes. Any change of the state that the same log makes gets the next number. 5: the
/// order has its own time, what a session leaves comes before its client's next actions, and events name their publisher's
/// client. 6: segment bodies and retained values have room for extension fields. 7: the last word of a session that was taken
/// over takes effect. 8: sessions may have users. 9: roles have rules; what users log in with is larger, and may be public keys
/// without a password. 10: users, clients and addresses may be banned, and changes of users, roles and bans are remembered;
/// publishes of QoS 2 of persistent sessions are published once.
pub const LOG_FORMAT: u32 = 10;

/// The oldest format whose files this release opens: since then, every log is read as before and makes the same
/// state. Raise it together with [`LOG_FORMAT`] unless that is still true.
pub const OLDEST_LOG_FORMAT: u32 = 5;
