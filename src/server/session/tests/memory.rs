//! The memory cost of an idle client, in bytes as counted by the allocator.
//!
//! Deliberately absent: the operating system's memory for a socket, and the session's part of the state at all nodes.

use allocation_counter::measure;

use super::*;

/// Most bytes for each client, with a small margin over the measured count.
const MQTT: i64 = 3056;
const WAMP: i64 = 9616;

/// Most bytes that are left of each client that has gone: what channels and maps keep for the next ones.
const LEFT: i64 = 64;

/// So many clients connect at once.
const AT_ONCE: usize = 500;

#[test]
fn an_idle_client_takes_little_memory() {
    for (protocol, most) in [(Protocol::Mqtt(60), MQTT), (Protocol::Wamp, WAMP)] {
        check_memory(protocol, 64, most);
    }
}

/// More than a process may open files here: no descriptor is needed.
#[test]
fn a_hundred_thousand_clients_are_served_and_leave_nothing_behind() {
    check_memory(Protocol::Mqtt(60), 100_000, MQTT);
}

fn check_memory(protocol: Protocol, clients: usize, most: i64) {
    let runtime = paused();
    let mut node = runtime.block_on(async { Node::new() });
    let sockets: Vec<Socket> = (0..clients).map(|_| Socket::default()).collect();
    sockets.iter().for_each(|socket| socket.take(usize::MAX / 2));
    let each = |bytes: i64| bytes / clients as i64;
    let came = measure(|| {
        runtime.block_on(async {
            for sockets in sockets.chunks(AT_ONCE) {
                sockets.iter().for_each(|socket| drop(connect(protocol, &node, socket)));
                rest().await;
                // What is on its way to the entry is not the session's any more.
                assert_eq!(node.inbox.events().len(), sockets.len());
            }
            tokio::time::sleep(2 * QUIET).await;
        });
    });
    assert!(sockets.iter().all(|socket| !socket.taken().is_empty()), "not all are welcome");
    let bytes = each(came.bytes_current);
    println!("{protocol:?}: {bytes} bytes");
    assert!(bytes <= most, "{protocol:?}: {bytes} bytes");
    let went = measure(|| {
        runtime.block_on(async {
            for sockets in sockets.chunks(AT_ONCE) {
                sockets.iter().for_each(|socket| socket.breaks(Break::Reset));
                rest().await;
                assert_eq!(node.inbox.events().len(), sockets.len());
            }
            tokio::time::sleep(2 * limits::LINGER).await;
            // A socket knows whom to wake, and with it keeps its task.
            sockets.iter().for_each(|socket| socket.breaks(Break::Reset));
        });
    });
    let left = each(came.bytes_current + went.bytes_current);
    println!("{protocol:?}: {left} bytes are left");
    assert!(clients < AT_ONCE || left <= LEFT, "{protocol:?}: {left} bytes are left");
}
