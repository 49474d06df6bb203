//! What jobs do under the job manager, and what they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use sage_api::api::{Running, Shutdown};
use sage_api::client::{Action, Filter};
use sage_api::job::{Program, State};
use sage_api::outcome::Process;

use super::{Daemon, User, refused};
use crate::job::until;

#[test]
fn a_job_runs_with_its_variables_in_its_folder_and_its_record_says_how_it_ended() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let mut request = user.shell("echo $KEY in $(pwd); echo $SAGE_JOB_ID; env | grep -c SAGE_HOME");
    request.variables.insert("KEY".to_owned(), "a secret".to_owned());
    let job = daemon.submit(&request);
    assert_eq!((job.number, job.state, job.restart_count), (1, State::Starting, 0));
    let over = daemon.until_over(&job.id);
    // `grep` finds nothing, and says so.
    assert_eq!((over.state, over.exit_code, over.clean), (State::Failed, Some(1), Some(true)));
    let output = daemon.client.output("1", 0).expect("there is one");
    let folder = user.folder.path().display();
    assert_eq!(String::from_utf8_lossy(&output.bytes), format!("a secret in {folder}\n{}\n0\n", job.id));
    let detail = daemon.client.job(&job.id[..8]).expect("there is one");
    assert!(detail.spec.variables.contains(&"KEY".to_owned()));
    assert_eq!(detail.outcome.expect("it is over").exit_code, 1);
    // Its value is in no file of the job manager's, but in the output of the program.
    let found = files_with(&user.home().path().join(""), "a secret");
    assert_eq!(found, [user.manager().job(&job.id).output(0)]);
    for file in all_files(user.home().path()) {
        let about = file.symlink_metadata().expect("it is there");
        let most = if about.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(about.permissions().mode() & 0o777 & !most, 0, "{}", file.display());
    }
}

#[test]
fn a_job_of_the_engine_is_seen_inside_and_does_what_it_is_told() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&job.id, State::Running);
    let graphs = daemon.client.graphs(&job.id).expect("there are some");
    assert_eq!(graphs.jobs[0].graph.environment, "counting");
    let figures = daemon.client.figures(&job.id).expect("it runs");
    assert_eq!(figures.jobs[0].id, graphs.jobs[0].id);
    assert!(!figures.jobs[0].figures.metrics.operators.is_empty());

    daemon.client.tell(&job.id, Action::Pause).expect("it is told");
    daemon.until_state(&job.id, State::Paused);
    daemon.client.tell(&job.id, Action::Resume).expect("it is told");
    daemon.until_state(&job.id, State::Running);
    daemon.client.tell(&job.id, Action::Drain).expect("it is told");
    let over = daemon.until_over(&job.id);
    assert_eq!((over.state, over.clean, over.exit_code), (State::Succeeded, Some(true), Some(0)), "{over:?}");
    let reports = daemon.client.reports(&job.id).expect("there are some");
    assert!(reports.jobs[0].operators[0].records_in > 0);
    let detail = daemon.client.job(&job.id).expect("there is one");
    assert_eq!((detail.engine_jobs[0].state, detail.engine_jobs[0].clean), (State::Succeeded, Some(true)));
    assert_eq!(refused(daemon.client.figures(&job.id)).0, 409);
    assert_eq!(refused(daemon.client.tell(&job.id, Action::Drain)).1, "conflict");
}

#[test]
fn a_job_that_is_cancelled_or_killed_is_cancelled_with_all_that_it_started() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    for action in [Action::Cancel, Action::Kill] {
        let job = daemon.submit(&user.shell("setsid sleep 1000 & echo ready; wait"));
        daemon.until_started(&job.id);
        until("it has started its own", || (user.marked.processes().len() > 4).then_some(()));
        daemon.client.tell(&job.id, action).expect("it is told");
        let over = daemon.until_over(&job.id);
        assert_eq!(over.state, State::Cancelled, "{over:?}");
        // Only the daemon is left.
        let left = user.marked.processes();
        assert!(left.iter().all(|(pid, _)| *pid == daemon.pid().as_raw()), "{left:?}");
    }
}

