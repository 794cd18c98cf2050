//! One client's session: its socket and its core, in one task.
//!
//! A turn takes what is ready, lets the core work, hands its events to the entry as one batch, and writes its output at once.
//!
//! Invariant: every poll asks anew for everything that the core waits for at that time, and each of these wakes the session.
//! A poll depends only on the current state, never on what an earlier poll has seen.
//!
//! Deliberately absent: anything of a protocol, and the decisions of a session (`session::core`).

mod client;
mod leaving;
mod node;
mod paced;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wake;

use std::future::{poll_fn, Future};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::task::coop;
use tokio::time::Sleep;

use super::budget::Account;
use super::calls::Attached;
use super::clients::Clients;
use super::filtering::Filtering;
use super::login::conversation::{Conversation, Shown, Stepped};
use super::outgo::Outgo;
use super::publishing::Publishing;
use super::reader::{ReaderDriver, SubscriptionRoom};
use super::transport::{End, Transport, TransportError};
use crate::gate::{EndReason, Gate};
use crate::realm::EndCause;
use crate::session::core::{Core, Output};
use crate::session::reader::Reading;
use crate::session::Signal;
use crate::types::answer::Answer;
use crate::types::limits;
use crate::types::login::LoginReply;
use crate::types::moment::Moment;
use crate::types::topic::Realm;
use node::{AtNode, Held, Way};
use paced::Paced;
use wake::Wake;

/// How long a session does nothing before it lets go of free memory. One that is busy would need it again at once.
const QUIET: Duration = Duration::from_secs(1);

/// Longer than a session lasts, and short enough for any clock.
const FOREVER: Duration = Duration::from_secs(1 << 32);

pub(super) struct Session<G, T> {
    core: Core<G, SubscriptionRoom>,
    transport: T,
    clients: Arc<Clients>,
    /// What it holds at the node since it was registered there.
    held: Held,
    /// Present once the session is open.
    reading: Option<ReaderDriver>,
    publishing: Publishing,
    outgo: Outgo,
    /// The bytes of the log that it holds until the socket takes them.
    segments: Account,
    /// Its turn at reading large values for its filters.
    filtering: Filtering,
    /// A step of the client's login, while it is checked.
    login: Option<BoxFuture<'static, Stepped>>,
    /// The client's login between its steps.
    conversation: Option<Box<Conversation>>,
    /// What its connection shows of the client.
    shown: Shown,
    /// Why the client is gone, while its earlier messages are still to be handled.
    gone: Option<Box<TransportError>>,
    /// What limits how fast its client is read.
    paced: Paced,
    timer: Pin<Box<Sleep>>,
    /// When it has done nothing for long enough to let go of free memory; nothing if it has done so already.
    rest_at: Option<Moment>,
    /// When the client's token expires, if it logged in with one.
    expires_at: Option<Moment>,
    inputs_first: bool,
}

impl<G: Gate, T: Transport> Session<G, T> {
    /// A session on the heap: a future that holds it by value contains it several times, once in each step that passes it on.
    pub(super) fn new(gate: G, transport: T, shown: Shown, clients: Arc<Clients>) -> Box<Self> {
        let publishing = Publishing::new(gate.session(), clients.rooms.clone());
        let outgo = Outgo::new(&clients.output);
        let segments = clients.segments.account();
        let filtering = Filtering::new(&clients.filtering);
        let core = Core::new(gate, clients.now());
        let paced = Paced::new(shown.came.as_deref());
        Box::new(Self {
            core,
            transport,
            clients,
            held: Held::default(),
            reading: None,
            publishing,
            outgo,
            segments,
            filtering,
            login: None,
            conversation: None,
            shown,
            gone: None,
            paced,
            timer: Box::pin(tokio::time::sleep(limits::HANDSHAKE)),
            rest_at: None,
            expires_at: None,
            inputs_first: false,
        })
    }

    /// Serves the client until either side ends the session; returns why it ended.
    pub(super) async fn run(mut self: Box<Self>) -> TransportError {
        let end = match AssertUnwindSafe(self.serve()).catch_unwind().await {
            Ok(end) => end,
            // The panic was logged. The session still has to leave, or others would see it for as long as the node lives.
            Err(_) => TransportError::Panicked,
        };
        Box::pin(self.leave(end)).await
    }

