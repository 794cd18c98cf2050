//! What happens after a panic in a node's process.
//!
//! Invariant: a process does not continue without one of its parts. A panic in redb means that the file is not what
//! redb wrote, and ends the process like any other damage; a panic of our own ends it too. Only a panic in a client's
//! session, on which nothing else depends, ends just that session.
//!
//! Deliberately absent: recovery. A restart from the disk undoes what a panic left half done.

use std::io::Write;
use std::panic::PanicHookInfo;
use std::path::PathBuf;

use vulpes_raft::disk::file::{OpenError, FILE};

/// The exit code of a node whose disk failed or is damaged, or that has a bug.
pub(crate) const EXIT_FATAL: i32 = 70;

/// Installs a panic hook that ends this process with a message that says what to do. `data` is the node's data directory.
pub(crate) fn end_the_process(data: PathBuf) {
    std::panic::set_hook(Box::new(move |panic| {
        let words = words(panic);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let sentence = if is_of_redb(&place) {
            let reason = format!("a page can't be right ({words}, {place})");
            OpenError::Damaged { path: data.join(FILE), reason }.to_string()
        } else if crate::server::serves_a_client() {
            tracing::error!(
                "a bug: {words}, at {place}; this client's session ends. Please report this line"
            );
            return;
        } else {
            format!("a bug: {words}, at {place}; start the node again, and please report this line")
        };
        // Standard error may be closed.
        let _ = writeln!(std::io::stderr(), "vulpes: fatal: {sentence}");
        std::process::exit(EXIT_FATAL);
    }));
}

fn words(panic: &PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    // One line, however long the assertion's message.
    let text = text.unwrap_or_else(|| "it panicked".into());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a source path belongs to redb: cargo unpacks a crate into a folder of its name and version.
fn is_of_redb(place: &str) -> bool {
    place.split(['/', '\\']).any(|part| {
        part.strip_prefix("redb-")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_redb_are_known() {
        let place =
            "/home/x/.cargo/registry/src/index.crates.io-1/redb-4.6.0/src/tree_store/btree.rs:1:2";
        assert!(is_of_redb(place));
        for other in ["raft/src/file.rs:1:2", "/home/redb-fan/vulpes/src/main.rs:3:4", ""] {
            assert!(!is_of_redb(other), "{other}");
        }
    }
}
