//! Tests that need a process of their own, for its limits, its signals or its memory.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::folder;

const VARIABLE: &str = "SAGE_CONNECTORS_TEST_FOLDER";

/// Runs `body`, with an empty folder, in a process that runs nothing but the test called `test`, after the shell
/// has done `prelude`.
pub(crate) fn alone(test: &str, prelude: &str, body: impl FnOnce(PathBuf)) {
    if let Some(dir) = env::var_os(VARIABLE) {
        return body(PathBuf::from(dir));
    }
    let dir = folder();
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{prelude} exec \"$0\" \"$@\""))
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, dir.path())
        .output()
        .unwrap();
    let told = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed"), "no test is called `{test}`: {told}");
}