#[test]
fn jobs_wait_in_the_order_in_which_they_were_submitted_and_may_be_taken_off() {
    let user = User::new();
    let daemon = user.daemon(&["--limit", "1"]);
    let order = user.folder.path().join("order");
    let script = |number: u32| format!("echo {number} >> {}", order.display());
    let first = daemon.submit(&user.shell("exec sleep 1000"));
    let waiting: Vec<_> = (2..=4).map(|number| daemon.submit(&user.shell(&script(number)))).collect();
    assert!(waiting.iter().all(|job| job.state == State::Queued && job.why.is_some()));
    let queue = daemon.client.info().expect("it is here").queue;
    assert_eq!((queue.limit, queue.running, queue.queued), (1, 1, 3));

    assert_eq!(refused(daemon.client.tell("3", Action::Pause)).0, 409);
    let off = daemon.client.tell("3", Action::Cancel).expect("it is told");
    assert_eq!((off.state, off.clean), (State::Cancelled, Some(true)));
    daemon.client.tell(&first.id, Action::Kill).expect("it is told");
    daemon.until_over("2");
    daemon.until_over("4");
    assert_eq!(fs::read_to_string(order).expect("it is there"), "2\n4\n");
}

#[test]
fn what_is_over_is_submitted_anew_with_its_values_and_its_id() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let mut request = user.shell("echo run $KEY; test -e second || { touch second; exit 7; }");
    request.variables.insert("KEY".to_owned(), "value".to_owned());
    let job = daemon.submit(&request);
    assert_eq!(daemon.until_over(&job.id).state, State::Failed);
    let again = daemon.client.tell(&job.id, Action::Resume).expect("it is told");
    assert_eq!((again.id.as_str(), again.restart_count, again.number), (job.id.as_str(), 1, 1));
    let over = daemon.until(&job.id, |record| record.restart_count == 1 && record.state.is_over());
    assert_eq!(over.state, State::Succeeded, "{over:?}");
    assert_eq!(daemon.client.output(&job.id, 0).expect("there is one").bytes, b"run value\n");
    assert!(user.manager().job(&job.id).earlier(0).join("outcome.json").exists());

    // After a restart the values are gone: that is said, and nothing is started.
    assert!(daemon.stop().success());
    let daemon = user.daemon(&[]);
    let (status, code, words) = refused(daemon.client.tell(&job.id, Action::Resume));
    assert_eq!((status, code.as_str()), (422, "refused"));
    assert!(words.contains("the variable KEY is gone"), "{words}");
    assert_eq!(daemon.record(&job.id).state, State::Succeeded);
}

#[test]
fn a_job_is_deleted_with_its_folder_and_one_that_runs_only_by_force() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.shell("mkdir -p $SAGE_LOG_DIR; echo x > $SAGE_LOG_DIR/x.log; exec sleep 1000"));
    daemon.until_started(&job.id);
    until("it has a log file", || daemon.client.log_files(&job.id).ok().filter(|logs| !logs.files.is_empty()));
    let log = daemon.client.log(&job.id, "x.log", 0).expect("it is there");
    let log_folder = daemon.client.job(&job.id).expect("there is one").spec.log_folder;
    assert!(log.bytes.len() <= 2 && log_folder.is_dir());
    assert_eq!(refused(daemon.client.delete(&job.id, false)).0, 409);
    daemon.client.delete(&job.id, true).expect("it is deleted");
    assert!(!user.manager().job(&job.id).path().exists() && !log_folder.exists());
    assert_eq!(refused(daemon.client.job(&job.id)).0, 404);
    // No number is given twice.
    assert_eq!(daemon.submit(&user.shell("exit 0")).number, 2);
}

