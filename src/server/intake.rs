//! A connection that is read only as far as the node has room for its input.
//!
//! Each connection may hold [`FREE`](limits::INPUT_FREE) unprocessed bytes at no cost. More than that comes out of a budget
//! that all connections share: small messages are then read in larger amounts, if there is room right now, and a large message
//! waits in the queue for room before it is read further. While the budget is short, room is granted in steps that double, so a
//! message holds at most twice what has arrived of it. The budget has a reserve in which the first in the queue finds room for
//! all of its rest, so two messages that are read halfway never wait for each other for ever. A connection with small messages
//! only never waits.
//!
//! Invariant: bytes that were read and are not [settled](Intake::settle) exceed the free part only by what the budget has
//! granted.
//!
//! Deliberately absent: codecs, and the rejection of messages that are too large: the intake does not wait for a message that
//! no codec accepts.

mod framing;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{ready, Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use vulpes_raft::host::BoxStream;
use vulpes_raft::net::wire;

use super::budget::{Account, Budget};
use super::pace::{self, Pace, Seen};
use crate::types::limits;
use framing::Follower;
pub(crate) use framing::Framing;

/// The largest WebSocket upgrade request, in bytes: its codec accepts none that is larger.
const UPGRADE: usize = 64 << 10;

/// What one kind of connection may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Bytes at no cost.
    pub(crate) free: usize,
    /// The largest message; there is no waiting for room for one that claims to be larger.
    pub(crate) largest: usize,
    /// How fast a message that holds a part of the budget has to arrive while others wait for it.
    pub(crate) pace: pace::Terms,
}

/// Longest header of a frame, in bytes.
const HEADER: usize = 14;

impl Terms {
    /// A client's connection.
    pub(crate) const CLIENT: Self = Self {
        free: limits::INPUT_FREE,
        largest: limits::CLIENT_MESSAGE + HEADER,
        pace: limits::INPUT_PACE,
    };

    /// Another node's.
    pub(crate) const PEER: Self = Self {
        free: limits::PEER_FREE,
        largest: wire::MAX_FRAME + HEADER,
        pace: limits::PEER_PACE,
    };
}

/// The intake of one connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Intake(Arc<Mutex<State>>);

struct State {
    terms: &'static Terms,
    follower: Follower,
    account: Account,
    /// What the connection still holds of its former budget.
    before: Option<Box<Account>>,
    /// Bytes read and not settled.
    unsettled: usize,
    /// The current message may grow to this size; 0 if it was granted nothing.
    granted: usize,
    /// It waits for room.
    waiting: bool,
    /// Woken when what was read is settled.
    settled: Option<Waker>,
    /// How fast the message arrives, and when to check again.
    pace: Option<Box<(Pace, Pin<Box<Sleep>>)>>,
    /// Every read settles the input before it.
    by_itself: bool,
    /// The input is thrown away.
    off: bool,
}

impl Intake {
    pub(crate) fn new(framing: Framing, terms: &'static Terms, budget: &Budget) -> Self {
        Self(Arc::new(Mutex::new(State {
            terms,
            follower: Follower::new(framing),
            account: budget.account(),
            before: None,
            unsettled: 0,
            granted: 0,
            waiting: false,
            settled: None,
            pace: None,
            by_itself: false,
            off: false,
        })))
    }

