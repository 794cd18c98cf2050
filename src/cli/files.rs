//! Files of this process: how many, sockets among them, it may have open, and who may read those that it creates.
//!
//! Invariant: the limit is only ever raised, and never beyond what the system allows this process. What is created is for its user
//! alone.
//!
//! Deliberately absent: the limits of other processes.

use rustix::fs::Mode;
use rustix::process::{getrlimit, setrlimit, umask, Resource, Rlimit};

/// Files besides clients' sockets: the runtime's, standard ones, output files.
const OTHERS: u64 = 64;

/// Raises the limit as far as the system allows, and returns it. None means that there is no limit.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // If it can't be raised, it stays as it is.
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// Lets only the user of this process, and of those that it starts, read what they create.
pub(super) fn keep_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Makes sure that this many sockets can be open.
pub(super) fn allow(sockets: u64) -> anyhow::Result<()> {
    let wanted = sockets + OTHERS;
    match raise() {
        Some(limit) if limit < wanted => anyhow::bail!(
            "{sockets} connections need {wanted} open files, and this process may have {limit}: raise the hard limit \
             (`ulimit -Hn`), here and where the other ends are"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_or_named() {
        let limit = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
        assert!(allow(1).is_ok());
        if let Some(limit) = limit {
            let error = allow(limit).unwrap_err().to_string();
            assert!(error.contains(&format!("may have {limit}")), "{error}");
        }
    }
}
