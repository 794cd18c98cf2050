//! Two clients at one node, with the real parts below a session (the fold, the dispatcher and the log), but no time, no sockets
//! and no waiting.
//!
//! Invariant: each client is driven as by the driver: after each input its core works, all output is drained, and whatever the
//! core waits for is asked for again, until nothing is left.
//!
//! Deliberately absent: any check besides comparing texts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use bytes::Bytes;
use vulpes_raft::ids::{Incarnation, NodeId, Position, Slot, Stamp};
use vulpes_raft::order::Step as OrderStep;

use super::super::{Core, Output};
use super::node::{AtNode, Shared, Socket};
use super::words::Words;
use crate::dispatch::{mailbox, Deliveries, Dispatcher, Join};
use crate::log::{Start, Tail};
use crate::realm::{Notice, Realms};
use crate::session::ledger::{self, Batch, Errand};
use crate::session::liveness::{Finding, Seen};
use crate::session::reader::{Done, Step, Work};
use crate::session::testing::{event, realm};
use crate::session::Signal;
use crate::types::access::{ChangeUsers, User, UserChange, ADMIN, ANONYMOUS};
use crate::types::act::Act;
use crate::types::answer::{Answer, Stored};
use crate::types::event::{Event, SessionId};
use crate::types::moment::Moment;
use crate::types::rule::{ChangeRoles, Role, RoleChange, DEFAULT};

struct Client {
    core: Core<Words, ()>,
    socket: Socket,
    deliveries: Option<Deliveries>,
    work: Option<Work>,
    words: VecDeque<Signal>,
    /// It gets no signals.
    deaf: bool,
    came: u64,
    told: Vec<String>,
}

pub(super) struct Bench {
    shared: Shared,
    clients: BTreeMap<u64, Client>,
    batches: VecDeque<(u64, Batch)>,
    now: Moment,
    pub(super) text: String,
}

impl Bench {
    pub(super) fn new(limit: usize) -> Self {
        let dispatcher = Dispatcher::new(Slot(1));
        let (realms, log, recent) = (Realms::default(), Vec::new(), VecDeque::new());
        let mut shared = Shared { realms, log, recent, dispatcher, full: false };
        let opened = OrderStep::Opened { entry: NodeId(1), incarnation: Incarnation(1) };
        shared.place(opened, None);
        let client = |id: u64| {
            let core = Core::new(Words::new(SessionId(id)), Moment(0));
            let socket = Socket { limit, ..Socket::default() };
            let (words, told) = (VecDeque::new(), Vec::new());
            let client = Client {
                core,
                socket,
                deliveries: None,
                work: None,
                words,
                deaf: false,
                came: 0,
                told,
            };
            (id, client)
        };
        let clients = [1, 2, 3].map(client).into();
        let batches = VecDeque::new();
        Self { shared, clients, batches, now: Moment(0), text: String::new() }
    }

    /// What a client has received so far.
    pub(super) fn told(&self, id: u64) -> &[String] {
        &self.clients[&id].told
    }

    /// Whether a client has taken all that was written for it.
    pub(super) fn has_all(&self, id: u64) -> bool {
        self.clients[&id].socket.waiting == 0
    }

    pub(super) fn input(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match *words {
            ["order"] => self.order(),
            ["log", ref topics @ ..] => {
                let events: Vec<Event> = topics.iter().map(|topic| event(topic)).collect();
                let notices = self.shared.events(&events);
                self.tell(notices);
            }
            ["allow", ref patterns @ ..] => self.allow(patterns),
            ["forbid", "anonymous"] => {
                let changes = vec![UserChange::Remove { name: ANONYMOUS.into() }];
                let change = ChangeUsers { author: "admin".into(), changes };
                self.change(&Act::ChangeUsers(change));
            }
            ["after", _] => self.pass(number(1)),
            ["full"] => self.shared.full = true,
            [id, "says", ref said @ ..] => {
                let client = self.client(id);
                client.came += 1;
                client.core.received(Bytes::from(said.join(" ")));
            }
            [id, "takes", _] => {
                let socket = &mut self.client(id).socket;
                let bytes = socket.waiting.min(number(2) as usize);
                socket.waiting -= bytes;
                socket.taken += bytes as u64;
            }
            [id, "is", "deaf"] => self.client(id).deaf = true,
            [id, "ends"] => self.client(id).core.end(crate::gate::EndReason::Shutdown),
            [id, "hangs", "up"] => {
                let now = self.now;
                let goes_on = self.client(id).core.input_over(now);
                writeln!(self.text, "{id} {}", if goes_on { "goes on" } else { "is over" })
                    .unwrap();
            }
            [id, "leaves"] => drop(self.client(id).core.leave()),
            _ => panic!("not an input: {words:?}"),
        }
        self.settle();
    }

