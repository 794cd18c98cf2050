//! Scripts for the sequencer, and random interleavings checked against what must never happen.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::{AdvanceSegment, SegmentNumber, Shard, Shards};

fn group(nodes: &[u64]) -> StorageGroup {
    let members = nodes.iter().map(|n| StorageMember { node: NodeId(*n), disk: DiskId(n * 100) });
    StorageGroup { members: members.collect() }
}

fn groups(nodes: &[&[u64]]) -> Vec<StorageGroup> {
    nodes.iter().map(|nodes| group(nodes)).collect()
}

fn form(nodes: &[&[u64]]) -> Proposal {
    Proposal::FormGroups { groups: groups(nodes) }
}

fn formed() -> Sequencer {
    let mut sequencer = Sequencer::default();
    one(&mut sequencer, 0, form(&[&[1, 2, 3]]));
    sequencer
}

fn one(sequencer: &mut Sequencer, stamp: u64, step: Proposal) -> Answer {
    let (from, until) = (Stamp(stamp), Stamp(stamp));
    let command = Command { clocks: Vouched { from, until }, steps: vec![step] };
    sequencer.apply(command).remove(0)
}

fn open(entry: u64, request: u64) -> Proposal {
    Proposal::Open { entry: NodeId(entry), request }
}

fn close(entry: u64, incarnation: u64) -> Proposal {
    let (entry, incarnation) = (NodeId(entry), Incarnation(incarnation));
    Proposal::Close { entry, incarnation, reason: CloseReason::Left }
}

fn segment(entry: u64, incarnation: u64, number: u64, votes: &[u64]) -> SealedSegment {
    SealedSegment {
        id: AdvanceSegment {
            entry: NodeId(entry),
            incarnation: Incarnation(incarnation),
            number: SegmentNumber(number),
        },
        shard: Shard(7),
        count: 10,
        length: 100,
        checksum: number + 1,
        votes: votes.iter().copied().map(NodeId).collect(),
    }
}

fn resolve(entry: u64, incarnation: u64, number: u64) -> Proposal {
    Proposal::Resolve(segment(entry, incarnation, number, &[1, 3]))
}

fn place(slot: u64, stamp: u64, base: u64) -> Place {
    Place { slot: Slot(slot), stamp: Stamp(stamp), base: Position(base) }
}

fn resolved(slot: u64, stamp: u64, base: u64) -> Answer {
    Answer::Segment(SegmentOutcome::Resolved(place(slot, stamp, base)))
}

fn opened(incarnation: u64, at: Place) -> Answer {
    Answer::Opened(Opened {
        incarnation: Incarnation(incarnation),
        place: at,
        groups: StorageGroups::even(groups(&[&[1, 2, 3]])),
    })
}

/// Runs a script of (vouched time, proposal, expected answer) on a sequencer with the group 1, 2, 3.
fn check(script: Vec<(u64, Proposal, Answer)>) -> Sequencer {
    let mut sequencer = formed();
    for (line, (stamp, proposal, expected)) in script.into_iter().enumerate() {
        let text = format!("line {line}: {proposal:?}");
        assert_eq!(one(&mut sequencer, stamp, proposal), expected, "{text}");
    }
    sequencer
}

#[test]
fn segments_get_dense_places_in_number_order() {
    use SegmentOutcome::{Conflict, Gap};
    let mut other_body = segment(1, 1, 0, &[1, 2]);
    other_body.checksum = 99;
    check(vec![
        (50, resolve(1, 1, 0), Answer::Segment(SegmentOutcome::NotOpen)),
        (50, open(1, 7), opened(1, place(1, 50, 1))),
        (60, open(1, 7), opened(1, place(1, 50, 1))),
        (60, resolve(1, 1, 1), Answer::Segment(Gap { expected: SegmentNumber(0) })),
        (60, resolve(1, 1, 0), resolved(2, 60, 1)),
        (40, resolve(1, 1, 1), resolved(3, 60, 11)),
        (70, resolve(1, 1, 0), resolved(2, 60, 1)),
        (70, Proposal::Resolve(other_body), Answer::Segment(Conflict)),
        (70, open(2, 7), opened(1, place(4, 70, 21))),
        (70, resolve(2, 1, 0), resolved(5, 70, 21)),
        (70, resolve(1, 1, 2), resolved(6, 70, 31)),
    ]);
}