    /// An intake for a codec that processes every message before it reads on: nothing has to be settled.
    pub(crate) fn settled_by_reading(
        framing: Framing,
        terms: &'static Terms,
        budget: &Budget,
    ) -> Self {
        let intake = Self::new(framing, terms, budget);
        intake.state().by_itself = true;
        intake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream, read as far as this intake lets it.
    pub(crate) fn on(&self, stream: BoxStream) -> BoxStream {
        Box::new(Paced { stream, intake: self.clone() })
    }

    /// Whole messages that were read are no longer counted. The arrived part of the next one still is.
    pub(crate) fn settle(&self) {
        self.state().settle();
    }

    /// The connection continues with another framing, of which nothing has been read.
    pub(crate) fn speaks(&self, framing: Framing) {
        let mut state = self.state();
        state.follower = Follower::new(framing);
        state.granted = 0;
        state.pace = None;
        state.settle();
    }

    /// Switches to this budget for what it takes from now on.
    pub(crate) fn belongs_to(&self, budget: &Budget) {
        let mut state = self.state();
        // A message that was granted its room keeps it until it has arrived.
        let before = state.account.split();
        state.before = (before.held() > 0).then(|| Box::new(before));
        // If it waits in the queue, it queues again.
        state.account = budget.account();
        state.waiting = false;
    }

    /// The size of the current message in bytes, as far as it is known.
    pub(crate) fn told(&self) -> usize {
        usize::try_from(self.state().follower.told()).unwrap_or(usize::MAX)
    }

    /// Ready when a large message arrives too slowly while others wait for the room that it holds. `read` says whether the node
    /// currently reads from the client.
    pub(crate) fn poll_too_slow(&self, context: &mut Context<'_>, read: bool) -> Poll<()> {
        self.state().poll_too_slow(context, read)
    }

    /// Whether it is not read for lack of room.
    pub(crate) fn is_held_up(&self) -> bool {
        let state = self.state();
        state.waiting && state.account.is_waiting()
    }

    /// From now on input is thrown away when it arrives. What has arrived is still counted.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.off = true;
        (state.granted, state.waiting, state.pace) = (0, false, None);
        state.account.leave();
    }

    /// The arrived part of an unfinished message is no longer counted. No more of that message may arrive.
    pub(crate) fn forget_unfinished(&self) {
        let mut state = self.state();
        let come = usize::try_from(state.follower.forget()).unwrap_or(usize::MAX);
        state.unsettled = state.unsettled.saturating_sub(come);
        state.granted = 0;
        if state.unsettled == 0 {
            state.settle();
        } else {
            state.keep_what_is_read();
        }
    }
}

impl State {
    fn settle(&mut self) {
        if self.granted == 0 {
            self.before = None;
        }
        self.unsettled = usize::try_from(self.follower.come()).unwrap_or(usize::MAX);
        self.keep_what_is_read();
        if let Some(waiting) = self.settled.take() {
            waiting.wake();
        }
    }

    /// Gives back what was taken and is not used.
    fn keep_what_is_read(&mut self) {
        // The message may have turned out to be smaller than its possible maximum.
        self.granted = self.granted.min(self.size());
        let kept = self.granted.max(self.unsettled);
        self.account.keep(kept.saturating_sub(self.terms.free));
    }

    fn come(&self) -> usize {
        usize::try_from(self.follower.come()).unwrap_or(usize::MAX)
    }

    /// The size of the current message: as announced, or the possible maximum.
    fn size(&self) -> usize {
        match self.follower.left() {
            Some(_) => usize::try_from(self.follower.told()).unwrap_or(usize::MAX),
            None if self.follower.is_upgrade() => UPGRADE,
            None => self.terms.largest,
        }
    }

    /// Whether to wait for room for the current message.
    fn is_large(&self) -> bool {
        let told = usize::try_from(self.follower.told()).unwrap_or(usize::MAX);
        told > self.terms.free && told <= self.terms.largest
    }

    /// How many bytes may be read now.
    fn poll_room(&mut self, wanted: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.off {
            return Poll::Ready(Ok(wanted));
        }
        if self.by_itself {
            self.settle();
        }
        if self.is_large() {
            if self.unsettled > self.come() {
                // Whole messages before it are still counted.
                self.settled = Some(context.waker().clone());
                return Poll::Pending;
            }
            ready!(self.poll_grant(context));
            self.fail_if_too_slow(context)?;
            return Poll::Ready(Ok(wanted.min(self.room_in_message())));
        }
        if self.granted > 0 {
            // It has turned out to be larger than allowed; its codec finds that at the end of its frame.
            self.fail_if_too_slow(context)?;
        }
        let free = self.terms.free.saturating_sub(self.unsettled);
        if free > 0 {
            return Poll::Ready(Ok(wanted.min(free)));
        }
        if self.account.try_hold(self.unsettled + wanted - self.terms.free) {
            return Poll::Ready(Ok(wanted));
        }
        if self.unsettled > self.come() {
            // Whole messages have been read: there is room again once they are settled.
            self.settled = Some(context.waker().clone());
            return Poll::Pending;
        }
        // The message is larger than allowed: its codec has failed already, and throws the input away.
        Poll::Ready(Ok(wanted.min(self.terms.free)))
    }

