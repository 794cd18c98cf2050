//! How a storage's file is read: away from the tasks that keep the cluster alive, with a limit on concurrent reads.
//!
//! A read of the file blocks its thread. Readers get a permit in the order in which they ask, for one read at a time. So a
//! hundred replays take turns, and a reader waits for at most one read of each of the others.
//!
//! Deliberately absent: what is read.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vulpes_raft::host::Workers;

/// Runs reads. Clones share the permits.
#[derive(Clone, Debug)]
pub struct Reads {
    workers: Workers,
    places: Arc<Semaphore>,
}

impl Reads {
    /// Reads on blocking threads of these workers, with a limit on concurrent reads.
    #[must_use]
    pub fn new(workers: Workers, places: usize) -> Self {
        Self { workers, places: Arc::new(Semaphore::new(places)) }
    }

    /// Reads inline, one at a time.
    #[must_use]
    pub fn inline() -> Self {
        Self::new(Workers::Here, 1)
    }

    /// Waits for a permit and reads. An abandoned read holds its permit until it is over.
    pub async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> T {
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        let read = move || {
            let found = read();
            drop(place);
            found
        };
        self.workers.block(read).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn no_more_than_the_places_read_at_once_and_all_get_their_turn_in_order() {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let reads = Reads::new(Workers::Apart(runtime.handle().clone()), 2);
        let (told, heard) = mpsc::sync_channel(5);
        let mut going_on = Vec::new();
        let mut running = Vec::new();
        for number in 0..5 {
            let (go_on, told_to) = mpsc::sync_channel::<()>(1);
            going_on.push(go_on);
            let (reads, told) = (reads.clone(), told.clone());
            let mut read = Box::pin(async move {
                let read = move || {
                    told.send(number).unwrap();
                    told_to.recv().unwrap();
                };
                reads.run(read).await;
            });
            // Polled once, so that they ask in this order.
            assert!(futures::poll!(&mut read).is_pending());
            running.push(tokio::spawn(read));
        }
        let mut begun: Vec<_> = (0..2).map(|_| heard.recv().unwrap()).collect();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1]);
        for next in 2..5 {
            assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "no place is free");
            going_on[next - 2].send(()).unwrap();
            assert_eq!(tokio::task::block_in_place(|| heard.recv()), Ok(next));
        }
        for go_on in &going_on[3..] {
            go_on.send(()).unwrap();
        }
        for read in running {
            read.await.unwrap();
        }
        runtime.shutdown_background();
    }
}