    async fn serve(&mut self) -> TransportError {
        let mut stopping = self.clients.stopping();
        let stop = stopping.wait_for(|stop| *stop);
        tokio::pin!(stop);
        loop {
            // A session that always finds something to do lets others have their turn.
            coop::consume_budget().await;
            self.turn();
            if self.core.has_toiled() {
                tokio::task::yield_now().await;
            }
            let wake = poll_fn(|context| {
                if !self.core.is_ending() && stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Wake::End(EndReason::Shutdown));
                }
                self.poll_wake(context)
            })
            .await;
            if let Some(end) = self.handle(wake) {
                return end;
            }
        }
    }

    /// The core, with its node and its way to the client.
    fn parts(&mut self) -> Parts<'_, G, T> {
        let Self { core, transport, clients, held, publishing, outgo, filtering, .. } = self;
        let session = core.session();
        let address = self.shown.came.as_ref().map(|came| came.address);
        let subscriptions = self.paced.subscriptions();
        let publishing = &*publishing;
        let node = AtNode { session, clients: &*clients, held, publishing, address, subscriptions };
        (core, node, Way { transport: &*transport, outgo, filtering })
    }

    /// Lets the core work, and executes its outputs.
    fn turn(&mut self) {
        let now = self.clients.now();
        let (core, mut node, mut way) = self.parts();
        core.turn(now, &mut node, &mut way);
        while let Some(output) = self.core.poll_output() {
            self.output(output);
        }
        self.publishing.count_waiting(self.core.ledger().waiting());
        self.count_publishes(now);
        if let Some(realm) = self.core.realm().filter(|_| self.reading.is_none()).cloned() {
            self.begin_reading(realm);
        }
        let is_open = self.core.is_open() && self.core.ledger().is_idle();
        if is_open && self.core.inputs() == 0 || self.core.awaits_answer() {
            self.transport.intake().settle();
        }
        self.filtering.give_back();
        if !self.core.has_current() {
            self.filtering.forget();
        }
        self.hold_segments();
        self.count_output();
    }

    /// The session is open.
    fn begin_reading(&mut self, realm: Realm) {
        let session = self.core.session();
        self.is_counted();
        let accounts = self.paced.accounts();
        self.reading = Some(ReaderDriver::new(session, realm, self.clients.clone(), accounts));
        self.transport.intake().belongs_to(&self.clients.input);
    }

    fn output(&mut self, output: Output) {
        let session = self.core.session();
        match output {
            Output::Write(bytes) => self.transport.push(bytes),
            Output::Dropped(dropped) => self.clients.drops.note(session, &dropped),
            Output::Login(step) => {
                let begun = || Box::new(self.clients.logins.conversation(session, &self.shown));
                let conversation = self.conversation.take().unwrap_or_else(begun);
                self.login = Some(conversation.step(step).boxed());
            }
            Output::Errand(errand) => self.publishing.begin(errand, &self.clients.entry),
            Output::Save { realm, progress } => self.clients.manager.save(session, realm, progress),
            Output::Close(farewell) => self.transport.close(End::Ours(farewell)),
        }
    }

    /// Handles what woke the session; returns why it ends, if it does.
    fn handle(&mut self, wake: Wake) -> Option<TransportError> {
        let now = self.clients.now();
        if !matches!(wake, Wake::Time) {
            self.rest_at = Some(now.after(QUIET));
        }
        match wake {
            // The next turn writes the ping.
            Wake::Asked => {}
            Wake::Room | Wake::Told => self.tell(),
            Wake::Failed(error) => return Some(error),
            Wake::Inputs => {
                let (core, mut node, _) = self.parts();
                core.take_inputs(now, &mut node);
            }
            Wake::Answer(answer) => {
                self.answered(answer);
                while let Some(answer) = self.publishing.try_answer() {
                    self.answered(answer);
                }
            }
            Wake::Signal(word) => {
                if matches!(word, Some(Signal::Ended(EndCause::TakenOver))) {
                    self.hear_out();
                }
                if word.is_none() {
                    // The session has to leave by itself: a closed channel gives no more signals.
                    self.held.words = None;
                }
                let (core, node, _) = self.parts();
                core.told(word, now, &node);
            }
            Wake::LoggedIn((conversation, result)) => {
                let goes_on = matches!(result, Ok(LoginReply::Challenge(_) | LoginReply::Data(_)));
                self.conversation = goes_on.then_some(conversation);
                if let Ok(LoginReply::Accepted { identity, .. }) = &result {
                    self.expires_at = identity.expires.map(|at| self.moment(at));
                }
                self.core.logged_in(result);
            }
            Wake::Done(done) => self.core.done(done),
            Wake::Reading(reading) => {
                if let Reading::Gone = reading {
                    let oldest = self.clients.log.head().position;
                    tracing::warn!(%oldest, "a subscriber fell behind the head of the log");
                }
                let (core, node, _) = self.parts();
                core.read(reading, &node);
            }
            Wake::Time => {
                if self.rest_at.take_if(|at| *at <= now).is_some() {
                    self.rest();
                }
                if self.expires_at.take_if(|at| *at <= now).is_some() {
                    self.core.end(EndReason::Expired);
                }
                let (core, node, _) = self.parts();
                if core.tick(now, &node) {
                    return Some(TransportError::Closed);
                }
            }
            Wake::End(reason) => self.core.end(reason),
        }
        None
    }

    /// When the time of day will be this, in Unix seconds.
    fn moment(&self, at: u64) -> Moment {
        let left = at.saturating_mul(1000).saturating_sub(self.clients.host.clock.now().0);
        self.clients.now().after(Duration::from_millis(left).min(FOREVER))
    }

    /// Lets go of memory that is free: most clients do nothing most of the time.
    fn rest(&mut self) {
        if self.core.ledger().is_answered() {
            self.publishing.rest();
        }
        self.core.rest();
        self.transport.rest();
    }

    fn answered(&mut self, answer: Answer) {
        self.publishing.give_back(&answer, &self.clients.log);
        self.core.answered(answer);
    }

    /// Hands the core its messages about calls, while there is room for them.
    fn tell(&mut self) {
        while let Some(size) = self.calls().and_then(Attached::next_size) {
            let (core, _, mut way) = self.parts();
            if !core.takes(size, &mut way) {
                return;
            }
            let Some(told) = self.calls().and_then(Attached::next) else { return };
            self.core.called(told);
        }
    }

    fn calls(&self) -> Option<&Attached> {
        self.held.calls.as_deref()
    }
}

/// A session's core, with its node and its way to the client.
type Parts<'a, G, T> = (&'a mut Core<G, SubscriptionRoom>, AtNode<'a>, Way<'a, T>);
