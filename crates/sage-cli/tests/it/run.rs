//! `sage run`.

use std::fs;
use std::process::{Child, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::marked::{Marked, come};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder is made")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("sage is not killed")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is there");
}

#[test]
fn exit_codes_say_what_has_become_of_the_program() {
    let folder = folder();
    let ends = [
        ("exit 0", 0, ""),
        ("exit 1", 1, ""),
        ("exit 2", 2, ""),
        ("exit 3", 3, ""),
        ("exit 130", 130, ""),
        ("exit 5", 1, "ended with exit code 5"),
        ("kill -INT $$", 130, "was killed by SIGINT"),
        ("kill -TERM $$", 143, "was killed by SIGTERM"),
        ("kill -SEGV $$", 1, "was killed by SIGSEGV"),
        ("kill -40 $$", 1, "was killed by signal 40"),
        ("kill -KILL $$", 1, "was killed by SIGKILL, perhaps because the system had no memory left"),
    ];
    for (script, expected, line) in ends {
        let marked = Marked::new();
        let output = marked.script(folder.path(), script).output().expect("sage runs");
        marked.have_none();
        let said = told(&output);
        assert_eq!((code(&output), said.is_empty()), (expected, line.is_empty()), "{script}: {said}");
        assert!(said.contains(line), "{script}: {said}");
    }
}

#[test]
fn what_the_program_prints_and_reads_is_its_own() {
    let (folder, marked) = (folder(), Marked::new());
    let mut sage = marked.script(folder.path(), "read line; echo \"got $line and $1\"; echo err >&2; exit 1");
    sage.args(["--json", "--help"]).stdin(std::process::Stdio::piped());
    let mut child = sage.spawn().expect("sage runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), b"a word\n").expect("it is read");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got a word and --json\n");
    assert_eq!((code(&output), told(&output)), (1, "err\n".to_owned()));
}

