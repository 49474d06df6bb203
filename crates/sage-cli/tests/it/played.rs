//! Jobs that a test plays, to a reaper of a program that has none.

use std::fs;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage::{Cleanliness, Environment, JobReport, Outcome};
use sage_api::message::{
    self, Begins, Command, Dialled, Figures, FromEngine, FromReaper, Happened, ToEngine, ToReaper, Told, VERSION,
};
use sage_api::socket;

use super::job::{Job, until};

/// A program that ends when it is told to by a file, whatever signals come.
fn patient() -> (Job, Child) {
    let job = Job::script("trap '' TERM; mkfifo end; echo begun; read line < end");
    let reaper = job.start();
    until("it has begun", || fs::read_to_string(job.folder.output(0)).ok().filter(|text| text == "begun\n"));
    (job, reaper)
}

/// Lets the program end, with exit code 0.
fn end(job: &Job) {
    let pipe = job.folder.path().parent().expect("it has one").join("end");
    fs::write(pipe, "end\n").expect("it is read");
}

struct Played {
    lines: BufReader<UnixStream>,
    report: JobReport,
}

impl Played {
    /// A job that begins.
    fn begin(job: &Job, name: &str) -> Self {
        let env = Environment::local(name);
        env.from_iter([1, 2]).sink(|_| {});
        let report = env.run().expect("it succeeds");
        let (job_id, environment, graph) = (name.to_owned(), name.to_owned(), env.graph());
        let begins = Begins { version: VERSION, job: job_id, environment, pid: 1, log_folder: None, graph };
        let mut stream = socket::connect(&job.folder.socket()).expect("it listens");
        let line = message::line(&Dialled::Job(begins)).expect("it is written");
        stream.write_all(&line).expect("it is read");
        Self { lines: BufReader::new(stream), report }
    }

    fn tell(&mut self, told: &FromEngine) {
        self.lines.get_mut().write_all(&message::line(told).expect("it is written")).expect("it is read");
    }

    fn next(&mut self) -> Option<ToEngine> {
        message::next(&mut self.lines).expect("it is a message")
    }
}

#[test]
fn jobs_that_begin_later_are_told_what_the_others_were() {
    let (job, reaper) = patient();
    let mut watcher = job.watch();
    watcher.tell(ToReaper::Do(Command::Pause));
    watcher.tell(ToReaper::Do(Command::Drain));
    watcher.until(|what| matches!(what, Happened::Told(Told::Signal(15))));
    watcher.tell(ToReaper::Do(Command::Cancel));
    watcher.until(|what| matches!(what, Happened::Told(Told::Signal(15))));
    let mut late = Played::begin(&job, "late");
    assert_eq!(late.next(), Some(ToEngine::Do(Command::Pause)));
    assert_eq!(late.next(), Some(ToEngine::Do(Command::Cancel)));
    watcher.tell(ToReaper::Do(Command::Drain));
    assert_eq!(late.next(), Some(ToEngine::Do(Command::Drain)));
    // A drain does not take a cancel back.
    let mut last = Played::begin(&job, "last");
    assert_eq!((last.next(), last.next()), (Some(ToEngine::Do(Command::Pause)), Some(ToEngine::Do(Command::Cancel))));
    let report = last.report.clone();
    last.tell(&FromEngine::Ended(Box::new(report)));
    assert_eq!(last.next(), Some(ToEngine::Noted));
    drop((late, last));
    watcher.until(|what| matches!(what, Happened::Gone { job } if job == "late"));
    end(&job);
    // It was asked to cancel, and not all that it did is known to have succeeded.
    let (ended, _) = job.ended(reaper);
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Cancelled, 1), "{ended:?}");
}

#[test]
fn a_job_that_does_not_listen_is_heard() {
    let (job, reaper) = patient();
    let mut watcher = job.watch();
    let mut deaf = Played::begin(&job, "deaf");
    watcher.until(|what| matches!(what, Happened::Begins(_)));
    deaf.lines.get_ref().shutdown(Shutdown::Read).expect("it is open");
    watcher.tell(ToReaper::Do(Command::Resume));
    watcher.until(|what| matches!(what, Happened::Told(Told::Do(Command::Resume))));
    let mut report = deaf.report.clone();
    report.cleanliness = Cleanliness::Unclean;
    deaf.tell(&FromEngine::Ended(Box::new(report)));
    drop(deaf);
    watcher.until(|what| matches!(what, Happened::Ended { .. }));
    end(&job);
    let (ended, _) = job.ended(reaper);
    assert_eq!((ended.outcome, ended.exit_code), (Outcome::Succeeded, 3), "{ended:?}");
    assert_eq!(ended.left, ["something that its job does not name"]);
}

