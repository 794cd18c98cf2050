//! Rules for the tests of other modules.

use std::sync::Arc;

use super::{Permissions, RoleIndex, Subject};
use crate::types::rule::Role;
use crate::types::topic::Realm;

/// What the client `c` of the user `joe` may do in the realm `r`, who has a role of these rules.
pub(crate) fn permissions(rules: &[&str]) -> Permissions {
    let role = Role { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() };
    let realm = Realm::new("r").unwrap();
    let subject = Subject { realm, user: "joe".into(), client: Some("c".into()) };
    Permissions::of(subject, vec![("role".into(), Arc::new(RoleIndex::new(&role)))])
}
