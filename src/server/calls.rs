//! A node's calls: the exchange, as shared by the node's sessions and links.
//!
//! Every user of the exchange locks it for the time of its operation, and then rings the bells of the parties that have
//! something to take. A task for the exchange would cost each call two more hops.
//!
//! Invariant: the exchange is locked before the realms' state, never the other way round. A bell stays rung until its party has
//! taken everything.
//!
//! Deliberately absent: the rules of calls (`call`), and the messages between nodes (`links`).

pub(crate) mod links;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;
use vulpes_raft::host::Host;
use vulpes_raft::ids::NodeId;

use crate::call::{
    answer_meta, CallError, CallMessage, CallRequest, CalleeSays, CallerSays, Exchange, Invoke,
    LinkId, Party,
};
use crate::realm::SharedRealms;
use crate::types::event::SessionId;
use crate::types::moment::Moment;
use crate::types::procedure::RegistrationId;
use crate::types::topic::Realm;

/// How often the deadline task wakes if no call has a deadline.
const IDLE: Duration = Duration::from_secs(3600);

/// A node's calls. Clones share them.
#[derive(Clone)]
pub(crate) struct Calls {
    shared: Arc<Mutex<Shared>>,
    /// Notified when the next deadline has moved to an earlier time.
    sooner: Arc<Notify>,
    realms: SharedRealms,
    host: Host,
    node: NodeId,
    began: Instant,
}

#[derive(Default)]
struct Shared {
    exchange: Exchange,
    bells: BTreeMap<Party, Arc<Bell>>,
    /// The deadline that the deadline task waits for.
    deadline: Option<Moment>,
}

/// Notifies a party that there is something to take.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn quieten(&self) {
        self.rung.store(false, Ordering::Release);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        match self.rung.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    async fn rung(&self) {
        poll_fn(|context| self.poll(context)).await;
    }
}

impl Calls {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(host: &Host, node: NodeId, realms: SharedRealms) -> Self {
        let calls = Self {
            shared: Arc::default(),
            sooner: Arc::default(),
            realms,
            host: host.clone(),
            node,
            began: Instant::now(),
        };
        tokio::spawn(calls.clone().watch_deadlines());
        calls
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation on the exchange, and notifies all parties that it concerns.
    fn with<R>(&self, work: impl FnOnce(&mut Exchange) -> R) -> R {
        let mut shared = self.lock();
        let result = work(&mut shared.exchange);
        for party in shared.exchange.rung() {
            if let Some(bell) = shared.bells.get(&party) {
                bell.ring();
            }
        }
        let deadline = shared.exchange.deadline();
        let known = std::mem::replace(&mut shared.deadline, deadline);
        if deadline.is_some_and(|deadline| known.is_none_or(|known| deadline < known)) {
            self.sooner.notify_one();
        }
        result
    }

    /// All nodes have withdrawn a registration from a session.
    pub(super) fn withdrawn(&self, session: SessionId, registration: RegistrationId) {
        self.with(|exchange| exchange.stop_serving(session, registration));
    }

    fn bell(&self, party: Party) -> Arc<Bell> {
        self.lock().bells.entry(party).or_default().clone()
    }

    /// Takes something out of the exchange for a party; its bell is quietened if that was all.
    fn take<R>(&self, party: Party, bell: &Bell, take: impl FnOnce(&mut Exchange) -> R) -> R {
        let mut shared = self.lock();
        let taken = take(&mut shared.exchange);
        if !shared.exchange.has_something_for(party) {
            bell.quieten();
        }
        taken
    }

