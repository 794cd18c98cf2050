//! What is remembered of changes of users, roles and bans, over admin HTTP.
//!
//! Invariant: nothing that anybody logs in with is shown.
//!
//! Deliberately absent: how it is remembered (`realm`).

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use super::users::unknown_here;
use super::Served;
use crate::types::audit::Did;
use crate::types::limits;

/// A change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    pub position: Position,
    /// ISO 8601, in UTC.
    pub time: String,
    /// The user who asked for it; empty if there were no users yet.
    pub author: String,
    /// It was done. Otherwise it changed nothing.
    pub accepted: bool,
    /// All of it was done, or nothing.
    pub did: Vec<Did>,
}

/// Changes in the order of their positions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// From here on, all changes are known.
    pub from: Position,
    pub changes: Vec<ChangeInfo>,
    /// There are changes after the last one.
    pub more: bool,
}

/// A node that remembers changes.
pub trait AuditAdmin: Send + Sync {
    /// Changes after this position, at most `max` of them.
    fn audit(&self, after: Position, max: usize) -> AuditPage;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

pub(super) async fn page(State(served): State<Served>, Query(query): Query<PageQuery>) -> Response {
    let Some(audit) = served.admin.audit() else { return unknown_here() };
    let max = query.limit.unwrap_or(limits::AUDIT_SHOWN).min(limits::AUDIT_SHOWN);
    Json(audit.audit(Position(query.after), max)).into_response()
}
