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
    // Granted, and left before it was claimed.
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
    /// Whoever holds gives back in the end, and then all who wait get what they want, in the order of asking.
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
