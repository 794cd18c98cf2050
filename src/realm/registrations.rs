//! Registrations: which sessions offer which procedures, and where a call goes.
//!
//! Invariant: a registration has at least one callee, callees are in the order in which they registered, and each belongs to a
//! live session. A realm has one registration for a procedure and matching policy.
//!
//! Deliberately absent: calls. They are not in the log; each entry finds their callees here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Stamp;

use super::{Decision, Incoming, Key, Notice, Realms};
use crate::types::act::Refusal;
use crate::types::event::SessionId;
use crate::types::limits;
use crate::types::procedure::{Invoke, Matching, Procedure, Register, RegistrationId};
use crate::types::topic::Realm;

/// A registration, with all its callees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub id: RegistrationId,
    pub created: Stamp,
    pub invoke: Invoke,
    pub callees: Vec<Callee>,
}

/// One of a registration's callees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callee {
    pub session: SessionId,
    /// Calls that may be in flight to it; 0: unlimited.
    pub concurrency: u32,
    pub disclose_caller: bool,
}

/// The key of a registration: realm, matching policy and procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub realm: Realm,
    pub matching: Matching,
    pub procedure: Procedure,
}

/// All registrations of all realms.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    realms: BTreeMap<Realm, Procedures>,
    places: BTreeMap<RegistrationId, Place>,
    /// The registrations that a session is a callee of.
    sessions: BTreeMap<SessionId, BTreeSet<RegistrationId>>,
}

/// The registrations of a realm.
#[derive(Debug, Default)]
struct Procedures {
    exact: BTreeMap<Procedure, Registration>,
    prefix: BTreeMap<Procedure, Registration>,
    wildcard: BTreeMap<Procedure, Registration>,
    /// The keys of `wildcard`, part by part.
    parts: Parts,
}

/// Wildcard patterns as a tree of their parts.
#[derive(Debug, Default)]
struct Parts {
    literal: BTreeMap<Box<str>, Parts>,
    any: Option<Box<Parts>>,
    /// A pattern ends here.
    end: Option<Procedure>,
}

impl Parts {
    fn insert(&mut self, pattern: &Procedure) {
        let node = pattern.as_str().split('.').fold(self, |node, part| match part {
            "" => node.any.get_or_insert_default(),
            literal => node.literal.entry(literal.into()).or_default(),
        });
        node.end = Some(pattern.clone());
    }

    /// Removes a pattern; returns whether nothing is left.
    fn remove(&mut self, mut parts: std::str::Split<'_, char>) -> bool {
        match parts.next() {
            None => self.end = None,
            Some("") => {
                if self.any.as_mut().is_some_and(|next| next.remove(parts)) {
                    self.any = None;
                }
            }
            Some(part) => {
                if self.literal.get_mut(part).is_some_and(|next| next.remove(parts)) {
                    self.literal.remove(part);
                }
            }
        }
        self.literal.is_empty() && self.any.is_none() && self.end.is_none()
    }

    /// The best pattern that fits: at the first difference, the one with the longer run of literal parts, as WAMP
    /// ranks them. Visits each node at most once.
    fn find(&self, mut parts: std::str::Split<'_, char>) -> Option<&Procedure> {
        let Some(part) = parts.next() else { return self.end.as_ref() };
        let literal = self.literal.get(part).and_then(|next| next.find(parts.clone()));
        literal.or_else(|| self.any.as_ref().and_then(|next| next.find(parts)))
    }
}

impl Procedures {
    fn table(&self, matching: Matching) -> &BTreeMap<Procedure, Registration> {
        match matching {
            Matching::Exact => &self.exact,
            Matching::Prefix => &self.prefix,
            Matching::Wildcard => &self.wildcard,
        }
    }

