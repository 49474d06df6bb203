//! Jobs tell a reaper what becomes of them, and obey it.

use std::io::{BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sage::{Environment, JobState, Outcome, Transition};
use sage_api::message::{self, Command, Dialled, FromEngine, ToEngine};
use sage_api::{Reporter, socket};
use tempfile::TempDir;

/// A reaper that is played by a test.
struct Played {
    folder: TempDir,
    listener: UnixListener,
}

impl Played {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = socket::listen(&folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn accept(&self) -> Dialling {
        Dialling(BufReader::new(self.listener.accept().unwrap().0))
    }
}

struct Dialling(BufReader<UnixStream>);

impl Dialling {
    fn begins(&mut self) -> message::Begins {
        match message::next(&mut self.0).unwrap() {
            Some(Dialled::Job(begins)) => begins,
            other => panic!("{other:?}"),
        }
    }

    fn next(&mut self) -> Option<FromEngine> {
        message::next(&mut self.0).unwrap()
    }

    fn tell(&mut self, told: ToEngine) {
        self.0.get_mut().write_all(&message::line(&told).unwrap()).unwrap();
    }
}

#[test]
fn a_job_tells_its_graph_every_change_and_its_report_and_leaves_nothing() {
    let played = Played::new();
    let socket = played.socket();
    let told = thread::spawn(move || {
        let mut job = played.accept();
        let begins = job.begins();
        assert_eq!((begins.environment.as_str(), begins.graph.chains.len()), ("told", 1));
        let mut states = Vec::new();
        let report = loop {
            match job.next().unwrap() {
                FromEngine::Changed(change) => match change.transition {
                    Transition::Job { to, .. } => states.push(to),
                    _ => continue,
                },
                FromEngine::Ended(report) => break report,
                FromEngine::Figures { .. } => unreachable!(),
            }
        };
        assert_eq!(states, [JobState::Starting, JobState::Running, JobState::Stopping, JobState::Ended]);
        assert_eq!((report.outcome, report.operators[1].records_in), (Outcome::Succeeded, 3));
        job.tell(ToEngine::Noted);
        assert!(job.next().is_none());
    });
    let env = Environment::local("told");
    env.from_collection(vec![1, 2, 3]).sink(|_| {});
    let job = Reporter::at(socket).submit(&env).unwrap();
    job.wait().unwrap();
    told.join().unwrap();
}

#[test]
fn a_job_does_what_it_is_told_and_answers() {
    let played = Played::new();
    let env = Environment::local("endless");
    let (wrote, written) = mpsc::sync_channel(0);
    // It ends with the job alone.
    env.from_generator(move || Ok::<_, std::io::Error>(Some(1))).sink(move |_| {
        let _ = wrote.try_send(());
    });
    let job = Reporter::at(played.socket()).submit(&env).unwrap();
    let mut told = played.accept();
    told.begins();
    written.recv().unwrap();
    told.tell(ToEngine::Figures { request: 7 });
    let until = |told: &mut Dialling, wanted: JobState| loop {
        if let FromEngine::Changed(change) = told.next().unwrap() {
            match change.transition {
                Transition::Job { to, .. } if to == wanted => return,
                _ => {}
            }
        }
    };
    let figures = loop {
        if let FromEngine::Figures { request: 7, figures } = told.next().unwrap() {
            break figures;
        }
    };
    assert_eq!(figures.metrics.operators.len(), 2);
    told.tell(ToEngine::Do(Command::Pause));
    until(&mut told, JobState::Paused);
    told.tell(ToEngine::Do(Command::Resume));
    until(&mut told, JobState::Running);
    told.tell(ToEngine::Do(Command::Drain));
    until(&mut told, JobState::Ended);
    let noted = thread::spawn(move || {
        assert!(matches!(told.next(), Some(FromEngine::Ended(_))));
        told.tell(ToEngine::Noted);
    });
    job.wait().unwrap();
    noted.join().unwrap();
}

#[test]
fn a_reaper_that_is_gone_or_says_nonsense_is_no_hindrance() {
    let env = Environment::local("untold");
    env.from_collection(vec![1]).sink(|_| {});
    let nobody = tempfile::tempdir().unwrap();
    Reporter::at(nobody.path().join("socket")).submit(&env).unwrap().wait().unwrap();

    let played = Played::new();
    let job = Reporter::at(played.socket()).submit(&env).unwrap();
    played.accept().0.get_mut().write_all(b"nonsense\n").unwrap();
    job.wait().unwrap();
    let job = Reporter::at(played.socket()).submit(&env).unwrap();
    drop(played);
    job.wait().unwrap();
}

#[test]
fn a_reaper_that_does_not_read_holds_the_end_up_for_some_seconds_at_most() {
    let played = Played::new();
    let env = Environment::local("unheard");
    env.from_collection(vec![1]).sink(|_| {});
    let before = std::time::Instant::now();
    Reporter::at(played.socket()).submit(&env).unwrap().wait().unwrap();
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_job_that_is_dropped_is_cancelled_and_its_end_told() {
    let played = Played::new();
    let env = Environment::local("dropped");
    env.from_generator(|| Ok::<_, std::io::Error>(Some(1))).sink(|_| {});
    let job = Reporter::at(played.socket()).submit(&env).unwrap();
    let mut told = played.accept();
    let heard = thread::spawn(move || {
        told.begins();
        loop {
            if let FromEngine::Ended(report) = told.next().unwrap() {
                told.tell(ToEngine::Noted);
                return report.outcome;
            }
        }
    });
    drop(job);
    assert_eq!(heard.join().unwrap(), Outcome::Cancelled);
}
