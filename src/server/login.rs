//! Whether a password is right: what takes a client long to prove and a node long to check.
//!
//! A password costs a core some tens of milliseconds and 19 MiB, on purpose. So few are checked at once, on threads that serve
//! nobody, and few more wait. A password that was right a while ago is recognized without that: after a restart of a router,
//! thousands of devices come back at once.
//!
//! Invariant: a wrong password of a known user and any password of an unknown one take the same time, and each failure makes
//! the next attempt for that name wait longer, by whatever method: attempts for one name are checked one after the other. No password
//! is kept, nor anything it could be tried against for less than the full cost, except in this process's memory.
//!
//! Deliberately absent: what a client is asked by methods in which the password does not travel (`conversation`).

pub(crate) mod conversation;
pub(crate) mod tokens;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use vulpes_raft::host::{Clock, Host, Random};
use vulpes_raft::ids::Position;

use self::conversation::{Claim, Conversation, Shown};
use self::tokens::TokenFiles;
use crate::auth::{
    draw, jwt, plain, Candidate, Decoys, Fingerprint, Password, Refused, UserName, Verifiers,
};
use crate::realm::{Realms, SharedRealms};
use crate::types::access::{Identity, KnownUser, Login, LoginRefusal, User};
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::login::Method;

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

/// Who knows the users, as WAMP's details name it.
const USERS: &str = "users";

/// The same for those who log in with tokens.
const TOKENS: &str = "jwt";

/// The same for those whose certificate names them.
const CERTIFICATES: &str = "certificate";

/// The longest verifiers that were made before there was another method than a password.
const OLD_VERIFIER: usize = 64;

/// How often the users are searched for the secret of made up verifiers, until there is one.
const SEARCH: Duration = Duration::from_secs(1);

/// Checks logins. Clones share what is known and what is waiting.
#[derive(Clone)]
pub(crate) struct Logins {
    realms: SharedRealms,
    shared: Arc<Shared>,
    room: Room,
    /// Nobody comes in before the log has users.
    guarded: bool,
    /// There if clients may log in with tokens.
    tokens: Option<Arc<TokenFiles>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
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
    /// Those of the users, once one was found that has them, and when they were searched.
    decoys: Option<Decoys>,
    searched: Option<Instant>,
}

struct Failures {
    count: u32,
    last: Instant,
}

impl Logins {
    pub(crate) fn new(realms: SharedRealms, host: &Host) -> Self {
        let (clock, random) = (host.clock.clone(), host.random.clone());
        let key = draw(|| random.next_u64());
        let (known, turns) = (Mutex::default(), Mutex::default());
        let shared = Shared { clock, random, key, known, turns };
        let room = Room::new(limits::LOGINS_WAITING, limits::LOGINS_CHECKED);
        Self { realms, shared: Arc::new(shared), room, guarded: false, tokens: None }
    }

    /// The same for a node that takes these tokens as passwords.
    #[must_use]
    pub(crate) fn with_tokens(self, tokens: Option<Arc<TokenFiles>>) -> Self {
        Self { tokens, ..self }
    }

    /// The same for a node that lets nobody in before the log has users, if it is to be `guarded`.
    #[must_use]
    pub(crate) fn guarded(self, guarded: bool) -> Self {
        Self { guarded, ..self }
    }

    /// The same with room of its own, so that clients keep no operator out.
    #[must_use]
    pub(crate) fn of_operators(&self) -> Self {
        Self { room: Room::new(limits::LOGINS_WAITING, 1), ..self.clone() }
    }

    /// Whether clients have to log in.
    pub(crate) fn has_users(&self) -> bool {
        self.guarded || self.realms.with(Realms::has_users)
    }

    /// Whether nobody can log in yet.
    pub(crate) fn awaits_users(&self) -> bool {
        self.guarded && !self.realms.with(Realms::has_users)
    }

    /// The login of a client that is to have this session.
    pub(crate) fn conversation(&self, session: SessionId, shown: &Shown) -> Conversation {
        Conversation::new(self.clone(), session, shown.clone())
    }

    /// Finds out whether a password, or a token, is the user's.
    pub(crate) async fn check(&self, login: Login) -> Result<Identity, LoginRefusal> {
        if let Some(tokens) = &self.tokens {
            let token = std::str::from_utf8(&login.password.0);
            if let Some(token) = token.ok().filter(|text| jwt::is_token(text)) {
                return self.check_token(tokens, &login.user, token).await;
            }
        }
        let name = UserName::new(&login.user).map_err(|_| LoginRefusal::Wrong)?;
        let password = Password::new(&login.password.0).map_err(|_| LoginRefusal::Wrong)?;
        let fingerprint = Fingerprint::of(&self.shared.key, &name, &password);
        if let Some(identity) = self.recognized(&name, fingerprint) {
            return Ok(identity);
        }
        let turn = Turn::take(&self.shared, name.as_str())?;
        let _in_turn = self.wait(&turn).await?;
        if let Some(identity) = self.recognized(&name, fingerprint) {
            return Ok(identity);
        }
        let waits = self.room.waiting.clone().try_acquire_owned();
        let waits = waits.map_err(|_| LoginRefusal::Busy)?;
        let checks = self.room.checking.clone().acquire_owned().await;
        let checks = checks.map_err(|_| LoginRefusal::Busy)?;
        let (candidate, known) = self.candidate(&name);
        let logins = self.clone();
        // If the client leaves meanwhile, its permits stay taken until the check has ended, and a failure still counts.
        let check = move || {
            let right = plain::verify(&password, &candidate);
            drop((waits, checks));
            let claim =
                Claim { name, known: known.filter(|_| right), method: Method::Ticket.name() };
            logins.judged(&claim, Some(fingerprint))
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Err(LoginRefusal::Wrong))
    }

