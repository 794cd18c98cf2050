//! Bans, and what is remembered of changes.

use super::users::{client, start_with_users, FakeUsers, ANN, JOE};
use super::*;
use crate::types::audit::Did;
use crate::types::ban::BanTarget;

fn address(number: u64) -> BanTarget {
    BanTarget::Address(format!("10.0.{}.{}", number / 256, number % 256).parse().unwrap())
}

fn change(position: u64) -> ChangeInfo {
    let (time, author) = ("2026-12-01T00:00:00.000Z".to_owned(), "ann".to_owned());
    let did = vec![Did::RemoveBan { target: address(position) }];
    ChangeInfo { position: Position(position), time, author, accepted: true, did }
}

/// Bans from position 1 to 1500, of which only `ann` can remove that of 10.0.0.1.
impl BanAdmin for FakeUsers {
    fn bans(&self, after: Position, max: usize) -> BanPage {
        let info = |number| BanInfo {
            target: address(number),
            reason: "floods".into(),
            author: "ann".into(),
            milliseconds_left: (number == 1).then_some(7),
            changed: Position(number),
        };
        let mut left = after.0 + 1..=1500;
        BanPage { bans: left.by_ref().take(max).map(info).collect(), more: !left.is_empty() }
    }

    fn change_bans(
        &self,
        author: Author,
        edits: Vec<BanEdit>,
    ) -> BoxFuture<'_, Result<Changed, BansError>> {
        let outcome = match edits.as_slice() {
            [BanEdit::Remove(RemoveBan { target })] if *target == address(1) => {
                assert_eq!(author.0, "ann");
                Ok(Changed { position: Position(9) })
            }
            [BanEdit::Remove(RemoveBan { target })] => Err(BansError::NoSuchBan(target.clone())),
            [BanEdit::Add(NewBan { milliseconds: Some(7), .. })] => Err(BansError::Unknown),
            _ => Err(BansError::LastAdmin),
        };
        Box::pin(async { outcome })
    }
}

/// Changes from position 3 to 1500.
impl AuditAdmin for FakeUsers {
    fn audit(&self, after: Position, max: usize) -> AuditPage {
        let mut left = (after.0 + 1).max(3)..=1500;
        let changes = left.by_ref().take(max).map(change).collect();
        AuditPage { from: Position(3), changes, more: !left.is_empty() }
    }
}

#[tokio::test]
async fn only_administrators_see_them() {
    let url = start_with_users().await;
    for (path, headers, code) in [
        ("/bans", "", "401"),
        ("/bans", JOE, "403"),
        ("/bans", ANN, "200"),
        ("/bans?after=x", ANN, "400"),
        ("/audit", "", "401"),
        ("/audit", JOE, "403"),
        ("/audit?after=7&limit=2", ANN, "200"),
        ("/audit?max=2", ANN, "400"),
    ] {
        let answer = raw(&url, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n")).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{path} {headers}: {answer}");
    }
}

#[tokio::test]
async fn bans_are_changed_by_json() {
    let url = start_with_users().await;
    for (body, code) in [
        (r#"[{"remove": {"target": {"address": "10.0.0.1"}}}]"#, "200"),
        (r#"[{"remove": {"target": {"address": "::ffff:10.0.0.1/128"}}}]"#, "200"),
        (r#"[{"remove": {"target": {"client": {"name": "c"}}}}]"#, "404"),
        (r#"[{"add": {"target": {"client": {"name": "c", "realm": "r"}}}}]"#, "409"),
        (r#"[{"add": {"target": {"user": "joe"}, "milliseconds": 7}}]"#, "504"),
        (r#"[{"add": {"target": {"user": "joe"}, "seconds": 7}}]"#, "400"),
        (r#"[{"add": {"target": {"client": {"name": "c", "relam": "r"}}}}]"#, "400"),
        (r#"[{"add": {"target": {"address": "10.0.0"}}}]"#, "400"),
        (r#"[{"add": {"user": "joe"}}]"#, "400"),
    ] {
        let (length, kind) = (body.len(), "Content-Type: application/json");
        let head =
            format!("POST /bans HTTP/1.0\r\n{ANN}{kind}\r\nContent-Length: {length}\r\n\r\n");
        let answer = raw(&url, &(head + body)).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{body}: {answer}");
    }
}

#[tokio::test]
async fn the_client_gets_all_pages() {
    let url = start_with_users().await;
    let admin = client("ann", "pencil");
    let bans = admin.bans(&url).await.unwrap();
    assert_eq!((bans.len(), bans[0].milliseconds_left), (1500, Some(7)));
    assert_eq!(bans[1499].target, address(1500));
    let audit = |after, limit| admin.audit(&url, Position(after), limit);
    let (from, changes) = audit(0, usize::MAX).await.unwrap();
    assert_eq!((from, changes.len(), &changes[0]), (Position(3), 1498, &change(3)));
    let (_, changes) = audit(100, 600).await.unwrap();
    assert_eq!((changes.len(), &changes[599]), (600, &change(700)));
    assert_eq!(audit(1500, 1).await.unwrap().1, []);
    let error = admin.change_bans(&url, &[]).await.unwrap_err();
    assert!(error.to_string().contains("could administer"), "{error}");
}
