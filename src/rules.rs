//! Rules at work: what one client may do, decided once for each topic.
//!
//! - [`index`]: the rules of a role as a tree of their patterns' parts.
//! - [`Permissions`]: what a session's client may do, by all its roles.
//!
//! A rule that denies wins over all that allow, and what no rule allows is denied. Wildcards of rules match every topic, also
//! those that begin with `$`.
//!
//! Invariant: a decision depends on the roles, the client and the topic alone. What a session remembers is bounded, and it is
//! forgotten with the rules that it came from.
//!
//! Deliberately absent: who has which role (`realm`), and what is done about a refusal (`gate`).

mod index;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::types::procedure::{Matching, Procedure};
use crate::types::rule::Action;
use crate::types::topic::{Pattern, Realm, Topic};
use crate::types::value::Value;

use index::Found;
pub use index::RoleIndex;

/// Topics that a session remembers decisions for.
const REMEMBERED: usize = 256;

/// Bytes of their texts.
const REMEMBERED_BYTES: usize = 16 << 10;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub realm: Realm,
    pub user: Box<str>,
    /// The client's name, if it has one.
    pub client: Option<Box<str>>,
}

/// What a client may do.
#[derive(Debug, Default)]
pub struct Permissions(Extent);

#[derive(Debug, Default)]
enum Extent {
    #[default]
    Everything,
    Nothing,
    Limited(Box<Limited>),
}

#[derive(Debug)]
struct Limited {
    subject: Subject,
    roles: Vec<(String, Arc<RoleIndex>)>,
    remembered: HashMap<Topic, Decided>,
    remembered_bytes: usize,
}

/// Decisions about one topic.
#[derive(Clone, Copy, Debug, Default)]
struct Decided {
    /// Actions that were decided, as bits.
    known: u8,
    allowed: u8,
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client may do everything.
    Unlimited,
    /// This rule of this role.
    Rule { role: String, rule: String },
    /// No rule is about it.
    NoRule,
}

impl Permissions {
    /// Everything is allowed.
    #[must_use]
    pub fn everything() -> Self {
        Self(Extent::Everything)
    }

