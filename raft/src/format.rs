//! The format of the log: one number for everything that all nodes of a cluster have to make of it in the same way.
//!
//! It covers the bytes on disk, the encoding of commands and rows, and the rules by which the sequencer and the fold of
//! the realms turn them into state. Two releases that differ in any of these would come to different states from the
//! same log, and neither would notice.
//!
//! Invariant: a node with another number neither opens this node's file ([`crate::file`]) nor talks to this node
//! ([`crate::wire`]). So no log is ever folded by two sets of rules.
//!
//! A file of an older format down to [`OLDEST_LOG_FORMAT`] is opened, and has this release's format from then on: the older
//! release, which can't read what this one adds, does not open it any more.
//!
//! Deliberately absent: migrations that change bytes, and rolling upgrades. A log of any other format is refused, and the
//! refusal says what to do.

/// The format that this release reads and writes. Any change of what is made of the same log gets the next number. 5: the
/// order keeps a time of its own, what a session leaves behind stands before what its client does next, and events name
/// their publisher's client. 6: segment bodies and retained values have room for extension fields.
pub const LOG_FORMAT: u32 = 6;

/// The oldest format whose files this release opens: from there on, all of the same log is read as before and makes the
/// same state. Raise it together with [`LOG_FORMAT`] unless that is so.
pub const OLDEST_LOG_FORMAT: u32 = 5;
