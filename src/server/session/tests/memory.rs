//! The memory cost of an idle client, in bytes as counted by the allocator.
//!
//! Deliberately absent: the operating system's memory for a socket, and the session's part of the state at all nodes.

use allocation_counter::measure;

use super::*;

/// Clients that are counted.
const CLIENTS: i64 = 64;

/// Most bytes for each of them, with a small margin over the measured count.
const MQTT: i64 = 12 << 10;
const WAMP: i64 = 20 << 10;

#[test]
fn an_idle_client_takes_little_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let node = runtime.block_on(async { Node::new() });
    for (protocol, most) in [(Protocol::Mqtt(60), MQTT), (Protocol::Wamp, WAMP)] {
        let sockets: Vec<Socket> = (0..CLIENTS).map(|_| Socket::default()).collect();
        sockets.iter().for_each(|socket| socket.take(usize::MAX / 2));
        let counted = measure(|| {
            runtime.block_on(async {
                sockets.iter().for_each(|socket| drop(connect(protocol, &node, socket)));
                let all = || sockets.iter().all(|socket| !socket.taken().is_empty());
                for _ in 0..1000 {
                    if all() {
                        break;
                    }
                    rest().await;
                }
                assert!(all(), "{protocol:?}: not all are welcome");
            });
        });
        let each = counted.bytes_current / CLIENTS;
        println!("{protocol:?}: {each} bytes");
        assert!(each <= most, "{protocol:?}: {each} bytes");
    }
}
