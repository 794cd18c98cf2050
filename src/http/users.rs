//! Users over admin HTTP: who may use it, and how they are shown and changed.
//!
//! Invariant: where there are users, nothing but the probes is answered without the password of one that has the role
//! [`ADMIN`]. Passwords only come in: no answer has one, nor what it is verified with.
//!
//! Deliberately absent: how passwords are checked, and what a change does (`node`).

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::prelude::{Engine, BASE64_STANDARD};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use super::{refusal, Served, IDLE_TIME};
use crate::types::access::{Login, NameError, Secret, ADMIN};
use crate::types::limits;

/// Answered without a login: a load balancer has none.
pub(super) const OPEN: [&str; 2] = ["/healthz", "/readyz"];

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"vulpes\"");

const NO_USERS_HERE: &str =
    "this node does not know the users; ask an entry or a storage, once it has started";

/// A user, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    pub name: String,
    pub roles: Vec<String>,
    /// It may not connect.
    pub disabled: bool,
    /// Without one, only clients that don't log in can be this user, and only if it is `anonymous`.
    pub has_password: bool,
    /// Its public keys for `cryptosign`, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The position of its last change.
    pub changed: Position,
}

/// Users in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPage {
    pub users: Vec<UserInfo>,
    /// There are users after the last one.
    pub more: bool,
}

/// A change of one user: `{"add": …}`, `{"set": …}` or `{"remove": {"name": …}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserEdit {
    Add(AddUser),
    Set(SetUser),
    Remove(RemoveUser),
}

/// A new user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordText>,
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub disabled: bool,
}

/// What changes of a user; all else stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetUser {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Public keys that it gets and loses, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_keys: Vec<String>,
}

/// The end of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveUser {
    pub name: String,
}

/// A password in clear, on its way to the node that hashes it. It is printed nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordText(pub String);

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText")
    }
}

/// The changes are in the log, and this node obeys them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// From here on they hold, at all nodes.
    pub position: Position,
}

/// The user who makes a request; empty as long as there are no users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(pub String);

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    #[error("this cluster has users: log in as one with the role {ADMIN}")]
    LoginNeeded,
    #[error("unknown user, or wrong password")]
    Wrong,
    #[error("only users with the role {ADMIN} may use admin HTTP")]
    NoRole,
    #[error("you are banned")]
    Banned,
    #[error("too many logins are being checked; try again")]
    Busy,
    #[error("the first administrator is not in the log yet; start a majority of the nodes, and try again")]
    NotYet,
}

/// Why users were not changed, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    #[error("this node is not an entry, so it can't change users; ask one that is")]
    NoEntry,
    #[error("{name:?} can't be the name of a user or a role: {reason}")]
    Name { name: String, reason: String },
    #[error("the password of {name} can't be one: {reason}")]
    Password { name: String, reason: String },
    #[error("a newer release has changed this user; ask a node of that release")]
    Newer,
    #[error("{0:?} is not a public key: give the 64 hexadecimal digits of an Ed25519 key")]
    Key(String),
    #[error("{name} has the key {key} already; nothing was changed")]
    HasKey { name: String, key: String },
    #[error("{name} does not have the key {key}; nothing was changed")]
    NoSuchKey { name: String, key: String },
    #[error("{name} has more than {} keys", limits::USER_KEYS)]
    TooManyKeys { name: String },
    #[error("{name} has more than {} roles", limits::USER_ROLES)]
    TooManyRoles { name: String },
    #[error("name 1 to {} changes, each of another user", limits::USER_CHANGES)]
    Changes,
    #[error("it is not said what changes of {0}: name a password, roles, disabled or keys; null is none of them")]
    NoChange(String),
    #[error("there is a user {0} already; nothing was changed")]
    Exists(String),
    #[error("there is no user {0}; nothing was changed")]
    NoSuchUser(String),
    #[error("{0} was changed by somebody else meanwhile; nothing was changed; look at it, and try again")]
    ChangedMeanwhile(String),
    #[error("the first users need one with the role {ADMIN} and a password, who can add others; nothing was changed")]
    NoAdmin,
    #[error("the last user who can log in with a password and has the role {ADMIN} can't be removed, disabled, or lose it; nothing was changed")]
    LastAdmin,
    #[error("there can be {} users; nothing was changed", limits::USERS)]
    TooManyUsers,
    #[error("you may not change users any more; nothing was changed")]
    NotAllowed,
    #[error(
        "somebody else added the first users meanwhile; nothing was changed; log in as one of them"
    )]
    NotFirst,
    #[error("this node has no time for it; nothing was changed; try again")]
    Busy,
    #[error("this node lost its lease; nothing was changed; try again")]
    NotStored,
    /// It may still come into the log, or was followed by other changes before it was looked at.
    /// The reason is over by now.
    #[error("the change was refused at its place in the log; nothing was changed; look at the users, and try again")]
    Refused,
    #[error(
        "it is not known whether users were changed; look at them, and try again if they were not"
    )]
    Unknown,
}

/// A node that knows the users.
pub trait UserAdmin: Send + Sync {
    /// Who makes a request with this login, if it may be made.
    fn admit(&self, login: Option<Login>) -> BoxFuture<'_, Result<Author, AccessRefusal>>;

    /// The users after this name, at most `max` of them.
    fn page(&self, after: Option<&str>, max: usize) -> UserPage;

    /// A user.
    fn user(&self, name: &str) -> Option<UserInfo>;

    /// Changes users, all of it or nothing, and waits until this node obeys it.
    fn change(
        &self,
        author: Author,
        edits: Vec<UserEdit>,
    ) -> BoxFuture<'_, Result<Changed, UsersError>>;
}

