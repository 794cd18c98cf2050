//! A client that is gone, and what it said before that: it is done, as if the client were still there.
//!
//! Invariant: what came before the end of the input is handled before the end, and answered where the client can still read:
//! it may have closed its own side alone. A client that can't be written to any more is read to its end all the same. Neither
//! takes longer than its bound.
//!
//! Deliberately absent: events, which it gets no more of.

use tokio::time::Instant;

use super::{Session, Standing};
use crate::gate::Gate;
use crate::server::transport::{Transport, TransportError};
use crate::types::limits;

/// A client that is gone.
pub(super) struct Gone {
    why: TransportError,
    /// Nothing more comes from it.
    input_over: bool,
    /// When what is left of it is given up.
    until: Instant,
}

impl Gone {
    fn new(why: TransportError, input_over: bool) -> Self {
        Self { why, input_over, until: Instant::now() + limits::HANDSHAKE }
    }
}

impl<G: Gate, T: Transport> Session<G, T> {
    /// It can't be written to any more.
    pub(super) fn output_failed(&mut self, error: TransportError) {
        self.transport.abandon();
        self.gone.get_or_insert_with(|| Gone::new(error, false));
    }

    /// Nothing more comes from it, or nothing that makes sense. Gives the error back where that is the end.
    pub(super) fn input_failed(&mut self, error: TransportError) -> Option<TransportError> {
        let is_end = matches!(
            error,
            TransportError::Closed | TransportError::Io(_) | TransportError::Malformed(_)
        );
        if !is_end || !self.is_joining() && !self.is_owed() {
            return Some(error);
        }
        self.gone.get_or_insert_with(|| Gone::new(error, true)).input_over = true;
        None
    }

    /// Whether something that it said will be answered.
    fn is_owed(&self) -> bool {
        self.reader.is_some() && self.closing.is_none() && self.ledger.is_owed()
    }

    /// Whether the client may say something, for all that is known of its socket.
    pub(super) fn has_input(&self) -> bool {
        self.gone.as_ref().is_none_or(|gone| !gone.input_over)
    }

    /// Whether what it said waits for the session to be known to all.
    fn is_joining(&self) -> bool {
        let announced = matches!(self.standing, Standing::Announced { .. });
        announced && self.reader.is_none() && self.closing.is_none()
    }

    /// Why the session ends now, if all that the client said before it was gone is done.
    pub(super) fn is_through(&mut self) -> Option<TransportError> {
        let gone = self.gone.as_ref()?;
        let waits = !gone.input_over || self.is_joining() || self.is_owed();
        if waits && self.closing.is_none() && gone.until > Instant::now() {
            return None;
        }
        self.gone.take().map(|gone| gone.why)
    }

    pub(super) fn gone_until(&self) -> Option<Instant> {
        self.gone.as_ref().map(|gone| gone.until)
    }
}