    /// Nothing is allowed: the client's session is over.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Extent::Nothing)
    }

    /// What these roles allow.
    #[must_use]
    pub fn of(subject: Subject, roles: Vec<(String, Arc<RoleIndex>)>) -> Self {
        let (remembered, remembered_bytes) = (HashMap::new(), 0);
        Self(Extent::Limited(Box::new(Limited { subject, roles, remembered, remembered_bytes })))
    }

    /// Forgets what was decided: nothing has happened for a while.
    pub fn rest(&mut self) {
        if let Extent::Limited(limited) = &mut self.0 {
            (limited.remembered, limited.remembered_bytes) = (HashMap::new(), 0);
        }
    }

    /// Whether the client may do this on a topic.
    pub fn allow(&mut self, action: Action, topic: &Topic) -> bool {
        let limited = match &mut self.0 {
            Extent::Everything => return true,
            Extent::Nothing => return false,
            Extent::Limited(limited) => limited,
        };
        let bit = 1 << action as u8;
        if let Some(decided) = limited.remembered.get(topic) {
            if decided.known & bit != 0 {
                return decided.allowed & bit != 0;
            }
        }
        let allowed = limited.decide(action, topic).is_allowed();
        limited.remember(topic, bit, allowed);
        allowed
    }

    /// Whether the client may publish to a topic, and have it retain the event.
    pub fn allow_publish(&mut self, topic: &Topic, retain: bool) -> bool {
        self.allow(Action::Publish, topic) && (!retain || self.allow(Action::Retain, topic))
    }

    /// Whether the client may publish to a topic if its value matches something. That tells what the value is, so the client
    /// has to be allowed to see it, unless it only asks whether there is one.
    pub fn allow_condition(&mut self, topic: &Topic, when: Option<&Value>) -> bool {
        when.is_none_or(|when| *when == Value::Null) || self.allow(Action::Subscribe, topic)
    }

    /// Whether a subscription to a pattern may be made: if it may get events of some topic. What it gets is decided topic by
    /// topic.
    pub fn allow_subscription(&mut self, pattern: &Pattern) -> bool {
        if let Pattern::Exact(topic) = pattern {
            return self.allow(Action::Subscribe, topic);
        }
        let limited = match &self.0 {
            Extent::Everything => return true,
            Extent::Nothing => return false,
            Extent::Limited(limited) => limited,
        };
        let asked = (Action::Subscribe, &limited.subject);
        let allows = |index: &RoleIndex| index.meets(asked, pattern, false);
        let denies = |index: &RoleIndex| index.covers(asked, pattern, true);
        limited.any(allows) && !limited.any(denies)
    }

    /// Whether the client may call a procedure.
    pub fn allow_call(&mut self, procedure: &Procedure) -> bool {
        matches!(self.0, Extent::Everything)
            || Topic::from_wamp(procedure.as_str())
                .is_ok_and(|topic| self.allow(Action::Call, &topic))
    }

    /// Whether the client may register a procedure: every one that the registration is for.
    pub fn allow_registration(&mut self, procedure: &Procedure, matching: Matching) -> bool {
        if matches!(self.0, Extent::Everything) {
            return true;
        }
        let pattern = match matching {
            Matching::Exact => Topic::from_wamp(procedure.as_str()).map(Pattern::Exact),
            Matching::Prefix => Pattern::from_wamp_prefix(procedure.as_str()),
            Matching::Wildcard => Pattern::from_wamp_wildcard(procedure.as_str()),
        };
        let Ok(pattern) = pattern else { return false };
        if let Pattern::Exact(topic) = &pattern {
            return self.allow(Action::Register, topic);
        }
        let Extent::Limited(limited) = &self.0 else { return false };
        let asked = (Action::Register, &limited.subject);
        let allows = |index: &RoleIndex| index.covers(asked, &pattern, false);
        let denies = |index: &RoleIndex| index.meets(asked, &pattern, true);
        limited.any(allows) && !limited.any(denies)
    }

    /// Whether the client may do this on a topic, and by which rule.
    #[must_use]
    pub fn explain(&self, action: Action, topic: &Topic) -> (bool, Reason) {
        let limited = match &self.0 {
            Extent::Everything => return (true, Reason::Unlimited),
            Extent::Nothing => return (false, Reason::NoRule),
            Extent::Limited(limited) => limited,
        };
        let found: Vec<_> = limited
            .roles
            .iter()
            .map(|role| (role, role.1.find(action, &limited.subject, topic)))
            .collect();
        let reason = |role: &(String, Arc<RoleIndex>), rule: usize| Reason::Rule {
            role: role.0.clone(),
            rule: role.1.rule(rule).to_string(),
        };
        let denied = found.iter().find_map(|(role, found)| Some(reason(role, found.denied?)));
        if let Some(reason) = denied {
            return (false, reason);
        }
        let allowed = found.iter().find_map(|(role, found)| Some(reason(role, found.allowed?)));
        (allowed.is_some(), allowed.unwrap_or(Reason::NoRule))
    }
}

impl Limited {
    fn any(&self, mut test: impl FnMut(&RoleIndex) -> bool) -> bool {
        self.roles.iter().any(|(_, index)| test(index))
    }

    fn decide(&self, action: Action, topic: &Topic) -> Found {
        let all = self.roles.iter().map(|(_, index)| index.find(action, &self.subject, topic));
        all.fold(Found::default(), Found::or)
    }

    fn remember(&mut self, topic: &Topic, bit: u8, allowed: bool) {
        if let Some(decided) = self.remembered.get_mut(topic) {
            decided.note(bit, allowed);
            return;
        }
        let bytes = topic.as_str().len();
        let is_full =
            self.remembered.len() >= REMEMBERED || self.remembered_bytes + bytes > REMEMBERED_BYTES;
        if is_full {
            self.remembered.clear();
            self.remembered_bytes = 0;
        }
        if bytes <= REMEMBERED_BYTES {
            self.remembered_bytes += bytes;
            self.remembered.entry(topic.clone()).or_default().note(bit, allowed);
        }
    }
}

impl Decided {
    fn note(&mut self, bit: u8, allowed: bool) {
        self.known |= bit;
        if allowed {
            self.allowed |= bit;
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("nothing limits this user"),
            Self::Rule { role, rule } => write!(f, "role {role}: {rule}"),
            Self::NoRule => f.write_str("no rule of its roles allows it"),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
