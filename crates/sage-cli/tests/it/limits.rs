//! What a program may take, and what becomes of one that takes more.

use std::path::Path;
use std::time::{Duration, Instant};

use sage::{Cleanliness, Outcome};
use sage_api::job::{Limit, Limits};
use sage_api::message::{Happened, Told};
use sage_api::outcome::Enforced;

use super::job::{Job, counting};
use super::marked::Marked;

fn script(text: &str, limits: Limits) -> Job {
    Job::of(Path::new("/bin/sh"), &["-c", text], limits, "job")
}

#[test]
fn a_job_whose_time_is_over_is_cancelled_and_cleaned() {
    let limits = Limits { time_ms: Some(300), ..Limits::default() };
    let job = Job::of(&counting(), &["pace=1"], limits, "job");
    let begun = Instant::now();
    let (end, _) = job.run();
    assert!(begun.elapsed() > Duration::from_millis(300));
    assert_eq!((end.outcome, end.cleanliness, end.exit_code), (Outcome::TimedOut, Cleanliness::Clean, 1), "{end:?}");
    assert_eq!(end.why.as_deref(), Some("its time of 300ms was over"));
    assert_eq!(job.reaper().limits[&Limit::Time], Enforced::Reaper);
    let events = job.events();
    assert!(events.iter().any(|event| matches!(event.what, Happened::Told(Told::OutOfTime))));
    assert!(events.iter().any(|event| matches!(&event.what, Happened::Ended { .. })), "it was told, and not killed");
}

#[test]
fn a_program_without_a_job_whose_time_is_over_is_sent_a_signal() {
    let limits = Limits { time_ms: Some(200), ..Limits::default() };
    let (end, _) = script("exec sleep 1000", limits).run();
    assert_eq!((end.outcome, end.exit_code), (Outcome::TimedOut, 143));
}

#[test]
fn who_does_not_end_when_its_time_is_over_is_killed() {
    let marked = Marked::new();
    let stubborn = "trap '' TERM; while :; do sleep 0.01; done";
    let mut sage = marked.sage(&["run", "--json", "--time", "200ms", "--grace", "100ms", "/bin/sh", "-c", stubborn]);
    let output = sage.output().expect("sage runs");
    marked.have_none();
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_str(out.trim()).expect("it is JSON");
    assert_eq!((&told["outcome"], &told["exit_code"]), (&"timed_out".into(), &1.into()), "{told}");
    assert!(said.contains("/bin/sh was ended: its time of 200ms was over"), "{said}");
}

#[test]
fn a_program_that_is_in_time_is_not_disturbed() {
    let marked = Marked::new();
    let limits = ["--time", "1h", "--cpu", "1h", "--memory", "4G"];
    let output =
        marked.sage(&[&["run"], &limits[..], &["/bin/sh", "-c", "exit 0"]].concat()).output().expect("it runs");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn who_uses_processors_for_too_long_is_ended() {
    let limits = Limits { cpu_ms: Some(1000), ..Limits::default() };
    let job = script("while :; do :; done", limits);
    let (end, _) = job.run();
    assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, 1));
    assert_eq!(end.why.as_deref(), Some("it used processors for more than 1s"));
    assert!(end.cpu_ms >= 500, "{end:?}");
    assert_eq!(job.reaper().limits[&Limit::Cpu], Enforced::EachProcess);
}

#[test]
fn who_takes_too_much_memory_does_not_get_it() {
    let takes = |megabytes: u32| {
        let limits = Limits { memory_bytes: Some(256 << 20), ..Limits::default() };
        let program = format!("x = b'1' * ({megabytes} << 20); print(len(x))");
        let job = Job::of(Path::new("/usr/bin/env"), &["python3", "-c", &program], limits, "job");
        let (end, _) = job.run();
        (job.reaper().limits[&Limit::Memory].clone(), end)
    };
    let (_, within) = takes(64);
    assert_eq!(within.outcome, Outcome::Succeeded, "{within:?}");
    let (enforced, beyond) = takes(512);
    assert_eq!(beyond.outcome, Outcome::Failed, "{beyond:?}");
    assert!(beyond.peak_bytes < 300 << 20, "{beyond:?}");
    match enforced {
        Enforced::Cgroup => assert_eq!(beyond.why.as_deref(), Some("it took more than 256 MiB of memory")),
        // Python says it itself.
        Enforced::EachProcess => assert_eq!(beyond.why.as_deref(), Some("it ended with exit code 1")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whether_the_number_of_processes_is_bounded_is_said() {
    let limits = Limits { processes: Some(20), ..Limits::default() };
    let job = script("for n in $(seq 30); do sleep 0.2 & done; wait; echo all", limits);
    let (end, _) = job.run();
    let output = std::fs::read_to_string(job.folder.output(0)).expect("it is there");
    match &job.reaper().limits[&Limit::Processes] {
        Enforced::Cgroup => assert!(output.contains("ork"), "it cannot fork: {output}, {end:?}"),
        Enforced::No(why) => {
            assert!(why.starts_with("it takes a control group, and ") && why.len() > 30, "{why}");
            assert_eq!(output, "all\n", "{end:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn limits_that_are_none_are_refused() {
    let wrong: [(&[&str], &str); 7] = [
        (&["--memory", "12Q"], "`12Q` is not an amount of memory"),
        (&["--memory", "10"], "too little"),
        (&["--time", "5"], "`5` is not a time: give a number with ms, s, m or h"),
        (&["--time", "0s"], "too little"),
        (&["--cpu", "soon"], "`soon` is not a time"),
        (&["--processes", "0"], "--processes"),
        (&["--grace", "1s"], "--time"),
    ];
    for (arguments, line) in wrong {
        let output = Marked::new().sage(&[&["run"], arguments, &["/bin/true"]].concat()).output().expect("sage runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(line), "{arguments:?}: {said}");
    }
}
