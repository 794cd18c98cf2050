//! Admin HTTP: whether the node is alive and ready, its status, its log, and the cluster's users.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 as long as the process runs |
//! | `/readyz` | 200 once clients can be served, else 503 with the reason |
//! | `/status` | [`NodeStatus`] |
//! | `/log?from=SLOT&max=N` | [`LogPage`] |
//! | `/users?after=NAME&max=N` | [`UserPage`] |
//! | `/users/NAME` | [`UserInfo`] |
//! | POST to `/users`: a list of [`UserEdit`] | [`Changed`], once this node obeys all of it |
//! | `/roles` | a list of [`RoleSummary`] |
//! | `/roles/NAME` | [`RoleInfo`] |
//! | POST to `/roles`: a list of [`RoleEdit`] | [`Changed`], once this node obeys all of it |
//! | `/bans?after=POSITION&max=N` | [`BanPage`] |
//! | POST to `/bans`: a list of [`BanEdit`] | [`Changed`], once this node obeys all of it |
//! | `/audit?after=POSITION&limit=N` | [`AuditPage`] |
//! | `/can?user=NAME&action=A&topic=T&realm=R&client=C` | [`Decision`] |
//!
//! Web pages of other sites get nothing (`web`). Where the cluster has users, everything but the probes needs one with the role `admin` (`users`).
//!
//! Invariant: nothing but users, roles and bans is changed here, callers can't use more than [`CONNECTIONS`], [`CONNECTION_TIME`] and
//! [`LOG_READS`] allow, and a probe gets its answer whatever others request or hold open.
//!
//! Deliberately absent: what operators may do besides.

use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use vulpes_raft::ids::Slot;

use crate::tls::certificates::Acceptor;

mod audit;
mod bans;
mod bounded;
mod log;
mod roles;
mod status;
mod users;
mod web;

use crate::types::limits;

pub use audit::{AuditAdmin, AuditPage, ChangeInfo};
pub use bans::{BanAdmin, BanEdit, BanInfo, BanPage, BansError, NewBan, RemoveBan};
pub use bounded::{CONNECTIONS, CONNECTION_TIME, IDLE_TIME};
pub use log::{Body, Checksum, LogPage, LogRow, LogStep};
pub use roles::{
    Decision, Question, RemoveRole, RoleAdmin, RoleEdit, RoleInfo, RoleSummary, RolesError, SetRole,
};
pub use status::{
    Addresses, EntryStatus, ListenerStatus, MemberStatus, NodeStatus, ReplicaStatus, StateStatus,
    StorageStatus, SyncState, SyncStatus,
};
pub use users::{
    AccessRefusal, AddUser, Author, Changed, PasswordText, RemoveUser, SetUser, UserAdmin,
    UserEdit, UserInfo, UserPage, UsersError,
};
pub use web::Visitors;

/// Most rows in one answer to `/log`. For each the node reads a body.
pub const LOG_ROWS: usize = 256;

/// Concurrent answers to `/log`; further ones wait.
pub const LOG_READS: usize = 4;

/// Whether a node can serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// The reason if not, for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// The node can serve.
    #[must_use]
    pub fn ready() -> Self {
        Self { ready: true, reason: None }
    }

    /// The node can't serve yet, or no longer.
    #[must_use]
    pub fn not_yet(reason: impl Into<String>) -> Self {
        Self { ready: false, reason: Some(reason.into()) }
    }
}

/// Why a part of the log was not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogReadError {
    /// The node has neither the storage nor the entry role.
    #[error("this node keeps no log; ask a storage or an entry")]
    NoLog,
    #[error("the log is kept only from slot {oldest} on")]
    TooOld { oldest: Slot },
    #[error("the log can't be read right now: {0}")]
    Unavailable(String),
}