    /// From here on, clients may do everything on these topics, and nothing else.
    fn allow(&mut self, patterns: &[&str]) {
        if !self.shared.realms.has_users() {
            let admin = User { roles: vec![ADMIN.into()], verifier: "v".into(), disabled: false };
            let add = |name: &str, user| UserChange::Add { name: name.into(), user };
            let changes = vec![add("admin", admin), add(ANONYMOUS, User::default())];
            self.change(&Act::ChangeUsers(ChangeUsers { author: String::new(), changes }));
        }
        let rules = patterns.iter().map(|pattern| format!("allow all {pattern}").parse().unwrap());
        let role = Role { rules: rules.collect() };
        let changes = vec![RoleChange::Set { name: DEFAULT.into(), role }];
        self.change(&Act::ChangeRoles(ChangeRoles { author: "admin".into(), changes }));
    }

    fn change(&mut self, act: &Act) {
        let event = Event::of_act(realm(), "vulpes/access", SessionId(0), act.encode());
        let notices = self.shared.events(&[event]);
        self.tell(notices);
    }

    fn client(&mut self, id: &str) -> &mut Client {
        self.clients.get_mut(&id.parse().unwrap()).unwrap()
    }

    /// Time passes, and each client's liveness is checked.
    fn pass(&mut self, by: u64) {
        self.now = Moment(self.now.0 + by);
        for (id, client) in &mut self.clients {
            let seen = Seen {
                came: client.came,
                taken: client.socket.taken,
                waiting: client.socket.waiting > 0,
                unheard: false,
            };
            let terms = client.core.terms(true, false);
            match client.core.look_at_client(self.now, terms, seen) {
                Finding::Ask => writeln!(self.text, "{id} is asked").unwrap(),
                Finding::Dead => writeln!(self.text, "{id} is dead").unwrap(),
                Finding::Sign | Finding::Nothing => {}
            }
            if client.core.deadline(terms).is_some_and(|deadline| deadline <= self.now) {
                let session = SessionId(*id);
                let node = AtNode { shared: &self.shared, session, deliveries: None };
                if client.core.tick(self.now, &node) {
                    writeln!(self.text, "{id} had its time").unwrap();
                }
            }
        }
    }

    /// The entry stores all submitted events in one segment, and the order takes it.
    fn order(&mut self) {
        let batches = std::mem::take(&mut self.batches);
        let events: Vec<Event> =
            batches.iter().flat_map(|(_, batch)| batch.events.clone()).collect();
        if events.is_empty() {
            return;
        }
        let Tail { next_slot: slot, next_position: base } = self.shared.tail();
        let notices = self.shared.events(&events);
        let mut offset = 0;
        for (id, batch) in batches {
            let count = batch.events.len() as u32;
            let position = Position(base.0 + u64::from(offset));
            let stored = Stored { position, slot, stamp: Stamp(0), offset };
            if batch.answered {
                let answer = Answer { first: batch.first, count, outcome: Ok(stored) };
                self.clients.get_mut(&id).unwrap().core.answered(answer);
            }
            offset += count;
        }
        self.tell(notices);
    }

    fn tell(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            let (session, word) = match notice {
                Notice::Joined { session } => (session, Signal::Joined),
                Notice::Ended { session, cause } => (session, Signal::Ended(cause)),
                Notice::Decided { session, asked, decision } => {
                    (session, Signal::Decided { asked, decision })
                }
                Notice::Turn { session, waiting } => (session, Signal::Turn { waiting }),
                Notice::FilterOutcome { session, noted } => (session, Signal::FilterOutcome(noted)),
                Notice::Released { session } => (session, Signal::Released),
                Notice::HeldBack { .. }
                | Notice::Due(_)
                | Notice::Confirmed(_)
                | Notice::Withdrawn { .. }
                | Notice::Away { .. }
                | Notice::AddressesBanned => continue,
            };
            if let Some(client) = self.clients.get_mut(&session.0).filter(|client| !client.deaf) {
                client.words.push_back(word);
            }
        }
    }

    /// Drives all clients until they wait.
    fn settle(&mut self) {
        let Self { shared, clients, batches, now, text } = self;
        for (id, client) in clients {
            while client.step(*id, shared, *now, batches, text) {}
        }
    }
}

