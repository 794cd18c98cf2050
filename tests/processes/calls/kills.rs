//! Many calls while nodes are killed, one after the other.
//!
//! Invariant: each call has a unique number, and is answered once: with its own result, with an error, or by the end
//! of its caller's own connection.
//!
//! Deliberately absent: other work of the nodes.

use super::*;

/// How many calls are made while nodes die: `VULPES_CALLS`, or fewer.
fn calls() -> u64 {
    std::env::var("VULPES_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000)
}

/// The outcomes of a caller's calls.
#[derive(Default, Debug)]
struct Tally {
    results: u64,
    errors: BTreeMap<String, u64>,
    /// The caller's own connection ended first.
    cut_off: u64,
}

/// Makes calls with unique numbers, some at a time, and checks that each gets one answer, with its own number.
async fn keep_calling(
    cluster: Arc<[std::net::SocketAddr]>,
    caller: u64,
    count: u64,
) -> Result<Tally> {
    const WINDOW: u64 = 50;
    let mut tally = Tally::default();
    let mut made = 0;
    while made < count {
        let at = (caller + made) as usize % cluster.len();
        let Ok(wamp) = Wamp::connect(cluster[at], "realm1").await else { continue };
        let mut peer = Peer { wamp, request: 0 };
        let mut open = BTreeMap::new();
        'session: while made < count || !open.is_empty() {
            while made < count && (open.len() as u64) < WINDOW {
                let number = caller * 1_000_000_000 + made;
                match peer.begin("p", json!([number]), json!({})).await {
                    Ok(request) => drop(open.insert(request, number)),
                    Err(_) => break 'session,
                }
                made += 1;
            }
            let received = within("an answer", PATIENCE, async { peer.wamp.receive().await });
            let Some(answer) = received.await? else { break };
            let request = if answer[0] == ERROR { answer[2].as_u64() } else { answer[1].as_u64() };
            let request = request.context("an answer to nothing")?;
            if answer[0] == 6 || answer[0] == 3 {
                break;
            }
            let number = open.remove(&request);
            let number =
                number.with_context(|| format!("a second answer to {request}: {answer}"))?;
            match outcome(&answer, request).with_context(|| format!("{answer}"))? {
                Ok(result) => {
                    ensure!(result[0] == number, "{number} got the result of another: {result}");
                    tally.results += 1;
                }
                Err(uri) => *tally.errors.entry(uri).or_default() += 1,
            }
        }
        tally.cut_off += open.len() as u64;
    }
    Ok(tally)
}

#[tokio::test]
async fn each_call_is_answered_once_while_nodes_die() -> Result<()> {
    const CALLERS: u64 = 6;
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let addresses: Arc<[_]> = (1..=3).map(|node| cluster.node(node).wamp()).collect();
    let callees: Vec<_> = (1..=3)
        .map(|node| {
            let address = cluster.node(node).wamp();
            tokio::spawn(async move {
                loop {
                    // Reconnects after each end.
                    let Ok(wamp) = Wamp::connect(address, "realm1").await else { continue };
                    let mut peer = Peer { wamp, request: 0 };
                    let shared = json!({ "invoke": "roundrobin" });
                    if peer.register("p", shared).await.is_err() {
                        continue;
                    }
                    while let Ok(Some(message)) = peer.wamp.receive().await {
                        let result = json!([YIELD, message[1], {}, message[4]]);
                        if message[0] != INVOCATION || peer.wamp.send(&result).await.is_err() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    let mut caller = Peer::at(&cluster, 1).await?;
    caller.reach("p", json!([0])).await?;
    let began = Instant::now();
    let count = calls() / CALLERS;
    let callers: Vec<_> = (1..=CALLERS)
        .map(|caller| tokio::spawn(keep_calling(addresses.clone(), caller, count)))
        .collect();
    let mut blows = 0;
    while !callers.iter().all(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let node = blows % 3 + 1;
        cluster.node_mut(node).kill().await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.restart(node).await?;
        blows += 1;
    }
    let mut all = Tally::default();
    for caller in callers {
        let tally = caller.await??;
        all.results += tally.results;
        all.cut_off += tally.cut_off;
        for (uri, count) in tally.errors {
            *all.errors.entry(uri).or_default() += count;
        }
    }
    println!("{blows} nodes killed in {:?}: {all:?}", began.elapsed());
    let errors: u64 = all.errors.values().sum();
    ensure!(all.results + errors + all.cut_off == count * CALLERS, "{all:?}");
    ensure!(all.results * 4 > count * CALLERS, "{all:?}");
    callees.iter().for_each(JoinHandle::abort);
    cluster.verify(1).await
}
