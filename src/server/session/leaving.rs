//! The end of a session: everybody is told, the client reads its last word, and what the session held is given back.
//!
//! Invariant: nothing that the client does or fails to do keeps the session from leaving, and no missing quorum keeps what all
//! sessions share from the others: only what is on its way to the entry is held until it is there.
//!
//! Deliberately absent: why a session ends.

use std::future::poll_fn;
use std::task::Poll;

use super::Session;
use crate::gate::Gate;
use crate::replica::Command;
use crate::server::transport::{linger, End, Transport, TransportError};

impl<G: Gate, T: Transport> Session<G, T> {
    /// Leaves; gives back why.
    pub(super) async fn leave(mut self: Box<Self>, end: TransportError) -> TransportError {
        // First what others wait for, whatever is wrong with the client's connection.
        let session = self.core.session();
        // Who waits for it is told at once, and not when the log shows its end.
        self.held.calls = None;
        self.clients.manager.forget(session);
        let reading = self.core.leave();
        self.reading = None;
        self.stop(&end).await;
        let Self { mut core, clients, mut publishing, mut transport, outgo, held, .. } = *self;
        let intake = transport.intake().clone();
        let leaving = async {
            if reading {
                // A closed channel means that the dispatcher is gone with all its sessions.
                let _ = clients.commands.send(Command::Remove(session)).await;
            }
            let read = (&clients.log, &clients.realm_states);
            publishing.finish(core.ledger(), &clients.entry, read).await;
            drop(held);
        };
        let lingering = async {
            linger(&mut transport).await;
            drop((transport, outgo));
            intake.forget_unfinished();
        };
        // To leave may need a quorum, and the client is not to wait for that.
        tokio::join!(leaving, lingering);
        end
    }

    /// Writes the last word, as far as the socket takes it, and gives back what the session holds of the node's budgets: all
    /// but what its client may still read, and what is on its way to the entry.
    async fn stop(&mut self, end: &TransportError) {
        if !self.core.is_closed() {
            self.transport.close(End::Failed(end));
            let _ = poll_fn(|context| Poll::Ready(self.transport.poll_flush(context))).await;
        }
        self.transport.stop_reading();
        if self.core.ledger().is_idle() {
            self.transport.intake().settle();
        }
        self.filtering.forget();
        self.segments.keep(0);
        // A client that has closed may have closed its own side alone.
        if !matches!(end, TransportError::Closed | TransportError::Malformed(_)) {
            self.transport.abandon();
            self.outgo.let_go();
        }
    }
}
