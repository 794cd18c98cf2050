use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn take(account: &mut Account, bytes: usize) -> bool {
    account.poll_take(bytes, &mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn who_wants_much_is_not_kept_away_by_those_who_want_little() {
    let budget = Budget::new(100);
    let [mut first, mut much, mut little] = [(); 3].map(|()| budget.account());
    assert!(take(&mut first, 60));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    assert!(much.poll_take(80, &mut Context::from_waker(&waker)).is_pending());
    assert!(budget.is_short());
    assert!(!take(&mut little, 1) && !budget.account().try_hold(1), "there is a line");
    first.keep(20);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(take(&mut much, 80));
    assert!(!take(&mut little, 1));
    drop(much);
    assert!(take(&mut little, 1));
    assert_eq!((budget.held(), budget.is_short()), (21, false));
}

#[test]
fn more_than_the_total_is_granted_to_one_alone() {
    let budget = Budget::new(100);
    let (mut one, mut other) = (budget.account(), budget.account());
    assert!(take(&mut one, 300));
    assert!(!take(&mut other, 300) && !one.try_hold(301));
    one.keep(0);
    assert!(take(&mut other, 300));
}

#[test]
fn who_leaves_the_line_lets_the_next_one_in() {
    let budget = Budget::new(100);
    let [mut held, mut front, mut next] = [(); 3].map(|()| budget.account());
    assert!(take(&mut held, 50));
    assert!(!take(&mut front, 90) && !take(&mut next, 40));
    drop(front);
    assert!(take(&mut next, 40), "granted as the one before it left");
    // Granted, but left before it was claimed.
    let mut late = budget.account();
    assert!(!take(&mut late, 20));
    held.keep(0);
    drop(late);
    assert_eq!(budget.held(), 40);
}

#[test]
fn what_exists_is_counted_whether_there_is_room_or_not() {
    let budget = Budget::new(100);
    let (mut one, mut other) = (budget.account(), budget.account());
    one.overdraw(250);
    one.overdraw(10);
    assert_eq!((one.held(), budget.held()), (250, 250));
    assert!(!other.try_hold(1));
    one.keep(99);
    assert!(other.try_hold(1) && other.try_hold(1) && !other.try_hold(2));
    drop(one.split());
    assert!(other.try_hold(100));
}

fn take_part(account: &mut Account, part: usize, all: usize) -> bool {
    account.poll_take_part(part, all, &mut Context::from_waker(Waker::noop())).is_ready()
}

/// Room for parts of 300 bytes, all of it held in parts of 10, and 100 in reserve.
fn parts() -> (Budget, Vec<Account>) {
    let budget = Budget::in_parts(400);
    let mut whole = budget.account();
    assert!(take_part(&mut whole, 1, 100));
    assert_eq!(whole.held(), 100, "half of the room for parts is free");
    let mut accounts: Vec<_> = (0..30).map(|_| budget.account()).collect();
    assert!(accounts.iter_mut().all(|part| take_part(part, 10, 100)));
    assert_eq!(budget.held(), 400);
    drop(whole);
    (budget, accounts)
}

#[test]
fn the_reserve_is_for_the_rest_of_those_who_hold_a_part() {
    let (budget, mut parts) = parts();
    let mut newcomer = budget.account();
    assert!(!newcomer.try_hold(1) && !parts[0].try_hold(11), "there is nothing beside the reserve");
    assert!(!take_part(&mut newcomer, 1, 1), "the reserve is not for who holds nothing");
    assert!(take_part(&mut parts[0], 10, 90));
    assert_eq!((parts[0].held(), budget.held()), (100, 391), "it has all that it needs");
    assert!(take_part(&mut newcomer, 1, 1), "its part is free for others");
    assert!(!take_part(&mut parts[1], 10, 90) && budget.is_short());
    parts[0].keep(0);
    assert!(take_part(&mut parts[1], 10, 90));
    assert_eq!((parts[1].held(), budget.held()), (20, 301), "there is room for a part again");
}

#[test]
fn each_holder_that_comes_to_its_end_lets_a_newcomer_in() {
    let (budget, mut parts) = parts();
    let mut newcomers: Vec<_> = (0..3).map(|_| budget.account()).collect();
    assert!(newcomers.iter_mut().all(|newcomer| !take_part(newcomer, 10, 100)));
    // All holders wait before the first one ends.
    assert_eq!(
        parts.iter_mut().filter_map(|part| take_part(part, 10, 90).then_some(())).count(),
        1
    );
    for at in 0..3 {
        assert_eq!(parts[at].held(), 100);
        parts[at].keep(0);
        assert!(take_part(&mut newcomers[at], 10, 100), "{} bytes are held", budget.held());
        assert!(take_part(&mut parts[at + 1], 10, 90));
    }
}

/// All hold a part and need the rest.
#[test]
fn all_who_hold_a_part_come_to_their_end_one_after_the_other() {
    let (budget, mut parts) = parts();
    let mut newcomer = budget.account();
    assert!(!take_part(&mut newcomer, 10, 100));
    let mut left: Vec<usize> = (0..parts.len()).collect();
    for round in 0.. {
        assert!(round < 200, "{left:?} wait for each other");
        let before = left.clone();
        left.retain(|at| {
            let account = &mut parts[*at];
            while account.held() < 100 {
                let all = 100 - account.held();
                if !take_part(account, account.held().min(all), all) {
                    return true;
                }
            }
            false
        });
        let ended = before.iter().filter(|at| !left.contains(at));
        ended.for_each(|at| parts[*at].keep(0));
        if left.is_empty() {
            break;
        }
    }
    assert!(take_part(&mut newcomer, 10, 100));
    drop((parts, newcomer));
    assert_eq!((budget.held(), budget.is_short()), (0, false));
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, usize),
    Keep(usize, usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6usize;
    prop_oneof![
        3 => (who.clone(), 1..130usize).prop_map(|(who, bytes)| Step::Take(who, bytes)),
        2 => (who.clone(), 0..60usize).prop_map(|(who, bytes)| Step::Keep(who, bytes)),
        1 => who.prop_map(Step::Leave),
    ]
}

proptest! {
    /// Each holder gives back in the end, and then all that wait get what they need, in the order of asking.
    #[test]
    fn all_get_their_turn_in_order(steps in proptest::collection::vec(step(), 0..60)) {
        let budget = Budget::new(100);
        let mut accounts: Vec<_> = (0..6).map(|_| budget.account()).collect();
        let mut line: VecDeque<(usize, usize)> = VecDeque::new();
        for step in steps {
            match step {
                Step::Take(who, bytes) if line.iter().all(|(other, _)| *other != who) => {
                    if !take(&mut accounts[who], bytes) {
                        line.push_back((who, bytes));
                    }
                }
                Step::Take(..) => {}
                Step::Keep(who, bytes) => accounts[who].keep(bytes),
                Step::Leave(who) => {
                    line.retain(|(other, _)| *other != who);
                    accounts[who] = budget.account();
                }
            }
            let mut refused = false;
            line.retain(|(who, bytes)| {
                let granted = take(&mut accounts[*who], *bytes);
                assert!(!granted || !refused, "somebody overtook");
                refused |= !granted;
                !granted
            });
            let held: usize = accounts.iter().map(Account::held).sum();
            prop_assert_eq!(held, budget.held());
            let alone = accounts.iter().filter(|account| account.held() > 0).count() == 1;
            prop_assert!(held <= 100 || alone, "{} bytes are held", held);
            prop_assert_eq!(budget.is_short(), !line.is_empty());
        }
        while !line.is_empty() {
            accounts.iter_mut().for_each(|account| account.keep(0));
            let before = line.len();
            line.retain(|(who, bytes)| !take(&mut accounts[*who], *bytes));
            prop_assert!(line.len() < before, "all was given back, and nobody got anything");
        }
    }
}