    fn table_mut(&mut self, matching: Matching) -> &mut BTreeMap<Procedure, Registration> {
        match matching {
            Matching::Exact => &mut self.exact,
            Matching::Prefix => &mut self.prefix,
            Matching::Wildcard => &mut self.wildcard,
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && self.wildcard.is_empty()
    }

    /// Exact, then the longest prefix, then the best wildcard (WAMP advanced profile, "Pattern-based Registration").
    fn best(&self, procedure: &str) -> Option<(Matching, &Registration)> {
        if let Some(exact) = self.exact.get(procedure) {
            return Some((Matching::Exact, exact));
        }
        if let Some(prefix) = self.longest_prefix(procedure) {
            return Some((Matching::Prefix, prefix));
        }
        let pattern = self.parts.find(procedure.split('.'))?;
        Some((Matching::Wildcard, self.wildcard.get(pattern)?))
    }

    fn longest_prefix(&self, procedure: &str) -> Option<&Registration> {
        let mut upto = procedure;
        loop {
            let range = (Bound::Unbounded, Bound::Included(upto));
            let (found, registration) = self.prefix.range::<str, _>(range).next_back()?;
            if procedure.starts_with(found.as_str()) {
                return Some(registration);
            }
            // A shorter one must be a prefix of both.
            upto = common_prefix(upto, found.as_str());
        }
    }
}

fn common_prefix<'a>(one: &'a str, other: &str) -> &'a str {
    let pairs = one.char_indices().zip(other.chars());
    let end = pairs.take_while(|((_, a), b)| a == b).last();
    end.map_or("", |((at, c), _)| &one[..at + c.len_utf8()])
}

impl Registrations {
    fn get(&self, place: &Place) -> Option<&Registration> {
        self.realms.get(&place.realm)?.table(place.matching).get(&place.procedure)
    }

    fn of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, BTreeSet::len)
    }

    /// Replaces the registration under a key; a registration without callees is removed.
    fn set(&mut self, place: Place, registration: Registration) {
        let Place { realm, matching, procedure } = place.clone();
        let id = registration.id;
        let procedures = self.realms.entry(realm.clone()).or_default();
        if registration.callees.is_empty() {
            procedures.table_mut(matching).remove(&procedure);
            if matching == Matching::Wildcard {
                procedures.parts.remove(procedure.as_str().split('.'));
            }
            if procedures.is_empty() {
                self.realms.remove(&realm);
            }
            self.places.remove(&id);
            return;
        }
        if matching == Matching::Wildcard {
            procedures.parts.insert(&procedure);
        }
        procedures.table_mut(matching).insert(procedure, registration);
        self.places.insert(id, place);
    }

    pub(super) fn load(&mut self, place: Place, registration: Registration) {
        for callee in &registration.callees {
            self.sessions.entry(callee.session).or_default().insert(registration.id);
        }
        self.set(place, registration);
    }
}

impl Realms {
    /// A session offers a procedure.
    pub(super) fn register(&mut self, incoming: &Incoming<'_>, register: Register) {
        let (session, at) = (incoming.event.publisher, incoming.at);
        let decision = match self.may_register(incoming.realm, session, &register) {
            Err(refusal) => Decision::Refused(refusal),
            Ok(old) => {
                let Register { procedure, matching, invoke, concurrency, disclose_caller } =
                    register;
                let place = Place { realm: incoming.realm.clone(), matching, procedure };
                let mut new = old.clone().unwrap_or_else(|| Registration {
                    id: at.position.into(),
                    created: at.stamp,
                    invoke,
                    callees: Vec::new(),
                });
                new.callees.push(Callee { session, concurrency, disclose_caller });
                let id = new.id;
                self.registrations.sessions.entry(session).or_default().insert(id);
                self.replace(place, old.as_ref(), new);
                let mut accepted = at;
                accepted.position.0 = id.0;
                Decision::Accepted(accepted)
            }
        };
        self.notices.push(Notice::Decided { session, asked: at.position, decision });
    }

