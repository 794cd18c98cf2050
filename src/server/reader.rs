//! Does the work of a session's reader: reads the log, joins the live stream and takes deliveries from it.
//!
//! Invariant: [`Reading::poll`] is pending only if the work under way, or the live stream, wakes the session, or if the reader
//! waits for neither.
//!
//! Deliberately absent: what is read, and when (`session::reader`).

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::{oneshot, OwnedSemaphorePermit};
use vulpes_raft::ids::Slot;

use crate::dispatch::{mailbox, Deliveries, Handed, Join};
use crate::log::{ReadError, Start, Tail};
use crate::realm::View;
use crate::replica::Command;
use crate::session::reader::{Done, Live, Reading, Source, Step, Work};
use crate::types::event::SessionId;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::{Pattern, Realm};

use super::clients::{Clients, SUBSCRIPTION_UNIT};
use super::quotas::{Account, Counted};

/// A session's reader, which holds permits of the room for subscriptions.
pub(super) type Reader = crate::session::reader::Reader<SubscriptionRoom>;

/// A subscription's share of the room, and its places among those that are counted.
pub(super) struct SubscriptionRoom {
    _permit: OwnedSemaphorePermit,
    _counted: Box<[Counted]>,
}

/// How long a reader waits before it retries when no storage answered.
const RETRY: Duration = Duration::from_millis(200);

/// Steps without a result for the session in one turn, however much work there is.
const STEPS_A_TURN: usize = 64;

/// The driver of a session's reader.
pub(super) struct ReaderDriver {
    session: SessionId,
    realm: Realm,
    clients: Arc<Clients>,
    /// What its subscriptions count for.
    accounts: Box<[Arc<Account>]>,
    /// The session's mailbox in the live stream, as long as its reader has one.
    deliveries: Option<Deliveries>,
    working: Option<BoxFuture<'static, Finished>>,
}

/// The result of some work, with the mailbox that was made for it.
struct Finished {
    done: Done,
    deliveries: Option<Deliveries>,
}

/// A reader's view of its node, in one poll.
struct AtNode<'a, 'c> {
    clients: &'a Clients,
    accounts: &'a [Arc<Account>],
    deliveries: Option<&'a mut Deliveries>,
    context: &'a mut Context<'c>,
}

impl Source for AtNode<'_, '_> {
    type Room = SubscriptionRoom;

    fn tail(&self) -> Tail {
        self.clients.log.tail()
    }

    fn view(&self) -> View {
        self.clients.realm_states.view()
    }

    fn try_room(&self, bytes: usize) -> Result<SubscriptionRoom, SubscribeError> {
        let counted = self.accounts.iter().map(|account| account.subscribe());
        let counted = counted.collect::<Option<Box<[_]>>>().ok_or(SubscribeError::QuotaReached)?;
        let permits = u32::try_from(bytes / SUBSCRIPTION_UNIT).unwrap_or(u32::MAX);
        let permit = self.clients.subscriptions.clone().try_acquire_many_owned(permits);
        let permit = permit.map_err(|_| SubscribeError::NodeFull)?;
        Ok(SubscriptionRoom { _permit: permit, _counted: counted })
    }

    fn next_live(&mut self) -> Live {
        // Everything before the tail was handed over before the tail was moved.
        let Tail { next_slot, next_position } = self.clients.log.tail();
        let Some(deliveries) = &mut self.deliveries else { return Live::Nothing };
        match deliveries.poll_next(self.context) {
            Poll::Ready(Some(Handed { slot, placed, hits })) => {
                Live::Segment { slot, placed: placed.upgrade(), hits }
            }
            Poll::Ready(None) => deliveries.left_at().map_or(Live::Ended, Live::Left),
            Poll::Pending if deliveries.is_idle() => {
                Live::Idle(Start { slot: next_slot, position: next_position })
            }
            Poll::Pending => Live::Nothing,
        }
    }
}

impl ReaderDriver {
    pub(super) fn new(
        session: SessionId,
        realm: Realm,
        clients: Arc<Clients>,
        accounts: Box<[Arc<Account>]>,
    ) -> Self {
        Self { session, realm, clients, accounts, deliveries: None, working: None }
    }

