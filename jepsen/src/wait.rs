//! Waits for a condition without guessing how long it takes: polls until it holds, or until a deadline.
//!
//! Invariant: a timeout says what was awaited and what the last obstacle was.
//!
//! Deliberately absent: waiting a fixed time.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout, Instant};

/// Enough for anything that is immediate on an idle machine and slow on a loaded one.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two polls.
const INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` until it succeeds.
///
/// # Errors
/// After `limit`: what was waited for, with the probe's last error.
pub async fn until<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let failed = match probe().await {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if Instant::now() >= deadline {
            return Err(failed.context(format!("gave up after {limit:?} waiting until {what}")));
        }
        sleep(INTERVAL).await;
    }
}

/// Bounds one step that may hang.
///
/// # Errors
/// The step's own, or that it took longer than `limit`.
pub async fn within<T>(
    what: &str,
    limit: Duration,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, step).await.with_context(|| format!("gave up after {limit:?}: {what}"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[tokio::test]
    async fn gives_up_with_the_last_error() {
        let mut asked = 0;
        let result: Result<()> = until("pigs fly", Duration::from_millis(50), || {
            asked += 1;
            let asked = asked;
            async move { Err(anyhow!("no wings ({asked})")) }
        })
        .await;
        let told = format!("{:#}", result.unwrap_err());
        assert!(told.contains("until pigs fly") && told.contains("no wings"), "{told}");
        assert!(asked > 1);
    }

    #[tokio::test]
    async fn answers_as_soon_as_it_holds() {
        let mut asked = 0;
        let answer = until("third time", PATIENCE, || {
            asked += 1;
            let asked = asked;
            async move { (asked == 3).then_some(asked).context("not yet") }
        });
        assert_eq!(answer.await.unwrap(), 3);
    }
}
