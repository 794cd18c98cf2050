//! What Vulpes is built of is what `deny.toml` allows: licences, sources, and crates in several versions.
//!
//! `cargo deny check` says the same, for more platforms, and knows vulnerabilities; this needs neither it nor the network.
//!
//! Invariant: nothing that the lock file names for this platform is left out.
//!
//! Deliberately absent: advisories, of which the list has to be fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A crate that is built in.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// None for a crate of this workspace.
    source: Option<String>,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the tools that have built this are here");
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("it is text")
}

fn packages() -> Vec<Package> {
    let about = run("rustc", &["-vV"]);
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("it has a host");
    let arguments =
        ["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host];
    let found = run(env!("CARGO"), &arguments);
    let found: Value = serde_json::from_str(&found).expect("it is JSON");
    let text = |package: &Value, field: &str| package[field].as_str().map(str::to_owned);
    let packages = found["packages"].as_array().expect("it has packages");
    packages
        .iter()
        .map(|package| Package {
            name: text(package, "name").unwrap_or_default(),
            version: text(package, "version").unwrap_or_default(),
            licence: text(package, "license").unwrap_or_default(),
            source: text(package, "source"),
        })
        .collect()
}

/// What `deny.toml` says.
struct Allowed {
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
    /// Names and the beginnings of versions.
    doubled: Vec<(String, String)>,
    never: BTreeSet<String>,
}

fn allowed() -> Allowed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = std::fs::read_to_string(path).expect("it is here");
    let table: toml::Table = text.parse().expect("it is TOML");
    let list =
        |section: &str, field: &str| table[section][field].as_array().expect("a list").clone();
    let texts = |section: &str, field: &str| {
        let list = list(section, field);
        list.iter().map(|one| one.as_str().expect("a text").to_owned()).collect()
    };
    let doubled = list("bans", "skip").into_iter().map(|one| {
        let (name, version) =
            one["crate"].as_str().and_then(|one| one.split_once('@')).expect("name@version");
        (name.to_owned(), version.to_owned())
    });
    Allowed {
        licences: texts("licenses", "allow"),
        registries: texts("sources", "allow-registry"),
        doubled: doubled.collect(),
        never: texts("bans", "deny"),
    }
}

/// Whether a licence expression (SPDX) can be met by these licences.
fn is_met(expression: &str, licences: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at, licences);
    met && at == words.len()
}

/// Some of what OR joins.
fn any(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = all(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, licences);
    }
    met
}

/// All of what AND joins.
fn all(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut met = one(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, licences);
    }
    met
}

fn one(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = any(words, at, licences);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    let mut name = word.trim_end_matches('+').to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    licences.contains(&name)
}

#[test]
fn licences_are_read_as_they_are_meant() {
    let licences = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND Zlib", true),
        ("(GPL-3.0 OR MIT) AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT+", true),
        ("MIT MIT", false),
        ("(MIT", false),
    ] {
        assert_eq!(is_met(expression, &licences), met, "{expression:?}");
    }
}

#[test]
fn dependencies_are_what_deny_toml_allows() {
    let (packages, allowed) = (packages(), allowed());
    assert!(packages.len() > 100, "these are all of them");
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Package { name, version, licence, source } in &packages {
        versions.entry(name).or_default().push(version);
        if !is_met(licence, &allowed.licences) {
            wrong.push(format!("{name} {version} is under {licence:?}"));
        }
        let registry = source.as_deref().map(|source| source.trim_start_matches("registry+"));
        if registry.is_some_and(|registry| !allowed.registries.contains(registry)) {
            wrong.push(format!("{name} {version} comes from {source:?}"));
        }
        if allowed.never.contains(name) {
            wrong.push(format!("{name} {version} is not to be used"));
        }
    }
    for (name, versions) in versions {
        let is_known = |version: &&str| {
            let fits = |beginning: &str| version.starts_with(&format!("{beginning}."));
            allowed.doubled.iter().any(|(one, beginning)| one == name && fits(beginning))
        };
        if versions.iter().filter(|version| !is_known(version)).count() > 1 {
            wrong.push(format!("{name} is built in several versions: {versions:?}"));
        }
    }
    assert!(wrong.is_empty(), "see deny.toml:\n{}", wrong.join("\n"));
}
