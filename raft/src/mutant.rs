//! Planted bugs, each with a switch. They prove that the checks against them can fail.
//!
//! Invariant: without the `mutants` feature [`planted`] is a constant `false`, and a release build with the feature does not
//! compile. A mutant is planted for one thread, which is one simulation, or for a whole process that has [`NAME`] in its
//! environment, for live clusters; such a process prints that at its start.
//!
//! Deliberately absent: any use other than `if planted(Mutant::…)` at the very line where the bug would be.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the `mutants` feature plants bugs; it must never be part of a release build");

/// The environment variable that names a bug for the whole process.
#[cfg(feature = "mutants")]
pub const NAME: &str = "VULPES_MUTANT";

/// The bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The entry acknowledges and proposes with one storage vote instead of a quorum, and sync accepts that.
    AcknowledgeBeforeQuorum,
    /// Half of the storages count as a quorum.
    QuorumOffByOne,
    /// The first storage group is treated as the group of all shards.
    OneGroupForAll,
    /// Group commits are not synced to disk before their jobs are completed.
    SkipFsync,
    /// A storage votes for a body that is only queued for its disk.
    VoteBeforeFsync,
    /// A sync member accepts an entry into its log without having its bodies.
    TakeWithoutBody,
    /// A storage without room for a body gets no notice that the body will not be sent.
    SkipWithoutSaying,
    /// A log entry is written in a commit before the one of its bodies.
    WrittenBeforeBody,
    /// A storage continues after a failed group commit, as if it had succeeded.
    SwallowEio,
    /// A damaged body counts as one that was never stored.
    ForgetDamaged,
    /// A database that is behind its witness is opened anyway.
    OverlookWitness,
    /// A member that has less than it acknowledged to others takes part anyway.
    AcceptOlderDisk,
    /// A storage that lacks a part of the log fills it in without the bodies.
    SnapshotWithoutBodies,
    /// The sequencer sometimes assigns a slot and its positions twice.
    ReuseSlot,
    /// The sequencer resolves any segment number, not only the next one.
    ResolveOutOfOrder,
    /// The sequencer stamps with the vouched time, even after that time was set back.
    StampsRunBack,
    /// The order's time comes from the leader's own clock alone.
    TimeOfTheLeader,
    /// After a majority of clocks was set back, the order's time stands still until they have caught up.
    FutureStandsStill,
    /// The sequencer resolves segments of incarnations that are closed, or older than the open one.
    ForgetFences,
    /// A reopened entry gets its old incarnation again, and older ones are not fenced.
    ForgetIncarnation,
    /// The leader shows resolutions to followers of the order before they are committed.
    DispatchBeforeCommit,
    /// A storage deletes one slot more than was released.
    DeleteKept,
    /// Publishes that a session sent together go into the log in reverse order.
    ReorderPublisher,
    /// A node that starts applies the last slot to a state that has it already.
    ApplyTwiceOnReplay,
    /// A subscription that began with retained values continues one slot too late in the log.
    SkipBehindRetained,
    /// Retained values are read without waiting for the requested position.
    ReadWithoutWaiting,
    /// A condition is not compared with a value that was published in its own slot.
    OverlookOwnSlot,
    /// A waiting publish gets the position where it began to wait as its answer, instead of the one where it was granted.
    TellOldToken,
    /// The last waiting publish of a topic gets the first turn.
    LastComeFirstServed,
    /// A new conditional publish overtakes the waiting ones.
    PushIn,
    /// A session's will stays due after it has been published.
    RepeatWill,
    /// Sessions that end with their entry leave nothing behind.
    LoseWill,
    /// A client is told that it is connected before everything its earlier sessions left is published.
    BirthBeforeWill,
    /// A session that was taken over can't withdraw its will any more. Its persistent session still ends or continues as its
    /// last word says.
    IgnoreLastWord,
    /// A session begins although its user was removed meanwhile.
    AdmitRemovedUsers,
    /// Sessions go on when their user is removed.
    SpareRemovedUsers,
    /// A session begins although its client is banned.
    AdmitBanned,
    /// Sessions go on when their client is banned.
    SpareBanned,
    /// A ban that is over still holds.
    BanForever,
    /// A will is published although its author may not publish it any more.
    UncheckedWill,
    /// A publish of QoS 2 that its client repeats is published again.
    PublishTwice,
    /// A session goes on by the rules that it began with.
    KeepOldRules,
    /// A session that is behind goes by the newest rules, not by those at an event's position.
    SeeByTheNewest,
    /// What is read from the log is delivered without looking at the rules.
    DeliverForbidden,
    /// Some slots' changes of the realms' state are not stored with them.
    LoseStateRows,
    /// Refused publishes are shown to subscribers.
    ShowRefused,
    /// An entry keeps waiting for calls whose link has ended.
    KeepCallsOfLostLinks,
    /// A resumed session continues one event too late.
    ResumeOneTooFar,
    /// Expiry and delays follow the slots' stamps instead of the order's time.
    ExpireByTheStamp,
    /// A delayed will is published at once.
    ForgetDelay,
    /// A client's persistent session expires counted from when the client attached, instead of from when it left.
    ExpireSinceAttached,
    /// A client with a backlog is not checked for signs of life.
    JudgeWhileReading,
    /// That a slow client reads its output does not count as a sign of life.
    OverlookTaken,
    /// A session resumes held-back output only if a single poll sees its socket take a full output buffer.
    LoseWakeUp,
    /// A session may have one subscription too many.
    OneSubscriptionTooMany,
    /// The last subscription that a session may have is granted but never begins.
    LoseLastSubscription,
    /// Clients are served by the threads that keep the cluster alive.
    ClientsWithTheCluster,
}

/// Bugs that a whole process can have.
#[cfg(feature = "mutants")]
const LIVE: [Mutant; 14] = [
    Mutant::SkipFsync,
    Mutant::DispatchBeforeCommit,
    Mutant::ResumeOneTooFar,
    Mutant::LoseWill,
    Mutant::RepeatWill,
    Mutant::BirthBeforeWill,
    Mutant::TellOldToken,
    Mutant::SkipBehindRetained,
    Mutant::ShowRefused,
    Mutant::ReadWithoutWaiting,
    Mutant::OverlookOwnSlot,
    Mutant::KeepCallsOfLostLinks,
    Mutant::AcknowledgeBeforeQuorum,
    Mutant::ClientsWithTheCluster,
];

#[cfg(feature = "mutants")]
static EVERYWHERE: std::sync::LazyLock<Option<Mutant>> = std::sync::LazyLock::new(|| {
    let name = std::env::var(NAME).ok()?;
    let mutant = LIVE.into_iter().find(|mutant| format!("{mutant:?}") == name);
    // A process without its requested bug would prove that a check can't see it.
    assert!(mutant.is_some(), "there is no bug {name} for a whole process");
    eprintln!("vulpes: the bug {name} is planted in this process");
    mutant
});

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in the code that runs on this thread, or removes it.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.with(|cell| cell.set(mutant));
}

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
#[must_use]
pub fn planted(mutant: Mutant) -> bool {
    PLANTED.with(std::cell::Cell::get).or(*EVERYWHERE) == Some(mutant)
}

/// Whether this bug is planted: never, in a build without the `mutants` feature.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn planted(_mutant: Mutant) -> bool {
    false
}
