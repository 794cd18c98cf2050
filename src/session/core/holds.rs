//! How much a session holds, what there is room for, and whether its client is there.
//!
//! Invariant: each is a function of what is there now.
//!
//! Deliberately absent: the total of all sessions of a node.

use super::{Core, Persistence};
use crate::gate::Gate;
use crate::session::delivery::{Current, Outlet};
use crate::session::liveness::{Finding, Seen, Terms};
use crate::session::reader::Reader;
use crate::types::moment::Moment;

impl<G: Gate, R> Core<G, R> {
    /// Bytes of output that the client has not taken.
    pub(crate) fn output(&self, outlet: &impl Outlet) -> usize {
        outlet.waiting() + self.gate.output_size()
    }

    /// Whether to read from the client.
    pub(crate) fn may_read(&self, outlet: &mut impl Outlet) -> bool {
        let output = self.output(outlet);
        self.closing.is_none()
            && self.has_input()
            && self.may_take()
            && outlet.has_room_for_answers(output)
    }

    /// Whether there is room for more input of the client.
    pub(crate) fn may_take(&self) -> bool {
        self.ledger.has_room() && self.persistence.as_deref().is_none_or(Persistence::has_room)
    }

    /// Whether more output may be made for the client.
    pub(crate) fn has_room(&mut self, outlet: &mut impl Outlet) -> bool {
        let output = self.output(outlet);
        self.gone.is_none() && self.room.beside(output) && outlet.has_room(output)
    }

    /// Whether there is room for a message of this size to the client.
    pub(crate) fn takes(&mut self, size: usize, outlet: &mut impl Outlet) -> bool {
        self.has_room(outlet) && outlet.takes(self.output(outlet), size) > 0
    }

    /// Whether the client may be sent events now.
    pub(crate) fn can_deliver(&mut self, outlet: &mut impl Outlet) -> bool {
        self.gate.can_deliver() && self.has_room(outlet)
    }

    /// The reader, and the part of its results that is being delivered.
    pub(crate) fn reading(&mut self) -> Option<(&mut Reader<R>, Option<&Current>)> {
        Some((self.reader.as_mut()?, self.current.as_deref()))
    }

    /// Bytes of the log that the session holds: of the segment that is being delivered, and read ahead.
    pub(crate) fn held(&self) -> (usize, usize) {
        let current = self.current.as_deref().map_or(0, Current::size);
        (current, self.reader.as_ref().map_or(0, Reader::ahead))
    }

    /// Drops what was read ahead. It is read again.
    pub(crate) fn let_go_ahead(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.let_go();
        }
    }

    /// Drops the segment that is being delivered. It is read again.
    pub(crate) fn let_go_current(&mut self) {
        if let Some(current) = &mut self.current {
            current.let_go();
        }
    }

    /// Whether something is being delivered to the client.
    pub(crate) fn has_current(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the segment that is being delivered has to be read again.
    pub(crate) fn is_missing(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.missing().is_some())
    }

    /// What the client has to do to count as alive. A client that is closing, gone, or not open yet has other deadlines. `asks`
    /// says whether its protocol has a ping, `holds` whether it holds output of the budget that all sessions share.
    pub(crate) fn terms(&self, asks: bool, holds: bool) -> Terms {
        if self.closing.is_some() || self.reader.is_none() || self.gone.is_some() {
            Terms::Unwatched
        } else if asks {
            Terms::Answers
        } else if self.gate.deadline().is_none() || holds {
            // A client that holds part of the shared budget has to take some of it, whatever its keep-alive says.
            Terms::Takes
        } else {
            Terms::Unwatched
        }
    }

    /// Checks whether the client is still there.
    pub(crate) fn look_at_client(&mut self, now: Moment, terms: Terms, seen: Seen) -> Finding {
        let finding = self.liveness.look(now, terms, seen);
        if finding == Finding::Sign {
            self.gate.alive(now);
        }
        finding
    }
}
