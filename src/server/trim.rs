//! Gives memory back to the system after many clients have left.
//!
//! If one thread frees memory that another thread has allocated, the allocator reuses it only after the other thread has made some
//! thousand further allocations. Threads with clients make them all the time. Threads whose clients have left would keep the memory
//! until new clients come, so this module makes them allocate.
//!
//! Invariant: nothing is done where no clients leave, and nobody waits for it.
//!
//! Deliberately absent: a call of the allocator, for which there is no safe way.

use std::hint::black_box;
use std::time::Duration;

use vulpes_raft::host::Workers;

use super::session_manager::SessionManager;

/// How often to look whether many have left.
const LOOK: Duration = Duration::from_secs(5);

/// How many are many.
const MANY: u64 = 1000;

/// How often the threads are made to allocate then: what was found to be free is given back some time later.
const ROUNDS: u32 = 3;

/// How many allocations bring an allocator to look for free memory, and how large each has to be to be counted.
const ALLOCATIONS: usize = 12_000;
const SIZE: usize = 2 << 10;

/// Looks after the threads of both of a node's runtimes, for as long as it lives.
pub(crate) fn start(manager: &SessionManager, clients: &Workers) {
    tokio::spawn(trim(manager.clone()));
    clients.spawn(trim(manager.clone()));
}

async fn trim(manager: SessionManager) {
    let (mut seen, mut rounds) = (manager.ended(), 0);
    loop {
        tokio::time::sleep(LOOK).await;
        let ended = manager.ended();
        if ended - seen >= MANY {
            (seen, rounds) = (ended, ROUNDS);
        }
        if rounds > 0 {
            rounds -= 1;
            // Threads with nothing to do take these; others need none.
            let threads = tokio::runtime::Handle::current().metrics().num_workers();
            for _ in 0..2 * threads {
                tokio::spawn(async { allocate() });
            }
        }
    }
}

/// Takes less than a millisecond.
fn allocate() {
    for _ in 0..ALLOCATIONS {
        drop(black_box(Vec::<u8>::with_capacity(SIZE)));
    }
}
