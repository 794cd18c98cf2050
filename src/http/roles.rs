//! Roles over admin HTTP: how they are shown and changed, and what a user may do.
//!
//! Invariant: rules come and go as people write them. A change is done as a whole, or not at all.
//!
//! Deliberately absent: what rules mean (`rules`), and how a change gets into the log (`node`).

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use vulpes_raft::ids::Position;

use super::users::{read, unknown_here, Author, Changed};
use super::{refusal, Served};
use crate::types::limits;
use crate::types::rule::Action;
use crate::types::topic::{Realm, Topic, TopicError};

/// A role, without its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSummary {
    pub name: String,
    /// How many it has.
    pub rules: usize,
    /// The position of its last change.
    pub changed: Position,
}

/// A role, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleInfo {
    pub name: String,
    /// As people write them.
    pub rules: Vec<String>,
    /// The position of its last change.
    pub changed: Position,
}

/// A change of one role: `{"set": {"name": …, "rules": […]}}` or `{"remove": {"name": …}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleEdit {
    Set(SetRole),
    Remove(RemoveRole),
}

/// All rules that a role has from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    pub name: String,
    pub rules: Vec<String>,
}

/// The end of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRole {
    pub name: String,
}

/// What is asked about a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub user: String,
    pub action: Action,
    pub topic: Topic,
    /// Without one, the default realm.
    pub realm: Option<Realm>,
    /// The client's name.
    pub client: Option<String>,
}

/// Whether a user may do something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub allowed: bool,
    /// For people: the rule that decides, or why there is none.
    pub reason: String,
}

/// Why roles were not changed, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolesError {
    #[error("this node is not an entry, so it can't change roles; ask one that is")]
    NoEntry,
    #[error("{name:?} can't be the name of a role with rules: {reason}")]
    Name { name: String, reason: String },
    #[error("role {role}, rule {number}: {reason}")]
    Rule { role: String, number: usize, reason: String },
    #[error("role {0} has more than {most} rules", most = limits::ROLE_RULES)]
    TooManyRules(String),
    #[error("name 1 to {} changes, each of another role", limits::ROLE_CHANGES)]
    Changes,
    #[error("the rules are {0} bytes, and one change may have {most}; change fewer roles at a time, or use wildcards", most = limits::EVENT)]
    TooLarge(usize),
    #[error("there is no role {0}; nothing was changed")]
    NoSuchRole(String),
    #[error(
        "there can be {} roles with rules of {} bytes all together; nothing was changed",
        limits::ROLES,
        limits::RULES_BYTES
    )]
    TooMany,
    #[error(
        "there are no users yet, who could have roles; add the first one with `vulpes user add`"
    )]
    NoUsers,
    #[error("you may not change roles any more; nothing was changed")]
    NotAllowed,
    #[error("this node has no time for it; nothing was changed; try again")]
    Busy,
    #[error("this node lost its lease; nothing was changed; try again")]
    NotStored,
    #[error("the change was refused at its place in the log; nothing was changed; look at the roles, and try again")]
    Refused,
    #[error(
        "it is not known whether roles were changed; look at them, and try again if they were not"
    )]
    Unknown,
}

/// A node that knows the roles.
pub trait RoleAdmin: Send + Sync {
    /// All roles, in the order of their names.
    fn roles(&self) -> Vec<RoleSummary>;

    /// A role.
    fn role(&self, name: &str) -> Option<RoleInfo>;

    /// Changes roles, all of it or nothing, and waits until this node obeys it.
    fn change_roles(
        &self,
        author: Author,
        edits: Vec<RoleEdit>,
    ) -> BoxFuture<'_, Result<Changed, RolesError>>;

    /// Whether a user may do something; none if there is no such user.
    fn decide(&self, question: &Question) -> Option<Decision>;
}

impl RoleEdit {
    /// The role that it changes.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set(SetRole { name, .. }) | Self::Remove(RemoveRole { name }) => name,
        }
    }
}

impl RolesError {
    fn code(&self) -> StatusCode {
        match self {
            Self::Name { .. } | Self::Rule { .. } | Self::TooManyRules(_) | Self::Changes => {
                StatusCode::BAD_REQUEST
            }
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NoSuchRole(_) => StatusCode::NOT_FOUND,
            Self::TooMany | Self::Refused | Self::NoUsers => StatusCode::CONFLICT,
            Self::NoEntry => StatusCode::NOT_IMPLEMENTED,
            Self::Busy | Self::NotStored => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

pub(super) async fn all(State(served): State<Served>) -> Response {
    let Some(roles) = served.admin.roles() else { return unknown_here() };
    Json(roles.roles()).into_response()
}

pub(super) async fn one(State(served): State<Served>, Path(name): Path<String>) -> Response {
    let Some(roles) = served.admin.roles() else { return unknown_here() };
    match roles.role(&name) {
        Some(role) => Json(role).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no role {name} with rules")),
    }
}

pub(super) async fn change(
    State(served): State<Served>,
    Extension(author): Extension<Author>,
    request: Request,
) -> Response {
    let Some(roles) = served.admin.roles() else { return unknown_here() };
    let edits = match read(request, "send a list of {\"set\": …} and {\"remove\": …}").await {
        Ok(edits) => edits,
        Err(response) => return response,
    };
    match roles.change_roles(author, edits).await {
        Ok(changed) => Json(changed).into_response(),
        Err(error) => refusal(error.code(), error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanQuery {
    user: String,
    action: String,
    topic: String,
    realm: Option<String>,
    client: Option<String>,
}

impl CanQuery {
    fn question(self) -> Result<Question, String> {
        let action = Action::from_word(&self.action).ok_or_else(|| {
            format!(
                "there is no action {:?}; there are publish, retain, subscribe, call and register",
                self.action
            )
        })?;
        let topic = topic(&self.topic);
        let topic = topic.map_err(|error| format!("{:?} can't be a topic: {error}", self.topic))?;
        let realm = self.realm.map(|realm| Realm::new(&realm)).transpose();
        let realm = realm.map_err(|error| error.to_string())?;
        Ok(Question { user: self.user, action, topic, realm, client: self.client })
    }
}

/// A topic in either spelling, as in a rule.
fn topic(text: &str) -> Result<Topic, TopicError> {
    match text.contains('/') {
        true => Topic::from_mqtt(text),
        false => Topic::from_wamp(text),
    }
}

pub(super) async fn can(State(served): State<Served>, Query(query): Query<CanQuery>) -> Response {
    let Some(roles) = served.admin.roles() else { return unknown_here() };
    let question = match query.question() {
        Ok(question) => question,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, reason),
    };
    match roles.decide(&question) {
        Some(decision) => Json(decision).into_response(),
        None => refusal(StatusCode::NOT_FOUND, format!("there is no user {}", question.user)),
    }
}
