//! Rules: what users with a role may do, as all nodes know it, and as people write it.
//!
//! ```text
//! allow publish,subscribe sensors/{user}/#
//! deny subscribe secret.* in realm1
//! ```
//!
//! A pattern is written as either protocol spells it: with `/` or `+` it is an MQTT topic filter, otherwise a WAMP topic, in
//! which `*` is any one part and a final `#` the rest. `{user}` and `{client}` stand for the names of who asks.
//!
//! Invariant: persisted and sent; the order of variants and fields never changes. What is read from a text is written as an
//! equal text.
//!
//! Deliberately absent: what rules decide (`rules`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use crate::types::access::{check_name, NameError, ADMIN};
use crate::types::limits;
use crate::types::topic::{Pattern, Realm, RealmError, TopicError};

/// The role of users that have none. As long as nobody has set it, it allows everything.
pub const DEFAULT: &str = "default";

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    Publish,
    /// To publish an event that its topic retains: beside [`Action::Publish`].
    Retain,
    /// Live events, retained values and history.
    Subscribe,
    Call,
    Register,
}

/// One rule of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// It forbids, also what other rules allow.
    pub deny: bool,
    /// Ascending, at least one.
    pub actions: Vec<Action>,
    /// In canonical text, with placeholders.
    pub pattern: String,
    /// It holds in this realm only.
    pub realm: Option<Realm>,
}

/// What users with a role may do: what a rule allows and none denies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub rules: Vec<Rule>,
}

/// A role as of a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRole {
    pub role: Role,
    /// The position of its last change.
    pub changed: Position,
}

/// A change of one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleChange {
    /// Sets a role's rules, whether or not there is one of this name.
    Set { name: String, role: Role },
    /// Removes a role, if there is one.
    Remove { name: String },
}

/// Changes of roles that take effect together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRoles {
    /// The user who asked for them; empty if there were no users yet.
    pub author: String,
    pub changes: Vec<RoleChange>,
}

/// A part of a text in a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    Text(Box<str>),
    User,
    Client,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error(
        "a rule is `allow ACTIONS PATTERN` or `deny ACTIONS PATTERN`, and `in REALM` may follow"
    )]
    Form,
    #[error("there is no action {0:?}; there are publish, retain, subscribe, call and register, and `all`")]
    Action(String),
    #[error("the pattern {pattern:?} can't be one: {error}")]
    Pattern { pattern: String, error: TopicError },
    #[error(
        "a pattern has at most {} bytes and {} parts",
        limits::RULE_PATTERN,
        limits::RULE_PARTS
    )]
    TooLong,
    #[error("{{{0}}} is no placeholder; there are {{user}} and {{client}}")]
    Placeholder(String),
    #[error("{realm:?} can't be a realm: {error}")]
    Realm { realm: String, error: RealmError },
}

impl Action {
    pub const ALL: [Self; 5] =
        [Self::Publish, Self::Retain, Self::Subscribe, Self::Call, Self::Register];

    /// Its name in a rule.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Retain => "retain",
            Self::Subscribe => "subscribe",
            Self::Call => "call",
            Self::Register => "register",
        }
    }

    /// The inverse of [`Action::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (effect, actions, pattern, realm) = match words[..] {
            [effect, actions, pattern] => (effect, actions, pattern, None),
            [effect, actions, pattern, "in", realm] => (effect, actions, pattern, Some(realm)),
            _ => return Err(RuleError::Form),
        };
        let deny = match effect {
            "allow" => false,
            "deny" => true,
            _ => return Err(RuleError::Form),
        };
        let realm = realm.map(|realm| {
            Realm::new(realm).map_err(|error| RuleError::Realm { realm: realm.to_owned(), error })
        });
        Ok(Self {
            deny,
            actions: read_actions(actions)?,
            pattern: read_pattern(pattern)?,
            realm: realm.transpose()?,
        })
    }
}

fn read_actions(text: &str) -> Result<Vec<Action>, RuleError> {
    if text == "all" {
        return Ok(Action::ALL.to_vec());
    }
    let read = |word| Action::from_word(word).ok_or_else(|| RuleError::Action(word.to_owned()));
    let mut actions = text.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
    actions.sort_unstable();
    actions.dedup();
    Ok(actions)
}

/// The canonical text of a pattern in either spelling.
fn read_pattern(text: &str) -> Result<String, RuleError> {
    let pattern = match text {
        mqtt if mqtt.contains(['/', '+']) => Pattern::from_mqtt(mqtt),
        wamp if wamp.split('.').any(str::is_empty) => Pattern::from_wamp_wildcard(wamp),
        wamp => Pattern::from_wamp(wamp),
    };
    let pattern =
        pattern.map_err(|error| RuleError::Pattern { pattern: text.to_owned(), error })?;
    let canonical = match pattern {
        Pattern::Exact(topic) => topic.as_str().to_owned(),
        Pattern::Parts(parts) => parts.as_str().to_owned(),
        Pattern::Prefix(_) => return Err(RuleError::Form),
    };
    if canonical.len() > limits::RULE_PATTERN || canonical.split('/').count() > limits::RULE_PARTS {
        return Err(RuleError::TooLong);
    }
    canonical.split('/').try_for_each(|part| pieces(part).map(drop))?;
    Ok(canonical)
}

/// A part of a pattern, with its placeholders.
///
/// # Errors
/// If it has one that there is not.
pub fn pieces(part: &str) -> Result<Vec<Piece>, RuleError> {
    let mut found = Vec::new();
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, behind)) = after.split_once('}') else { break };
        if !before.is_empty() {
            found.push(Piece::Text(before.into()));
        }
        found.push(match name {
            "user" => Piece::User,
            "client" => Piece::Client,
            other => return Err(RuleError::Placeholder(other.to_owned())),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest.into()));
    }
    Ok(found)
}

