//! A client that is gone, and what it said before that: it is done, as if the client were still there.
//!
//! Invariant: what came before the end of the input is handled before the end, and answered where the client can still read:
//! it may have closed its own side alone. A client that can't be written to any more is read to its end all the same. Neither
//! takes longer than its bound.
//!
//! Deliberately absent: events, which it gets no more of, and why it is gone.

use super::{Core, Presence};
use crate::gate::Gate;
use crate::types::limits;
use crate::types::moment::Moment;

/// A client that is gone.
pub(super) struct Gone {
    /// Nothing more comes from it.
    input_over: bool,
    /// When what is left of it is given up.
    pub(super) until: Moment,
}

impl<G: Gate, R> Core<G, R> {
    /// The client can't be written to any more.
    pub(crate) fn output_failed(&mut self, now: Moment) {
        self.gone(now);
    }

    /// Nothing more comes from the client, or nothing that makes sense. Tells whether its session goes on nevertheless, until
    /// what it said is done.
    pub(crate) fn input_over(&mut self, now: Moment) -> bool {
        let goes_on = self.is_joining() || self.is_owed();
        if goes_on {
            self.gone(now).input_over = true;
        }
        goes_on
    }

    /// Whether something that it said will be answered.
    fn is_owed(&self) -> bool {
        self.reader.is_some() && self.closing.is_none() && self.ledger.is_owed()
    }

    fn gone(&mut self, now: Moment) -> &mut Gone {
        let until = now.after(limits::HANDSHAKE);
        self.gone.get_or_insert(Gone { input_over: false, until })
    }

    /// Whether the client may say something, for all that is known of its socket.
    pub(crate) fn has_input(&self) -> bool {
        self.gone.as_ref().is_none_or(|gone| !gone.input_over)
    }

    /// Whether what it said waits for the session to be known to all.
    fn is_joining(&self) -> bool {
        let announced = matches!(self.presence, Presence::Announced { .. });
        announced && self.reader.is_none() && self.closing.is_none()
    }

    /// Whether the client is gone and all that it said before is done, or it has had its time.
    pub(crate) fn is_through(&self, now: Moment) -> bool {
        let Some(gone) = &self.gone else { return false };
        let answered = !self.is_joining() && !self.is_owed() && self.outdone.is_none();
        let waits = !gone.input_over || !answered;
        !waits || self.closing.is_some() || gone.until <= now
    }
}
