//! The end of a session: everybody is told, the client reads its last word, and what the session held is given back.
//!
//! Invariant: nothing that the client does or fails to do keeps the session from leaving, and no missing quorum keeps what all
//! sessions share from the others: only what is on its way to the entry is held until it is there.
//!
//! Deliberately absent: why a session ends.

use std::future::poll_fn;
use std::task::Poll;

use super::{Session, Standing};
use crate::gate::Gate;
use crate::replica::Command;
use crate::server::events;
use crate::server::transport::{linger, End, Transport, TransportError};

impl<G: Gate, T: Transport> Session<G, T> {
    /// Leaves; gives back why.
    pub(super) async fn leave(mut self, end: TransportError) -> TransportError {
        // First what others wait for, whatever is wrong with the client's connection.
        let reading = self.say_goodbye();
        self.stop(&end).await;
        let session = self.gate.session();
        let Self { clients, mut ledger, mut publishing, mut transport, outgo, state_room, .. } =
            self;
        let intake = transport.intake().clone();
        let leaving = async {
            if reading {
                // A closed channel means that the dispatcher is gone with all its sessions.
                let _ = clients.commands.send(Command::Remove(session)).await;
            }
            let read = (&clients.log, &clients.realm_states);
            publishing.finish(&mut ledger, &clients.entry, read).await;
            drop(state_room);
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
        if !self.closed {
            self.transport.close(End::Failed(end));
            let _ = poll_fn(|context| Poll::Ready(self.transport.poll_flush(context))).await;
        }
        self.transport.stop_reading();
        if self.ledger.is_idle() {
            self.transport.intake().settle();
        }
        self.current = None;
        self.filtering.forget();
        self.segments.keep(0);
        // A client that has closed may have closed its own side alone.
        if !matches!(end, TransportError::Closed | TransportError::Malformed(_)) {
            self.transport.abandon();
            self.outgo.let_go();
        }
    }

    /// Puts the session's end on its way to everybody; tells whether the dispatcher knows of it.
    fn say_goodbye(&mut self) -> bool {
        let session = self.gate.session();
        // Who waits for it is told at once, and not when the log shows its end.
        self.calls = None;
        self.clients.desk.forget(session);
        self.note_rest();
        if let Standing::Announced { realm, known_as, drop_will, .. } = &self.standing {
            let (realm, known_as) = (realm.clone(), known_as.clone());
            // Who was never told that it is connected leaves no will.
            let drop_will = *drop_will || self.reader.is_none();
            self.ledger.push_own(match self.detach(drop_will) {
                Some(detach) => events::detach(realm, session, &known_as, detach),
                None => events::leave(realm, session, &known_as, drop_will),
            });
        }
        self.reader.take().is_some()
    }
}