    /// Finds out whether a token is the user's; without a name, it is that of the user whom the token names.
    async fn check_token(
        &self,
        tokens: &TokenFiles,
        user: &str,
        token: &str,
    ) -> Result<Identity, LoginRefusal> {
        let found = tokens.verify(token, self.now());
        if let Err(error) = &found {
            tracing::debug!("a token was refused: {error}");
        }
        let name = match &found {
            Ok(found) if user.is_empty() => found.user.clone(),
            _ => UserName::new(user).map_err(|_| LoginRefusal::Wrong)?,
        };
        let found = found.ok().filter(|found| found.user == name);
        let known = self.user(&name).filter(|_| found.is_some());
        let claim = Claim { name, known, method: Method::Ticket.name() };
        let identity = self.prove(claim, None).await?;
        let expires = found.map(|found| found.expires);
        Ok(Identity { provider: TOKENS, expires, ..identity })
    }

    /// A client whose certificate names a user that may log in.
    fn certified(&self, name: &UserName) -> Option<Identity> {
        let known = self.user(name)?;
        let identity = identity(name.as_str(), &known.user, Method::Tls.name());
        Some(Identity { provider: CERTIFICATES, ..identity })
    }

    /// Says whether a client is who it claims to be, when its answer to a challenge has been checked.
    async fn prove(
        &self,
        mut claim: Claim,
        refused: Option<Refused>,
    ) -> Result<Identity, LoginRefusal> {
        if let Some(refused) = refused.filter(|refused| !refused.is_denied()) {
            return Err(conversation::misused(refused));
        }
        let turn = Turn::take(&self.shared, claim.name.as_str())?;
        let _in_turn = self.wait(&turn).await?;
        claim.known = claim.known.filter(|_| refused.is_none());
        self.judged(&claim, None)
    }

    /// Waits until it is this attempt's turn, and for as long as failures for its name make it.
    async fn wait<'a>(&self, turn: &'a Turn) -> Result<SemaphorePermit<'a>, LoginRefusal> {
        let permit = turn.turns.acquire().await.map_err(|_| LoginRefusal::Busy)?;
        let pause = self.known().pause(&turn.name);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Ok(permit)
    }

    /// What a login is checked with, and its user if there is one that may log in.
    fn candidate(&self, name: &UserName) -> (Candidate, Option<Arc<KnownUser>>) {
        let found = self.realms.with(|realms| realms.user(name.as_str()));
        let verifiers = found.as_ref().and_then(|known| Verifiers::decode(&known.user.verifier));
        let candidate = self.decoys().candidate(name, verifiers.as_ref());
        match found.filter(|known| !known.user.disabled) {
            Some(known) => (candidate, Some(known)),
            None => (candidate.locked(), None),
        }
    }

    /// What makes up verifiers. All nodes get it from their users.
    fn decoys(&self) -> Decoys {
        let mut known = self.known();
        let is_due = known.searched.is_none_or(|at| at.elapsed() >= SEARCH);
        if known.decoys.is_none() && is_due {
            known.searched = Some(Instant::now());
            known.decoys = self.realms.with(decoys);
        }
        known.decoys.clone().unwrap_or_else(|| {
            Decoys::before_all(std::array::from_fn(|index| self.shared.key[index]))
        })
    }

    /// Unix seconds.
    fn now(&self) -> u64 {
        self.shared.clock.now().0 / 1000
    }

    fn random(&self) -> u64 {
        self.shared.random.next_u64()
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
        right.then(|| identity(name.as_str(), &found.user, Method::Ticket.name()))
    }

    /// Records the result of a check: a claim without a user is wrong. So is one whose user was removed or disabled since the
    /// check began, or has something else to log in with. A right password is remembered.
    fn judged(
        &self,
        claim: &Claim,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Identity, LoginRefusal> {
        let Claim { name, known, method } = claim;
        let now = self.user(name).zip(known.as_ref());
        let now = now.filter(|(now, known)| now.user.verifier == known.user.verifier);
        match now {
            Some((known, _)) => {
                let right = fingerprint.map(|fingerprint| (known.changed, fingerprint));
                self.known().succeeded(name.as_str(), right);
                Ok(identity(name.as_str(), &known.user, method))
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

    fn succeeded(&mut self, name: &str, right: Option<(Position, Fingerprint)>) {
        if self.failures.remove(name).is_some() {
            self.order.retain(|other| other != name);
        }
        let Some(right) = right else { return };
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

fn identity(name: &str, user: &User, method: &'static str) -> Identity {
    let role = user.roles.first().map_or(NO_ROLE, String::as_str);
    Identity {
        user: name.to_owned(),
        role: role.to_owned(),
        method,
        provider: USERS,
        expires: None,
    }
}

/// The secret that the users' verifiers contain.
fn decoys(realms: &Realms) -> Option<Decoys> {
    let mut new = realms.users().filter(|(_, known)| known.user.verifier.len() > OLD_VERIFIER);
    new.find_map(|(_, known)| Decoys::of(&Verifiers::decode(&known.user.verifier)?))
}

#[cfg(test)]
mod tests;
