//! The verbs of `sage job` and `sage jobmanager`: what they print, and their exit codes.

use std::process::{Output, Stdio};

use sage_api::job::State;
use serde_json::Value;

use super::User;
use crate::job::counting;

impl User {
    /// What a command says: its exit code, its output and its errors.
    fn sage(&self, words: &[&str]) -> (i32, String, String) {
        let mut sage = self.marked.sage(words);
        sage.env("SAGE_HOME", self.home().path()).env("COLUMNS", "100").stdin(Stdio::null()).stderr(Stdio::piped());
        let Output { status, stdout, stderr } = sage.output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }

    /// What `sage job` prints.
    fn job(&self, words: &[&str]) -> String {
        let (code, said, wrong) = self.sage(&[&["job", "--port", "0"], words].concat());
        assert_eq!((code, wrong.as_str()), (0, ""), "{words:?}: {said}");
        said
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.job(&[&["--json"], words].concat())).expect("it is JSON")
    }

    /// Submits a counting job, and returns its id.
    fn submitted(&self, words: &[&str]) -> String {
        let (name, value) = self.marked.variable();
        let (variable, program) = (format!("{name}={value}"), counting());
        let program = program.to_str().expect("its path is text");
        let told = self.json(&[&["submit", "--env", &variable, program], words].concat());
        told["id"].as_str().expect("it has one").to_owned()
    }
}

#[test]
fn jobs_are_listed_shown_and_called_as_sage_does() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    assert_eq!(user.job(&["list"]), "ℹ️ No jobs found\n");
    let good = user.submitted(&["records=3"]);
    let bad = user.submitted(&["fail=2"]);
    daemon.until_over(&good);
    daemon.until_over(&bad);

    let list = user.job(&["list"]);
    let lines: Vec<_> = list.lines().collect();
    for word in ["#", "UUID (Short)", "Name", "Status", "Started", "Runtime"] {
        assert!(lines[1].contains(word), "{list}");
    }
    assert!(lines[3].contains(&format!("{}...", &bad[..8])) && lines[3].contains("failed"), "{list}");
    assert!(lines[5].contains("succeeded"), "{list}");
    assert!(user.job(&["list", "--full-uuid"]).contains(&good));
    let failed = user.job(&["list", "--status", "failed"]);
    assert!(failed.contains(&bad[..8]) && !failed.contains(&good[..8]), "{failed}");
    let json: Value = serde_json::from_str(&user.job(&["list", "-f", "json"])).unwrap();
    assert_eq!(json["jobs"][0]["uuid"], bad.as_str());
    assert_eq!((&json["jobs"][0]["status"], &json["jobs"][1]["status"]), (&"failed".into(), &"stopped".into()));

    for called in [good.as_str(), &good[..8], "1"] {
        let shown = user.job(&["show", called]);
        assert!(shown.starts_with("=== Job Details ===\n") && shown.contains(&format!("UUID: {good}\n")), "{shown}");
        assert!(shown.contains("Status: succeeded\n"), "{shown}");
    }
    let shown = user.job(&["show", "-v", "2"]);
    assert!(shown.contains("Why: operator `try-map-1`, record 2: 2 is too many\n"), "{shown}");
    assert!(
        shown.contains("Environment Details:\n  counting") && shown.contains("service counter: cleaned"),
        "{shown}"
    );
    let status = user.job(&["status", "2"]);
    assert!(status.starts_with(&format!("Job 'counting' ({}...) status: failed: operator", &bad[..8])), "{status}");
    assert_eq!(user.json(&["show", "1"])["engine_jobs"][0]["environment"], "counting");
    assert!(user.job(&["logs", "2"]).contains("job `counting` failed"));

    assert_eq!(user.job(&["delete", "-f", "1"]), format!("✅ Job {}... deleted successfully\n", &good[..8]));
    assert_eq!(user.job(&["cleanup", "-f"]), "✅ Cleaned up 1 jobs\n");
    let healthy = user.job(&["health"]);
    assert_eq!(healthy, format!("✅ JobManager is healthy\nDaemon: {}\n", daemon.http));
    assert!(user.job(&["info"]).contains("Session: "));
}

#[test]
fn a_job_is_paused_resumed_drained_and_submitted_anew_by_verbs() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let id = user.submitted(&["pace=1"]);
    daemon.until_state(&id, State::Running);
    let paused = user.job(&["pause", "1"]);
    assert!(paused.contains("`sage job resume 1`") && paused.contains("`sage job stop 1` ends it"), "{paused}");
    daemon.until_state(&id, State::Paused);
    let short = &id[..8];
    assert_eq!(user.job(&["continue", "1"]), format!("✅ Job {short}... continued successfully\n"));
    daemon.until_state(&id, State::Running);
    // It waits until the job is over.
    assert_eq!(user.job(&["stop", "1"]), format!("✅ Job {short}... stopped successfully: succeeded\n"));
    assert_eq!(daemon.record(&id).state, State::Succeeded);
    assert!(user.job(&["resume", "1"]).contains("submitted anew, 1 times so far"));
    daemon.until_state(&id, State::Running);
    let cancelled = user.json(&["cancel", "1"]);
    assert_eq!((&cancelled["state"], &cancelled["clean"]), (&"cancelled".into(), &true.into()));
}