/// What a node shows to its operators.
pub trait Admin: Send + Sync + 'static {
    /// Whether clients can be served right now.
    fn ready(&self) -> BoxFuture<'_, Readiness>;

    /// The node's status.
    fn status(&self) -> BoxFuture<'_, NodeStatus>;

    /// At most `max` rows from slot `from` on; 0 stands for the oldest retained slot. The checksums of the bodies are computed
    /// from what is read on this node at that moment.
    fn log(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>>;

    /// The users; `None` if this node does not know them, because it is starting, or neither an entry nor a storage.
    fn users(&self) -> Option<&dyn UserAdmin>;

    /// The roles; `None` where the users are not known.
    fn roles(&self) -> Option<&dyn RoleAdmin>;

    /// The bans; `None` where the users are not known.
    fn bans(&self) -> Option<&dyn BanAdmin>;

    /// What is remembered of changes; `None` where the users are not known.
    fn audit(&self) -> Option<&dyn AuditAdmin>;
}

/// Why a request failed: the body of such a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub error: String,
}

/// Serves until the listener fails or the future is dropped.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    admin: Arc<dyn Admin>,
    visitors: Visitors,
) -> std::io::Result<()> {
    serve_with(listener, None, admin, visitors).await
}

/// As [`serve`], with TLS if there are certificates.
///
/// # Errors
/// Those of the listener.
pub async fn serve_with(
    listener: TcpListener,
    tls: Option<Acceptor>,
    admin: Arc<dyn Admin>,
    visitors: Visitors,
) -> std::io::Result<()> {
    let encrypted = tls.is_some();
    let listener = bounded::BoundedListener::new(listener, tls);
    let router =
        router(admin, visitors, encrypted).into_make_service_with_connect_info::<bounded::Place>();
    axum::serve(listener, router).await
}

#[derive(Clone)]
struct Served {
    admin: Arc<dyn Admin>,
    log_reads: Arc<Semaphore>,
    visitors: Arc<Visitors>,
    encrypted: bool,
}

fn router(admin: Arc<dyn Admin>, visitors: Visitors, encrypted: bool) -> Router {
    let log_reads = Arc::new(Semaphore::new(LOG_READS));
    let served = Served { admin, log_reads, visitors: Arc::new(visitors), encrypted };
    let changed_roles = post(roles::change).layer(DefaultBodyLimit::max(limits::ROLE_CHANGES_BODY));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/log", get(log_page))
        .route("/users", get(users::page).post(users::change))
        .route("/users/{name}", get(users::one))
        .route("/roles", get(roles::all).merge(changed_roles))
        .route("/roles/{name}", get(roles::one))
        .route("/can", get(roles::can))
        .route("/bans", get(bans::page).post(bans::change))
        .route("/audit", get(audit::page))
        .fallback(|| async {
            let there_are = "there are /healthz, /readyz, /status, /log, /users, /roles, /can, /bans and /audit";
            refusal(StatusCode::NOT_FOUND, there_are.into())
        })
        .layer(DefaultBodyLimit::max(limits::USER_CHANGES_BODY))
        .layer(middleware::from_fn_with_state(served.clone(), users::guard))
        .layer(middleware::from_fn_with_state(served.clone(), web::guard))
        .layer(middleware::from_fn(answered))
        .with_state(served)
}

/// Informs the listener that this connection's request is complete, and later that it is answered.
async fn answered(
    ConnectInfo(place): ConnectInfo<bounded::Place>,
    request: Request,
    next: Next,
) -> Response {
    let _answering = place.answering();
    next.run(request).await
}

async fn ready(State(Served { admin, .. }): State<Served>) -> Response {
    let readiness = admin.ready().await;
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

async fn status(State(Served { admin, .. }): State<Served>) -> Json<NodeStatus> {
    Json(admin.status().await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    from: u64,
    max: Option<usize>,
}

async fn log_page(State(served): State<Served>, Query(query): Query<LogQuery>) -> Response {
    // The semaphore is never closed.
    let _reading = served.log_reads.acquire().await;
    let max = query.max.unwrap_or(LOG_ROWS).min(LOG_ROWS);
    let error = match served.admin.log(Slot(query.from), max).await {
        Ok(page) => return Json(page).into_response(),
        Err(error) => error,
    };
    let code = match error {
        LogReadError::NoLog => StatusCode::NOT_FOUND,
        LogReadError::TooOld { .. } => StatusCode::GONE,
        LogReadError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    refusal(code, error.to_string())
}

fn refusal(code: StatusCode, error: String) -> Response {
    (code, Json(Refusal { error })).into_response()
}

#[cfg(test)]
mod tests;
