//! A job's folder, as the job manager makes it, and whoever watches the reaper that sits there.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sage::{JobState, Transition};
use sage_api::home::JobFolder;
use sage_api::job::{JobSpec, Limits, Program};
use sage_api::message::{self, Dialled, Event, FromReaper, Happened, ToReaper, VERSION};
use sage_api::outcome::{ProgramEnd, ReaperIs};
use sage_api::socket;
use tempfile::TempDir;

use super::marked::Marked;

/// The example of this package.
pub(crate) fn counting() -> PathBuf {
    let file = Path::new(env!("CARGO_BIN_EXE_sage")).with_file_name("examples").join("counting");
    assert!(file.exists(), "{} is not there: build it with `cargo build -p sage-cli --examples`", file.display());
    file
}

pub(crate) struct Job {
    pub(crate) marked: Marked,
    pub(crate) folder: JobFolder,
    // Removed with it.
    _kept: TempDir,
}

impl Job {
    /// One of the example, with these arguments.
    pub(crate) fn counting(arguments: &[&str]) -> Self {
        Self::of(&counting(), arguments, Limits::default(), "job")
    }

    /// One of a shell script.
    pub(crate) fn script(text: &str) -> Self {
        Self::of(Path::new("/bin/sh"), &["-c", text], Limits::default(), "job")
    }

    pub(crate) fn of(program: &Path, arguments: &[&str], limits: Limits, name: &str) -> Self {
        let kept = tempfile::tempdir().expect("a folder is made");
        let folder = JobFolder::at(kept.path().join(name));
        fs::create_dir_all(folder.path()).expect("it is made");
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        let job = JobSpec {
            id: "1d".into(),
            number: 1,
            name: "a job".into(),
            program: Program::File { path: program.to_owned(), arguments, python: None },
            folder: kept.path().to_owned(),
            variables: Vec::new(),
            autostop: false,
            limits,
            submitted_ms: 0,
            restart_count: 0,
            log_folder: kept.path().to_owned(),
        };
        fs::write(folder.spec(), serde_json::to_vec(&job).expect("it is written")).expect("it is written");
        Self { marked: Marked::new(), folder, _kept: kept }
    }

    pub(crate) fn sage(&self) -> Command {
        self.marked.sage(&["run", "--folder", self.folder.path().to_str().expect("it is text")])
    }

    pub(crate) fn start(&self) -> Child {
        self.sage().spawn().expect("sage runs")
    }

    /// Runs it to its end, and returns that and what the reaper said.
    pub(crate) fn run(&self) -> (ProgramEnd, String) {
        self.ended(self.start())
    }

    /// Waits for its end.
    pub(crate) fn ended(&self, reaper: Child) -> (ProgramEnd, String) {
        let Output { status, stderr, .. } = reaper.wait_with_output().expect("it ends");
        self.marked.have_none();
        let (end, said) = (self.outcome(), String::from_utf8_lossy(&stderr).into_owned());
        assert_eq!(status.code(), Some(end.exit_code.into()), "{end:?}: {said}");
        assert!(!self.folder.socket().exists(), "nobody listens any more");
        (end, said)
    }

    pub(crate) fn outcome(&self) -> ProgramEnd {
        let text = fs::read(self.folder.outcome()).expect("the outcome is there");
        serde_json::from_slice(&text).expect("it is whole")
    }

    pub(crate) fn reaper(&self) -> ReaperIs {
        until("the reaper says who it is", || serde_json::from_slice(&fs::read(self.folder.reaper()).ok()?).ok())
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.folder.events()).expect("they are there");
        text.lines().map(|line| serde_json::from_str(line).expect("each line is an event")).collect()
    }

    /// Watches the reaper, once it listens.
    pub(crate) fn watch(&self) -> Watcher {
        self.reaper();
        let mut stream = socket::connect(&self.folder.socket()).expect("it listens before it says who it is");
        let watch = message::line(&Dialled::Watch { version: VERSION }).expect("it is written");
        stream.write_all(&watch).expect("it is read");
        let mut lines = BufReader::new(stream);
        match message::next(&mut lines).expect("it is a message") {
            Some(FromReaper::Here { version: VERSION, events, output }) => Watcher { lines, events, output },
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Of a test that has failed: its reaper outlives it.
        for (pid, _) in self.marked.processes() {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

pub(crate) struct Watcher {
    lines: BufReader<UnixStream>,
    /// As it was told first.
    pub(crate) events: u64,
    pub(crate) output: u64,
}

impl Watcher {
    pub(crate) fn tell(&mut self, told: ToReaper) {
        self.try_tell(told).expect("it is read");
    }

    pub(crate) fn try_tell(&mut self, told: ToReaper) -> std::io::Result<()> {
        self.lines.get_mut().write_all(&message::line(&told)?)
    }

    pub(crate) fn next(&mut self) -> Option<FromReaper> {
        message::next(&mut self.lines).expect("it is a message")
    }

    /// Waits for such an event from now on.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Happened) -> bool) {
        loop {
            match self.next().expect("there is more") {
                FromReaper::Event { line, .. } if wanted(&line.what) => return,
                _ => {}
            }
        }
    }

    /// Waits for such an event, unless there was one before this began to watch.
    pub(crate) fn until_once(&mut self, job: &Job, wanted: impl Fn(&Happened) -> bool) {
        let text = fs::read(job.folder.events()).expect("they are there");
        let length = usize::try_from(self.events).expect("it is small");
        let before = std::str::from_utf8(&text[..length]).expect("it is text");
        if !before.lines().any(|line| wanted(&serde_json::from_str::<Event>(line).expect("an event").what)) {
            self.until(wanted);
        }
    }

    /// Waits until a job comes into a state, unless it was in it before this began to watch.
    pub(crate) fn until_state(&mut self, job: &Job, wanted: JobState) {
        self.until_once(job, |what| match what {
            Happened::Changed { change, .. } => {
                matches!(change.transition, Transition::Job { to, .. } if to == wanted)
            }
            _ => false,
        });
    }
}

/// Waits until there is such a value, made by another process.
pub(crate) fn until<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "waited for nothing: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
