//! The options on shared state that both protocols have: the limits of their values, and their valid combinations.
//!
//! Invariant: options that pass here are small enough to be kept while a publish waits or a subscription exists.
//!
//! Deliberately absent: how each protocol spells an option, and how it answers a wrong one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::RetainedMode;
use crate::payload::{decode, Malformed, Serializer};
use crate::types::act::Terms;
use crate::types::limits;
use crate::types::topic::Realm;
use crate::types::value::Value;

/// The realms in which every retained publish merges, as configured. A publish carries its own node's decision, so
/// that all nodes come to the same value even if their configurations differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergingRealms(Arc<BTreeSet<Realm>>);

impl MergingRealms {
    /// Whether retained publishes merge in this realm.
    #[must_use]
    pub fn contains(&self, realm: &Realm) -> bool {
        self.0.contains(realm)
    }
}

impl FromIterator<Realm> for MergingRealms {
    fn from_iter<I: IntoIterator<Item = Realm>>(realms: I) -> Self {
        Self(Arc::new(realms.into_iter().collect()))
    }
}

/// What is wrong with an option on shared state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TermsError {
    #[error("the option {option} can't be read: {error}")]
    Malformed { option: &'static str, error: Malformed },
    #[error(
        "the option {0} has {bytes} bytes, {values} values and {depth} levels of nesting at most",
        bytes = limits::CONDITION,
        values = limits::CONDITION_VALUES,
        depth = limits::CONDITION_DEPTH
    )]
    TooLarge(&'static str),
    #[error("the option watch needs when: it says what to wait for")]
    WatchWithoutWhen,
    #[error("the option will needs retain: it replaces a retained value")]
    WillWithoutRetain,
    #[error("the option merge needs retain: it changes a retained value")]
    MergeWithoutRetain,
    #[error("retained and retainedState exclude each other")]
    TwoRetainedModes,
}

/// Reads the value of `when`, `will` or `filter`.
pub(super) fn condition(
    option: &'static str,
    serializer: Serializer,
    raw: &[u8],
) -> Result<Value, TermsError> {
    if raw.len() > limits::CONDITION {
        return Err(TermsError::TooLarge(option));
    }
    let value = decode(serializer, raw).map_err(|error| TermsError::Malformed { option, error })?;
    let mut left = limits::CONDITION_VALUES;
    if !is_within(&value, limits::CONDITION_DEPTH, &mut left) {
        return Err(TermsError::TooLarge(option));
    }
    Ok(value.with_distinct_keys())
}

/// Whether it has no more values than are left, and is nested no deeper than this.
fn is_within(value: &Value, depth: usize, left: &mut usize) -> bool {
    let Some(less) = left.checked_sub(1) else { return false };
    *left = less;
    match value {
        Value::List(items) => depth > 0 && items.iter().all(|i| is_within(i, depth - 1, left)),
        Value::Dict(pairs) => depth > 0 && pairs.iter().all(|(_, v)| is_within(v, depth - 1, left)),
        _ => true,
    }
}

/// Checks that the terms of a publish are a valid combination.
pub(super) fn check(terms: &Terms, retain: bool) -> Result<(), TermsError> {
    if terms.watch && terms.when.is_none() {
        return Err(TermsError::WatchWithoutWhen);
    }
    if terms.will.is_some() && !retain {
        return Err(TermsError::WillWithoutRetain);
    }
    if terms.merge && !retain {
        return Err(TermsError::MergeWithoutRetain);
    }
    Ok(())
}

/// Combines the options `retained` and `retainedState`.
pub(super) fn retained_mode(retained: bool, state: bool) -> Result<RetainedMode, TermsError> {
    match (retained, state) {
        (true, true) => Err(TermsError::TwoRetainedModes),
        (true, false) => Ok(RetainedMode::Changes),
        (false, true) => Ok(RetainedMode::State),
        (false, false) => Ok(RetainedMode::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_limits() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let list = |values: usize| format!("[{}]", vec!["1"; values - 1].join(","));
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        for (build, most) in [
            (&nested as &dyn Fn(usize) -> String, limits::CONDITION_DEPTH),
            (&list, limits::CONDITION_VALUES),
            (&text, limits::CONDITION),
        ] {
            let read = |n| condition("when", Serializer::Json, build(n).as_bytes());
            assert!(read(most).is_ok());
            assert_eq!(read(most + 1), Err(TermsError::TooLarge("when")), "{most}");
        }
        let cut_short = condition("will", Serializer::Json, b"[1");
        assert!(matches!(cut_short, Err(TermsError::Malformed { option: "will", .. })));
    }

    #[test]
    fn a_value_weighs_what_it_holds() {
        let read = |text: &str| condition("when", Serializer::Json, text.as_bytes()).unwrap();
        let node = size_of::<Value>();
        assert_eq!(read("null").held(), node);
        assert_eq!(read("[1,\"abc\"]").held(), 3 * node + 3);
        assert_eq!(read("{\"ab\":[]}").held(), 2 * node + size_of::<String>() + 2);
    }
}
