//! The example `rag` as its users meet it: a process with arguments, output, a report and an exit code.

#![expect(clippy::unwrap_used, reason = "in a test, also outside of its function")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A built example: beside the folder of this test's own executable.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(built.exists(), "`{}` is not built: cargo build -p sage-services --examples", built.display());
    Command::new(built)
}

fn rag() -> Command {
    let mut command = example("rag");
    // A test run started in the background ignores SIGINT, and so would its children.
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    command
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    folder
}

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn answers_name_the_file_and_the_lines() {
    let bees = b"# Bees\n\nBees keep the hive at thirty-five degrees\nwith their wings. They dance.\n";
    let folder = folder(&[
        ("nature/bees.md", &bees[..]),
        (
            "page.html",
            b"<html><body>\n<p>Clocks on ships were wound\nat noon by the second mate.</p>\n</body></html>\n",
        ),
        ("latin.txt", b"caf\xe9 opens at seven"),
        ("binary.txt", b"\0\0\0"),
        ("ignored.rs", b"// At what temperature do bees keep the hive?"),
    ]);
    let report = folder.path().join("report.json");
    let (output, text) = run(rag()
        .arg(folder.path())
        .args(["-q", "At how many degrees do bees keep a hive?", "-q", "When was the ship's clock wound?"])
        .args(["-q", "Who is afraid of elephants?", "--report"])
        .arg(&report));
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress is drawn and nothing logged where nobody watches");
    for expected in [
        "A: Bees keep the hive at thirty-five degrees with their wings.\n   nature/bees.md:3-4\n",
        "A: Clocks on ships were wound at noon by the second mate.\n   page.html:2-3\n",
        "Q: Who is afraid of elephants?\nA: no document answers this\n",
        "3 documents read, 3 passages stored, 3 questions asked\n",
        "binary.txt` is not text",
        "not UTF-8: `latin.txt`",
        "\nembedder cleaned\nstore cleaned\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing:\n{text}");
    }

    let report = json(&report);
    assert_eq!(report["answers"][0]["path"], "nature/bees.md");
    assert_eq!((&report["answers"][0]["first_line"], &report["answers"][0]["last_line"]), (&3.into(), &4.into()));
    assert_eq!(report["answers"][2]["answer"], Value::Null);
    assert_eq!((&report["documents"], &report["passed_over"], &report["not_utf8"]), (&3.into(), &1.into(), &1.into()));
    assert_eq!((&report["job"]["outcome"], &report["job"]["cleanliness"]), (&"succeeded".into(), &"clean".into()));
}

/// Types lines into a conversation, and gives what was written.
fn chat(folder: &Path, memory: &Path, lines: &str, more: &[&str]) -> String {
    let mut command = rag();
    command.arg(folder).args(["--chat", "--memory"]).arg(memory).args(more);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("store cleaned\nmemory cleaned\n"), "{text}");
    text
}

#[test]
fn a_conversation_is_remembered_by_later_runs_and_forgotten_when_told() {
    let folder = folder(&[("bees.md", b"Bees keep the hive at thirty-five degrees.")]);
    let memory = folder.path().join("memory");
    let path = folder.path();
    let first = chat(path, &memory, "My parrot is called Coco.\nHow warm do bees keep the hive?\n", &[]);
    assert!(first.contains("I shall remember that.\n"), "{first}");
    assert!(first.contains("A: Bees keep the hive at thirty-five degrees.\n   bees.md:1\n"), "{first}");
    let asked = "What is my parrot called?\n";
    let known = "A: My parrot is called Coco.\n   what you said on 20";
    let second = chat(path, &memory, asked, &[]);
    assert!(second.contains(known), "{second}");
    let other = chat(path, &memory, asked, &["--user", "somebody else"]);
    assert!(other.contains("A: no document answers this"), "{other}");
    let third = chat(path, &memory, &format!("{asked}/forget\n{asked}"), &[]);
    assert!(third.contains(known), "{third}");
    assert!(third.contains("erased of tenant rag, user you: ") && third.contains("out of reach:"), "{third}");
    assert!(third.contains("A: no document answers this"), "{third}");
    let bytes = fs::read(&memory).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"Coco"));
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&memory).unwrap()) & 0o777, 0o600);
}