#[test]
fn an_older_incarnation_is_fenced_and_a_closed_one_only_repeats() {
    let fenced = Answer::Segment(SegmentOutcome::Fenced { current: Incarnation(2) });
    let not_open = Answer::Segment(SegmentOutcome::NotOpen);
    check(vec![
        (1, open(1, 7), opened(1, place(1, 1, 1))),
        (1, resolve(1, 1, 0), resolved(2, 1, 1)),
        (1, open(1, 8), opened(2, place(3, 1, 11))),
        (1, resolve(1, 1, 0), fenced.clone()),
        (1, resolve(1, 1, 1), fenced),
        (1, close(1, 1), Answer::Closed),
        (1, resolve(1, 2, 0), resolved(4, 1, 11)),
        (1, close(1, 2), Answer::Closed),
        (1, close(1, 2), Answer::Closed),
        (1, resolve(1, 2, 0), resolved(4, 1, 11)),
        (1, resolve(1, 2, 1), not_open.clone()),
        (1, resolve(1, 3, 0), not_open),
        (1, open(1, 8), opened(3, place(6, 1, 21))),
    ]);
}

#[test]
fn votes_are_counted_over_the_group() {
    let no_quorum = Answer::Segment(SegmentOutcome::NoQuorum);
    let with = |votes: &[u64]| Proposal::Resolve(segment(1, 1, 0, votes));
    let mut sequencer = check(vec![
        (1, open(1, 7), opened(1, place(1, 1, 1))),
        (1, with(&[]), no_quorum.clone()),
        (1, with(&[2]), no_quorum.clone()),
        (1, with(&[2, 2, 2]), no_quorum.clone()),
        (1, with(&[2, 4, 5]), no_quorum),
        (1, with(&[3, 9, 2, 2]), resolved(2, 1, 1)),
    ]);
    let rows = sequencer.rows(Slot(2), 10).expect("kept");
    let Step::Segment(stored) = &rows[0].step else { panic!("a segment") };
    assert_eq!(stored.votes, [NodeId(2), NodeId(3)]);
    let standing = Answer::Formed(StorageGroups::even(groups(&[&[1, 2, 3]])));
    assert_eq!(one(&mut sequencer, 1, form(&[&[4]])), standing);
    assert_eq!(one(&mut sequencer, 1, Proposal::Form { group: group(&[4]) }), standing);
    assert_eq!(sequencer.enrolled(NodeId(3)), Some(DiskId(300)));
    assert_eq!(sequencer.enrolled(NodeId(4)), None);
}

#[test]
fn votes_are_counted_over_the_group_of_the_shard() {
    let mut sequencer = Sequencer::default();
    one(&mut sequencer, 0, form(&[&[1, 2, 3], &[6, 5, 4], &[7]]));
    assert!(matches!(one(&mut sequencer, 1, open(1, 7)), Answer::Opened(_)));
    let mut resolve = |number, shard, votes: &[u64]| {
        let sealed = SealedSegment { shard, ..segment(1, 1, number, votes) };
        one(&mut sequencer, 1, Proposal::Resolve(sealed))
    };
    let no_quorum = Answer::Segment(SegmentOutcome::NoQuorum);
    let last_of = |part: u32| Shard(Shards::part(part + 1, 3).first().0 - 1);
    for (number, (shard, others, own)) in (0u64..).zip([
        (Shard(0), [4, 5, 7], [2, 3]),
        (last_of(0), [4, 5, 7], [1, 3]),
        (Shards::part(1, 3).first(), [1, 2, 3], [4, 6]),
        (last_of(1), [1, 7, 6], [4, 5]),
    ]) {
        assert_eq!(resolve(number, shard, &others), no_quorum);
        assert_eq!(resolve(number, shard, &own), resolved(number + 2, 1, number * 10 + 1));
    }
    assert_eq!(resolve(4, Shard(Shard::COUNT - 1), &[1, 2, 3, 4, 5, 6]), no_quorum);
    assert_eq!(resolve(4, Shard(Shard::COUNT - 1), &[7]), resolved(6, 1, 41));
    one(&mut sequencer, 1, Proposal::Stored { storage: NodeId(1), through: Slot(6) });
    assert_eq!(sequencer.stored_everywhere(), Slot(0), "storages of all groups have the rows");
}