impl Client {
    /// One poll of the driver; true if there was something to do.
    fn step(
        &mut self,
        id: u64,
        shared: &mut Shared,
        now: Moment,
        batches: &mut VecDeque<(u64, Batch)>,
        text: &mut String,
    ) -> bool {
        let session = SessionId(id);
        let deliveries = self.deliveries.as_mut();
        let mut node = AtNode { shared, session, deliveries };
        self.core.turn(now, &mut node, &mut self.socket);
        let mut done = None;
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Write(bytes) => {
                    let said = String::from_utf8(bytes.to_vec()).unwrap();
                    writeln!(text, "{id}: {said}").unwrap();
                    self.told.push(said);
                    self.socket.waiting += bytes.len();
                }
                Output::Dropped(dropped) => panic!("{dropped:?}"),
                Output::Login(login) => panic!("{login:?}"),
                Output::Errand(Errand::Admit(bytes)) => done = Some(ledger::Done::Admitted(bytes)),
                Output::Errand(Errand::Submit(batch)) => {
                    let events: Vec<String> = batch.events.iter().map(shown).collect();
                    writeln!(text, "{id} submits {}", events.join(", ")).unwrap();
                    batches.push_back((id, batch));
                    done = Some(ledger::Done::Submitted);
                }
                Output::Save { progress, .. } => {
                    writeln!(text, "{id} has come to {}", progress.sent).unwrap();
                }
                Output::Close(_) => writeln!(text, "{id} closes").unwrap(),
            }
        }
        if let Some(done) = done {
            self.core.done(done);
            return true;
        }
        if let Some(word) = self.words.pop_front().filter(|_| self.core.listens()) {
            self.core.told(Some(word), now, &node);
            return true;
        }
        if self.core.inputs() > 0 && self.core.may_read(&mut self.socket) {
            self.core.take_inputs(now, &mut node);
            return true;
        }
        self.read(id, shared)
    }

    fn read(&mut self, id: u64, shared: &mut Shared) -> bool {
        let session = SessionId(id);
        let done = self.work.take().map(|work| self.finish(work, session, shared));
        let mut node = AtNode { shared, session, deliveries: self.deliveries.as_mut() };
        let room = self.core.can_deliver(&mut self.socket);
        let Some((reader, current)) = self.core.reading() else { return false };
        if let Some(slot) = current.filter(|_| room).and_then(|current| current.missing()) {
            reader.read_again(slot);
        }
        let free = room && current.is_none();
        let step = match done {
            Some(done) => reader.done(done, &node).map_or(Step::Moved, Step::Reading),
            None => reader.next(&mut node, free),
        };
        if !reader.has_mailbox() {
            self.deliveries = None;
        }
        match step {
            Step::Reading(reading) => {
                let node = AtNode { shared, session, deliveries: None };
                self.core.read(reading, &node);
            }
            Step::Work(work) => self.work = Some(work),
            Step::Moved => {}
            Step::Wait => return false,
        }
        true
    }

    fn finish(&mut self, work: Work, session: SessionId, shared: &mut Shared) -> Done {
        let at = |position: Position| {
            let found = shared.log.iter().find(|placed| placed.resolution.end() > position);
            let tail = shared.tail().next_slot;
            let slot = found.map_or(tail, |placed| placed.resolution.slot);
            Done::Start(Ok(Start { slot, position }))
        };
        match work {
            Work::StartAfter(crate::types::subscription::After::Position(position)) => {
                at(position.next())
            }
            Work::StartAt(position) => at(position),
            Work::Read { from, .. } => {
                let rest = shared.log.iter().filter(|placed| placed.resolution.slot >= from);
                Done::Read(Ok(rest.take(3).cloned().collect()))
            }
            Work::Join { subscriptions, at, mailbox: anew } => {
                let (mailbox, deliveries) = anew.then(mailbox).unzip();
                let join = Join { session, realm: realm(), subscriptions, at, mailbox };
                let result = shared.dispatcher.join(join);
                if result.is_ok() && deliveries.is_some() {
                    self.deliveries = deliveries;
                }
                Done::Joined(result)
            }
            Work::Leave(id) => {
                shared.dispatcher.leave(session, id);
                Done::Over
            }
            work => panic!("{work:?}"),
        }
    }
}

/// An event as scripts show it.
fn shown(event: &Event) -> String {
    match Act::decode(&event.act) {
        None => event.topic.to_string(),
        Some(Act::Publish(_)) => format!("{} when", event.topic),
        Some(Act::Granted { .. }) => format!("{} again", event.topic),
        Some(Act::Join(_)) => "join".to_owned(),
        Some(Act::Attach(_)) => "attach".to_owned(),
        Some(Act::Gone(gone)) => match gone.progress {
            Some(progress) => {
                let will = if gone.drop_will { " without will" } else { "" };
                let expiry = gone.expiry.map_or(String::new(), |expiry| format!(" for {expiry}"));
                format!("detach at {}{will}{expiry}", progress.sent)
            }
            None => format!("leave{}", if gone.drop_will { "" } else { " lost" }),
        },
        Some(Act::Subscribe(filters)) => format!("keep {}", filters[0].0),
        Some(Act::Progress(all)) => format!("progress of {}", all[0].0 .0),
        Some(act) => panic!("{act:?}"),
    }
}

/// Runs a script with clients whose sockets hold `limit` bytes.
pub(super) fn check(limit: usize, script: &str) {
    let mut bench = Bench::new(limit);
    let script: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    for line in &script {
        if let Some(input) = line.strip_prefix("> ") {
            writeln!(bench.text, "{line}").unwrap();
            bench.input(&input.split(' ').collect::<Vec<_>>());
        }
    }
    assert_eq!(bench.text.lines().collect::<Vec<_>>(), script, "\n{}", bench.text);
}