#[test]
fn what_a_job_told_before_the_program_ended_is_heard() {
    let (job, reaper) = patient();
    let mut jobs: Vec<_> = (0..20).map(|number| Played::begin(&job, &number.to_string())).collect();
    end(&job);
    for job in &mut jobs {
        let report = job.report.clone();
        // The reaper may be through.
        let line = message::line(&FromEngine::Ended(Box::new(report))).expect("it is written");
        let _ = job.lines.get_mut().write_all(&line);
    }
    let (ended, _) = job.ended(reaper);
    assert_eq!(ended.outcome, Outcome::Succeeded);
    let count = |wanted: fn(&Happened) -> bool| job.events().iter().filter(|event| wanted(&event.what)).count();
    assert_eq!(count(|what| matches!(what, Happened::Begins(_))), 20);
    assert_eq!(count(|what| matches!(what, Happened::Ended { .. } | Happened::Gone { .. })), 20);
}

#[test]
fn a_job_is_asked_for_figures_once_whoever_asks() {
    let (job, reaper) = patient();
    let (mut one, mut other) = (job.watch(), job.watch());
    let mut played = Played::begin(&job, "asked");
    for watcher in [&mut one, &mut other] {
        watcher.until(|what| matches!(what, Happened::Begins(_)));
    }
    one.tell(ToReaper::Figures { request: 11 });
    let Some(ToEngine::Figures { request }) = played.next() else { panic!("it is asked") };
    other.tell(ToReaper::Figures { request: 22 });
    // It is read after that.
    other.tell(ToReaper::Do(Command::Pause));
    assert_eq!(played.next(), Some(ToEngine::Do(Command::Pause)));
    let figures = Box::new(Figures { unfinished: 5, ..Figures::default() });
    played.tell(&FromEngine::Figures { request, figures });
    for (watcher, number) in [(&mut one, 11), (&mut other, 22)] {
        loop {
            match watcher.next().expect("there is more") {
                FromReaper::Figures { request, job, figures } => {
                    assert_eq!((request, job.as_str(), figures.unfinished), (number, "asked", 5));
                    break;
                }
                FromReaper::Event { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // The next one is asked for anew.
    one.tell(ToReaper::Figures { request: 12 });
    assert!(matches!(played.next(), Some(ToEngine::Figures { .. })));
    drop(played);
    end(&job);
    assert_eq!(job.ended(reaper).0.outcome, Outcome::Succeeded);
}

/// A report of more than a socket holds, or of about half of that.
fn long(report: &JobReport, bytes: usize) -> FromEngine {
    let mut report = report.clone();
    report.notes.push("x".repeat(bytes));
    FromEngine::Ended(Box::new(report))
}

#[test]
fn who_watches_is_let_go_when_it_has_read_the_end() {
    let (job, reaper) = patient();
    let mut watcher = job.watch();
    let mut played = Played::begin(&job, "long");
    let report = long(&played.report, 1 << 20);
    played.tell(&report);
    assert_eq!(played.next(), Some(ToEngine::Noted));
    drop(played);
    end(&job);
    // Only now does it read.
    until("the outcome is written", || job.folder.outcome().exists().then_some(()));
    watcher.until(|what| matches!(what, Happened::Ended { report, .. } if report.notes[0].len() == 1 << 20));
    while watcher.next().is_some() {}
    assert_eq!(job.ended(reaper).0.outcome, Outcome::Succeeded);
}

#[test]
fn what_a_job_told_while_the_reaper_had_no_time_is_heard() {
    let (job, reaper) = patient();
    let stopped = Pid::from_raw(reaper.id().cast_signed());
    kill(stopped, Signal::SIGSTOP).expect("it is there");
    let mut played = Played::begin(&job, "unheard");
    let report = long(&played.report, 140 << 10);
    played.tell(&report);
    drop(played);
    end(&job);
    until("only the reaper and its warden are left", || (job.marked.processes().len() == 2).then_some(()));
    kill(stopped, Signal::SIGCONT).expect("it is there");
    assert_eq!(job.ended(reaper).0.outcome, Outcome::Succeeded);
    let told = job.events();
    assert!(matches!(told.last().expect("there are some").what, Happened::Ended { .. }), "{:?}", told.len());
}
