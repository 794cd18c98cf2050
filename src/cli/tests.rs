//! The command line as clap sees it.

use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn good_lines_are_taken() {
    for line in [
        "up",
        "up --nodes 1 --data /tmp/x --fresh --mqtt-port 11881",
        "init --nodes 3 --dir x --host a --host b --host c --split",
        "node --config x.toml --stop-on-stdin-close",
        "status --json --node-admin http://127.0.0.1:9081",
        "pub demo.hello 1 {\"a\":2} text --retain",
        "pub demo.hello -",
        "pub demo.hello",
        "sub demo.# --after 17 --count 3 --node ws://h:9032",
        "sub demo --match prefix",
        "call demo.add 2 3 --timeout 10s --progress --json",
        "log --after 2611221742b1za3 --limit 10 --json",
        "verify --nodes http://a:9081,http://b:9081",
        "bench --protocol wamp --targets ws://a:1/,ws://b:2/ --connections 9 --window 64 --size 128",
        "bench --protocol mqtt --targets a:1883 --fsync-dir /tmp --json",
    ] {
        let words = std::iter::once("vulpes").chain(line.split(' '));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn bad_lines_are_refused_as_usage_errors() {
    for (line, expected) in [
        ("", "Usage"),
        ("frobnicate", "unrecognized subcommand"),
        ("up --nodes 0", "0 is not in"),
        ("up --nodes 99", "99 is not in"),
        ("node", "--config"),
        ("pub", "TOPIC"),
        ("sub x --node http://h", "is not a node's WAMP URL"),
        ("sub x --after yesterday", "neither a position"),
        ("status --node-admin https://h", "write http://host:port"),
        ("call p --timeout soon", "is not a time"),
        ("bench --protocol smtp", "invalid value 'smtp'"),
        ("bench --protocol mqtt --window 0", "0 is not in"),
        ("bench --protocol mqtt --size 7", "7 is not in"),
    ] {
        let words = std::iter::once("vulpes").chain(line.split(' ').filter(|w| !w.is_empty()));
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[test]
fn places_in_the_log() {
    assert_eq!(after("0"), Ok(0.into()));
    assert_eq!(after("2611221742b1za3"), Ok("2611221742b1za3".into()));
    for text in ["", "-1", "9007199254740992", "26112217a", "x"] {
        assert!(after(text).is_err(), "{text}");
    }
}
