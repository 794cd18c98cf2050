//! Logins to admin HTTP, and requests to change users.

use super::*;
use crate::types::access::Login;

/// Users of whom `ann` is an administrator, and `joe` is not. Their password is `pencil`.
pub(super) struct FakeUsers;

fn ann() -> UserInfo {
    UserInfo {
        name: "ann".into(),
        roles: vec!["admin".into()],
        disabled: false,
        has_password: true,
        keys: Vec::new(),
        changed: Position(7),
    }
}

impl UserAdmin for FakeUsers {
    fn admit(&self, login: Option<Login>) -> BoxFuture<'_, Result<Author, AccessRefusal>> {
        let right = |login: Login| (login.password.0 == "pencil").then_some(login.user);
        let admitted = match login.map(right) {
            None => Err(AccessRefusal::LoginNeeded),
            Some(None) => Err(AccessRefusal::Wrong),
            Some(Some(user)) if user == "ann" => Ok(Author(user)),
            Some(Some(user)) if user == "busy" => Err(AccessRefusal::Busy),
            Some(Some(_)) => Err(AccessRefusal::NoRole),
        };
        Box::pin(async { admitted })
    }

    fn page(&self, after: Option<&str>, max: usize) -> UserPage {
        let names = (0..1500).map(|number| format!("user {number:04}"));
        let mut left = names.skip_while(|name| after.is_some_and(|after| name.as_str() <= after));
        let users = left.by_ref().take(max).map(|name| UserInfo { name, ..ann() }).collect();
        UserPage { users, more: left.next().is_some() }
    }

    fn user(&self, name: &str) -> Option<UserInfo> {
        (name == "ann" || name == "a/ü").then(|| UserInfo { name: name.into(), ..ann() })
    }

    fn change(
        &self,
        author: Author,
        edits: Vec<UserEdit>,
    ) -> BoxFuture<'_, Result<Changed, UsersError>> {
        let outcome = match edits.first() {
            Some(UserEdit::Add(add)) if author.0 == "ann" => {
                assert_eq!(add.password, Some(PasswordText("s3cret".into())));
                Ok(Changed { position: Position(9) })
            }
            Some(UserEdit::Set(_)) => Err(UsersError::Unknown),
            _ => Err(UsersError::LastAdmin),
        };
        Box::pin(async { outcome })
    }
}

/// One role, which only `ann` can change.
impl RoleAdmin for FakeUsers {
    fn roles(&self) -> Vec<RoleSummary> {
        vec![RoleSummary { name: "app".into(), rules: 1, changed: Position(7) }]
    }

    fn role(&self, name: &str) -> Option<RoleInfo> {
        let rules = vec!["allow all a/#".to_owned()];
        (name == "app").then(|| RoleInfo { name: name.into(), rules, changed: Position(7) })
    }

    fn change_roles(
        &self,
        author: Author,
        edits: Vec<RoleEdit>,
    ) -> BoxFuture<'_, Result<Changed, RolesError>> {
        let outcome = match edits.first() {
            Some(RoleEdit::Set(set)) if author.0 == "ann" && set.name == "app" => {
                Ok(Changed { position: Position(set.rules.len() as u64) })
            }
            Some(RoleEdit::Set(_)) => Err(RolesError::Unknown),
            _ => Err(RolesError::NoSuchRole("app".into())),
        };
        Box::pin(async { outcome })
    }

    fn decide(&self, question: &Question) -> Option<Decision> {
        let reason = format!("{question:?}");
        let allowed = question.topic.as_str() == "a/b";
        (question.user == "ann").then_some(Decision { allowed, reason })
    }
}

pub(super) async fn start_with_users() -> AdminUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let node = FakeNode { ready: true, users: Some(FakeUsers) };
    let text = include_str!("../../../demo/vulpes.example.toml");
    let config = NodeConfig::parse(text, std::path::Path::new("x.toml")).unwrap();
    tokio::spawn(serve(listener, Arc::new(node), Visitors::of(&config)));
    url
}

