//! What wakes a session, and when it looks again by itself.
//!
//! Invariant: if there is nothing to do, each thing that is held back waits for something that wakes the session.
//!
//! Deliberately absent: what is done after waking.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use crate::gate::{EndReason, Gate};
use crate::server::login::conversation::Stepped;
use crate::server::transport::{Transport, TransportError};
use crate::session::ledger::Done;
use crate::session::reader::Reading;
use crate::session::Signal;
use crate::types::answer::Answer;
use crate::types::limits;

/// Messages taken from a socket in one turn.
const INPUTS_A_TURN: usize = 64;

/// When a session without a deadline wakes at the latest.
const IDLE: Duration = Duration::from_secs(3600);

/// How much too early a timer may fire, so that it need not be moved every turn.
pub(super) const TIMER_SLACK: Duration = Duration::from_millis(100);

pub(super) enum Wake {
    /// There is room for more of what is being delivered.
    Room,
    /// The client was pinged.
    Asked,
    Inputs,
    Failed(TransportError),
    Answer(Answer),
    /// A signal of the realms' state; `None` if the session was too slow to receive them.
    Signal(Option<Signal>),
    Reading(Reading),
    /// There are messages about calls.
    Told,
    LoggedIn(Stepped),
    /// The result of an errand to the entry.
    Done(Done),
    Time,
    End(EndReason),
}

impl<G: Gate, T: Transport> Session<G, T> {
    /// What has to be done. If it is nothing, everything that is held back waits for something that wakes the session; what
    /// waits for room waits for the socket.
    pub(super) fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        let waited = self.transport.pending();
        match self.transport.poll_flush(context) {
            Poll::Ready(Ok(())) if self.core.is_closing() => {
                return Poll::Ready(Wake::Failed(TransportError::Closed));
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(error)) => self.output_failed(error),
        }
        if let Some(error) = self.is_through() {
            return Poll::Ready(Wake::Failed(error));
        }
        if let Some(wake) = self.look_at_pace(context) {
            return Poll::Ready(wake);
        }
        if let Poll::Ready(answer) = self.publishing.poll_answer(context) {
            return Poll::Ready(Wake::Answer(answer));
        }
        if let Some(words) = self.held.words.as_mut().filter(|_| self.core.listens()) {
            if let Poll::Ready(word) = words.poll(context) {
                return Poll::Ready(Wake::Signal(word));
            }
        }
        if let Poll::Ready(Some(done)) = self.publishing.poll_done(context) {
            return Poll::Ready(Wake::Done(done));
        }
        if let Some(login) = &mut self.login {
            if let Poll::Ready(stepped) = login.as_mut().poll(context) {
                self.login = None;
                return Poll::Ready(Wake::LoggedIn(stepped));
            }
        }
        let waiting = self.waiting();
        if self.outgo.poll(waiting, context).is_ready() {
            return Poll::Ready(Wake::Room);
        }
        let (core, _, mut way) = self.parts();
        let has_room = core.has_room(&mut way);
        if let Some(calls) = self.calls().filter(|_| has_room) {
            if calls.poll(context).is_ready() {
                return Poll::Ready(Wake::Told);
            }
        }
        // Both sides may always have something, so they take turns at being polled first.
        self.inputs_first = !self.inputs_first;
        for inputs in [self.inputs_first, !self.inputs_first] {
            let wake = match inputs {
                true => self.poll_inputs(context),
                false => self.poll_reading(context, waited),
            };
            if wake.is_ready() {
                return wake;
            }
        }
        // After everything else: input that has arrived already is a sign of life, too.
        if let Some(wake) = self.look_at_client() {
            return Poll::Ready(wake);
        }
        // After that: which bytes wait for the socket, and since when, has just been seen.
        self.set_timer();
        if self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Wake::Time);
        }
        // Room that is there and not used is for others.
        self.count_output();
        Poll::Pending
    }

    fn poll_reading(&mut self, context: &mut Context<'_>, waited: usize) -> Poll<Wake> {
        let (core, _, mut way) = self.parts();
        let room = core.can_deliver(&mut way) && !self.misses_room(waited);
        let (Some((reader, current)), Some(reading)) = (self.core.reading(), &mut self.reading)
        else {
            return Poll::Pending;
        };
        let free = room && current.is_none();
        if let Some(current) = current.filter(|_| room) {
            match current.missing() {
                Some(slot) => reader.read_again(slot),
                None if self.filtering.poll(context).is_ready() => return Poll::Ready(Wake::Room),
                None => {}
            }
        } else {
            // No turn is kept for a session whose client takes nothing.
            self.filtering.forget();
        }
        reading.poll(reader, context, free).map(Wake::Reading)
    }

    fn poll_inputs(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        self.paced.look_again();
        if !self.may_read() {
            return Poll::Pending;
        }
        if self.core.inputs() > 0 {
            return Poll::Ready(Wake::Inputs);
        }
        let Some(most) = self.may_take(INPUTS_A_TURN) else { return Poll::Pending };
        let mut bytes = 0;
        while self.core.inputs() < most && bytes < limits::SESSION_READ {
            match self.transport.poll_receive(context) {
                Poll::Ready(Ok(input)) => {
                    bytes += input.len();
                    self.core.received(input);
                }
                Poll::Ready(Err(error)) if self.core.inputs() == 0 => {
                    return match self.input_failed(error) {
                        Some(error) => Poll::Ready(Wake::Failed(error)),
                        None => Poll::Pending,
                    };
                }
                // It will fail again in the next turn, after the input before it was taken.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.count_bytes(bytes);
        if self.core.inputs() == 0 {
            // What the transport handled itself, such as pings, was taken.
            if self.core.is_open() {
                self.transport.intake().settle();
            }
            Poll::Pending
        } else {
            Poll::Ready(Wake::Inputs)
        }
    }

    fn set_timer(&mut self) {
        let deadline = self.core.deadline(self.terms()).map(|moment| self.clients.instant(moment));
        let rest = self.rest_at.map(|moment| self.clients.instant(moment));
        let expires = self.expires_at.map(|moment| self.clients.instant(moment));
        let paced = self.paced.until().map(|moment| self.clients.instant(moment));
        let others =
            [deadline, self.outgo.look_until(), rest, expires, paced].into_iter().flatten();
        let deadline = others.fold(Instant::now() + IDLE, Instant::min);
        // A session without a deadline moves its timer rarely, not every turn.
        let set = self.timer.deadline();
        if self.timer.is_elapsed() || set > deadline || set + TIMER_SLACK < deadline {
            self.timer.as_mut().reset(deadline);
        }
    }
}