    async fn watch_deadlines(self) {
        loop {
            let next = self.lock().deadline;
            let next = next.map_or_else(
                || Instant::now() + IDLE,
                |moment| self.began + Duration::from_millis(moment.0),
            );
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let now = self.now();
                    self.with(|exchange| exchange.expire(now));
                }
                () = self.sooner.notified() => {}
            }
        }
    }

    /// The order shows that a session has ended, at any node.
    pub(crate) fn ended(&self, session: SessionId) {
        self.with(|exchange| exchange.ended(session));
    }

    /// A session starts to take part in calls.
    pub(crate) fn attach(&self, session: SessionId) -> Attached {
        let bell = self.bell(Party::Session(session));
        self.with(|exchange| exchange.attach(session));
        Attached { calls: self.clone(), session, bell }
    }

    /// Whether the state will soon show a registration to a callee that does not know of it yet.
    fn is_soon_known(&self, invoke: &Invoke) -> bool {
        self.realms.with(|realms| {
            let registration = realms.registration(invoke.registration);
            let mut callees = registration.iter().flat_map(|(_, found)| &found.callees);
            realms.next() < invoke.seen || callees.any(|callee| callee.session == invoke.callee)
        })
    }

    fn heard_from_link(&self, link: LinkId, says: Vec<CallerSays>) {
        let now = self.now();
        let soon = |invoke: &Invoke| self.is_soon_known(invoke);
        self.with(|exchange| exchange.heard_from_link(link, says, soon, now));
    }

    fn heard_from_node(&self, node: NodeId, says: Vec<CalleeSays>) {
        self.with(|exchange| exchange.heard_from_node(node, says));
    }
}

/// A session that takes part in calls, until this is dropped.
pub(crate) struct Attached {
    calls: Calls,
    session: SessionId,
    bell: Arc<Bell>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.calls.with(|exchange| exchange.detach(self.session));
        self.calls.lock().bells.remove(&Party::Session(self.session));
    }
}

impl Attached {
    /// Ready when there is something to take.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.poll(context)
    }

    /// The size of the next message in bytes, roughly; the bell is quietened if there is none.
    pub(crate) fn next_size(&self) -> Option<usize> {
        let look = |exchange: &mut Exchange| exchange.told_size(self.session);
        self.calls.take(Party::Session(self.session), &self.bell, look)
    }

    pub(crate) fn next(&self) -> Option<CallMessage> {
        let take = |exchange: &mut Exchange| exchange.take_told(self.session);
        self.calls.take(Party::Session(self.session), &self.bell, take)
    }

    /// Handles a request of the session; returns the answer if there is one at once.
    pub(crate) fn ask(&self, realm: &Realm, asked: CallRequest) -> Option<CallMessage> {
        let (calls, session) = (&self.calls, self.session);
        match asked {
            CallRequest::Call(call) if call.procedure.is_reserved() => {
                return Some(calls.realms.with(|realms| answer_meta(realms, realm, &call)));
            }
            CallRequest::Call(call) => {
                let (now, chance) = (calls.now(), calls.host.random.next_u64());
                let failed =
                    CallMessage::Failed { call: call.id, error: CallError::NoSuchProcedure };
                let found = calls.with(|exchange| {
                    let wanted = (realm, call.procedure.as_str());
                    let choose = |exchange: &mut Exchange| {
                        calls
                            .realms
                            .with(|realms| exchange.choose(realms, calls.node, wanted, chance))
                    };
                    let chosen = choose(exchange)?;
                    exchange.call(session, call, chosen, now);
                    Some(())
                });
                return found.map_or(Some(failed), |()| None);
            }
            CallRequest::Cancel { call, mode } => {
                calls.with(|exchange| exchange.cancel(session, call, mode));
            }
            CallRequest::Serve(serve) => calls.with(|exchange| exchange.serve(session, serve)),
            CallRequest::StopServing(registration) => {
                calls.with(|exchange| exchange.stop_serving(session, registration));
            }
            CallRequest::Yield { invocation, progress, payload } => {
                calls.with(|exchange| exchange.yielded(session, invocation, progress, payload));
            }
            CallRequest::Fail { invocation, uri, payload } => {
                calls.with(|exchange| exchange.failed(session, invocation, uri, payload));
            }
        }
        None
    }
}
