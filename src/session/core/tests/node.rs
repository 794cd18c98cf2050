//! A session's node in tests: the real fold, dispatcher and log, and a socket.
//!
//! Deliberately absent: a node's budgets. A socket has a limit of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use vulpes_raft::ids::{
    AdvanceSegment, Incarnation, NodeId, Position, SegmentNumber, Shard, Slot, Stamp,
};
use vulpes_raft::order::{Resolution, Step};

use super::super::Node;
use crate::call::{CallMessage, CallRequest};
use crate::dispatch::{Deliveries, Dispatcher, Handed};
use crate::gate::{Allowed, OpenRefusal};
use crate::log::{Placed, Start, Tail};
use crate::realm::{Notice, PastPermissions, PersistentState, Realms, View};
use crate::rules::Permissions;
use crate::segment::{OpenSegment, Segment};
use crate::session::delivery::Outlet;
use crate::session::reader::{Live, Source};
use crate::session::testing::realm;
use crate::types::event::{Event, SessionId};
use crate::types::subscription::SubscribeError;
use crate::types::topic::Realm;

/// What all sessions share.
pub(super) struct Shared {
    pub(super) realms: Realms,
    pub(super) log: Vec<Arc<Placed>>,
    /// The segments in memory: a session that does not take one in time reads the log.
    pub(super) recent: VecDeque<Arc<Placed>>,
    pub(super) dispatcher: Dispatcher,
    pub(super) full: bool,
}

/// How many slots are in memory.
const RECENT: usize = 2;

impl Shared {
    pub(super) fn tail(&self) -> Tail {
        let last = self.log.last().expect("it begins with an entry");
        let resolution = &last.resolution;
        Tail { next_slot: resolution.slot.next(), next_position: resolution.end() }
    }

    /// The next step of the order.
    pub(super) fn place(&mut self, step: Step, segment: Option<Segment>) -> Vec<Notice> {
        let (slot, base) = match self.log.last() {
            None => (Slot(1), Position(1)),
            Some(last) => (last.resolution.slot.next(), last.resolution.end()),
        };
        let resolution = Resolution { slot, stamp: Stamp(0), ahead: 0, base, step };
        let applied = self.realms.apply(&resolution, segment.as_ref());
        let placed = Placed { resolution, segment, hidden: applied.hidden.into() };
        let in_memory = Arc::new(placed.clone());
        self.dispatcher.dispatch(&in_memory);
        self.recent.push_back(in_memory);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.log.push(Arc::new(placed));
        applied.notices
    }

    pub(super) fn events(&mut self, events: &[Event]) -> Vec<Notice> {
        let mut open = OpenSegment::default();
        for event in events {
            open.push(event).unwrap();
        }
        let number = SegmentNumber(self.log.len() as u64);
        let id = AdvanceSegment { entry: NodeId(1), incarnation: Incarnation(1), number };
        let sealed = open.seal(id, Shard(0));
        let step = Step::Segment(sealed.proposal(vec![]));
        self.place(step, Some(Segment::parse(sealed.body).unwrap()))
    }
}

/// A socket, and what was written to it.
#[derive(Default)]
pub(super) struct Socket {
    pub(super) waiting: usize,
    pub(super) limit: usize,
    pub(super) taken: u64,
}

impl Outlet for Socket {
    fn waiting(&self) -> usize {
        self.waiting
    }

    fn has_room(&mut self, waiting: usize) -> bool {
        waiting < self.limit
    }

    fn has_room_for(&mut self, waiting: usize, bytes: usize) -> bool {
        waiting + bytes <= self.limit
    }

    fn takes(&mut self, waiting: usize, size: usize) -> usize {
        if waiting < self.limit {
            (self.limit - waiting).max(size)
        } else {
            0
        }
    }

    fn has_room_for_answers(&mut self, waiting: usize) -> bool {
        waiting < self.limit
    }

    fn may_filter(&mut self) -> bool {
        true
    }
}

/// One session's view of its node.
pub(super) struct AtNode<'a> {
    pub(super) shared: &'a Shared,
    pub(super) session: SessionId,
    pub(super) deliveries: Option<&'a mut Deliveries>,
}

impl Source for AtNode<'_> {
    type Room = ();

    fn tail(&self) -> Tail {
        self.shared.tail()
    }

    fn view(&self) -> View {
        self.shared.realms.view()
    }

    fn try_room(&self, _: usize) -> Result<(), SubscribeError> {
        Ok(())
    }

    fn next_live(&mut self) -> Live {
        let Tail { next_slot: slot, next_position: position } = self.shared.tail();
        let deliveries = self.deliveries.as_mut().expect("it has a mailbox");
        match deliveries.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Handed { slot, placed, hits })) => {
                Live::Segment { slot, placed: Weak::upgrade(&placed), hits }
            }
            Poll::Ready(None) => deliveries.left_at().map_or(Live::Ended, Live::Left),
            Poll::Pending => Live::Idle(Start { slot, position }),
        }
    }
}

impl Node for AtNode<'_> {
    fn register(
        &mut self,
        of: &Realm,
        _: (&str, Option<&str>),
        _: usize,
    ) -> Result<(), OpenRefusal> {
        assert_eq!(*of, realm());
        if self.shared.full {
            Err(OpenRefusal::NoRoom)
        } else {
            Ok(())
        }
    }

    fn admit(&self, _: Option<&str>, _: Option<&str>, _: &Realm) -> Result<(), OpenRefusal> {
        Ok(())
    }

    fn permissions(
        &self,
        user: Option<&str>,
        client: Option<&str>,
        of: &Realm,
    ) -> (Permissions, Position) {
        let realms = &self.shared.realms;
        (realms.permissions(user, client, of), realms.access_changed())
    }

    fn own_permissions(&self) -> Option<(Permissions, Position)> {
        let realms = &self.shared.realms;
        Some((realms.permissions_of(self.session)?, realms.access_changed()))
    }

    fn past_permissions(&self, at: Position) -> Option<PastPermissions> {
        self.shared.realms.permissions_at(self.session, at)
    }

    fn access_changed(&self) -> Position {
        self.shared.realms.access_changed()
    }

    fn call(&mut self, _: &Realm, _: CallRequest) -> Option<CallMessage> {
        None
    }

    fn incarnation(&self) -> Option<Incarnation> {
        self.shared.realms.session(self.session).map(|session| session.incarnation)
    }

    fn persistent(&self) -> Option<PersistentState> {
        self.shared.realms.persistent_of(self.session)
    }

    fn wills(&self) -> usize {
        self.shared.realms.wills(self.session)
    }

    fn looked_at(&self, event: &Event, compares: bool) -> usize {
        self.shared.realms.looked_at(&event.realm, &event.topic, compares)
    }

    fn room(&self) -> Allowed {
        Allowed::default()
    }

    fn next_position(&self) -> Position {
        self.shared.tail().next_position
    }

    fn oldest(&self) -> Position {
        Position(1)
    }
}
