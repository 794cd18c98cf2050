//! Whether a password is right: what takes a client long to prove and a node long to check.
//!
//! A password costs a core some tens of milliseconds and 19 MiB, on purpose. So few are checked at once, on threads that serve
//! nobody, and few more wait. A password that was right a while ago is recognized without that: after a restart of a router,
//! thousands of devices come back at once.
//!
//! Invariant: a wrong password of a known user and any password of an unknown one take the same time, and each failure makes
//! the next attempt for that name wait longer: attempts for one name are checked one after the other. No password is kept, nor anything it could be tried against for less than
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
use crate::types::access::{Identity, KnownUser, Login, LoginRefusal, User};
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
    room: Room,
}

struct Shared {
    /// Of fingerprints; made anew in each process.
    key: [u8; 64],
    known: Mutex<Known>,
    /// The turns of names for which there are attempts.
    turns: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Room for some of the logins of a node.
#[derive(Clone)]
struct Room {
    /// Those that wait for a check, or are checked.
    waiting: Arc<Semaphore>,
    checking: Arc<Semaphore>,
}

impl Room {
    fn new(waiting: usize, checking: usize) -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(waiting)),
            checking: Arc::new(Semaphore::new(checking)),
        }
    }
}

/// An attempt's turn among those for its name. They are checked one at a time, so that each sees the failures before it.
struct Turn {
    shared: Arc<Shared>,
    name: String,
    turns: Arc<Semaphore>,
}

impl Turn {
    fn take(shared: &Arc<Shared>, name: &str) -> Result<Self, LoginRefusal> {
        let mut all = shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = all.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1)));
        // One of them is the table's.
        if Arc::strong_count(turns) > limits::LOGINS_OF_A_NAME {
            return Err(LoginRefusal::Busy);
        }
        let turns = turns.clone();
        Ok(Self { shared: shared.clone(), name: name.to_owned(), turns })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // This one's and the table's.
        if Arc::strong_count(&self.turns) == 2 {
            all.remove(&self.name);
        }
    }
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
        let shared = Shared { key, known: Mutex::default(), turns: Mutex::default() };
        let room = Room::new(limits::LOGINS_WAITING, limits::LOGINS_CHECKED);
        Self { realms, shared: Arc::new(shared), room }
    }

    /// The same with room of its own, so that clients keep no operator out.
    #[must_use]
    pub(crate) fn of_operators(&self) -> Self {
        Self { room: Room::new(limits::LOGINS_WAITING, 1), ..self.clone() }
    }

    /// Whether clients have to log in.
    pub(crate) fn has_users(&self) -> bool {
        self.realms.with(crate::realm::Realms::has_users)
    }

    /// Finds out whether a client is who it says.
    pub(crate) async fn check(&self, login: Login) -> Result<Identity, LoginRefusal> {
        let name = UserName::new(&login.user).map_err(|_| LoginRefusal::Wrong)?;
        let password = Password::new(&login.password.0).map_err(|_| LoginRefusal::Wrong)?;
        let fingerprint = Fingerprint::of(&self.shared.key, &name, &password);
        if let Some(identity) = self.recognized(&name, fingerprint) {
            return Ok(identity);
        }
        let turn = Turn::take(&self.shared, name.as_str())?;
        let _in_turn = turn.turns.acquire().await.map_err(|_| LoginRefusal::Busy)?;
        let pause = self.known().pause(name.as_str());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if let Some(identity) = self.recognized(&name, fingerprint) {
            return Ok(identity);
        }
        let waits = self.room.waiting.clone().try_acquire_owned();
        let waits = waits.map_err(|_| LoginRefusal::Busy)?;
        let checks = self.room.checking.clone().acquire_owned().await;
        let checks = checks.map_err(|_| LoginRefusal::Busy)?;
        let found = self.user(&name);
        let logins = self.clone();
        // If the client leaves meanwhile, its permits stay taken until the check has ended, and a failure still counts.
        let check = move || {
            let verifier = found.as_ref().and_then(|known| wire::decode(&known.user.verifier).ok());
            let right = verify(&password, verifier.as_ref());
            drop((waits, checks));
            logins.judged(&name, found.filter(|_| right), fingerprint)
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Err(LoginRefusal::Wrong))
    }

    /// A user that may log in.
    fn user(&self, name: &UserName) -> Option<Arc<KnownUser>> {
        let found = self.realms.with(|realms| realms.user(name.as_str()));
        found.filter(|known| !known.user.disabled)
    }

    /// The user, if this was its password before and it has not changed since.
    fn recognized(&self, name: &UserName, fingerprint: Fingerprint) -> Option<Identity> {
        let found = self.user(name)?;
        let right = self.known().right.get(name.as_str()) == Some(&(found.changed, fingerprint));
        right.then(|| identity(name.as_str(), &found.user))
    }

    /// Records the result of a check. A login is refused if its user has changed since the check began.
    fn judged(
        &self,
        name: &UserName,
        right: Option<Arc<KnownUser>>,
        fingerprint: Fingerprint,
    ) -> Result<Identity, LoginRefusal> {
        let now = self.user(name).map(|known| known.changed);
        match right.filter(|known| Some(known.changed) == now) {
            Some(known) => {
                self.known().succeeded(name.as_str(), (known.changed, fingerprint));
                Ok(identity(name.as_str(), &known.user))
            }
            None => {
                self.known().failed(name.as_str());
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
        if self.failures.remove(name).is_some() {
            self.order.retain(|other| other != name);
        }
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
