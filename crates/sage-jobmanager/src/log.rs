//! The daemon's log: `jobmanager.log` in the folder of its session, for this user only. It has no secrets: neither
//! tokens nor codes of links nor values of variables are ever given to it.
//!
//! The folder of a session is deleted when no job has log files there any more and it is old, or there are many; not
//! while its daemon lives, which holds a lock on its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tracing::Level;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::{clock, folder};

/// The name of the log.
const LOG: &str = "jobmanager.log";

/// How long a log file gets, in bytes, and how many older ones are kept.
const MOST_BYTES: u64 = 8 << 20;
const MOST_FILES: u32 = 3;

/// How many sessions are kept of which no job has log files.
const MOST_SESSIONS: usize = 50;

/// The log, as long as this lives, of what this thread does.
#[derive(Debug)]
pub(crate) struct Log {
    /// The session, as in the name of the folder.
    pub(crate) session: String,
    pub(crate) folder: PathBuf,
    guard: DefaultGuard,
}

impl Log {
    /// Begins a session in this folder, and deletes those that ended longer ago and have nothing of a job.
    pub(crate) fn begin(logs: &Path, age: Duration) -> io::Result<Self> {
        folder::make(logs)?;
        tidy(logs, age, MOST_SESSIONS)?;
        let now = clock::session();
        // Another one may have begun in the same second.
        let mut sessions = (1..=100).map(|count| if count == 1 { now.clone() } else { format!("{now}_{count}") });
        let (session, folder) = loop {
            let Some(session) = sessions.next() else { return Err(io::ErrorKind::AlreadyExists.into()) };
            let folder = logs.join(format!("session_{session}"));
            match fs::DirBuilder::new().create(&folder) {
                Ok(()) => break (session, folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let file = Rotated::open(folder.join(LOG))?;
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::INFO)
            .with_ansi(false)
            .with_target(false)
            .with_writer(Writer(Mutex::new(file)))
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        Ok(Self { session, folder, guard })
    }

    /// Ends it. Said, so that nobody drops it too early.
    pub(crate) fn end(self) {
        drop(self.guard);
    }
}

struct Writer(Mutex<Rotated>);

struct Line<'w>(std::sync::MutexGuard<'w, Rotated>);

impl<'w> MakeWriter<'w> for Writer {
    type Writer = Line<'w>;

    fn make_writer(&'w self) -> Line<'w> {
        Line(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0.file).flush()
    }
}

/// Deletes sessions that are over and have nothing of a job: those that ended longer ago, and all but the latest of
/// them.
fn tidy(logs: &Path, age: Duration, most: usize) -> io::Result<()> {
    let mut idle = Vec::new();
    for entry in fs::read_dir(logs)? {
        let entry = entry?;
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("session_") || !entry.file_type()?.is_dir() {
            continue;
        }
        let log = folder.join(LOG);
        let has_jobs = fs::read_dir(&folder)?.flatten().any(|entry| entry.path().is_dir());
        let Ok(file) = File::open(&log) else { continue };
        let written = file.metadata()?.modified()?;
        if !has_jobs && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            idle.push((written, folder));
        }
    }
    idle.sort_unstable();
    let too_many = idle.len().saturating_sub(most);
    for (index, (written, folder)) in idle.into_iter().enumerate() {
        if index < too_many || written.elapsed().is_ok_and(|passed| passed > age) {
            fs::remove_dir_all(folder)?;
        }
    }
    Ok(())
}

/// A file that is put aside when it is long. It is locked while it is written.
struct Rotated {
    path: PathBuf,
    file: Flock<File>,
    bytes: u64,
}

impl Rotated {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        let file = Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, error)| error)?;
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes + line.len() as u64 > MOST_BYTES && self.bytes > 0 {
            for number in (0..MOST_FILES).rev() {
                let from = self.aside(number);
                if from.exists() {
                    fs::rename(from, self.aside(number + 1))?;
                }
            }
            *self = Self::open(self.path.clone())?;
        }
        (&*self.file).write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn aside(&self, number: u32) -> PathBuf {
        if number == 0 { self.path.clone() } else { self.path.with_extension(format!("log.{number}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_long_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = Rotated::open(folder.path().join("jobmanager.log")).unwrap();
        let line = vec![b'x'; usize::try_from(MOST_BYTES / 2).unwrap()];
        for _ in 0..12 {
            file.write(&line).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["jobmanager.log", "jobmanager.log.1", "jobmanager.log.2", "jobmanager.log.3"]);
    }

    #[test]
    fn a_session_is_deleted_when_it_is_over_and_old_and_no_job_has_files_there() {
        let logs = tempfile::tempdir().unwrap();
        let session = |name: &str| {
            let folder = logs.path().join(format!("session_{name}"));
            fs::create_dir(&folder).unwrap();
            (folder.clone(), Rotated::open(folder.join(LOG)).unwrap())
        };
        let (lives, _kept) = session("1_lives");
        let (with_job, file) = session("2_with_job");
        fs::create_dir(with_job.join("job_1")).unwrap();
        let (over, other) = session("3_over");
        let (latest, last) = session("4_latest");
        drop((file, other, last));
        let there = || [&lives, &with_job, &over, &latest].map(|folder| folder.exists());
        tidy(logs.path(), Duration::from_secs(60), 2).unwrap();
        assert_eq!(there(), [true, true, true, true]);
        tidy(logs.path(), Duration::from_secs(60), 1).unwrap();
        assert_eq!(there(), [true, true, false, true]);
        tidy(logs.path(), Duration::ZERO, 1).unwrap();
        assert_eq!(there(), [true, true, false, false]);
    }
}
