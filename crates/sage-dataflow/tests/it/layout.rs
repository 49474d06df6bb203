//! Which crate may know which: the directions ARCHITECTURE.md draws, kept by a test.

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
