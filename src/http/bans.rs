//! Bans over admin HTTP: how they are shown and changed.
//!
//! Invariant: a change is done as a whole, or not at all.
//!
//! Deliberately absent: whom a ban keeps out (`realm`, `server`), and how a change gets into the log (`node`).

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use super::users::{read, unknown_here, Author, Changed};
use super::{refusal, Served};
use crate::types::ban::{BanError, BanTarget};
use crate::types::limits;
use crate::types::topic::Realm;

/// A ban, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanInfo {
    pub target: BanTarget,
    pub reason: String,
    /// The user who asked for it; empty if there were no users yet.
    pub author: String,
    /// For how long it will hold; if none, it does until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds_left: Option<u64>,
    /// The position of its last change.
    pub changed: Position,
}

/// Bans in the order of their last changes. Those that were changed together are in one page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanPage {
    pub bans: Vec<BanInfo>,
    /// There are bans after the last one.
    pub more: bool,
}

/// A change of one ban: `{"add": {"target": …}}` or `{"remove": {"target": …}}`. A target is `{"user": NAME}`,
/// `{"client": {"name": NAME, "realm": REALM}}` or `{"address": ADDRESS}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BanEdit {
    Add(NewBan),
    Remove(RemoveBan),
}

/// A new ban, or one that takes the place of another with the same target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBan {
    pub target: BanTarget,
    #[serde(default)]
    pub reason: String,
    /// For how long it holds; if none, it does until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<u64>,
}

/// The end of a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBan {
    pub target: BanTarget,
}

/// Why bans were not changed, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BansError {
    #[error("this node is not an entry, so it can't change bans; ask one that is")]
    NoEntry,
    #[error(transparent)]
    Ban(#[from] BanError),
    #[error("there is no realm {0}")]
    NoSuchRealm(Realm),
    #[error("name 1 to {} changes, each of another ban", limits::BAN_CHANGES)]
    Changes,
    #[error("there is no user {0}; nothing was changed; `vulpes user list` shows all")]
    NoSuchUser(String),
    #[error("there is no ban of {0}; nothing was changed; `vulpes ban list` shows all")]
    NoSuchBan(BanTarget),
    #[error("nobody could administer any more: the last user who can log in with a password and has the role admin can't be banned; nothing was changed")]
    LastAdmin,
    #[error("there can be {} bans; nothing was changed; ban networks instead of addresses, or remove some with `vulpes ban remove`", limits::BANS)]
    TooMany,
    #[error("you may not change bans any more; nothing was changed")]
    NotAllowed,
    #[error("this node has no time for it; nothing was changed; try again")]
    Busy,
    #[error("this node lost its lease; nothing was changed; try again")]
    NotStored,
    #[error("the change was refused at its place in the log; nothing was changed; look at the bans, and try again")]
    Refused,
    #[error(
        "it is not known whether bans were changed; look at them, and try again if they were not"
    )]
    Unknown,
}

/// A node that knows the bans.
pub trait BanAdmin: Send + Sync {
    /// Bans that hold and were changed after this position: as many as belong together beyond `max`.
    fn bans(&self, after: Position, max: usize) -> BanPage;

    /// Changes bans, all of it or nothing, and waits until this node obeys it.
    fn change_bans(
        &self,
        author: Author,
        edits: Vec<BanEdit>,
    ) -> BoxFuture<'_, Result<Changed, BansError>>;
}

impl BansError {
    fn code(&self) -> StatusCode {
        match self {
            Self::Ban(_) | Self::NoSuchRealm(_) | Self::Changes => StatusCode::BAD_REQUEST,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NoSuchUser(_) | Self::NoSuchBan(_) => StatusCode::NOT_FOUND,
            Self::LastAdmin | Self::TooMany | Self::Refused => StatusCode::CONFLICT,
            Self::NoEntry => StatusCode::NOT_IMPLEMENTED,
            Self::Busy | Self::NotStored => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    #[serde(default)]
    after: u64,
    max: Option<usize>,
}

pub(super) async fn page(State(served): State<Served>, Query(query): Query<PageQuery>) -> Response {
    let Some(bans) = served.admin.bans() else { return unknown_here() };
    let max = query.max.unwrap_or(limits::BANS_SHOWN).min(limits::BANS_SHOWN);
    Json(bans.bans(Position(query.after), max)).into_response()
}

pub(super) async fn change(
    State(served): State<Served>,
    Extension(author): Extension<Author>,
    request: Request,
) -> Response {
    let Some(bans) = served.admin.bans() else { return unknown_here() };
    let wanted = "send a list of {\"add\": {\"target\": …}} and {\"remove\": {\"target\": …}}, whose targets are {\"user\": …}, {\"client\": {\"name\": …}} or {\"address\": …}";
    let edits = match read(request, wanted).await {
        Ok(edits) => edits,
        Err(response) => return response,
    };
    match bans.change_bans(author, edits).await {
        Ok(changed) => Json(changed).into_response(),
        Err(error) => refusal(error.code(), error.to_string()),
    }
}
