//! Planted bugs: a switch each, to prove that the checks which guard against it can fail.
//!
//! Invariant: without the `mutants` feature [`planted`] is a constant `false`, and a release build with the feature
//! does not compile. A mutant is planted for one thread, which is one simulation, or for a whole process that has
//! [`NAME`] in its environment, for live clusters; such a process says so.
//!
//! Deliberately absent: any use outside `if planted(Mutant::…)` at the very line that the bug would sit in.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the `mutants` feature plants bugs; it must never be part of a release build");

/// Names a bug for the whole process in the environment.
#[cfg(feature = "mutants")]
pub const NAME: &str = "VULPES_MUTANT";

/// The bugs that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The entry acknowledges and proposes with one storage vote instead of a quorum, and sync lets it.
    AcknowledgeBeforeQuorum,
    /// Half of the storages count as a quorum.
    QuorumOffByOne,
    /// The first storage group is taken for that of all shards.
    OneGroupForAll,
    /// Group commits are not synced to disk before their jobs are completed.
    SkipFsync,
    /// A storage votes for a body that is only queued for its disk.
    VoteBeforeFsync,
    /// A sync member takes an entry into its log whose bodies are not here.
    TakeWithoutBody,
    /// A storage that has no room for a body is not told that it is not sent.
    SkipWithoutSaying,
    /// A log entry is written in a commit before the one of its bodies.
    WrittenBeforeBody,
    /// A storage goes on after a group commit has failed, as if it had not.
    SwallowEio,
    /// A body whose bytes are not those that were written counts as one that was never there.
    ForgetDamaged,
    /// A database that is behind its witness is opened all the same.
    OverlookWitness,
    /// A member that has less than it told others takes part all the same.
    AcceptOlderDisk,
    /// A storage that lacks a part of the log fills it in without the bodies.
    SnapshotWithoutBodies,
    /// The sequencer gives a slot and its positions out twice now and then.
    ReuseSlot,
    /// The sequencer resolves whatever number comes, not only the next one.
    ResolveOutOfOrder,
    /// The sequencer stamps with what is vouched for, even where that was set back.
    StampsRunBack,
    /// The leader's own clock alone tells the order's time.
    TimeOfTheLeader,
    /// Once a majority of clocks was set back, the order's time stands still until they have come where they were.
    FutureStandsStill,
    /// The sequencer resolves segments of incarnations that are closed, or older than the open one.
    ForgetFences,
    /// A reopened entry gets its old incarnation again, and older ones are not fenced.
    ForgetIncarnation,
    /// The leader shows resolutions to those who follow the order before they are committed.
    DispatchBeforeCommit,
    /// A storage deletes one slot more than was released.
    DeleteKept,
    /// What a session published in one breath goes into the log last first.
    ReorderPublisher,
    /// A node that starts applies the last slot to a state that has it already.
    ApplyTwiceOnReplay,
    /// A subscription that began with retained values goes on one slot behind the place where they stood.
    SkipBehindRetained,
    /// Retained values are read without waiting for the place that the reader asked for.
    ReadWithoutWaiting,
    /// A condition is not compared with a value that was published in its own slot.
    OverlookOwnSlot,
    /// A publish that waited is told the place where it began to wait, and not the one where it was granted.
    TellOldToken,
    /// Whoever came last to a line has its turn first.
    LastComeFirstServed,
    /// A newcomer with a condition is not held up by those who wait.
    PushIn,
    /// What a session leaves behind is not struck out when it has been published.
    RepeatWill,
    /// Sessions that end with their entry leave nothing behind.
    LoseWill,
    /// A client is told that it is connected before what its earlier sessions left is published.
    BirthBeforeWill,
    /// Some slots' changes of the realms' state are not stored with them.
    LoseStateRows,
    /// Publishes that were refused are shown.
    ShowRefused,
    /// An entry goes on waiting for calls when the link they went over has ended.
    KeepCallsOfLostLinks,
    /// A session that is resumed goes on one event behind where it should.
    ResumeOneTooFar,
    /// What expires or waits does so by the slots' stamps, and not by the order's time.
    ExpireByTheStamp,
    /// A delayed will is published at once.
    ForgetDelay,
    /// What a client has kept expires so long after it came, and not after it went.
    ExpireSinceAttached,
    /// A client with more to read than it takes is not looked at for whether it is there.
    JudgeWhileReading,
    /// What a slow client takes is not taken for a sign of life.
    OverlookTaken,
    /// A session goes on with what it held back only where one poll sees its socket take all of a full output.
    LoseWakeUp,
    /// A session may have one subscription more than there may be.
    OneSubscriptionTooMany,
    /// The last subscription that a session may have is granted and never begins.
    LoseLastSubscription,
    /// Clients are served by the threads that keep the cluster alive.
    ClientsWithTheCluster,
}

/// Those that a whole process can have.
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
    // A process that is to have a bug and has none would prove that a check can't see it.
    assert!(mutant.is_some(), "there is no bug {name} for a whole process");
    eprintln!("vulpes: the bug {name} is planted in this process");
    mutant
});

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what runs on this thread, or removes it.
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
