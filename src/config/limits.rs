//! What the clients of one user, or of one address, may have and do at this node.
//!
//! Invariant: a limit that is not set is none, and costs nothing.
//!
//! Deliberately absent: how the limits are kept (`server::quotas`), and the limits of a node as a whole (`types::limits`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Problem;
use crate::types::access::check_name;

/// The largest limit.
const MOST: u64 = 1_000_000_000_000;

/// What clients that don't log in may write to the log by connecting, unless the file says otherwise.
const USUAL_ANONYMOUS_LOG: u64 = 128 << 10;

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that clients that don't log in may write to the log by connecting, all of them together.
    pub anonymous_log: Option<u64>,
    /// Of all clients of one address together.
    pub address: Quota,
    /// Of the clients of one address that don't log in.
    pub anonymous: Quota,
    /// Of the clients of one user.
    pub user: Quota,
    /// Of the clients of one user with this role, instead.
    pub roles: BTreeMap<String, Quota>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            anonymous_log: Some(USUAL_ANONYMOUS_LOG),
            address: Quota::default(),
            anonymous: Quota::default(),
            user: Quota::default(),
            roles: BTreeMap::new(),
        }
    }
}

impl Limits {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self { anonymous_log: None, ..Self::default() }
    }

    /// What a user with these roles may have: of several roles with limits, the most that one of them gives.
    #[must_use]
    pub fn of_user(&self, roles: &[String]) -> Quota {
        let own = roles.iter().filter_map(|role| self.roles.get(role));
        own.copied().reduce(Quota::or_more).unwrap_or(self.user)
    }
}

/// What the clients that count together may have and do; nothing is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Connections at a time.
    pub connections: Option<u64>,
    pub connects_per_second: Option<u64>,
    pub publishes_per_second: Option<u64>,
    pub bytes_per_second: Option<u64>,
    /// Subscriptions at a time.
    pub subscriptions: Option<u64>,
}

impl Quota {
    fn or_more(self, other: Self) -> Self {
        let more = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
        Self {
            connections: more(self.connections, other.connections),
            connects_per_second: more(self.connects_per_second, other.connects_per_second),
            publishes_per_second: more(self.publishes_per_second, other.publishes_per_second),
            bytes_per_second: more(self.bytes_per_second, other.bytes_per_second),
            subscriptions: more(self.subscriptions, other.subscriptions),
        }
    }

    fn named(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("connections", self.connections),
            ("connects_per_second", self.connects_per_second),
            ("publishes_per_second", self.publishes_per_second),
            ("bytes_per_second", self.bytes_per_second),
            ("subscriptions", self.subscriptions),
        ]
    }

    fn check(&self, table: &str, problems: &mut Vec<Problem>) {
        for (name, value) in self.named() {
            if let Some(value) = value.filter(|value| !(1..=MOST).contains(value)) {
                let name = format!("{table}.{name}");
                problems.push(Problem::LimitRange { name, value, least: 1, most: MOST });
            }
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    anonymous_log_kib_per_second: Option<u64>,
    #[serde(default)]
    address: Quota,
    #[serde(default)]
    anonymous: Quota,
    #[serde(default)]
    user: Quota,
    #[serde(default)]
    role: BTreeMap<String, Quota>,
}

pub(super) fn check(table: LimitsTable, problems: &mut Vec<Problem>) -> Limits {
    let usual = Limits::default();
    let anonymous_log = match table.anonymous_log_kib_per_second {
        None => usual.anonymous_log,
        Some(0) => None,
        Some(kib) => Some(kib.saturating_mul(1 << 10)),
    };
    if let Some(value) = table.anonymous_log_kib_per_second.filter(|kib| *kib > MOST >> 10) {
        let name = "anonymous_log_kib_per_second".into();
        problems.push(Problem::LimitRange { name, value, least: 0, most: MOST >> 10 });
    }
    table.address.check("address", problems);
    table.anonymous.check("anonymous", problems);
    table.user.check("user", problems);
    for (role, quota) in &table.role {
        quota.check(&format!("role.{role}"), problems);
        if check_name(role).is_err() {
            problems.push(Problem::LimitRole(role.clone()));
        }
    }
    let LimitsTable { address, anonymous, user, role: roles, .. } = table;
    Limits { anonymous_log, address, anonymous, user, roles }
}

/// Writes the tables, line by line, as far as they say something. `text` writes a string as TOML has it.
pub(super) fn write(limits: &Limits, text: impl Fn(&str) -> String, line: &mut impl FnMut(String)) {
    let usual = Limits::default();
    if limits.anonymous_log != usual.anonymous_log {
        let kib = limits.anonymous_log.unwrap_or_default() >> 10;
        line(format!("\n[limits]\nanonymous_log_kib_per_second = {kib}"));
    }
    let fixed = [
        ("address".to_owned(), limits.address),
        ("anonymous".into(), limits.anonymous),
        ("user".into(), limits.user),
    ];
    let roles = limits.roles.iter().map(|(role, quota)| (format!("role.{}", text(role)), *quota));
    // A role without limits says something, too.
    for (table, quota) in fixed.into_iter().filter(|(_, q)| *q != Quota::default()).chain(roles) {
        line(format!("\n[limits.{table}]"));
        for (name, value) in quota.named() {
            if let Some(value) = value {
                line(format!("{name} = {value}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_a_role_gives_holds() {
        let quota =
            |connections, subscriptions| Quota { connections, subscriptions, ..Quota::default() };
        let roles = [("a", quota(Some(1), Some(9))), ("b", quota(Some(5), None))];
        let roles = roles.map(|(role, quota)| (role.to_owned(), quota)).into();
        let limits = Limits { user: quota(Some(3), Some(3)), roles, ..Limits::default() };
        let of = |roles: &[&str]| {
            limits.of_user(&roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), quota(Some(3), Some(3)));
        assert_eq!(of(&["other"]), quota(Some(3), Some(3)));
        assert_eq!(of(&["a", "other"]), quota(Some(1), Some(9)));
        assert_eq!(of(&["a", "b"]), quota(Some(5), None), "none is the most");
    }
}