#[test]
fn what_it_leaves_is_ended_and_named() {
    let (folder, marked) = (folder(), Marked::new());
    let script = "setsid sleep 1000 & (trap '' TERM; sleep 1001 & wait) & echo done";
    let output = marked.script(folder.path(), script).output().expect("sage runs");
    marked.have_none();
    let said = told(&output);
    assert_eq!(code(&output), 3, "{said}");
    assert!(said.contains("left processes, which were ended: ") && said.contains("sleep (process "), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}

#[test]
fn what_ends_by_itself_soon_is_not_left() {
    let (folder, marked) = (folder(), Marked::new());
    let output = marked.script(folder.path(), "(sleep 0.05) & exit 0").output().expect("sage runs");
    assert_eq!((code(&output), told(&output)), (0, String::new()));
}

#[test]
fn the_outcome_is_told_as_json() {
    let folder = folder();
    let file = folder.path().join("job").display().to_string();
    let told = |script: &str| -> Value {
        let mut sage = Marked::new().script(folder.path(), script);
        let arguments: Vec<_> = sage.get_args().skip(1).map(ToOwned::to_owned).collect();
        let mut with_json = Marked::new().sage(&["run", "--json"]);
        with_json.args(arguments);
        sage = with_json;
        let output = sage.output().expect("sage runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(text.lines().last().expect("a line")).expect("it is JSON")
    };
    let expected = serde_json::json!({
        "program": file, "outcome": "succeeded", "exit_code": 0, "ended": {"exited": 0}, "left": [], "there": [],
    });
    assert_eq!(told("echo out"), expected);
    let killed = told("kill -9 $$");
    assert_eq!((&killed["outcome"], &killed["ended"]), (&"failed".into(), &serde_json::json!({"signalled": 9})));
    let unclean = told("sleep 1000 &");
    assert_eq!((&unclean["outcome"], &unclean["exit_code"]), (&"unclean".into(), &3.into()));
}

#[test]
fn signals_are_handed_on() {
    let (folder, marked) = (folder(), Marked::new());
    let script = "trap 'echo term; exit 143' TERM; trap 'echo usr' USR1; echo $$ > begun; while :; do sleep 0.01; done";
    let child = marked.script(folder.path(), script).spawn().expect("sage runs");
    come(&folder.path().join("begun"));
    send(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("it ends");
    marked.have_none();
    assert_eq!((code(&output), String::from_utf8_lossy(&output.stdout).as_ref()), (143, "term\n"));
}

#[test]
fn contract_18_the_third_signal_ends_it_at_once() {
    let (folder, marked) = (folder(), Marked::new());
    let script =
        "trap 'echo $((n += 1)) > told$n' INT TERM; setsid sleep 1000 & echo $$ > begun; while :; do sleep 0.01; done";
    let child = marked.script(folder.path(), script).spawn().expect("sage runs");
    come(&folder.path().join("begun"));
    send(&child, Signal::SIGINT);
    come(&folder.path().join("told1"));
    send(&child, Signal::SIGTERM);
    come(&folder.path().join("told2"));
    send(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("it ends");
    marked.have_none();
    assert_eq!(code(&output), 143, "{}", told(&output));
}

/// A program with a child, and a grandchild in a session of its own.
const FAMILY: &str = "sleep 1000 & setsid sh -c 'sleep 1001 & sleep 1002' & echo $$ > begun; wait";

#[test]
fn contract_20_of_a_program_that_is_killed_nothing_is_left() {
    let (folder, marked) = (folder(), Marked::new());
    let child = marked.script(folder.path(), FAMILY).spawn().expect("sage runs");
    let pid = come(&folder.path().join("begun")).parse().expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    marked.have_none();
    assert_eq!(code(&output), 3, "{}", told(&output));
}

#[test]
fn contract_20_if_sage_run_is_killed_nothing_is_left() {
    let (folder, marked) = (folder(), Marked::new());
    let mut child = marked.script(folder.path(), FAMILY).spawn().expect("sage runs");
    come(&folder.path().join("begun"));
    child.kill().expect("it is there");
    marked.are_gone();
    child.wait().expect("it is ours");
}

#[test]
fn contract_20_if_the_warden_is_killed_nothing_is_left() {
    let (folder, marked) = (folder(), Marked::new());
    let child = marked.script(folder.path(), FAMILY).spawn().expect("sage runs");
    come(&folder.path().join("begun"));
    let is_warden = |(pid, name): &(i32, String)| name == "sage" && *pid != child.id().cast_signed();
    let (warden, _) = marked.processes().into_iter().find(is_warden).expect("there is one");
    kill(Pid::from_raw(warden), Signal::SIGKILL).expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    marked.have_none();
    let said = told(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("the process that watched"), "{said}");
}

#[test]
fn what_cannot_be_run_is_named_with_what_to_do() {
    let folder = folder();
    fs::write(folder.path().join("data.txt"), "text").expect("it is written");
    fs::write(folder.path().join("app.py"), "print('ran')").expect("it is written");
    let wrong: [(&[&str], &str); 8] = [
        (&["run", "no.py"], "there is no file no.py"),
        (&["run", "./nothing"], "there is no file ./nothing"),
        (&["run", "no-such-program"], "no-such-program, neither in this folder nor in one of PATH"),
        (&["run", "data.txt"], "chmod +x"),
        (&["run", "."], "is a folder"),
        (&["run", "--python", "/no/python", "app.py"], "there is no interpreter /no/python"),
        (&["run"], "Usage: sage run"),
        (&["rum"], "'run'"),
    ];
    for (arguments, line) in wrong {
        let output = Marked::new().sage(arguments).current_dir(folder.path()).output().expect("sage runs");
        assert_eq!(code(&output), 2, "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(line), "{arguments:?}: {}", told(&output));
    }
    let mut without = Marked::new().sage(&["run", "app.py"]);
    without.current_dir(folder.path()).env("PATH", "").env_remove("VIRTUAL_ENV");
    let output = without.output().expect("sage runs");
    assert!(code(&output) == 2 && told(&output).contains("activate a virtual environment"), "{}", told(&output));
    let output = Marked::new().sage(&["run", "app.py"]).current_dir(folder.path()).output().expect("sage runs");
    assert_eq!((code(&output), String::from_utf8_lossy(&output.stdout).as_ref()), (0, "ran\n"));
}

#[test]
fn a_program_that_is_no_program_is_a_failure() {
    let (folder, marked) = (folder(), Marked::new());
    let file = folder.path().join("job");
    marked.script(folder.path(), "");
    fs::write(&file, "#!/no/such/interpreter\n").expect("it is written");
    let output = marked.sage(&["run", file.to_str().expect("it is text")]).output().expect("sage runs");
    assert_eq!(code(&output), 1);
    assert!(told(&output).contains("could not be started: "), "{}", told(&output));
}

#[test]
fn nobody_has_to_read_what_it_says() {
    let (folder, marked) = (folder(), Marked::new());
    let run = marked.script(folder.path(), "exit 5");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(run.get_program()).args(["run", "--json"]);
    shell.args(run.get_args().skip(1));
    assert_eq!(shell.status().expect("the shell runs").code(), Some(1));
}

#[test]
fn help_teaches() {
    let output = Marked::new().sage(&["run", "--help"]).output().expect("sage runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0);
    for said in ["the first SIGINT or SIGTERM drains", "Exit codes:", "--python"] {
        assert!(text.contains(said), "{text}");
    }
}
