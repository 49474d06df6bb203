//! Which crate may know which, and which room of the engine: the directions ARCHITECTURE.md draws, kept by tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The normal dependencies of a workspace member, by package name.
fn dependencies(metadata: &Value, package: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let found = packages.iter().find(|other| other["name"] == package);
    let dependencies = found.expect("the package is a workspace member")["dependencies"].as_array();
    let normal =
        dependencies.expect("a package lists dependencies").iter().filter(|dependency| dependency["kind"].is_null());
    normal.map(|dependency| dependency["name"].as_str().expect("a dependency has a name").to_owned()).collect()
}

#[test]
fn the_engine_knows_no_format_no_network_and_no_other_crate_of_ours() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest];
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");

    let engine = dependencies(&metadata, "sage-dataflow");
    let ours = engine.iter().filter(|name| name.starts_with("sage-"));
    assert_eq!(ours.count(), 0, "the engine depends on a crate built on it: {engine:?}");
    for foreign in ["serde_json", "reqwest", "axum", "hyper", "pyo3", "rdkafka"] {
        assert!(!engine.iter().any(|name| name == foreign), "the engine depends on {foreign}");
    }

    for package in metadata["packages"].as_array().expect("metadata lists packages") {
        let name = package["name"].as_str().expect("a package has a name");
        assert!(!["common", "utils", "types"].iter().any(|vague| name.ends_with(vague)), "a crate named {name}");
    }
}

/// The engine's files that are not tests: each by its path below `src`, with its code.
fn files() -> BTreeMap<String, String> {
    fn read(folder: &Path, below: &str, files: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                read(&path, &format!("{below}{name}/"), files);
            } else {
                files.insert(format!("{below}{name}"), std::fs::read_to_string(&path).expect("a source is text"));
            }
        }
    }
    let mut files = BTreeMap::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), "", &mut files);
    let tests: Vec<String> = files
        .iter()
        .flat_map(|(file, code)| {
            let folder =
                file.strip_suffix("mod.rs").map_or_else(|| format!("{}/", &file[..file.len() - 3]), str::to_owned);
            let declared = code.split("#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next());
            let names = declared.filter_map(|line| line.split("mod ").nth(1)?.strip_suffix(';'));
            names.map(|name| format!("{folder}{name}.rs")).collect::<Vec<_>>()
        })
        .collect();
    files.retain(|file, _| file != "lib.rs" && !tests.contains(file));
    for code in files.values_mut() {
        let code_only = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        *code = code_only.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    }
    files
}

/// The names that follow `prefix` in the code, those in braces each by itself.
fn named<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let name = |text: &'a str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    code.split(prefix)
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            None => vec![name(rest)],
            Some(group) => {
                let mut depth = 0;
                let end = group.find(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    depth < 0
                });
                let parts = group[..end.unwrap_or_default()].split(',');
                parts.map(|part| name(part.trim_start())).collect()
            }
        })
        .collect()
}

/// The rooms, and for each the others that its code names.
fn rooms() -> BTreeMap<String, BTreeSet<String>> {
    let room = |file: &str| file.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let files = files();
    let all: BTreeSet<String> = files.keys().map(|file| room(file)).collect();
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in &files {
        let own = room(file);
        let others = named(code, "crate::").into_iter().filter(|name| all.contains(*name) && *name != own);
        rooms.entry(own.clone()).or_default().extend(others.map(str::to_owned));
    }
    rooms
}

/// What lies in a circle: every set of things that lead to each other.
fn circles(leads_to: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reached = |from: &String| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            open.extend(leads_to.get(next).into_iter().flatten().filter(|&to| reached.insert(to.clone())));
        }
        reached
    };
    let all: BTreeMap<&String, BTreeSet<String>> = leads_to.keys().map(|from| (from, reached(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, reached) in &all {
        let around = reached.iter().filter(|to| all.get(to).is_some_and(|back| back.contains(*from)));
        circles.insert(around.cloned().collect::<BTreeSet<_>>());
    }
    circles.remove(&BTreeSet::new());
    circles
}

#[test]
fn no_two_rooms_of_the_engine_lead_to_each_other() {
    let rooms = rooms();
    assert!(rooms.len() > 20 && rooms["task"].contains("chain"), "{rooms:?}");
    assert_eq!(circles(&rooms), BTreeSet::new());
}

#[test]
fn no_more_than_two_files_of_a_room_lead_to_each_other() {
    let files = files();
    let mut leads_to: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in &files {
        let Some((folder, own)) = file.rsplit_once('/') else { continue };
        // What a `mod.rs` passes on is not its own.
        if own == "mod.rs" {
            continue;
        }
        for name in named(code, "super::") {
            let other = format!("{folder}/{name}.rs");
            if other != *file && files.contains_key(&other) {
                leads_to.entry(file.clone()).or_default().insert(other);
            }
        }
    }
    assert!(leads_to.len() > 60, "{leads_to:?}");
    let large: Vec<_> = circles(&leads_to).into_iter().filter(|circle| circle.len() > 2).collect();
    assert!(large.is_empty(), "{large:#?}");
}

/// The table of rooms in ARCHITECTURE.md says in its last column, in backticks, what the code of a room never names.
#[test]
fn a_room_knows_nothing_of_what_architecture_says_it_does_not() {
    let text = include_str!("../../../../ARCHITECTURE.md");
    let table =
        text.split("## Rooms of").nth(1).expect("the section of rooms").split("\n## ").next().unwrap_or_default();
    let quoted = |cell: &str| -> Vec<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(|name| name.trim_end_matches('/').trim_end_matches(".rs").to_owned()).collect()
    };
    let rooms = rooms();
    let mut told = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [names, _, unknown] = cells[..] else { panic!("a row of three cells: {row}") };
        for room in quoted(names) {
            let knows = rooms.get(&room).unwrap_or_else(|| panic!("there is a room `{room}`"));
            for other in quoted(unknown) {
                assert!(rooms.contains_key(&other), "`{room}`: there is a room `{other}`");
                assert!(!knows.contains(&other), "`{room}` names `{other}`");
            }
            told.insert(room);
        }
    }
    let all: BTreeSet<String> = rooms.into_keys().collect();
    assert_eq!(told, all, "each room has a row");
}