    /// Ready when more of the current message may be read.
    fn poll_grant(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (come, size) = (self.come(), self.size());
        let reach = self.granted.max(self.terms.free);
        if come < reach || reach >= size {
            return Poll::Ready(());
        }
        // If small messages were read in larger amounts, that much of this one came with them.
        let reach = reach.max(come);
        self.waiting = true;
        let before = self.account.held();
        let all = size - reach;
        ready!(self.account.poll_take_part(reach.min(all), all, context));
        self.waiting = false;
        self.granted = reach + (self.account.held() - before);
        if self.pace.is_none() {
            let pace = Pace::new(self.terms.pace, Instant::now(), self.seen(true));
            let timer = Box::pin(tokio::time::sleep_until(pace.look_until()));
            self.pace = Some(Box::new((pace, timer)));
        }
        Poll::Ready(())
    }

    /// How many bytes of the current message may be read now.
    fn room_in_message(&self) -> usize {
        // Not past its end: the bytes after it belong to another message.
        let left = match self.follower.left() {
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX),
            None => self.terms.free,
        };
        let reach = self.granted.max(self.terms.free);
        if reach >= self.size() {
            return left;
        }
        left.min(reach.saturating_sub(self.come()))
    }

    fn poll_too_slow(&mut self, context: &mut Context<'_>, read: bool) -> Poll<()> {
        if self.waiting {
            // A grant is held from here on, even while the client is not read for other reasons.
            let _ = self.poll_grant(context);
        }
        if self.pace.is_none() {
            return Poll::Pending;
        }
        let seen = self.seen(read);
        let Some((pace, timer)) = self.pace.as_deref_mut() else { return Poll::Pending };
        while timer.as_mut().poll(context).is_ready() {
            if pace.is_too_slow(Instant::now(), seen) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(pace.look_until());
        }
        Poll::Pending
    }

    /// The progress of the current message; `read` says whether the node reads the connection.
    fn seen(&self, read: bool) -> Seen {
        let lender = self.before.as_deref().unwrap_or(&self.account);
        Seen {
            moved: self.follower.come(),
            held: self.granted.saturating_sub(self.come()),
            judged: read && !self.waiting && lender.budget().is_short(),
        }
    }

    /// If no session checks the pace, the read fails.
    fn fail_if_too_slow(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let alone = self.by_itself || self.follower.is_upgrade();
        if alone && self.poll_too_slow(context, true).is_ready() {
            let reason = "a large message comes too slowly, and others wait for the room it takes";
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8]) {
        if self.off {
            return;
        }
        let messages = self.follower.messages();
        let kept = self.follower.follow(bytes);
        self.unsettled = self.unsettled.saturating_add(kept);
        if self.follower.messages() > messages && std::mem::take(&mut self.granted) > 0 {
            // It is complete, and counted until it is settled.
            self.pace = None;
            return;
        }
        if self.account.held() > 0 {
            self.keep_what_is_read();
        }
    }
}

struct Paced {
    stream: BoxStream,
    intake: Intake,
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wanted = buffer.remaining();
        let room = ready!(self.intake.state().poll_room(wanted, context))?;
        let before = buffer.filled().len();
        let read = if room < wanted {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
            let length = part.filled().len();
            buffer.advance(length);
            read
        } else {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        };
        self.intake.state().read(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