#[test]
fn early_segments_need_no_votes_and_all_else() {
    use SegmentOutcome::{Conflict, Gap, NoQuorum};
    let early = |number| Proposal::ResolveEarly(segment(1, 1, number, &[]));
    let mut sequencer = check(vec![
        (1, open(1, 7), opened(1, place(1, 1, 1))),
        (1, early(1), Answer::Segment(Gap { expected: SegmentNumber(0) })),
        (1, Proposal::Resolve(segment(1, 1, 0, &[])), Answer::Segment(NoQuorum)),
        (1, early(0), resolved(2, 1, 1)),
        (1, resolve(1, 1, 0), resolved(2, 1, 1)),
        (1, resolve(1, 1, 1), resolved(3, 1, 11)),
        (1, early(1), resolved(3, 1, 11)),
    ]);
    let mut other_body = segment(1, 1, 0, &[]);
    other_body.checksum = 99;
    let answer = one(&mut sequencer, 1, Proposal::ResolveEarly(other_body));
    assert_eq!(answer, Answer::Segment(Conflict));
    let rows = sequencer.rows(Slot(2), 1).expect("kept");
    assert!(matches!(&rows[0].step, Step::Segment(stored) if stored.votes.is_empty()));
    let unformed = &mut Sequencer::default();
    assert_eq!(one(unformed, 1, early(0)), Answer::Segment(SegmentOutcome::NotOpen));
}

#[test]
fn bad_commands_are_answers() {
    let mut unformed = Sequencer::default();
    assert_eq!(one(&mut unformed, 1, open(1, 1)), Answer::NotFormed);
    let many: Vec<u64> = (1..=GROUP_MEMBERS_MAX as u64 + 1).collect();
    let bad: [&[&[u64]]; 6] =
        [&[], &[&[]], &[&[1], &[]], &[&[1, 2], &[3, 1]], &[&[1, 1]], &[&many]];
    for bad in bad {
        assert_eq!(one(&mut unformed, 1, form(bad)), Answer::NotFormed, "{bad:?}");
    }
    let mut empty = segment(1, 1, 0, &[1, 2]);
    empty.count = 0;
    check(vec![
        (1, open(1, 7), opened(1, place(1, 1, 1))),
        (1, Proposal::Resolve(empty), Answer::Segment(SegmentOutcome::Conflict)),
        (1, Proposal::Stored { storage: NodeId(9), through: Slot(99) }, Answer::Stored),
    ]);
    let mut full = formed();
    for entry in 0..ENTRIES_MAX as u64 {
        assert!(matches!(one(&mut full, 1, open(entry, 1)), Answer::Opened(_)));
    }
    assert_eq!(one(&mut full, 1, open(u64::MAX, 1)), Answer::TooManyEntries);
    assert!(matches!(one(&mut full, 1, open(0, 2)), Answer::Opened(_)));
}

#[test]
fn positions_end_before_they_are_too_large_for_a_wamp_id() {
    let mut sequencer = formed();
    one(&mut sequencer, 1, open(1, 1));
    sequencer.next_position = Position(POSITION_END.0 - 10);
    sequencer.tail = Tail::default();
    let last = one(&mut sequencer, 1, resolve(1, 1, 0));
    assert_eq!(last, resolved(2, 1, POSITION_END.0 - 10));
    let over = one(&mut sequencer, 1, resolve(1, 1, 1));
    assert_eq!(over, Answer::Segment(SegmentOutcome::Conflict));
}

#[test]
fn old_repeats_are_forgotten_and_the_tail_is_trimmed() {
    let mut sequencer = formed();
    one(&mut sequencer, 1, open(1, 7));
    let last = (RETAINED_RESOLUTIONS + 100) as u64;
    for number in 0..last {
        one(&mut sequencer, 1, resolve(1, 1, number));
    }
    let forgotten = last - RECENT_PER_ENTRY as u64 - 1;
    let outcome = one(&mut sequencer, 1, resolve(1, 1, forgotten));
    assert_eq!(outcome, Answer::Segment(SegmentOutcome::Forgotten));
    let remembered = one(&mut sequencer, 1, resolve(1, 1, forgotten + 1));
    assert!(matches!(remembered, Answer::Segment(SegmentOutcome::Resolved(_))));

    // One slot for the opening, one each for the segments; the limit keeps the newest.
    assert_eq!(sequencer.next_slot(), Slot(last + 2));
    assert_eq!(sequencer.oldest_retained(), Slot(last + 2 - RETAINED_RESOLUTIONS as u64));
    assert_eq!(sequencer.rows(Slot(sequencer.oldest_retained().0 - 1), 10), None);

    let stored = |storage, through| Proposal::Stored { storage: NodeId(storage), through };
    one(&mut sequencer, 1, stored(1, Slot(u64::MAX)));
    one(&mut sequencer, 1, stored(2, Slot(u64::MAX)));
    assert_eq!(sequencer.oldest_retained(), Slot(last + 2 - RETAINED_RESOLUTIONS as u64));
    one(&mut sequencer, 1, stored(3, Slot(last - 5_000)));
    one(&mut sequencer, 1, stored(3, Slot(1)));
    assert_eq!(sequencer.oldest_retained(), Slot(last - 4_999));
    one(&mut sequencer, 1, stored(3, Slot(last + 1)));
    assert_eq!(sequencer.oldest_retained(), Slot(last + 2 - RETAINED_FOR_FOLLOWERS as u64));
    assert_eq!(sequencer.rows(sequencer.next_slot(), 10), Some(vec![]));
}