    /// The procedure's existing registration, if the session may join it.
    fn may_register(
        &self,
        realm: &Realm,
        session: SessionId,
        register: &Register,
    ) -> Result<Option<Registration>, Refusal> {
        if self.sessions.get(&session).is_none_or(|state| state.realm != *realm) {
            return Err(Refusal::SessionEnded);
        }
        if !self.may_offer(session, &register.procedure, register.matching) {
            return Err(Refusal::NotAllowed);
        }
        if self.registrations.of(session) >= limits::SESSION_REGISTRATIONS {
            return Err(Refusal::TooManyRegistrations);
        }
        let (matching, procedure) = (register.matching, register.procedure.clone());
        let place = Place { realm: realm.clone(), matching, procedure };
        let Some(old) = self.registrations.get(&place) else { return Ok(None) };
        let has_it = old.callees.iter().any(|callee| callee.session == session);
        if has_it || old.invoke == Invoke::Single {
            return Err(Refusal::ProcedureExists);
        }
        if old.invoke != register.invoke {
            return Err(Refusal::OtherPolicy(old.invoke));
        }
        if old.callees.len() >= limits::REGISTRATION_CALLEES {
            return Err(Refusal::TooManyCallees);
        }
        Ok(Some(old.clone()))
    }

    /// A session withdraws a registration.
    pub(super) fn unregister(&mut self, incoming: &Incoming<'_>, id: RegistrationId) {
        let (session, at) = (incoming.event.publisher, incoming.at);
        let decision = match self.remove_callee(session, id) {
            true => Decision::Accepted(at),
            false => Decision::Refused(Refusal::NoSuchRegistration),
        };
        self.notices.push(Notice::Decided { session, asked: at.position, decision });
    }

    /// The registrations of all sessions that have some.
    pub(super) fn registered(&self) -> Vec<(SessionId, Vec<RegistrationId>)> {
        let all = self.registrations.sessions.iter();
        all.map(|(session, ids)| (*session, ids.iter().copied().collect())).collect()
    }

    /// Withdraws all registrations of a session.
    pub(super) fn end_registrations(&mut self, session: SessionId) {
        for id in self.registrations.sessions.get(&session).cloned().unwrap_or_default() {
            self.remove_callee(session, id);
        }
    }

    pub(super) fn remove_callee(&mut self, session: SessionId, id: RegistrationId) -> bool {
        let Some(offered) = self.registrations.sessions.get_mut(&session) else { return false };
        if !offered.remove(&id) {
            return false;
        }
        if offered.is_empty() {
            self.registrations.sessions.remove(&session);
        }
        let Some(place) = self.registrations.places.get(&id).cloned() else { return false };
        let Some(old) = self.registrations.get(&place).cloned() else { return false };
        let mut new = old.clone();
        new.callees.retain(|callee| callee.session != session);
        self.replace(place, Some(&old), new);
        true
    }

    fn replace(&mut self, place: Place, old: Option<&Registration>, new: Registration) {
        let Place { realm, matching, procedure } = place.clone();
        let key = Key::Registration(realm, matching, procedure);
        let stays = Some(&new).filter(|new| !new.callees.is_empty());
        self.rows.change(&key, old, stays);
        self.registrations.set(place, new);
    }

    /// The registration that a call of this procedure goes to.
    #[must_use]
    pub fn registered_for(
        &self,
        realm: &Realm,
        procedure: &str,
    ) -> Option<(Matching, &Registration)> {
        self.registrations.realms.get(realm)?.best(procedure)
    }

    /// The registration of exactly this procedure and matching policy.
    #[must_use]
    pub fn registered_as(
        &self,
        realm: &Realm,
        matching: Matching,
        procedure: &str,
    ) -> Option<&Registration> {
        self.registrations.realms.get(realm)?.table(matching).get(procedure)
    }

    /// A registration by its id, with its key.
    #[must_use]
    pub fn registration(&self, id: RegistrationId) -> Option<(&Place, &Registration)> {
        let place = self.registrations.places.get(&id)?;
        Some((place, self.registrations.get(place)?))
    }

    /// The ids of all registrations of a realm with this matching policy.
    #[must_use]
    pub fn registrations(&self, realm: &Realm, matching: Matching) -> Vec<RegistrationId> {
        let procedures = self.registrations.realms.get(realm);
        let table = procedures.map(|procedures| procedures.table(matching).values());
        let mut ids: Vec<_> = table.into_iter().flatten().map(|one| one.id).collect();
        ids.sort_unstable();
        ids
    }
}
