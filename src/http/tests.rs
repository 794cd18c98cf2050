//! A fake node behind the real server and the real client.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vulpes_raft::ids::{
    AdvanceSegment, DiskId, Incarnation, NodeId, OrderTime, Position, SegmentNumber, Shard, Stamp,
};
use vulpes_raft::order::{CloseReason, Resolution, SealedSegment, Step};

use self::users::FakeUsers;
use super::*;
use crate::client::admin::{self, AdminClient, AdminError, AdminUrl};
use crate::config::NodeConfig;

struct FakeNode {
    ready: bool,
    users: Option<FakeUsers>,
}

fn segment_row(slot: u64) -> LogRow {
    let id = AdvanceSegment {
        entry: NodeId(1),
        incarnation: Incarnation(2),
        number: SegmentNumber(slot - 1),
    };
    let sealed = SealedSegment {
        id,
        shard: Shard(0),
        count: 1,
        length: 99,
        checksum: 0xab,
        votes: Vec::new(),
    };
    let resolution = Resolution {
        slot: Slot(slot),
        stamp: Stamp(7),
        ahead: 1,
        base: Position(slot),
        step: Step::Segment(sealed),
    };
    LogRow::new(&resolution, Body::Read(0xab))
}

impl Admin for FakeNode {
    fn ready(&self) -> BoxFuture<'_, Readiness> {
        let readiness =
            if self.ready { Readiness::ready() } else { Readiness::not_yet("no leader yet") };
        Box::pin(async { readiness })
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        Box::pin(async { example_status() })
    }

    fn log(&self, from: Slot, max: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>> {
        Box::pin(async move {
            match from {
                Slot(666) => Err(LogReadError::NoLog),
                Slot(667) => Err(LogReadError::Unavailable("no storage answers".into())),
                Slot(1) => Err(LogReadError::TooOld { oldest: Slot(3) }),
                from => {
                    let from = from.max(Slot(3));
                    let rows = (from.0..1000).take(max).map(segment_row).collect();
                    Ok(LogPage { node: NodeId(1), oldest: Slot(3), end: Slot(1000), rows })
                }
            }
        })
    }

    fn users(&self) -> Option<&dyn UserAdmin> {
        self.users.as_ref().map(|users| users as &dyn UserAdmin)
    }

    fn roles(&self) -> Option<&dyn RoleAdmin> {
        self.users.as_ref().map(|users| users as &dyn RoleAdmin)
    }

    fn bans(&self) -> Option<&dyn BanAdmin> {
        self.users.as_ref().map(|users| users as &dyn BanAdmin)
    }

    fn audit(&self) -> Option<&dyn AuditAdmin> {
        self.users.as_ref().map(|users| users as &dyn AuditAdmin)
    }
}

fn example_status() -> NodeStatus {
    let text = include_str!("../../demo/vulpes.example.toml");
    let config = NodeConfig::parse(text, std::path::Path::new("x.toml")).unwrap();
    let mut status = NodeStatus::new(&config, Some(DiskId(31)));
    status.sync = Some(SyncStatus {
        state: SyncState::Leader,
        term: 4,
        leader: Some(NodeId(1)),
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        last_index: Some(9),
        applied_index: Some(9),
        tail_slot: Slot(8),
        tail_position: Position(70),
    });
    status
}

async fn start(ready: bool) -> AdminUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let node = FakeNode { ready, users: None };
    tokio::spawn(serve(listener, Arc::new(node), Visitors::default()));
    url
}

#[tokio::test]
async fn readiness_and_status_come_across() {
    let url = start(true).await;
    assert_eq!(admin::ready(&url).await.unwrap(), Readiness::ready());
    assert_eq!(AdminClient::default().status(&url).await.unwrap(), example_status());
    let url = start(false).await;
    assert_eq!(admin::ready(&url).await.unwrap(), Readiness::not_yet("no leader yet"));
}

#[tokio::test]
async fn the_log_comes_in_pages() {
    let url = start(true).await;
    let page = AdminClient::default().log(&url, Slot(0), 2).await.unwrap();
    assert_eq!(page.rows, [segment_row(3), segment_row(4)]);
    assert_eq!((page.oldest, page.end), (Slot(3), Slot(1000)));
    let page = AdminClient::default().log(&url, Slot(5), usize::MAX).await.unwrap();
    assert_eq!(page.rows.len(), LOG_ROWS);
}

#[tokio::test]
async fn refusals_say_why() {
    let url = start(true).await;
    for (from, code, reason) in [
        (666, 404, "keeps no log"),
        (667, 503, "no storage answers"),
        (1, 410, "only from slot 3 on"),
    ] {
        let error = AdminClient::default().log(&url, Slot(from), 10).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(matches!(error, AdminError::Refused { status, .. } if status == code));
    }
}

mod bans;
mod users;
mod web;