impl fmt::Display for Rule {
    /// As it can be read again: the pattern as MQTT spells it, unless only WAMP's spelling is read so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.deny { "deny " } else { "allow " })?;
        match self.actions.len() == Action::ALL.len() {
            true => f.write_str("all")?,
            false => {
                let words: Vec<&str> = self.actions.iter().map(|action| action.word()).collect();
                f.write_str(&words.join(","))?;
            }
        }
        write!(f, " {}", spelled(&self.pattern))?;
        match &self.realm {
            Some(realm) => write!(f, " in {realm}"),
            None => Ok(()),
        }
    }
}

/// A pattern of one part has no `/`, so it is read as WAMP spells it.
fn spelled(canonical: &str) -> String {
    if canonical.contains(['/', '+']) {
        return canonical.to_owned();
    }
    match Pattern::from_mqtt(canonical) {
        Ok(Pattern::Exact(topic)) => topic.to_wamp().into_owned(),
        _ => canonical.to_owned(),
    }
}

impl Rule {
    /// Whether this release and all others read it alike.
    #[must_use]
    pub fn fits(&self) -> bool {
        let ascends = self.actions.windows(2).all(|pair| pair[0] < pair[1]);
        let parts = self.pattern.split('/').count();
        !self.actions.is_empty()
            && ascends
            && self.pattern.len() <= limits::RULE_PATTERN
            && parts <= limits::RULE_PARTS
            && Pattern::from_mqtt(&self.pattern).is_ok()
            && self.pattern.split('/').all(|part| pieces(part).is_ok())
    }
}

impl Role {
    /// Whether it is as small as all nodes expect of it.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.rules.len() <= limits::ROLE_RULES && self.rules.iter().all(Rule::fits)
    }

    /// Bytes that it counts among those of all roles.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = |rule: &Rule| {
            let parts = rule.pattern.split('/').count();
            limits::RULE_OVERHEAD + rule.pattern.len() + parts * limits::RULE_PART
        };
        self.rules.iter().map(size).sum()
    }
}

/// Checks the name of a role that is to be set.
///
/// # Errors
/// If it can't be one. The role `admin` has no rules: it allows everything.
pub fn check_role_name(name: &str) -> Result<(), RoleNameError> {
    if name == ADMIN {
        return Err(RoleNameError::Admin);
    }
    Ok(check_name(name)?)
}

/// Why a name can't be that of a role with rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleNameError {
    #[error("the role {ADMIN} allows everything, and can't be set or removed")]
    Admin,
    #[error(transparent)]
    Name(#[from] NameError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_in_either_spelling_and_written_as_they_are_read() {
        for (text, written) in [
            ("allow publish a/b", "allow publish a/b"),
            ("allow publish a.b", "allow publish a/b"),
            (
                "allow  subscribe,publish   a.*.#  in realm1",
                "allow publish,subscribe a/+/# in realm1",
            ),
            ("deny all #", "deny all #"),
            ("deny all *", "deny all +"),
            ("allow call a..c", "allow call a/+/c"),
            ("allow publish,publish {user}", "allow publish {user}"),
            ("allow publish dev/x-{client}/{user}", "allow publish dev/x-{client}/{user}"),
            ("allow publish a%2Eb", "allow publish a%2Eb"),
            ("allow publish a.b/c", "allow publish a.b/c"),
            ("allow publish a{/b}", "allow publish a{/b}"),
            ("allow publish,retain,subscribe,call,register a", "allow all a"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(rule.clone()), "{text}");
            assert!(rule.fits(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        let long = "x/".repeat(limits::RULE_PARTS);
        for (text, expected) in [
            ("", "a rule is"),
            ("allow publish", "a rule is"),
            ("permit publish a", "a rule is"),
            ("allow publish a on r", "a rule is"),
            ("allow write a", "there is no action \"write\""),
            ("allow publish, a", "there is no action \"\""),
            ("allow publish a/#/b", "a wildcard must be alone"),
            ("allow publish a/{name}", "{name} is no placeholder"),
            (&format!("allow publish {long}"), "at most"),
            (&format!("allow publish {}", "x".repeat(limits::RULE_PATTERN + 1)), "at most"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("allow publish x".parse::<Rule>().is_ok());
        let fitting =
            Rule { pattern: "x".repeat(limits::RULE_PATTERN), .."allow call x".parse().unwrap() };
        assert!(fitting.fits());
        for unfit in [
            Rule { actions: Vec::new(), ..fitting.clone() },
            Rule { actions: vec![Action::Call, Action::Publish], ..fitting.clone() },
            Rule { pattern: "{x}".into(), ..fitting.clone() },
            Rule { pattern: "a/#/b".into(), ..fitting.clone() },
            Rule { pattern: "x".repeat(limits::RULE_PATTERN + 1), ..fitting },
        ] {
            assert!(!unfit.fits(), "{unfit:?}");
        }
    }

    #[test]
    fn golden_bytes() {
        let rule: Rule = "deny publish,register a/+ in r".parse().unwrap();
        let bytes = vulpes_raft::net::wire::encode(&rule);
        assert_eq!(bytes, [1, 2, 0, 4, 3, b'a', b'/', b'+', 1, 1, b'r']);
    }

    #[test]
    fn the_admin_role_has_no_rules() {
        assert_eq!(check_role_name(ADMIN), Err(RoleNameError::Admin));
        assert_eq!(check_role_name("a/b"), Err(RoleNameError::Name(NameError::Character)));
        assert_eq!(check_role_name(DEFAULT), Ok(()));
    }
}