#[test]
fn a_payload_of_many_megabytes_is_kept_as_it_is_for_the_job_alone() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let mut request = user.shell("");
    // Three bytes for each four characters.
    let payload = "AAEC/v//".repeat(3 << 20);
    request.program = Program::Environment { python: "/bin/true".into(), payload };
    let job = daemon.submit(&request);
    assert_eq!(daemon.until_over(&job.id).state, State::Succeeded);
    let files = user.manager().job(&job.id);
    let kept = fs::read(files.payload()).expect("it is there");
    assert_eq!(kept.len(), 18 << 20);
    assert!(kept.chunks(6).all(|chunk| chunk == [0, 1, 2, 0xfe, 0xff, 0xff]));
    assert_eq!(files.payload().metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    // Nowhere else.
    let spec = daemon.client.job(&job.id).expect("there is one").spec;
    assert_eq!(spec.program, Program::Environment { python: "/bin/true".into(), payload: String::new() });
    assert!(fs::metadata(files.spec()).expect("it is there").len() < 1000);
    // Neither is it kept in memory.
    let kilobytes = resident_kilobytes(&daemon);
    assert!(kilobytes <= 40 << 10, "{kilobytes} kB");
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let request = || user.shell("exit 0");
    type Change<'a> = &'a dyn Fn(&mut sage_api::job::JobRequest);
    let cases: [(Change<'_>, &str); 9] = [
        (&|it| it.name = String::new(), "`name`"),
        (&|it| it.name = "x".repeat(201), "`name`"),
        (&|it| it.name = "a\nb".to_owned(), "`name`"),
        (&|it| it.folder = "relative".into(), "`folder`: relative is no absolute path"),
        (&|it| it.folder = "/nowhere/at/all".into(), "`folder`: there is no folder /nowhere/at/all"),
        (&|it| it.limits.memory_bytes = Some(0), "`limits.memory_bytes`"),
        (&|it| drop(it.variables.insert("A=B".to_owned(), String::new())), "`variables`: \"A=B\""),
        (&|it| drop(it.variables.insert("SAGE_JOB_ID".to_owned(), String::new())), "is set by the job manager"),
        (
            &|it| {
                it.program = Program::Environment { python: "/bin/sh".into(), payload: "%".to_owned() };
            },
            "is no base64",
        ),
    ];
    for (change, words) in cases {
        let mut asked = request();
        change(&mut asked);
        let (status, _, said) = refused(daemon.client.submit(&asked));
        assert!(status == 422 && said.contains(words), "{status}: {said}");
    }
    assert_eq!(daemon.client.jobs(&Filter::default()).expect("a page").total, 0);
    assert_eq!(fs::read_dir(user.manager().jobs()).expect("it is there").count(), 0);
}

#[test]
fn jobs_are_listed_by_state_and_name_page_by_page_and_called_by_number_and_prefix() {
    let user = User::new();
    let daemon = user.daemon(&["--limit", "50"]);
    let mut ids = Vec::new();
    for name in ["alpha", "Beta", "alphabet"] {
        let mut request = user.shell(if name == "Beta" { "exit 1" } else { "exit 0" });
        request.name = name.to_owned();
        ids.push(daemon.submit(&request).id);
    }
    ids.iter().for_each(|id| drop(daemon.until_over(id)));
    let page = |states: &str, name: &str, before, limit| {
        let filter = Filter { states: states.to_owned(), name: name.to_owned(), before, limit };
        let page = daemon.client.jobs(&filter).expect("a page");
        (page.jobs.iter().map(|job| job.number).collect::<Vec<_>>(), page.total, page.next)
    };
    assert_eq!(page("", "", None, None), (vec![3, 2, 1], 3, None));
    assert_eq!(page("", "", None, Some(2)), (vec![3, 2], 3, Some(2)));
    assert_eq!(page("", "", Some(2), Some(2)), (vec![1], 3, None));
    assert_eq!(page("failed,lost", "", None, None), (vec![2], 1, None));
    assert_eq!(page("", "BET", None, None), (vec![3, 2], 2, None));
    assert_eq!(page("succeeded", "alpha", None, None), (vec![3, 1], 2, None));
    assert_eq!(daemon.record(&ids[1][..8]).number, 2);
    assert_eq!(daemon.record("3").id, ids[2]);
    for nobody in ["9", "01", "+1", "zzzz", "..", &ids[0][..3], "%00"] {
        assert_eq!(refused(daemon.client.job(nobody)).0, 404, "{nobody}");
    }
    let unknown = Filter { states: "happy".to_owned(), ..Filter::default() };
    assert_eq!(refused(daemon.client.jobs(&unknown)).0, 400);
}

#[test]
fn contract_24_a_daemon_that_ends_leaves_only_what_is_to_be_kept() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&job.id, State::Running);
    let manager = user.manager();
    assert!(manager.socket().exists() && manager.address().exists());
    daemon.client.shutdown(Shutdown { jobs: Running::Drain }).expect("it is told");
    let mut daemon = daemon;
    assert!(daemon.child.wait().expect("it ends").success());
    daemon.is_over = true;
    user.marked.have_none();
    assert!(!manager.socket().exists() && !manager.address().exists());
    let record = fs::read_to_string(manager.job(&job.id).outcome()).expect("it is there");
    assert!(record.contains("\"succeeded\""), "{record}");
}