/// It waits for a line that does not come.
#[test]
fn a_signal_ends_a_conversation_at_once() {
    let folder = folder(&[("bees.md", b"Bees keep the hive at thirty-five degrees.")]);
    let mut command = rag();
    command.arg(folder.path()).args(["--chat", "--memory"]).arg(folder.path().join("memory"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"How warm do bees keep the hive?\n").unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("bees.md:1\n") {
        assert!(out.read_line(&mut text).unwrap() > 0, "{text}");
    }
    // SAFETY: it sends a signal to a child that has not been waited for.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) };
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
    assert!(text.contains("store cleaned\nmemory cleaned\n"), "{text}");
}

#[test]
fn a_thousand_sessions_recall_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    // The second run remembers nothing twice.
    for _ in 0..2 {
        let (output, text) = run(example("memory").arg(&path));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text, "sessions: 1000\nturns: 5000\nrecalled right: 1000 of 1000\nerased: 5 turns\n");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_fails() {
    let empty = folder(&[]);
    let text = folder(&[("a.txt", b"text")]);
    let missing = empty.path().join("missing");
    for (command, expected) in [
        (rag().arg(&missing), "cannot be read: No such file or directory"),
        (rag().arg(text.path()), "nothing to ask; give a question with --question"),
        (rag().arg(empty.path()).args(["-q", "what?"]), "no document in"),
        (rag().arg(text.path()).args(["-q", "what?", "--passages", "51"]), "not a number from 1 to 50"),
        (rag().arg(text.path()).args(["-q", "what?", "--chat"]), "cannot be used with"),
        (rag().arg(text.path()).args(["-q", "what?", "--memory", "m"]), "--memory and --user are for --chat"),
    ] {
        let (output, _) = run(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(expected), "{expected:?} is missing:\n{error}");
    }
}

/// Standard error is full before the last document is read, so the signal strikes in the middle of the walk. Standard
/// output is not read before the drain has begun, and would be full before the last question is answered, so the job
/// cannot be over before it, however slowly the signal arrives.
#[test]
fn a_signal_in_the_middle_ends_130_with_every_service_cleaned() {
    const DOCUMENTS: usize = 1_500;
    let folder = tempfile::tempdir().unwrap();
    for number in 0..DOCUMENTS {
        let text = format!("# Document {number}\n\nThe quick brown fox number {number} jumps over the lazy dog.\n");
        fs::write(folder.path().join(format!("document-with-a-long-name-{number:05}.md")), text).unwrap();
    }
    let questions = folder.path().join("questions");
    fs::write(&questions, "Which quick brown fox jumps over the lazy dog?\n".repeat(5_000)).unwrap();
    let report = folder.path().join("report.json");

    let mut child = rag()
        .arg(folder.path())
        .args(["-vv", "--questions"])
        .arg(&questions)
        .arg("--report")
        .arg(&report)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    log.by_ref().find(|line| line.contains("document-with-a-long-name")).expect("a document is logged");
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: sends a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    log.by_ref().find(|line| line.contains("draining")).expect("the drain is logged");

    let rest = std::thread::spawn(move || log.count());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    rest.join().unwrap();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.ends_with("\nembedder cleaned\nstore cleaned\n"), "{text}");
    let job = &json(&report)["job"];
    assert_eq!(
        (&job["outcome"], &job["cleanliness"], &job["reason"]["signal"]),
        (&"cancelled".into(), &"clean".into(), &libc::SIGINT.into())
    );
    assert!(job["left"].as_array().unwrap().is_empty());
}

#[test]
fn a_second_run_over_a_file_embeds_only_what_changed() {
    let folder = folder(&[
        ("a.md", b"# Bees\n\nBees keep the hive warm.\n"),
        ("b.md", b"# Clocks\n\nClocks are wound at noon.\n"),
        ("c.txt", b"Ships sail at dawn."),
    ]);
    let files = tempfile::tempdir().unwrap();
    let (index, report) = (files.path().join("index.sage"), files.path().join("report.json"));
    let run_again = || {
        let (output, text) = run(rag().arg(folder.path()).args(["-q", "When are clocks wound?"]).args([
            "--at".as_ref(),
            index.as_os_str(),
            "--report".as_ref(),
            report.as_os_str(),
        ]));
        assert!(output.status.success(), "{output:?}");
        let report = json(&report);
        let numbers = ["passages", "embedded", "deleted"].map(|name| report[name].as_u64().unwrap());
        (numbers, text)
    };
    let (first, text) = run_again();
    assert!(first == [3, 3, 0] && text.contains("b.md:3"), "{first:?} {text}");
    let (second, text) = run_again();
    assert!(second == [3, 0, 0] && text.contains("Clocks are wound at noon."), "{second:?} {text}");
    fs::write(folder.path().join("b.md"), "# Clocks\n\nClocks are wound at midnight.\n").unwrap();
    fs::remove_file(folder.path().join("c.txt")).unwrap();
    let (third, text) = run_again();
    assert!(third == [2, 1, 1] && text.contains("at midnight") && !text.contains("noon"), "{third:?} {text}");
    assert!(text.contains("2 passages stored (1 embedded, the others as they were; 1 deleted)"), "{text}");
}

#[test]
fn another_embedder_or_a_store_that_is_not_there_is_told_before_anything_is_read() {
    let folder = folder(&[("a.md", b"# Bees\n\nBees keep the hive warm.\n")]);
    let told = |arguments: &[&str]| {
        let output = rag().arg(folder.path()).args(["-q", "What?"]).args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = told(&["--embedder", "static"]);
    assert!(text.contains("--weights <FOLDER>"), "{text}");
    let text = told(&["--embedder", "static", "--weights", "/nowhere"]);
    assert!(text.contains("`--features static`") || text.contains("/nowhere"), "{text}");
    let text = told(&["--collection", "no name"]);
    assert!(text.contains("is no name of a collection"), "{text}");
}

#[test]
fn the_program_of_the_readme_answers_from_the_documents() {
    let folder = folder(&[("docs/stop.md", b"# Stopping\n\nTasks stop first.\n\nServices stop in reverse order.\n")]);
    for _ in 0..2 {
        let (output, text) = run(example("answers").current_dir(folder.path()));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text, "Services stop in reverse order.\n  docs/stop.md:5\n");
    }
    assert!(folder.path().join("docs.sage").exists());
}
