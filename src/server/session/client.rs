//! A session's checks of its client's connection: whether it moves what it holds of shared budgets, whether the client is still
//! there, and what to do when the client is gone.
//!
//! Deliberately absent: the rules themselves (`session::core`, `session::liveness`).

use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use vulpes_raft::mutant::{planted, Mutant};

use super::{Session, Wake};
use crate::gate::{EndReason, Gate};
use crate::server::transport::{Transport, TransportError};
use crate::session::liveness::{Finding, Seen, Terms};
use crate::types::limits;

/// Bytes that are taken of a client's input that arrived before its session was taken over; one message may exceed it.
const HEARD_OUT: usize = 64 << 10;

impl<G: Gate, T: Transport> Session<G, T> {
    pub(super) fn may_read(&mut self) -> bool {
        let (core, _, mut way) = self.parts();
        core.may_read(&mut way)
    }

    pub(super) fn waiting(&mut self) -> usize {
        let (core, _, way) = self.parts();
        core.output(&way)
    }

    /// Counts the bytes that wait for the socket. Room for an event is not given back while its segment is read again.
    pub(super) fn count_output(&mut self) {
        if !(self.core.is_missing() && self.outgo.is_granted()) {
            let waiting = self.waiting();
            self.outgo.count(waiting);
        }
    }

    /// Counts the bytes of the log that the session holds, and drops them if there is no room: what was read ahead first.
    pub(super) fn hold_segments(&mut self) {
        let (current, ahead) = self.core.held();
        let mut held = current + ahead;
        if !self.segments.try_hold(held) {
            self.core.let_go_ahead();
            held = current;
        }
        if !self.segments.try_hold(held) {
            self.core.let_go_current();
            held = 0;
        }
        self.segments.keep(held);
    }

    /// Only with a planted bug: true if this poll does not notice that there is room. `waited` is how many bytes waited for the
    /// socket before it.
    pub(super) fn misses_room(&self, waited: usize) -> bool {
        let in_part = (1..limits::SESSION_OUTPUT).contains(&waited) || self.transport.pending() > 0;
        in_part && planted(Mutant::LoseWakeUp)
    }

    pub(super) fn terms(&self) -> Terms {
        self.core.terms(self.transport.can_ask(), self.outgo.holds_some())
    }

    /// Takes the input that the client sent here before it came back elsewhere, as far as it has arrived, whether or not there
    /// is room for its requests: a DISCONNECT may be behind them.
    pub(super) fn hear_out(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut heard = 0;
        while heard < HEARD_OUT && self.core.has_input() {
            let Poll::Ready(Ok(input)) = self.transport.poll_receive(&mut context) else { break };
            heard += input.len();
            self.core.received(input);
        }
        let now = self.clients.now();
        let (core, mut node, _) = self.parts();
        core.take_inputs(now, &mut node);
    }

    /// Checks whether the client is too slow with bytes that others wait for.
    pub(super) fn look_at_pace(&mut self, context: &mut Context<'_>) -> Option<Wake> {
        self.count_output();
        if self.terms() == Terms::Unwatched {
            // The client has other deadlines.
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

    /// Checks whether the client is still there.
    pub(super) fn look_at_client(&mut self) -> Option<Wake> {
        let meter = self.transport.meter();
        let seen = Seen {
            came: meter.came(),
            taken: meter.taken(),
            waiting: self.transport.pending() > 0,
            unheard: !self.core.may_take()
                || self.transport.intake().is_held_up()
                || self.paced.until().is_some(),
        };
        let terms = self.terms();
        match self.core.look_at_client(self.clients.now(), terms, seen) {
            Finding::Sign | Finding::Nothing => None,
            Finding::Ask => {
                self.transport.ask();
                Some(Wake::Asked)
            }
            Finding::Dead => Some(Wake::Failed(TransportError::Silent)),
        }
    }

    /// The client can't be written to any more.
    pub(super) fn output_failed(&mut self, error: TransportError) {
        self.transport.abandon();
        self.core.output_failed(self.clients.now());
        self.gone.get_or_insert_with(|| Box::new(error));
    }

    /// No more input comes from the client, or none that can be decoded. Returns the error if the session ends now.
    pub(super) fn input_failed(&mut self, error: TransportError) -> Option<TransportError> {
        let is_end = matches!(
            error,
            TransportError::Closed | TransportError::Io(_) | TransportError::Malformed(_)
        );
        if !is_end || !self.core.input_over(self.clients.now()) {
            return Some(error);
        }
        self.gone.get_or_insert_with(|| Box::new(error));
        None
    }

    /// Why the session ends now, if its client is gone and all its earlier messages are handled.
    pub(super) fn is_through(&mut self) -> Option<TransportError> {
        let through = self.core.is_through(self.clients.now());
        self.gone.take_if(|_| through).map(|gone| *gone)
    }
}