impl UserEdit {
    /// The user that it changes.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Add(AddUser { name, .. })
            | Self::Set(SetUser { name, .. })
            | Self::Remove(RemoveUser { name }) => name,
        }
    }
}

impl SetUser {
    /// Whether it changes nothing.
    fn is_empty(&self) -> bool {
        let keys = self.add_keys.len() + self.remove_keys.len();
        self.password.is_none() && self.roles.is_none() && self.disabled.is_none() && keys == 0
    }
}

impl UsersError {
    /// A name that can't be one.
    #[must_use]
    pub fn bad_name(name: &str, error: NameError) -> Self {
        Self::Name { name: name.to_owned(), reason: error.to_string() }
    }

    fn code(&self) -> StatusCode {
        match self {
            Self::Name { .. } | Self::Password { .. } => StatusCode::BAD_REQUEST,
            Self::TooManyRoles { .. } | Self::Changes | Self::NoChange(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Key(_) | Self::TooManyKeys { .. } => StatusCode::BAD_REQUEST,
            Self::HasKey { .. } | Self::Newer => StatusCode::CONFLICT,
            Self::NoSuchKey { .. } => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NoSuchUser(_) => StatusCode::NOT_FOUND,
            Self::Exists(_) | Self::ChangedMeanwhile(_) => StatusCode::CONFLICT,
            Self::NotFirst | Self::Refused => StatusCode::CONFLICT,
            Self::NoAdmin | Self::LastAdmin | Self::TooManyUsers => StatusCode::CONFLICT,
            Self::NoEntry => StatusCode::NOT_IMPLEMENTED,
            Self::Busy | Self::NotStored => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Lets a request through if its sender may make it.
pub(super) async fn guard(
    State(served): State<Served>,
    mut request: Request,
    next: Next,
) -> Response {
    if !OPEN.contains(&request.uri().path()) {
        let admitted = match served.admin.users() {
            Some(users) => users.admit(login(request.headers())).await,
            None => Ok(Author(String::new())),
        };
        match admitted {
            Ok(author) => request.extensions_mut().insert(author),
            Err(refused) => return denied(refused),
        };
    }
    next.run(request).await
}

/// The user and password of HTTP basic authentication (RFC 7617).
fn login(headers: &HeaderMap) -> Option<Login> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some(Login { user: String::from_utf8(user).ok()?, password: Secret(password.into()) })
}

fn denied(refused: AccessRefusal) -> Response {
    let (code, header) = match refused {
        AccessRefusal::LoginNeeded | AccessRefusal::Wrong => {
            (StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, CHALLENGE)))
        }
        AccessRefusal::NoRole | AccessRefusal::Banned => (StatusCode::FORBIDDEN, None),
        AccessRefusal::Busy | AccessRefusal::NotYet => {
            let soon = HeaderValue::from_static("1");
            (StatusCode::SERVICE_UNAVAILABLE, Some((RETRY_AFTER, soon)))
        }
    };
    let mut response = refusal(code, refused.to_string());
    response.headers_mut().extend(header);
    response
}

pub(super) fn unknown_here() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, NO_USERS_HERE.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<String>,
    max: Option<usize>,
}

pub(super) async fn page(State(served): State<Served>, Query(query): Query<PageQuery>) -> Response {
    let Some(users) = served.admin.users() else { return unknown_here() };
    let max = query.max.unwrap_or(limits::USERS_SHOWN).min(limits::USERS_SHOWN);
    Json(users.page(query.after.as_deref(), max)).into_response()
}

pub(super) async fn one(State(served): State<Served>, Path(name): Path<String>) -> Response {
    let Some(users) = served.admin.users() else { return unknown_here() };
    match users.user(&name) {
        Some(user) => Json(user).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no user {name}")),
    }
}

pub(super) async fn change(
    State(served): State<Served>,
    Extension(author): Extension<Author>,
    request: Request,
) -> Response {
    let Some(users) = served.admin.users() else { return unknown_here() };
    let wanted = "send a list of {\"add\": …}, {\"set\": …} and {\"remove\": …}";
    let edits: Vec<UserEdit> = match read(request, wanted).await {
        Ok(edits) => edits,
        Err(response) => return response,
    };
    let idle = edits.iter().find_map(|edit| match edit {
        UserEdit::Set(set) if set.is_empty() => Some(UsersError::NoChange(set.name.clone())),
        _ => None,
    });
    let changed = match idle {
        Some(error) => Err(error),
        None => users.change(author, edits).await,
    };
    match changed {
        Ok(changed) => Json(changed).into_response(),
        Err(error) => refusal(error.code(), error.to_string()),
    }
}

/// Time limit for the body of a request.
const BODY_TIME: Duration = IDLE_TIME;

/// The changes in a request, which has to come in time.
pub(super) async fn read<T: DeserializeOwned>(
    request: Request,
    wanted: &str,
) -> Result<T, Response> {
    match tokio::time::timeout(BODY_TIME, read_body(request, wanted)).await {
        Ok(read) => read,
        Err(_) => {
            let late = format!("the body did not come within {BODY_TIME:?}");
            Err(refusal(StatusCode::REQUEST_TIMEOUT, late))
        }
    }
}

/// A page can send JSON to another site only if that site allows it, and this one does not.
async fn read_body<T: DeserializeOwned>(request: Request, wanted: &str) -> Result<T, Response> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let as_json = "send the changes as application/json";
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, as_json.into()));
    }
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error: BytesRejection| refusal(error.status(), error.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| {
        // The error may show a part of a password.
        let (line, column) = (error.line(), error.column());
        let text = format!("{wanted}; it is not one at line {line}, column {column}");
        refusal(StatusCode::BAD_REQUEST, text)
    })
}