#[test]
fn what_members_and_storages_told_only_grows() {
    let held = |term, index| Held { term, index };
    let marks = |term, index| Proposal::Held { marks: vec![(NodeId(1), held(term, index))] };
    let mut sequencer = formed();
    assert_eq!(sequencer.told_by(NodeId(1)), (held(0, 0), Slot(0)));
    one(&mut sequencer, 1, marks(2, 9));
    one(&mut sequencer, 1, marks(3, 7));
    assert_eq!(sequencer.told_by(NodeId(1)).0, held(3, 9));
    for node in 10..10 + 2 * GROUP_MEMBERS_MAX as u64 {
        one(&mut sequencer, 1, Proposal::Held { marks: vec![(NodeId(node), held(1, 1))] });
    }
    assert_eq!(sequencer.held.len(), GROUP_MEMBERS_MAX);
    one(&mut sequencer, 1, marks(4, 10));
    assert_eq!(sequencer.told_by(NodeId(1)).0, held(4, 10));
}

#[test]
fn golden_bytes() {
    let command = Command {
        clocks: Vouched { from: Stamp(5), until: Stamp(6) },
        steps: vec![
            open(1, 300),
            resolve(1, 2, 3),
            close(1, 2),
            Proposal::Form { group: group(&[1]) },
            form(&[&[1], &[2]]),
            Proposal::Stored { storage: NodeId(1), through: Slot(9) },
            Proposal::ResolveEarly(segment(1, 2, 4, &[])),
            Proposal::Held { marks: vec![(NodeId(1), Held { term: 2, index: 3 })] },
        ],
    };
    let bytes = crate::net::wire::encode(&command);
    let expected = [
        5, 6, 8, // clocks, steps
        0, 1, 251, 44, 1, // open
        1, 1, 2, 3, 7, 10, 100, 4, 2, 1, 3, // resolve
        2, 1, 2, 0, // close
        3, 1, 1, 100, // form
        6, 2, 1, 1, 100, 1, 2, 200, // form groups
        4, 1, 9, // stored
        5, 1, 2, 4, 7, 10, 100, 5, 0, // resolve early
        7, 1, 1, 2, 3, // held
    ];
    assert_eq!(bytes, expected);
    assert_eq!(crate::net::wire::decode::<Command>(&bytes).expect("our own"), command);
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::*;
    use crate::mutant::plant;

    fn planted_answer(mutant: Mutant, script: Vec<Proposal>) -> Answer {
        plant(Some(mutant));
        let mut sequencer = formed();
        let answers: Vec<_> = script.into_iter().map(|step| one(&mut sequencer, 1, step)).collect();
        plant(None);
        answers.last().expect("a script").clone()
    }

    #[test]
    fn each_planted_bug_shows() {
        use Mutant::{AcknowledgeBeforeQuorum, ForgetIncarnation, ResolveOutOfOrder, ReuseSlot};
        let one_vote = Proposal::Resolve(segment(1, 1, 0, &[2]));
        let answer = planted_answer(AcknowledgeBeforeQuorum, vec![open(1, 1), one_vote]);
        assert_eq!(answer, resolved(2, 1, 1));
        let answer = planted_answer(ResolveOutOfOrder, vec![open(1, 1), resolve(1, 1, 5)]);
        assert_eq!(answer, resolved(2, 1, 1));
        let script = vec![open(1, 1), resolve(1, 1, 0), open(1, 2), resolve(1, 1, 0)];
        assert_eq!(planted_answer(ForgetIncarnation, script), resolved(4, 1, 11));
        let script = (1..=17).map(|request| open(1, request)).collect();
        assert_eq!(planted_answer(ReuseSlot, script), opened(17, place(16, 1, 1)));
    }
}

#[derive(Clone, Debug)]
enum Action {
    Open {
        entry: u64,
        request: u64,
    },
    /// Incarnation and number are counted back from the entry's newest incarnation and its next number; ahead if negative.
    Resolve {
        entry: u64,
        older: u64,
        back: i64,
        votes: Vec<u64>,
    },
    Close {
        entry: u64,
        older: u64,
    },
    Stored {
        storage: u64,
        through: u64,
    },
}