#[test]
fn who_waits_for_a_job_sees_its_output_and_gets_its_exit_code() {
    let user = User::new();
    let _daemon = user.daemon(&[]);
    let submit = |words: &[&str]| user.sage(&[&["job", "submit", "--port", "0", "--wait"], words].concat());
    let (code, said, told) = submit(&["/bin/sh", "-c", "echo said; echo wrong >&2; exit 0"]);
    assert_eq!((code, said.as_str(), told.as_str()), (0, "said\nwrong\n", "sage: job 1 succeeded\n"));
    let (code, _, told) = submit(&["/bin/sh", "-c", "exit 7"]);
    assert_eq!(code, 1);
    assert!(told.starts_with("sage: job 2 failed, "), "{told}");
    let counting = counting();
    let (code, ..) = submit(&[counting.to_str().unwrap(), "records=1", "unclean"]);
    assert_eq!(code, 3);
    let (code, ..) = user.sage(&["job", "watch", "--port", "0", "3"]);
    assert_eq!(code, 3);
}

#[test]
fn what_is_asked_for_wrongly_is_answered_in_words() {
    let user = User::new();
    let (code, _, told) = user.sage(&["job", "list"]);
    assert_eq!(code, 1);
    assert_eq!(told, "❌ no job manager runs at port 19001: start one with `sage jobmanager start`\n");
    let _daemon = user.daemon(&[]);
    let wrong = |words: &[&str]| {
        let (code, _, told) = user.sage(&[&["job", "--port", "0"], words].concat());
        assert_eq!(code, 1, "{told}");
        told
    };
    assert!(wrong(&["show", "7"]).starts_with("❌ "));
    assert!(wrong(&["submit", "nowhere/program.py"]).contains("there is no file nowhere/program.py"));
    assert!(wrong(&["submit", "--env", "SAGE_NO_SUCH", "sh"]).contains("SAGE_NO_SUCH is not set here"));
    assert!(wrong(&["list", "--status", "asleep"]).contains("asleep"));
    let (code, _, told) = user.sage(&["job", "submit", "--memory", "much", "sh"]);
    assert_eq!(code, 2);
    assert!(told.contains("`much` is not an amount of memory"), "{told}");
    let told: Value = serde_json::from_str(&user.sage(&["job", "--port", "0", "--json", "show", "7"]).1).unwrap();
    assert!(told["error"].is_string());
}

#[test]
fn the_job_manager_is_started_told_about_restarted_killed_and_stopped() {
    let user = User::new();
    let manager = |words: &[&str]| user.sage(&[&["jobmanager", "--port", "0"], words].concat());
    let (code, said, wrong) = manager(&["start"]);
    assert_eq!((code, wrong.as_str()), (0, ""));
    assert!(
        said.starts_with("✅ Operation 'start' completed successfully\n") && said.contains("/login?code="),
        "{said}"
    );
    assert!(manager(&["start"]).1.contains("it runs already"));
    let (_, status, _) = manager(&["status"]);
    assert!(status.contains("Health Status: healthy") && status.contains("Running: 0 of 8 at a time"), "{status}");
    let id = user.submitted(&["pace=1"]);
    let (code, said, wrong) = manager(&["restart"]);
    assert_eq!((code, wrong.as_str()), (0, ""), "{said}");
    let (code, ..) = manager(&["kill"]);
    assert_eq!(code, 0);
    assert_eq!(manager(&["kill"]).0, 1);
    let (code, ..) = manager(&["start"]);
    assert_eq!(code, 0);
    // Through all of this.
    assert!(user.job(&["status", &id]).contains("running"));
    let (code, link, _) = manager(&["--json", "link"]);
    let link: Value = serde_json::from_str(&link).unwrap();
    assert!(code == 0 && link["page"].as_str().unwrap().contains("/login?code="));
    assert_eq!(manager(&["rotate-token"]).0, 0);
    assert_eq!(manager(&["version"]).1, format!("SAGE: {}\n", env!("CARGO_PKG_VERSION")));
    let (code, said, wrong) = manager(&["stop", "--jobs", "drain"]);
    assert_eq!((code, wrong.as_str()), (0, ""), "{said}");
    assert_eq!(manager(&["stop"]).0, 1);
    assert!(!user.manager().address().exists());
}

#[test]
fn the_doctor_says_what_helps_and_what_hinders() {
    let user = User::new();
    let (code, said, _) = user.sage(&["doctor", "--json"]);
    let findings: Vec<Value> = serde_json::from_str(&said).unwrap();
    let of = |what: &str| findings.iter().find(|finding| finding["what"] == what).unwrap_or_else(|| panic!("{said}"));
    assert_eq!((code, &of("What jobs leave")["is"]), (0, &"good".into()));
    assert!(of("Job manager")["words"].as_str().unwrap().contains("sage jobmanager start"));
    let _daemon = user.daemon(&[]);
    assert!(user.sage(&["doctor", "--port", "0"]).1.contains("✅ Job manager: process"));
    // A folder that others may write in.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(user.home().path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, said, _) = user.sage(&["doctor"]);
    assert!(code == 1 && said.contains("❌ Folder: others may write"), "{said}");
}
