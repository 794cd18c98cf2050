//! Whether a password is right: what takes a client long to prove and a node long to check.
//!
//! A password costs a core some tens of milliseconds and 19 MiB, on purpose. So few are checked at once, on threads that serve
//! nobody, and few more wait. A password that was right a while ago is recognized without that: after a restart of a router,
//! thousands of devices come back at once.
//!
//! Invariant: a wrong password of a known user and any password of an unknown one take the same time, and each failure makes
//! the next attempt for that name wait longer. No password is kept, nor anything it could be tried against for less than
//! the full cost, except in this process's memory.
//!
//! Deliberately absent: exchanges in which the password does not travel.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use vulpes_raft::host::Host;
use vulpes_raft::ids::Position;
use vulpes_raft::net::wire;

use crate::auth::{verify, Fingerprint, Password, UserName};
use crate::realm::SharedRealms;
use crate::types::access::{Identity, Login, LoginRefusal, User};
use crate::types::limits;

/// How long after a failure for a name the next attempt begins; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Failures of a name before there is one: people mistype.
const FREE_FAILURES: u32 = 2;

/// How long failures count.
const FORGIVEN: Duration = Duration::from_secs(60);

/// The role that others see of a user without roles.
const NO_ROLE: &str = "user";

/// Checks logins. Clones share what is known and what is waiting.
#[derive(Clone)]
pub(crate) struct Logins {
    realms: SharedRealms,
    shared: Arc<Shared>,
}

struct Shared {
    /// Of fingerprints; made anew in each process.
    key: [u8; 64],
    /// Those that wait, and those that are checked.
    waiting: Semaphore,
    checking: Semaphore,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The last right password of each user, as of its last change.
    right: BTreeMap<String, (Position, Fingerprint)>,
    /// Failures by name, whether there is such a user or not.
    failures: BTreeMap<String, Failures>,
    /// The names in order of their first failures.
    order: VecDeque<String>,
}

struct Failures {
    count: u32,
    last: Instant,
}

impl Logins {
    pub(crate) fn new(realms: SharedRealms, host: &Host) -> Self {
        let mut key = [0; 64];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&host.random.next_u64().to_le_bytes());
        }
        let shared = Shared {
            key,
            waiting: Semaphore::new(limits::LOGINS_WAITING),
            checking: Semaphore::new(limits::LOGINS_CHECKED),
            known: Mutex::default(),
        };
        Self { realms, shared: Arc::new(shared) }
    }

    /// Whether clients have to log in.
    pub(crate) fn has_users(&self) -> bool {
        self.realms.with(crate::realm::Realms::has_users)
    }

    /// Finds out whether a client is who it says.
    pub(crate) async fn check(&self, login: Login) -> Result<Identity, LoginRefusal> {
        let name = UserName::new(&login.user).map_err(|_| LoginRefusal::Wrong)?;
        let password = Password::new(&login.password.0).map_err(|_| LoginRefusal::Wrong)?;
        let found = self.realms.with(|realms| realms.user(name.as_str()));
        let found = found.filter(|known| !known.user.disabled);
        let fingerprint = Fingerprint::of(&self.shared.key, &name, &password);
        if let Some(known) = &found {
            if self.known().right.get(name.as_str()) == Some(&(known.changed, fingerprint)) {
                return Ok(identity(name.as_str(), &known.user));
            }
        }
        let _waits = self.shared.waiting.try_acquire().map_err(|_| LoginRefusal::Busy)?;
        let pause = self.known().pause(name.as_str());
        tokio::time::sleep(pause).await;
        let _checks = self.shared.checking.acquire().await.map_err(|_| LoginRefusal::Busy)?;
        let verifier = found.as_ref().and_then(|known| wire::decode(&known.user.verifier).ok());
        let check = move || verify(&password, verifier.as_ref());
        let right = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        let mut memory = self.known();
        match found.filter(|_| right) {
            Some(known) => {
                memory.succeeded(name.as_str(), (known.changed, fingerprint));
                Ok(identity(name.as_str(), &known.user))
            }
            None => {
                memory.failed(name.as_str());
                Err(LoginRefusal::Wrong)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn pause(&self, name: &str) -> Duration {
        let Some(failures) = self.failures.get(name) else { return Duration::ZERO };
        let over = failures.count.saturating_sub(FREE_FAILURES);
        if over == 0 || failures.last.elapsed() >= FORGIVEN {
            return Duration::ZERO;
        }
        LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(over - 1))
    }

    fn succeeded(&mut self, name: &str, right: (Position, Fingerprint)) {
        self.failures.remove(name);
        if self.right.len() >= limits::LOGINS_REMEMBERED && !self.right.contains_key(name) {
            self.right.pop_first();
        }
        self.right.insert(name.to_owned(), right);
    }

    fn failed(&mut self, name: &str) {
        let now = Instant::now();
        if let Some(failures) = self.failures.get_mut(name) {
            let forgiven = failures.last.elapsed() >= FORGIVEN;
            failures.count = if forgiven { 1 } else { failures.count.saturating_add(1) };
            failures.last = now;
            return;
        }
        if self.order.len() >= limits::LOGIN_FAILURES {
            if let Some(oldest) = self.order.pop_front() {
                self.failures.remove(&oldest);
            }
        }
        self.order.push_back(name.to_owned());
        self.failures.insert(name.to_owned(), Failures { count: 1, last: now });
    }
}

fn identity(name: &str, user: &User) -> Identity {
    let role = user.roles.first().map_or(NO_ROLE, String::as_str);
    Identity { user: name.to_owned(), role: role.to_owned() }
}

#[cfg(test)]
mod tests;
