//! The threads that serve clients.
//!
//! Leases, heartbeats, Raft and commits have to keep going, whatever clients do. So a real process has two runtimes, each with
//! its own threads, and the operating system shares the processor between them. A simulation has one, and runs the same code on
//! it.
//!
//! Invariant: running something here never changes its result, only its thread.
//!
//! Deliberately absent: creating runtimes, which the process does.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};

/// Where clients are served.
#[derive(Clone, Debug, Default)]
pub enum Workers {
    /// On the caller's runtime: in simulations and tests.
    #[default]
    Here,
    /// On a separate runtime.
    Apart(Handle),
}

impl Workers {
    /// Starts a task on these workers. Everything it spawns, opens or waits for belongs to their runtime as well.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self {
            Self::Here => tokio::spawn(task),
            Self::Apart(runtime) => runtime.spawn(task),
        }
    }

    /// Runs a future on these workers and waits for it. What it opens belongs to their runtime.
    pub async fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self {
            Self::Here => future.await,
            Self::Apart(runtime) => joined(runtime.spawn(future).await).await,
        }
    }

    /// Runs blocking work, such as reading a disk, where it blocks no task. In a simulation, whose disk does not block, it runs
    /// inline.
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Here => work(),
            Self::Apart(runtime) => joined(runtime.spawn_blocking(work).await).await,
        }
    }
}

async fn joined<T>(joined: Result<T, JoinError>) -> T {
    match joined.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down with the process: the result is not needed any more.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::thread::current;

    use super::*;

    #[tokio::test]
    async fn work_runs_here_or_apart() {
        let here = Workers::Here;
        let own = current().id();
        assert_eq!(here.spawn(async { current().id() }).await.unwrap(), own);
        assert_eq!(here.run(async { current().id() }).await, own);
        assert_eq!(here.block(|| current().id()).await, own);

        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("apart").build().unwrap();
        let apart = Workers::Apart(runtime.handle().clone());
        let name = || current().name().map(str::to_owned);
        assert_eq!(apart.spawn(async move { name() }).await.unwrap().as_deref(), Some("apart"));
        assert_eq!(apart.run(async move { name() }).await.as_deref(), Some("apart"));
        assert_eq!(apart.block(name).await.as_deref(), Some("apart"));
        runtime.shutdown_background();
    }
}
