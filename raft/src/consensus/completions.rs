//! What Raft is told of its own disk, held back until the bodies beside it are on disk too.
//!
//! Invariant: Raft hears of its writes in the order in which they were made: of a vote, too, only behind the entries
//! before it.
//!
//! Deliberately absent: what an entry needs (`bodies`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::types::Types;
use crate::bodies::Bodies;

/// Who hears of a write.
pub(super) enum Done {
    Append(IOFlushed<Types>),
    Saved(oneshot::Sender<()>),
}

/// Writes of `raft.redb` that are durable and that Raft has not heard of. There are no more than Raft has made and not
/// been told of, which its own limits bound.
#[derive(Default)]
pub(super) struct Completions {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// How far the storage's writes are.
    written: u64,
    /// Each with the number to which those have to come.
    waiting: VecDeque<(u64, Done)>,
}

impl Completions {
    /// With the storage whose writes are waited for, where there is one.
    pub(super) fn new(bodies: Option<&dyn Bodies>) -> Arc<Self> {
        let completions = Arc::<Self>::default();
        if let Some(bodies) = bodies {
            let told = completions.clone();
            bodies.when_written(Box::new(move |number| {
                let mut line = told.line();
                line.written = number;
                line.tell();
            }));
        }
        completions
    }

    /// These are durable in `raft.redb`.
    pub(super) fn add(&self, done: impl Iterator<Item = (u64, Done)>) {
        let mut line = self.line();
        line.waiting.extend(done);
        line.tell();
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn tell(&mut self) {
        while self.waiting.front().is_some_and(|(needed, _)| *needed <= self.written) {
            match self.waiting.pop_front() {
                Some((_, Done::Append(flushed))) => flushed.io_completed(Ok(())),
                // The waiting side may have been shut down meanwhile.
                Some((_, Done::Saved(saved))) => drop(saved.send(())),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::tests::Fake;

    #[test]
    fn raft_hears_of_its_writes_in_order_behind_their_bodies() {
        let storage = Fake::with(&[]);
        let completions = Completions::new(Some(&*storage));
        let mut heard = Vec::new();
        for needed in [2, 0, 5, 0] {
            let (saved, hears) = oneshot::channel();
            completions.add([(needed, Done::Saved(saved))].into_iter());
            heard.push(hears);
        }
        storage.write(1);
        assert!(heard.iter_mut().all(|hears| hears.try_recv().is_err()));
        // The second needs nothing, and has waited for the first all the same.
        storage.write(3);
        assert!(heard[0].try_recv().is_ok() && heard[1].try_recv().is_ok());
        assert!(heard[2].try_recv().is_err() && heard[3].try_recv().is_err());
        storage.write(5);
        assert!(heard[2].try_recv().is_ok() && heard[3].try_recv().is_ok());
    }
}