#[test]
fn a_daemon_that_does_nothing_takes_no_time_and_little_memory() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["records=3"]));
    daemon.until_over(&job.id);
    let sleeper = daemon.submit(&user.shell("exec sleep 1000"));
    daemon.until_started(&sleeper.id);
    let pid = daemon.pid();
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let fields: Vec<_> = stat.rsplit(')').next().expect("one").split_whitespace().collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("it is there");
        line.trim().parse::<u64>().expect("a number")
    };
    // Threads that have read files end after 2 s.
    until("it is idle", || (fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").count() == 1).then_some(()));
    let (before, switched) = (ticks(), switches());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(ticks() - before <= 1 && switches() - switched <= 1, "{} ticks", ticks() - before);
    let kilobytes = resident_kilobytes(&daemon);
    assert!(kilobytes <= 30 << 10, "{kilobytes} kB");
}

#[test]
fn there_is_one_daemon_for_a_folder_and_none_that_strangers_reach() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let other = user.command(&[]).output().expect("it runs");
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(1));
    assert!(
        said.contains("a job manager runs already") && said.contains(&format!("process {}", daemon.pid())),
        "{said}"
    );
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        let stranger = user.command(&["--host", host]).output().expect("it runs");
        let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
        assert!(stranger.status.code() == Some(1) && said.contains("does not speak TLS"), "{said}");
    }
    // The one that runs is as it was.
    assert_eq!(daemon.client.health().expect("it is here").status, "healthy");
}

#[test]
fn contract_20_a_job_whose_reaper_and_warden_are_killed_is_lost_and_nothing_of_it_lives() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.shell("setsid sleep 1000 & setsid setsid sleep 1001 & wait"));
    daemon.until_started(&job.id);
    until("it has started its own", || (user.marked.processes().len() > 5).then_some(()));
    let reaper = daemon.client.job(&job.id).expect("there is one").reaper.expect("it is started");
    for Process { pid, .. } in [reaper.process, reaper.warden.expect("there is one")] {
        kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("it is killed");
    }
    let over = daemon.until_over(&job.id);
    assert_eq!(over.state, State::Lost, "{over:?}");
    let left = user.marked.processes();
    assert!(left.iter().all(|(pid, _)| *pid == daemon.pid().as_raw()), "{left:?}");
    assert!(user.manager().job(&job.id).outcome().exists());
}

fn resident_kilobytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("it is there").flatten() {
        if entry.file_type().expect("it is known").is_dir() {
            files.extend(all_files(&entry.path()));
        }
        files.push(entry.path());
    }
    files
}

fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| {
        let content = fs::read(path).unwrap_or_default();
        content.windows(text.len()).any(|window| window == text.as_bytes())
    };
    all_files(folder).into_iter().filter(has).collect()
}