fn any_action() -> impl Strategy<Value = Action> {
    let entry = 1u64..4;
    prop_oneof![
        1 => (entry.clone(), 0u64..3).prop_map(|(entry, request)| Action::Open { entry, request }),
        8 => (entry.clone(), prop_oneof![9 => Just(0u64), 1 => 1u64..3], -2i64..4,
              proptest::collection::vec(1u64..5, 0..4))
            .prop_map(|(entry, older, back, votes)| Action::Resolve { entry, older, back, votes }),
        1 => (entry, 0u64..2).prop_map(|(entry, older)| Action::Close { entry, older }),
        1 => (1u64..5, 0u64..100).prop_map(|(storage, through)| Action::Stored { storage, through }),
    ]
}

/// What has been seen so far of one entry.
#[derive(Default)]
struct Seen {
    incarnation: u64,
    next: u64,
    places: BTreeMap<(u64, u64), Place>,
}

fn to_proposal(action: &Action, seen: &BTreeMap<u64, Seen>) -> Proposal {
    let of = |entry: &u64| seen.get(entry).map_or((0, 0), |seen| (seen.incarnation, seen.next));
    match action {
        Action::Open { entry, request } => open(*entry, *request),
        Action::Resolve { entry, older, back, votes } => {
            let (incarnation, next) = of(entry);
            let number = next.saturating_add_signed(-back);
            let incarnation = incarnation.saturating_sub(*older);
            Proposal::Resolve(segment(*entry, incarnation, number, votes))
        }
        Action::Close { entry, older } => close(*entry, of(entry).0.saturating_sub(*older)),
        Action::Stored { storage, through } => {
            Proposal::Stored { storage: NodeId(*storage), through: Slot(*through) }
        }
    }
}

/// Checks one answer against everything seen before, and records it.
fn judge(proposal: &Proposal, answer: &Answer, seen: &mut BTreeMap<u64, Seen>) {
    match (proposal, answer) {
        (Proposal::Open { entry, .. }, Answer::Opened(opened)) => {
            let seen = seen.entry(entry.0).or_default();
            assert!(opened.incarnation.0 >= seen.incarnation);
            if opened.incarnation.0 > seen.incarnation {
                seen.incarnation = opened.incarnation.0;
                seen.next = 0;
            }
        }
        (Proposal::Resolve(segment), Answer::Segment(SegmentOutcome::Resolved(place))) => {
            let seen = seen.entry(segment.id.entry.0).or_default();
            let (incarnation, number) = (segment.id.incarnation.0, segment.id.number.0);
            assert_eq!(incarnation, seen.incarnation, "an older incarnation was resolved");
            match seen.places.get(&(incarnation, number)) {
                Some(first) => assert_eq!(first, place, "a repeat got another place"),
                None => {
                    assert_eq!(number, seen.next, "out of number order");
                    seen.next += 1;
                    seen.places.insert((incarnation, number), *place);
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_interleaving_keeps_the_order(
        actions in proptest::collection::vec((any_action(), 0u64..50), 1..300),
        split in any::<prop::sample::Index>(),
    ) {
        let mut sequencer = formed();
        let mut seen = BTreeMap::new();
        let mut shown: Vec<Resolution> = Vec::new();
        let mut twin = None;
        let split = split.index(actions.len());
        for (at, (action, stamp)) in actions.iter().enumerate() {
            if at == split {
                let snapshot = crate::net::wire::encode(&sequencer);
                twin = Some(crate::net::wire::decode::<Sequencer>(&snapshot).expect("our own snapshot"));
            }
            let command = Command {
                clocks: Vouched { from: Stamp(*stamp), until: Stamp(*stamp + 5) },
                steps: vec![to_proposal(action, &seen)],
            };
            let answers = sequencer.apply(command.clone());
            judge(&command.steps[0], &answers[0], &mut seen);
            if let Some(twin) = &mut twin {
                prop_assert_eq!(&twin.apply(command), &answers);
            }
            let from = Slot(shown.len() as u64 + 1);
            shown.extend(sequencer.rows(from, usize::MAX).expect("kept"));
        }
        prop_assert_eq!(twin.as_ref(), Some(&sequencer));
        let (mut base, mut stamp, mut time) = (Position(1), Stamp(0), OrderTime(0));
        for (at, resolution) in shown.iter().enumerate() {
            prop_assert_eq!(resolution.slot, Slot(at as u64 + 1));
            prop_assert_eq!(resolution.base, base);
            prop_assert!(resolution.stamp >= stamp && resolution.time() >= time);
            (base, stamp, time) = (resolution.end(), resolution.stamp, resolution.time());
        }
    }
}
