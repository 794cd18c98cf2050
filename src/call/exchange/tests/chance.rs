//! Random schedules of two exchanges and the links between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A link, as the dialled entry knows it, with messages in flight both ways.
type Link = (LinkId, VecDeque<CallerSays>, VecDeque<CalleeSays>);

/// Two entries with the links between them, in the role of their drivers.
struct World {
    entries: [Exchange; 2],
    /// Messages in flight to the callee's entry and back, by the caller's entry; none without a link.
    links: [Option<Link>; 2],
    /// The calls of each session, and the answers that it got.
    asked: BTreeSet<(SessionId, CallId)>,
    answers: BTreeMap<(SessionId, CallId), CallMessage>,
    /// Invocations that a callee has taken, with the number that its call carries.
    taken: BTreeMap<SessionId, Vec<(InvocationId, Payload)>>,
    calls: u64,
    now: u64,
}

#[derive(Debug, Clone)]
enum Doing {
    Call { from: usize, to: usize, timeout: bool },
    Cancel { from: usize, mode: u8 },
    Take { at: usize },
    Answer { at: usize, progress: bool, fail: bool },
    Send { entry: usize },
    Deliver { entry: usize, back: bool },
    Break { entry: usize },
    End { at: usize },
    Ended { at: usize },
    Wait,
}

const SESSIONS: usize = 4;