async fn raw(url: &AdminUrl, request: &str) -> String {
    let address = url.to_string().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn answers_to_other_requests_are_clear() {
    let url = start(false).await;
    for (request, code, content) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", "200", "ok"),
        ("GET /readyz HTTP/1.0\r\n\r\n", "503", "no leader yet"),
        ("GET /nonsense HTTP/1.0\r\n\r\n", "404", "there are /healthz"),
        ("POST /status HTTP/1.0\r\n\r\n", "405", ""),
        ("GET /log?from=x HTTP/1.0\r\n\r\n", "400", "from"),
        ("GET /log?form=1 HTTP/1.0\r\n\r\n", "400", "unknown field"),
        ("garbage\r\n\r\n", "400", ""),
    ] {
        let answer = raw(&url, request).await;
        assert_eq!(answer.split(' ').nth(1), Some(code), "{request}: {answer}");
        assert!(answer.contains(content), "{request}: {answer}");
    }
}

#[tokio::test]
async fn who_is_no_node_is_told_apart_from_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: AdminUrl = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 256];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await.unwrap();
    });
    assert!(matches!(AdminClient::default().status(&url).await, Err(AdminError::NotAdmin { .. })));
    // The listener is gone with its task.
    let error = AdminClient::default().status(&url).await.unwrap_err();
    assert!(error.to_string().contains("is the node running?"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_never_finishes_is_dropped() {
    let url = start(true).await;
    let begun = tokio::time::Instant::now();
    assert!(!raw(&url, "GET /status HT").await.contains("200"));
    assert!(begun.elapsed() < 2 * IDLE_TIME, "{:?}", begun.elapsed());
    // A connection that made a request, and sends nothing more.
    assert!(raw(&url, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("200"));
    assert!(begun.elapsed() < 4 * IDLE_TIME, "{:?}", begun.elapsed());
}

/// Callers that hold connections open: silent, with half a request, with a finished request, and without reading the answer.
const HOLDS: [&str; 4] = [
    "",
    "GET /status HT",
    "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /log HTTP/1.1\r\nHost: [::1]\r\n\r\nGET /log HTTP/1.1\r\nHost: [::1]\r\n\r\n",
];

#[tokio::test]
async fn a_probe_is_answered_whoever_holds_the_connections() {
    let url = start(true).await;
    let address = url.to_string().replace("http://", "");
    let mut held = Vec::new();
    for at in 0..3 * CONNECTIONS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(HOLDS[at % HOLDS.len()].as_bytes()).await.unwrap();
        held.push(stream);
        if at % CONNECTIONS == CONNECTIONS - 1 {
            let probe = raw(&url, "GET /healthz HTTP/1.0\r\n\r\n");
            let answer = tokio::time::timeout(IDLE_TIME * 4 / 5, probe).await;
            assert!(answer.expect("an answer in time").contains("200"), "with {at} held");
        }
    }
}

#[tokio::test]
async fn a_probe_is_answered_while_the_log_can_not_be_read() {
    struct Stuck;
    impl Admin for Stuck {
        fn ready(&self) -> BoxFuture<'_, Readiness> {
            Box::pin(async { Readiness::ready() })
        }
        fn status(&self) -> BoxFuture<'_, NodeStatus> {
            Box::pin(std::future::pending())
        }
        fn log(&self, _: Slot, _: usize) -> BoxFuture<'_, Result<LogPage, LogReadError>> {
            Box::pin(std::future::pending())
        }
        fn users(&self) -> Option<&dyn UserAdmin> {
            None
        }
        fn roles(&self) -> Option<&dyn RoleAdmin> {
            None
        }

        fn bans(&self) -> Option<&dyn BanAdmin> {
            None
        }

        fn audit(&self) -> Option<&dyn AuditAdmin> {
            None
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: AdminUrl = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(serve(listener, Arc::new(Stuck), Visitors::default()));
    let mut held = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let address = url.to_string().replace("http://", "");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /log HTTP/1.0\r\n\r\n").await.unwrap();
        held.push(stream);
    }
    let probe = tokio::time::timeout(IDLE_TIME * 4 / 5, admin::ready(&url)).await;
    assert!(probe.expect("an answer in time").unwrap().ready);
}

#[test]
fn golden_rows() {
    let opened = LogRow {
        slot: Slot(1),
        stamp: Stamp(2),
        time: OrderTime(2),
        base: Position(1),
        step: LogStep::Opened { entry: NodeId(3), incarnation: Incarnation(1) },
    };
    let mut closed = opened.clone();
    closed.step = LogStep::Closed {
        entry: NodeId(3),
        incarnation: Incarnation(1),
        reason: CloseReason::LeaseLost,
    };
    for (row, text) in [
        (
            segment_row(3),
            r#"{"slot":3,"stamp":7,"time":8,"base":3,"kind":"segment","segment":"1/2/2","count":1,"length":99,"checksum":"00000000000000ab","body_checksum":"00000000000000ab"}"#,
        ),
        (
            opened,
            r#"{"slot":1,"stamp":2,"time":2,"base":1,"kind":"opened","entry":3,"incarnation":1}"#,
        ),
        (
            closed,
            r#"{"slot":1,"stamp":2,"time":2,"base":1,"kind":"closed","entry":3,"incarnation":1,"reason":"LeaseLost"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
        assert_eq!(serde_json::from_str::<LogRow>(text).unwrap(), row);
    }
}