    /// The next result for the session. Gives segments only if `room` says that they can be taken.
    pub(super) fn poll(
        &mut self,
        reader: &mut Reader,
        context: &mut Context<'_>,
        room: bool,
    ) -> Poll<Reading> {
        for _ in 0..STEPS_A_TURN {
            if let Poll::Ready(done) = self.poll_done(context) {
                match reader.done(done, &self.at_node(context)) {
                    Some(reading) => return Poll::Ready(reading),
                    None => continue,
                }
            }
            let step = reader.next(&mut self.at_node(context), room);
            if !reader.has_mailbox() {
                self.deliveries = None;
            }
            match step {
                Step::Reading(reading) => return Poll::Ready(reading),
                Step::Work(work) => self.working = Some(self.work(work)),
                Step::Moved => {}
                Step::Wait => return Poll::Pending,
            }
        }
        // Other tasks get their turn, and so does this session's own socket.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn at_node<'a, 'c>(&'a mut self, context: &'a mut Context<'c>) -> AtNode<'a, 'c> {
        let accounts = &self.accounts;
        AtNode { clients: &self.clients, accounts, deliveries: self.deliveries.as_mut(), context }
    }

    fn poll_done(&mut self, context: &mut Context<'_>) -> Poll<Done> {
        let Some(working) = &mut self.working else { return Poll::Pending };
        let Finished { done, deliveries } = std::task::ready!(working.poll_unpin(context));
        self.working = None;
        match &done {
            Done::Joined(Ok(_)) if deliveries.is_some() => self.deliveries = deliveries,
            Done::Read(Err(ReadError::Unavailable(reason))) => {
                tracing::debug!(reason, "a session waits for a storage");
            }
            _ => {}
        }
        Poll::Ready(done)
    }

    fn work(&self, work: Work) -> BoxFuture<'static, Finished> {
        let log = self.clients.log.clone();
        match work {
            Work::StartAfter(after) => {
                alone(async move { Done::Start(log.start_after(after).await) })
            }
            Work::StartAt(position) => {
                alone(async move { Done::Start(log.start_at(position).await) })
            }
            Work::Read { from, later: false } => {
                alone(async move { Done::Read(log.read(from).await) })
            }
            Work::Read { from, later: true } => alone(async move {
                tokio::time::sleep(RETRY).await;
                Done::Read(log.read(from).await)
            }),
            Work::Reach(slot) => alone(async move {
                log.reached(slot).await;
                Done::Over
            }),
            Work::Pause => alone(async move {
                tokio::time::sleep(RETRY).await;
                Done::Over
            }),
            Work::Leave(id) => self.leave(id),
            Work::Join { subscriptions, at, mailbox } => self.join(subscriptions, at, mailbox),
        }
    }

    fn leave(&self, id: SubscriptionId) -> BoxFuture<'static, Finished> {
        let (commands, session) = (self.clients.commands.clone(), self.session);
        alone(async move {
            let (answer, answered) = oneshot::channel();
            let leave = Command::Leave { session, id, answer };
            let left = commands.send(leave).await.is_ok() && answered.await.is_ok();
            if left {
                Done::Over
            } else {
                Done::Stopped
            }
        })
    }

    fn join(
        &self,
        subscriptions: Vec<(SubscriptionId, Pattern)>,
        at: Option<Slot>,
        with_mailbox: bool,
    ) -> BoxFuture<'static, Finished> {
        let (mailbox, deliveries) = with_mailbox.then(mailbox).unzip();
        let (session, realm) = (self.session, self.realm.clone());
        let commands = self.clients.commands.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let join = Join { session, realm, subscriptions, at, mailbox };
            let done = match commands.send(Command::Join { join, answer }).await {
                Ok(()) => answered.await.map_or(Done::Stopped, Done::Joined),
                Err(_) => Done::Stopped,
            };
            Finished { done, deliveries }
        }
        .boxed()
    }
}

/// Work that needs no mailbox.
fn alone(work: impl Future<Output = Done> + Send + 'static) -> BoxFuture<'static, Finished> {
    work.map(|done| Finished { done, deliveries: None }).boxed()
}
