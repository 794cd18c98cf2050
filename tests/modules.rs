//! The dependencies between modules.
//!
//! Invariant: sibling modules never depend on each other in a circle, and the router's modules use only what [`USES`] lists.
//!
//! Deliberately absent: dependencies between a module and those inside it, and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each module of the router with all modules that it uses, from the bottom up: each uses only modules that are listed before
/// it.
const USES: &[(&str, &str)] = &[
    ("types", ""),
    ("auth", "types"),
    ("recent", ""),
    ("payload", "types"),
    ("segment", "types"),
    ("retention", "types"),
    ("append", "segment"),
    ("log", "segment types"),
    ("rules", "types"),
    ("realm", "payload rules segment types"),
    ("dispatch", "log types"),
    ("storage", "append recent segment types"),
    ("peer", "append log segment storage types"),
    ("replica", "dispatch log realm recent segment types"),
    ("entry", "append peer recent segment types"),
    ("call", "payload realm types"),
    ("gate", "call payload rules segment types"),
    ("session", "call dispatch gate log payload realm rules segment types"),
    ("config", "auth retention types"),
    ("tls", "config"),
    ("http", "config tls types"),
    ("cluster", "config entry log peer realm replica segment storage types"),
    (
        "server",
        "auth call config dispatch entry gate log peer realm replica rules session tls types",
    ),
    (
        "node",
        "append auth cluster config dispatch entry gate http log peer realm recent replica retention segment server storage tls types",
    ),
    ("client", "config http tls types"),
    ("cli", "auth client config http node retention server tls types"),
];

type Module = Vec<String>;

/// For each parent module: which of its children uses which other, and in which module.
type Arrows = BTreeMap<Module, BTreeMap<(String, String), Module>>;

/// The text of each module below a folder.
fn read(folder: &Path, inside: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("the sources are here") {
        let path = entry.expect("the sources are here").path();
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let module = [inside, &[name]].concat();
        if path.is_dir() {
            read(&path, &module, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(module, fs::read_to_string(&path).expect("the sources are here"));
        }
    }
}

/// Removes comments and items that are only built for tests. Modules that are only built for tests are added to `tests`.
fn without_tests(module: &[String], text: &str, tests: &mut Vec<Module>) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            kept.extend([line, "\n"]);
        } else if let Some(item) = lines.next().and_then(|item| item.strip_suffix(';')) {
            let name = item.rsplit(' ').next().unwrap_or_default();
            tests.push([module, &[name.to_owned()]].concat());
        } else {
            while lines.next().is_some_and(|line| !line.starts_with('}')) {}
        }
    }
    kept
}

/// Reads a tree of paths as in `use`; returns the text after it.
fn tree<'a>(mut rest: &'a str, mut path: Module, found: &mut Vec<Module>) -> &'a str {
    loop {
        if let Some(mut inner) = rest.strip_prefix('{') {
            while !inner.is_empty() && !inner.starts_with('}') {
                inner = tree(inner.trim_start(), path.clone(), found);
                inner = &inner[inner.find([',', '}']).unwrap_or(inner.len())..];
                inner = inner.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            }
            return inner.get(1..).unwrap_or_default();
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        let Some(next) = rest[end..].strip_prefix("::") else {
            found.push(path);
            return &rest[end..];
        };
        rest = next;
    }
}

/// All paths in a text that begin with `crate` or `super`.
fn paths(mut rest: &str) -> Vec<Module> {
    let mut found = Vec::new();
    while let Some(at) = ["crate::", "super::"].iter().filter_map(|root| rest.find(root)).min() {
        rest = tree(&rest[at..], Module::new(), &mut found);
    }
    found
}

fn arrows(mut texts: BTreeMap<Module, String>) -> Arrows {
    let mut tests = Vec::new();
    for (module, text) in &mut texts {
        *text = without_tests(module, text, &mut tests);
    }
    texts.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    let mut arrows = Arrows::new();
    for (from, text) in &texts {
        for path in paths(text) {
            let mut to = from.clone();
            for step in path {
                match step.as_str() {
                    "crate" => to.clear(),
                    "super" => drop(to.pop()),
                    _ => to.push(step),
                }
            }
            while !to.is_empty() && !texts.contains_key(&to) {
                to.pop();
            }
            let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
            if let (Some(user), Some(used)) = (from.get(shared), to.get(shared)) {
                let inside = arrows.entry(from[..shared].to_vec()).or_default();
                inside.insert((user.clone(), used.clone()), from.clone());
            }
        }
    }
    arrows
}

fn arrows_of(sources: &str) -> Arrows {
    let mut texts = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(sources), &[], &mut texts);
    arrows(texts)
}

/// The dependencies that are in a circle or lead to one.
fn circles(arrows: &Arrows) -> Vec<String> {
    let mut left = Vec::new();
    for inside in arrows.values() {
        let mut inside: Vec<_> = inside.iter().collect();
        let mut before = usize::MAX;
        while inside.len() < before {
            before = inside.len();
            let users: BTreeSet<&String> = inside.iter().map(|((user, _), _)| user).collect();
            inside.retain(|((_, used), _)| users.contains(used));
        }
        left.extend(inside.into_iter().map(shown));
    }
    left
}

fn shown(((user, used), at): (&(String, String), &Module)) -> String {
    format!("{user} uses {used} in {}", at.join("::"))
}

#[test]
fn modules_use_each_other_in_no_circle() {
    for sources in ["src", "raft/src"] {
        assert_eq!(circles(&arrows_of(sources)), [""; 0], "{sources}");
    }
}

#[test]
fn the_routers_modules_use_what_is_listed() {
    let mut found = arrows_of("src").remove(&Module::new()).unwrap_or_default();
    found.retain(|(user, _), _| user != "lib");
    let mut above = BTreeSet::new();
    for (user, all) in USES {
        for used in all.split_whitespace() {
            assert!(above.contains(used), "{used} does not stand above {user}");
            let arrow = found.remove(&(user.to_string(), used.to_owned()));
            assert!(arrow.is_some(), "{user} does not use {used} any more");
        }
        above.insert(*user);
    }
    let new: Vec<String> = found.iter().map(shown).collect();
    assert_eq!(new, [""; 0], "not listed in USES");
}

#[test]
fn a_circle_is_found_and_tests_are_not_looked_at() {
    let texts = [
        (
            "a",
            "use crate::{b::{self, X as Y}, c};\n#[cfg(test)]\nmod tests {\n    use crate::d;\n}\n",
        ),
        ("b", "fn f() -> super::a::Z {}\n"),
        ("c", "// crate::a\n#[cfg(test)]\nuse crate::a;\n"),
        ("d", "use crate::a;\n"),
    ];
    let texts = texts.map(|(name, text)| (vec![name.to_owned()], text.to_owned()));
    let arrows = arrows(BTreeMap::from(texts));
    let found: Vec<_> = arrows[&Module::new()].keys().map(|(a, b)| format!("{a}{b}")).collect();
    assert_eq!(found, ["ab", "ac", "ba", "da"]);
    assert_eq!(circles(&arrows), ["a uses b in a", "b uses a in b", "d uses a in d"]);
}
