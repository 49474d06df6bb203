//! What the compiler says of usual mistakes: the programs of `tests/mistakes`, each compiled by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The engine as this test is linked to it: the newest of those beside it.
fn engine(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).expect("the folder of this test").map(|entry| entry.expect("an entry").path());
    let engines = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("libsage-") && name.ends_with(".rlib")
    });
    let newest = engines.max_by_key(|path| fs::metadata(path).and_then(|about| about.modified()).ok());
    newest.expect("the engine is compiled before its tests")
}

/// What the compiler says of a program that has a mistake, without what it may say about itself.
fn told(program: &str) -> String {
    let folder = std::env::current_exe().expect("this test has a path");
    let folder = folder.parent().expect("it lies in a folder");
    let out = tempfile::tempdir().expect("a folder for what the compiler writes");
    let output = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"))
        .args(["--edition", "2024", "--emit=metadata", "--error-format=human", "--color=never"])
        .arg(format!("-Ldependency={}", folder.display()))
        .arg(format!("--extern=sage={}", engine(folder).display()))
        .arg(format!("--out-dir={}", out.path().display()))
        .arg(format!("tests/mistakes/{program}.rs"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the compiler runs");
    assert!(!output.status.success(), "{program} compiles");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first error of a program with a mistake, up to where the compiler goes on to the engine's own code. Fails where
/// it has more lines than that, or where more than `errors` are told.
#[track_caller]
fn first_error(program: &str, lines: usize, errors: usize) -> String {
    let told = told(program);
    let all: Vec<&str> = told.split("\n\n").filter(|part| part.starts_with("error[")).collect();
    assert!(all.len() <= errors, "{} errors:\n{told}", all.len());
    assert!(all[0].lines().count() <= lines, "{} lines:\n{}", all[0].lines().count(), all[0]);
    let ours = all[0].lines().take_while(|line| !line.starts_with("note: required by"));
    // How far lines are indented depends on the numbers of the engine's own lines.
    ours.map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_window_without_timestamps_names_with_timestamps() {
    insta::assert_snapshot!(first_error("timestamps_forgotten", 20, 1), @r"
    error[E0277]: the records have no event time
    --> tests/mistakes/timestamps_forgotten.rs:9:20
    |
    9 |     by_name.window(Tumbling::of(Duration::from_secs(1))).count().sink(|_| {});
    |             ------ ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this needs `with_timestamps` before it
    |             |
    |             required by a bound introduced by this call
    |
    = help: the trait `InEventTime<(&str, {integer})>` is not implemented for `Tumbling`
    = note: add `.with_timestamps(|record| .., OutOfOrder::by(..))` before `key_by`; or use `window_by_clock`
    ");
}

#[test]
fn a_float_as_a_key_names_its_bits() {
    insta::assert_snapshot!(first_error("key_is_a_float", 20, 2), @r"
    error[E0277]: records cannot be grouped by `f64`
    --> tests/mistakes/key_is_a_float.rs:6:12
    |
    6 |     prices.key_by(|price| price.1).count().sink(|_| {});
    |            ^^^^^^ a key has to have `Hash` and `Eq`
    |
    = help: the trait `Key` is not implemented for `f64`
    = note: derive them: `#[derive(PartialEq, Eq, Hash)]`; of a float, take `.to_bits()` or round it to an integer
    ");
}

#[test]
fn a_window_without_a_key_names_key_by() {
    insta::assert_snapshot!(first_error("key_forgotten", 20, 1), @r"
    error[E0277]: the stream is not grouped by key
    --> tests/mistakes/key_forgotten.rs:9:18
    |
    9 |     timed.window(Tumbling::of(Duration::from_secs(1))).count().sink(|_| {});
    |           ------ ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ this needs `key_by` before it
    |           |
    |           required by a bound introduced by this call
    |
    = help: the trait `sage::stream::lacking::OfKeyed` is not implemented for `Tumbling`
    = note: add `.key_by(|record| ..)` before this step; to take all records together, `.key_by(|_| ())`
    ");
}

#[test]
fn a_state_without_a_key_names_key_by() {
    insta::assert_snapshot!(first_error("key_forgotten_before_state", 20, 1), @r"
    error[E0277]: the stream is not grouped by key
    --> tests/mistakes/key_forgotten_before_state.rs:7:25
    |
    7 |         .map_with_state(0, |total, sale| {
    |          -------------- ^ this needs `key_by` before it
    |          |
    |          required by a bound introduced by this call
    |
    = help: the trait `sage::stream::lacking::OfKeyed` is not implemented for `{integer}`
    = note: add `.key_by(|record| ..)` before this step; to take all records together, `.key_by(|_| ())`
    ");
}

#[test]
fn a_call_of_a_service_that_is_not_built_names_build() {
    insta::assert_snapshot!(first_error("service_not_built", 20, 1), @r#"
    error[E0277]: the service is declared, but not registered
    --> tests/mistakes/service_not_built.rs:10:52
    |
    10 |     env.from_iter(["Ada"]).map(move |name| greeter.call(|_| name)).sink(|_| {});
    |                                                    ^^^^ this is still its builder, not a handle that can be called
    |
    = help: the trait `sage::service::builder::IsBuilt` is not implemented for `ServiceBuilder<Greeter>`
    = note: end the declaration with `.build()`: `let service = env.register_service(..).build();`
    "#);
}

#[test]
fn a_receiver_of_std_names_those_that_can_be_waited_for() {
    insta::assert_snapshot!(first_error("receiver_of_std", 20, 1), @r"
    error[E0277]: `std::sync::mpsc::Receiver<u32>` is no receiver that `from_channel` can wait for
    --> tests/mistakes/receiver_of_std.rs:6:22
    |
    6 |     env.from_channel(receiver).sink(|_| {});
    |         ------------ ^^^^^^^^ expected a receiver of `crossbeam_channel` or of `tokio::sync::mpsc`
    |         |
    |         required by a bound introduced by this call
    |
    = help: the trait `ChannelReceiver` is not implemented for `std::sync::mpsc::Receiver<u32>`
    = note: nothing ends a wait for `std::sync::mpsc`, so no drain could: make the channel with `crossbeam_channel`
    ");
}
