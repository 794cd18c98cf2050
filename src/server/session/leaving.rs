//! The end of a session: it leaves the realms' state, the client gets its last message, and the session's resources are given
//! back.
//!
//! Invariant: nothing that the client does or fails to do keeps the session from leaving. A missing quorum does not keep shared
//! resources from other sessions: only what is on its way to the entry is held until it is there.
//!
//! Deliberately absent: why a session ends.

use std::future::poll_fn;
use std::task::Poll;

use super::Session;
use crate::gate::Gate;
use crate::replica::Command;
use crate::server::transport::{linger, End, Transport, TransportError};

impl<G: Gate, T: Transport> Session<G, T> {
    /// Leaves; returns `end`.
    pub(super) async fn leave(mut self: Box<Self>, end: TransportError) -> TransportError {
        // What others wait for comes first, whatever is wrong with the client's connection.
        let session = self.core.session();
        // Sessions that wait in a call for this one are notified now, not when the log shows its end.
        self.held.calls = None;
        // Others wait for the room that it may have.
        self.login = None;
        self.clients.manager.forget(session);
        let reading = self.core.leave();
        self.reading = None;
        self.stop(&end).await;
        // Only what is given back by itself is moved: all clients of a node may leave at once.
        let (mut transport, outgo, held) = (self.transport, self.outgo, self.held);
        let (clients, core, publishing) = (&self.clients, &mut self.core, &mut self.publishing);
        let intake = transport.intake().clone();
        let leaving = async {
            if reading {
                // A closed channel means that the dispatcher has ended with all its sessions.
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
        // Leaving may need a quorum, and the client must not wait for that.
        tokio::join!(leaving, lingering);
        end
    }

    /// Writes the last message, as far as the socket takes it, and gives back what the session holds of the node's budgets,
    /// except for what its client may still read, and what is on its way to the entry.
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
        // A client that has closed may have closed only its sending side.
        if !matches!(end, TransportError::Closed | TransportError::Malformed(_)) {
            self.transport.abandon();
            self.outgo.let_go();
        }
    }
}
