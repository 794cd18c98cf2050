//! A client that is gone: what it sent before is handled as if the client were still there.
//!
//! Invariant: input that came before the end of the input is handled before the end. It is also answered while the client can
//! still read, since it may have closed only its sending side. If the client can't be written to any more, its input is still
//! read to the end. Both have a time limit.
//!
//! Deliberately absent: events, which are no longer delivered, and the reason why the client is gone.

use super::{Core, Presence};
use crate::gate::Gate;
use crate::types::limits;
use crate::types::moment::Moment;

/// A client that is gone.
pub(super) struct Gone {
    /// No more input comes from it.
    input_over: bool,
    /// When the remaining work is given up.
    pub(super) until: Moment,
}

impl<G: Gate, R> Core<G, R> {
    /// The client can't be written to any more.
    pub(crate) fn output_failed(&mut self, now: Moment) {
        self.gone(now);
    }

    /// No more input comes from the client, or none that can be decoded. True if the session continues nevertheless, until the
    /// earlier input is handled.
    pub(crate) fn input_over(&mut self, now: Moment) -> bool {
        let goes_on = self.is_joining() || self.is_owed();
        if goes_on {
            self.gone(now).input_over = true;
        }
        goes_on
    }

    /// Whether some of the client's input will still be answered.
    fn is_owed(&self) -> bool {
        self.reader.is_some() && self.closing.is_none() && self.ledger.is_owed()
    }

    fn gone(&mut self, now: Moment) -> &mut Gone {
        let until = now.after(limits::HANDSHAKE);
        self.gone.get_or_insert(Gone { input_over: false, until })
    }

    /// Whether the client may still send something, as far as its socket shows.
    pub(crate) fn has_input(&self) -> bool {
        self.gone.as_ref().is_none_or(|gone| !gone.input_over)
    }

    /// Whether the client's input waits for the session to be in the realms' state.
    fn is_joining(&self) -> bool {
        let announced = matches!(self.presence, Presence::Announced { .. });
        announced && self.reader.is_none() && self.closing.is_none()
    }

    /// Whether the client is gone, and all its earlier input is handled or the time for that is over.
    pub(crate) fn is_through(&self, now: Moment) -> bool {
        let Some(gone) = &self.gone else { return false };
        let answered = !self.is_joining() && !self.is_owed() && self.outdone.is_none();
        let waits = !gone.input_over || !answered;
        !waits || self.closing.is_some() || gone.until <= now
    }
}
