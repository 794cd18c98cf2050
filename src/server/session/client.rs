//! What a session makes of its client: whether it may be listened to, whether more may be made for it, and whether it is
//! still there.
//!
//! Deliberately absent: the rules themselves (`room`, `liveness`), and a client that is known to be gone (`gone`).

use std::task::Context;

use tokio::time::Instant;
use vulpes_raft::mutant::{planted, Mutant};

use super::liveness::{Finding, Seen, Terms};
use super::{Keeping, Session, Wake};
use crate::gate::{EndReason, Gate};
use crate::server::delivery::Current;
use crate::server::transport::{Transport, TransportError};
use crate::types::limits;

impl<G: Gate, T: Transport> Session<G, T> {
    /// Whether the client may be listened to.
    pub(super) fn may_read(&mut self) -> bool {
        self.closing.is_none()
            && self.has_input()
            && self.may_take()
            && self.outgo.has_room_for_answers(self.output())
    }

    /// Whether there is room for what the client may say.
    fn may_take(&self) -> bool {
        self.ledger.has_room() && self.keeping.as_ref().is_none_or(Keeping::has_room)
    }

    pub(super) fn output(&self) -> usize {
        self.transport.pending() + self.gate.output_size()
    }

    /// Whether more may be made for the client.
    pub(super) fn has_room(&mut self) -> bool {
        let waiting = self.output();
        self.gone.is_none()
            && self.room.beside(waiting)
            && !self.outgo.is_held_up()
            && self.outgo.has_room(waiting)
    }

    /// Counts what waits for the socket. Room for an event is not given back while its segment is read again.
    pub(super) fn count_output(&mut self) {
        let missing = self.current.as_ref().is_some_and(|current| current.missing().is_some());
        if !(missing && self.outgo.is_granted()) {
            self.outgo.count(self.output());
        }
    }

    /// Counts what the session holds of the log, and lets go of it where there is no room: what was read ahead first.
    pub(super) fn hold_segments(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        let current = self.current.as_ref().map_or(0, Current::size);
        let mut held = current + reader.ahead();
        if !self.segments.try_hold(held) {
            reader.let_go();
            held = current;
        }
        if !self.segments.try_hold(held) {
            held = 0;
            if let Some(current) = &mut self.current {
                current.let_go();
            }
        }
        self.segments.keep(held);
    }

    /// Only with a planted bug: whether there is room and this poll, before which so much waited for the socket, does not
    /// see it come about.
    pub(super) fn misses_room(&self, waited: usize) -> bool {
        let in_part = (1..limits::SESSION_OUTPUT).contains(&waited) || self.transport.pending() > 0;
        in_part && planted(Mutant::LoseWakeUp)
    }

    /// What the client has to do to be taken for alive. One that is closed, or not there yet, has other deadlines.
    pub(super) fn terms(&self) -> Terms {
        if self.closing.is_some() || self.reader.is_none() || self.gone.is_some() {
            Terms::Unwatched
        } else if self.transport.can_ask() {
            Terms::Asked
        } else if self.gate.deadline().is_none() || self.outgo.holds_some() {
            // Whoever holds what all share has to take some of it, whatever keep-alive it has.
            Terms::Takes
        } else {
            Terms::Unwatched
        }
    }

    /// Looks whether the client keeps from others what it does not move.
    pub(super) fn look_at_pace(&mut self, context: &mut Context<'_>) -> Option<Wake> {
        self.count_output();
        let watched = self.terms() != Terms::Unwatched;
        if !watched {
            // It has other deadlines.
            self.outgo.rest();
        } else if self.outgo.is_too_slow(Instant::now(), self.transport.meter().taken()) {
            return Some(Wake::Failed(TransportError::TooSlow));
        }
        let read = self.may_read();
        if self.transport.intake().poll_too_slow(context, read).is_ready() {
            self.transport.stop_reading();
            return Some(Wake::End(EndReason::TooSlow));
        }
        None
    }

    /// Looks whether the client is still there.
    pub(super) fn look_at_client(&mut self) -> Option<Wake> {
        let meter = self.transport.meter();
        let seen = Seen {
            came: meter.came(),
            taken: meter.taken(),
            waiting: self.transport.pending() > 0,
            unheard: !self.may_take() || self.transport.intake().is_held_up(),
        };
        let (now, terms) = (self.now(), self.terms());
        match self.liveness.look(now, terms, seen) {
            Finding::Sign => {
                self.gate.alive(now);
                None
            }
            Finding::Nothing => None,
            Finding::Ask => {
                self.transport.ask();
                Some(Wake::Asked)
            }
            Finding::Dead => Some(Wake::Failed(TransportError::Silent)),
        }
    }
}