/// Sessions alternate between the entries.
fn session(at: usize) -> SessionId {
    SessionId(10 + at as u64)
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            entries: Default::default(),
            links: [None, None],
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            taken: BTreeMap::new(),
            calls: 0,
            now: 0,
        };
        (0..SESSIONS).for_each(|at| world.begin(at));
        world
    }

    fn begin(&mut self, at: usize) {
        let entry = &mut self.entries[at % 2];
        entry.attach(session(at));
        entry.serve(session(at), serve(at as u32 % 3, at >= 2));
    }

    fn call(&mut self, from: usize, to: usize, timeout: bool) {
        self.calls += 1;
        let id = CallId(self.calls);
        let timeout = timeout.then_some(Duration::from_millis(20));
        let call = Call { timeout, ..call(self.calls) };
        let node = NodeId(to as u64 % 2);
        let site = if from % 2 == to % 2 { Site::Here } else { Site::Node(node) };
        let chosen = Chosen { callee: session(to), ..chosen(site) };
        self.asked.insert((session(from), id));
        self.entries[from % 2].call(session(from), call, chosen, Moment(self.now));
    }

    fn other(entry: usize) -> NodeId {
        NodeId(1 - entry as u64)
    }

    fn step(&mut self, doing: &Doing) {
        match *doing {
            Doing::Call { from, to, timeout } => self.call(from, to, timeout),
            Doing::Cancel { from, mode } => {
                let mode = [Mode::Skip, Mode::Kill, Mode::KillNoWait][usize::from(mode)];
                let of = |(who, _): &&(SessionId, CallId)| *who == session(from);
                let mut own = self.asked.iter().filter(of);
                let open = own.rfind(|call| !self.answers.contains_key(call));
                if let Some((who, id)) = open.copied() {
                    self.entries[from % 2].cancel(who, id, mode);
                }
            }
            Doing::Take { at } => self.take(at),
            Doing::Answer { at, progress, fail } => {
                let Some((id, payload)) = self.taken.get(&session(at)).and_then(|all| all.first())
                else {
                    return;
                };
                let (id, payload) = (*id, payload.clone());
                let entry = &mut self.entries[at % 2];
                match fail {
                    true => entry.failed(session(at), id, "x".into(), payload),
                    false => entry.yielded(session(at), id, progress, payload),
                }
                if fail || !progress {
                    self.taken.entry(session(at)).or_default().remove(0);
                }
            }
            Doing::Send { entry } => self.send(entry),
            Doing::Deliver { entry, back } => self.deliver(entry, back),
            Doing::Break { entry } => self.break_link(entry),
            Doing::End { at } => {
                self.take(at);
                self.entries[at % 2].detach(session(at));
                self.asked.retain(|(who, _)| *who != session(at));
                self.answers.retain(|(who, _), _| *who != session(at));
                self.taken.remove(&session(at));
                self.begin(at);
            }
            // The order shows it at the other entry; its own entry knows already.
            Doing::Ended { at } => {
                self.step(&Doing::End { at });
                self.entries[1 - at % 2].ended(session(at));
            }
            Doing::Wait => {
                self.now += 10;
                let now = Moment(self.now);
                self.entries.iter_mut().for_each(|entry| entry.expire(now));
            }
        }
    }

    /// A session takes its messages.
    fn take(&mut self, at: usize) {
        let who = session(at);
        for told in told(&mut self.entries[at % 2], who) {
            match told {
                CallMessage::Invocation(Invocation { id, payload, .. }) => {
                    self.taken.entry(who).or_default().push((id, payload));
                }
                CallMessage::Interrupt { .. } => {}
                CallMessage::Result { call, progress, ref payload } => {
                    let own = format!("[{}]", call.0);
                    assert_eq!(payload.args, own.as_bytes(), "a call gets its own result");
                    assert!(self.asked.contains(&(who, call)));
                    let answered = self.answers.contains_key(&(who, call));
                    assert!(!answered, "{call:?} is told {told:?} after its answer");
                    if !progress {
                        self.answers.insert((who, call), told);
                    }
                }
                CallMessage::Failed { call, .. } => {
                    assert!(self.asked.contains(&(who, call)));
                    let first = self.answers.insert((who, call), told.clone());
                    assert_eq!(first, None, "{call:?} is answered twice: {told:?}");
                }
            }
        }
    }

    /// An entry dials if necessary, and both sides send what they have.
    fn send(&mut self, entry: usize) {
        let node = Self::other(entry);
        if self.links[entry].is_none() {
            if !self.entries[entry].has_something_for(Party::Node(node)) {
                return;
            }
            let id = self.entries[1 - entry].link_opened();
            self.links[entry] = Some((id, VecDeque::new(), VecDeque::new()));
        }
        let Some((id, there, back)) = &mut self.links[entry] else { return };
        there.extend(self.entries[entry].take_for_node(node, 100));
        back.extend(self.entries[1 - entry].take_for_link(*id, 100));
    }

    fn deliver(&mut self, entry: usize, back: bool) {
        let Some((id, there, from)) = &mut self.links[entry] else { return };
        if back {
            let says = from.pop_front().into_iter().collect();
            self.entries[entry].heard_from_node(Self::other(entry), says);
        } else {
            let says = there.pop_front().into_iter().collect();
            let now = Moment(self.now);
            self.entries[1 - entry].heard_from_link(*id, says, |_| true, now);
        }
    }

    fn break_link(&mut self, entry: usize) {
        if let Some((id, _, _)) = self.links[entry].take() {
            self.entries[entry].node_lost(Self::other(entry));
            self.entries[1 - entry].link_lost(id);
            assert!(!self.entries[1 - entry].owes(id), "nothing is kept for a link that is gone");
        }
    }

    /// Runs until nothing changes any more, with callees that answer.
    fn rest(&mut self) {
        for _ in 0..1000 {
            for entry in 0..2 {
                self.send(entry);
                self.deliver(entry, false);
                self.deliver(entry, true);
            }
            for at in 0..SESSIONS {
                self.take(at);
                self.step(&Doing::Answer { at, progress: false, fail: false });
            }
            let busy = self.entries.iter().any(|entry| !is_empty(entry));
            let told = self.asked.iter().all(|call| self.answers.contains_key(call));
            if !busy && told {
                return;
            }
        }
        let open = self.asked.iter().filter(|call| !self.answers.contains_key(call));
        panic!("without an answer: {:?}", open.collect::<Vec<_>>());
    }
}

fn doing() -> impl Strategy<Value = Doing> {
    let at = 0..SESSIONS;
    prop_oneof![
        4 => (at.clone(), at.clone(), any::<bool>())
            .prop_map(|(from, to, timeout)| Doing::Call { from, to, timeout }),
        1 => (at.clone(), 0u8..3).prop_map(|(from, mode)| Doing::Cancel { from, mode }),
        3 => at.clone().prop_map(|at| Doing::Take { at }),
        3 => (at.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(at, progress, fail)| Doing::Answer { at, progress, fail }),
        4 => (0usize..2).prop_map(|entry| Doing::Send { entry }),
        6 => (0usize..2, any::<bool>()).prop_map(|(entry, back)| Doing::Deliver { entry, back }),
        1 => (0usize..2).prop_map(|entry| Doing::Break { entry }),
        1 => at.clone().prop_map(|at| Doing::End { at }),
        1 => at.prop_map(|at| Doing::Ended { at }),
        1 => Just(Doing::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever ends, in whatever order: each call is answered once, with its own result or an error, and nothing is left over.
    #[test]
    fn every_call_is_answered_once(doings in proptest::collection::vec(doing(), 1..120)) {
        let mut world = World::new();
        doings.iter().for_each(|doing| world.step(doing));
        world.rest();
    }
}