pub(super) fn client(user: &str, password: &str) -> AdminClient {
    let password = crate::types::access::Secret(password.to_owned().into());
    AdminClient::new(Some(Login { user: user.into(), password }))
}

/// `ann:pencil` and `joe:pencil`, in base64.
pub(super) const ANN: &str = "Authorization: Basic YW5uOnBlbmNpbA==\r\n";
pub(super) const JOE: &str = "Authorization: basic am9lOnBlbmNpbA==\r\n";

#[tokio::test]
async fn only_administrators_get_more_than_probes() {
    let url = start_with_users().await;
    let bearer = "Authorization: Bearer YW5uOnBlbmNpbA==\r\n";
    let garbage = "Authorization: Basic \u{e4}\r\n";
    let no_colon = "Authorization: Basic YW5u\r\n";
    for (path, headers, code) in [
        ("/healthz", "", "200"),
        ("/readyz", "", "200"),
        ("/status", "", "401"),
        ("/log", "", "401"),
        ("/users", "", "401"),
        ("/users/ann", "", "401"),
        ("/roles", "", "401"),
        ("/roles/app", JOE, "403"),
        ("/roles/app", ANN, "200"),
        ("/roles/none", ANN, "404"),
        ("/can?user=ann&action=call&topic=a", JOE, "403"),
        ("/can?user=ann&action=call&topic=a", ANN, "200"),
        ("/can?user=eve&action=call&topic=a", ANN, "404"),
        ("/can?user=ann&action=read&topic=a", ANN, "400"),
        ("/can?user=ann&action=call&topic=a%23", ANN, "400"),
        ("/can?user=ann&action=call", ANN, "400"),
        ("/nonsense", "", "401"),
        ("/healthz/", "", "401"),
        ("//healthz", "", "401"),
        ("/status", bearer, "401"),
        ("/status", garbage, "401"),
        ("/status", no_colon, "401"),
        ("/status", JOE, "403"),
        ("/users", JOE, "403"),
        ("/status", ANN, "200"),
        ("/log", ANN, "200"),
        ("/users/ann", ANN, "200"),
        ("/users/bob", ANN, "404"),
        ("/nonsense", ANN, "404"),
    ] {
        let answer = raw(&url, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n")).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{path} {headers}: {answer}");
        let asks = answer.contains("www-authenticate: Basic realm=\"vulpes\"\r\n");
        assert_eq!(asks, code == "401", "{path} {headers}: {answer}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let url = start_with_users().await;
    for (origin, code) in [
        ("http://localhost:8080", "200"),
        ("http://127.0.0.1", "200"),
        ("https://evil.example", "403"),
        ("null", "403"),
    ] {
        let request = format!("GET /readyz HTTP/1.0\r\nOrigin: {origin}\r\n\r\n");
        let answer = raw(&url, &request).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{origin}: {answer}");
    }
}

#[tokio::test]
async fn changes_are_json_of_limited_size() {
    let url = start_with_users().await;
    let add = r#"[{"add": {"name": "joe", "password": "s3cret"}}]"#;
    let secret = r#"[{"add": {"name": "joe", "password": {"s3cret": 1}}}]"#;
    let long = format!("[{}", " ".repeat(limits::USER_CHANGES_BODY));
    for (kind, body, code) in [
        ("application/json", add, "200"),
        ("Application/JSON; charset=utf-8", add, "200"),
        ("text/plain", add, "415"),
        ("application/x-www-form-urlencoded", add, "415"),
        ("", add, "415"),
        ("application/json", secret, "400"),
        ("application/json", "{}", "400"),
        ("application/json", r#"[{"add": {"name": "joe", "pasword": "s3cret"}}]"#, "400"),
        ("application/json", r#"[{"remove": {"name": "ann"}}]"#, "409"),
        ("application/json", r#"[{"set": {"name": "ann", "disabled": false}}]"#, "504"),
        ("application/json", r#"[{"set": {"name": "ann"}}]"#, "400"),
        ("application/json", r#"[{"set": {"name": "ann", "password": null}}]"#, "400"),
        ("application/json", &long, "413"),
    ] {
        let length = body.len();
        let head = format!(
            "POST /users HTTP/1.0\r\n{ANN}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = raw(&url, &(head + body)).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.split(' ').nth(1), Some(code), "{kind} {shown}: {answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
}

#[tokio::test]
async fn rules_are_larger_than_users() {
    let url = start_with_users().await;
    let rules = |count: usize| {
        let rules = vec!["allow publish a/b/c/d/e/f/g/h/i/j"; count];
        serde_json::json!([{"set": {"name": "app", "rules": rules}}]).to_string()
    };
    let long = format!("[{}", " ".repeat(limits::ROLE_CHANGES_BODY));
    for (body, code) in [
        (rules(1), "200"),
        (rules(limits::ROLE_RULES), "200"),
        (r#"[{"remove": {"name": "app"}}]"#.into(), "404"),
        (r#"[{"set": {"name": "app"}}]"#.into(), "400"),
        (long, "413"),
    ] {
        let length = body.len();
        let kind = "Content-Type: application/json";
        let head =
            format!("POST /roles HTTP/1.0\r\n{ANN}{kind}\r\nContent-Length: {length}\r\n\r\n");
        let answer = raw(&url, &(head + &body)).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{length}: {answer}");
    }
}

#[tokio::test]
async fn the_client_gets_roles_and_changes_them() {
    let url = start_with_users().await;
    let admin = client("ann", "pencil");
    assert_eq!(admin.roles(&url).await.unwrap()[0].name, "app");
    assert_eq!(admin.role(&url, "app").await.unwrap().rules, ["allow all a/#"]);
    let set = |name: &str| SetRole { name: name.into(), rules: vec!["allow all #".into()] };
    let changed = admin.change_roles(&url, &[RoleEdit::Set(set("app"))]).await.unwrap();
    assert_eq!(changed.position, Position(1));
    let error = admin.change_roles(&url, &[RoleEdit::Set(set("other"))]).await.unwrap_err();
    assert!(matches!(error, AdminError::Unknown { .. }), "{error}");
    for (topic, allowed) in [("a/b", true), ("a.b", true), ("a/ü&x", false)] {
        let query = [("user", "ann"), ("action", "call"), ("topic", topic), ("client", "c&1")];
        let decision = admin.can(&url, &query).await.unwrap();
        assert_eq!(decision.allowed, allowed, "{decision:?}");
        assert!(decision.reason.contains("client: Some(\"c&1\")"), "{decision:?}");
    }
}

#[tokio::test]
async fn the_client_gets_users_and_changes_them() {
    let url = start_with_users().await;
    let admin = client("ann", "pencil");
    let users = admin.users(&url).await.unwrap();
    assert_eq!(users.len(), 1500);
    assert_eq!(users[1499].name, "user 1499");
    assert_eq!(admin.user(&url, "a/ü").await.unwrap().name, "a/ü");
    let password = Some(PasswordText("s3cret".into()));
    let add = AddUser { name: "joe".into(), password, ..AddUser::default() };
    assert!(!format!("{add:?}").contains("s3cret"));
    let changed = admin.change_users(&url, &[UserEdit::Add(add)]).await.unwrap();
    assert_eq!(changed.position, Position(9));
    let set = SetUser { name: "joe".into(), disabled: Some(true), ..SetUser::default() };
    let set = UserEdit::Set(set);
    let error = admin.change_users(&url, &[set]).await.unwrap_err();
    assert!(matches!(error, AdminError::Unknown { .. }), "{error}");
    for (name, password) in [("ann", "wrong"), ("", "")] {
        let error = client(name, password).status(&url).await.unwrap_err();
        assert!(matches!(error, AdminError::LoginRefused { .. }), "{error}");
    }
    for (name, expected) in [("joe", 403), ("busy", 503)] {
        let error = client(name, "pencil").status(&url).await.unwrap_err();
        let told = matches!(error, AdminError::Refused { status, .. } if status == expected);
        assert!(told, "{error}");
    }
}
