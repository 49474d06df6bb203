//! Where a reaper sits: the folder that it listens in, and writes to if that is a job's.
//!
//! A program in the foreground has a private folder, for the socket and what is to be cleaned outside of it, which is
//! gone when the program is. A job of the job manager has the folder that it was submitted with.

use std::env;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{geteuid, mkdtemp};
use sage_api::home::JobFolder;
use sage_api::job::JobSpec;
use sage_api::outcome::ReaperIs;

use super::below::Children;
use super::cleanups::Cleanups;
use super::ended::Ended;
use super::files::{read_json, write_json};
use super::message::{Left, Usage};
use super::say;

/// The most folders of others that are looked at, whether they are left.
const MOST_LOOKED_AT: usize = 64;

/// How often a folder is made anew that was removed at once.
const MOST_TRIES: usize = 8;

/// In a private folder: the file of what is to be cleaned, and a link to the folder that the program was started in.
const CLEANUPS: &str = "cleanups.jsonl";
const FOLDER: &str = "folder";

/// What is said of a cleanup that failed.
pub(super) fn not_cleaned(name: &str, why: &str) -> String {
    format!("{name}, whose cleanup failed: {why}")
}

/// A folder that is locked as long as the reaper or the warden lives. Held, not read.
type Held = File;

/// Where a reaper sits.
#[derive(Debug)]
pub(super) enum Seat {
    /// Nowhere: jobs cannot tell.
    Nowhere,
    /// In a private folder.
    Private { folder: PathBuf, _lock: Held },
    /// In the folder of a job.
    Job { folder: JobFolder, _lock: Held },
}

impl Seat {
    /// A private folder, in that of the user's session, or in one of this user's below `/tmp`.
    pub(super) fn private() -> Self {
        let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let of_session = session.map(|folder| folder.join("sage"));
        let of_user = PathBuf::from(format!("/tmp/sage-{}", geteuid()));
        let mut why = None;
        for folder in of_session.into_iter().chain([of_user]) {
            match private_folder(&folder) {
                Ok((folder, lock)) => return Self::Private { folder, _lock: lock },
                Err(error) => why = Some(format!("in {}: {error}", folder.display())),
            }
        }
        let why = why.unwrap_or_default();
        say(&format!("jobs run, but cannot tell of themselves: there is no folder for a socket {why}"));
        Self::Nowhere
    }

    /// The folder of a job.
    ///
    /// # Errors
    /// In words.
    pub(super) fn job(path: &Path) -> Result<Self, String> {
        let path = fs::canonicalize(path).map_err(|error| format!("there is no folder {}: {error}", path.display()))?;
        let lock = File::open(&path).map_err(|error| error.to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("{} has a reaper already", path.display())),
            Err(TryLockError::Error(error)) => return Err(format!("{} cannot be locked: {error}", path.display())),
        }
        let folder = JobFolder::at(path);
        if folder.outcome().exists() {
            return Err(format!("the job of {} is over: see its outcome.json", folder.path().display()));
        }
        Ok(Self::Job { folder, _lock: lock })
    }

    /// The job's folder, if it is one.
    pub(super) fn folder(&self) -> Option<&JobFolder> {
        match self {
            Self::Job { folder, .. } => Some(folder),
            Self::Nowhere | Self::Private { .. } => None,
        }
    }

    /// Where to listen.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::Private { folder, .. } => Some(folder.join("socket")),
            Self::Job { folder, .. } => Some(folder.socket()),
        }
    }

    /// The file of what is to be cleaned outside of the program.
    pub(super) fn cleanups(&self) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::Private { folder, .. } => Some(folder.join(CLEANUPS)),
            Self::Job { folder, .. } => Some(folder.cleanups()),
        }
    }

    /// Where that is cleaned: in the program's folder.
    pub(super) fn folder_of_program(&self) -> Option<PathBuf> {
        match self {
            Self::Nowhere => None,
            Self::Private { folder, .. } => fs::read_link(folder.join(FOLDER)).ok(),
            Self::Job { folder, .. } => Some(read_json::<JobSpec>(&folder.spec()).ok()?.folder),
        }
    }

    /// Runs what is to be cleaned outside of the program, which is gone with its reaper, and returns what failed.
    pub(super) fn clean(&self) -> io::Result<Vec<String>> {
        let ended = SigSet::from(Signal::SIGCHLD);
        let usual = ended.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let children = Children::watch()?;
        let cleaned = Cleanups::of(self.cleanups()).run(&children, self.folder_of_program().as_deref());
        usual.thread_set_mask()?;
        Ok(cleaned.into_iter().filter_map(|(name, why)| Some(not_cleaned(&name, &why?))).collect())
    }

    /// Says which process the reaper is.
    pub(super) fn taken(&self, reaper: &ReaperIs) -> io::Result<()> {
        self.folder().map_or(Ok(()), |folder| write_json(&folder.reaper(), reaper))
    }

    /// Says what has become of the program: on the disk when this returns. Nobody can dial any more.
    pub(super) fn outcome(&self, ended: &Ended) {
        let Self::Job { folder, .. } = self else { return };
        // Somebody may have removed it.
        let _ = fs::remove_file(folder.socket());
        if let Err(error) = write_json(&folder.outcome(), &ended.program_end()) {
            say(&format!("what has become of the job could not be written to {}: {error}", folder.path().display()));
        }
    }

    /// The reaper was killed: its warden does what it would have done.
    pub(super) fn lost(&self, left: Left, usage: Usage) {
        if self.folder().is_none() {
            match self.clean() {
                Ok(failed) => failed.iter().for_each(|line| say(line)),
                Err(error) => say(&error.to_string()),
            }
        }
        // It may have been killed after it had noted all.
        if self.folder().is_some_and(|folder| !folder.outcome().exists()) {
            let not_cleaned = self.clean().unwrap_or_else(|error| vec![error.to_string()]);
            self.outcome(&Ended { is_lost: true, left, usage, not_cleaned, ..Ended::default() });
        }
        self.leave();
    }

    /// Removes what is not needed any more.
    pub(super) fn leave(&self) {
        if let Self::Private { folder, .. } = self {
            remove(folder);
        }
    }
}

/// A new folder in this one, which is made if it is not there, and has to be this user's alone.
fn private_folder(parent: &Path) -> io::Result<(PathBuf, Held)> {
    match DirBuilder::new().mode(0o700).create(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = fs::symlink_metadata(parent)?;
    if !about.is_dir() || about.uid() != geteuid().as_raw() || about.mode() & 0o077 != 0 {
        return Err(io::Error::other("it is not a folder of this user's alone"));
    }
    remove_left(parent);
    for _ in 0..MOST_TRIES {
        let made = mkdtemp(&parent.join(format!("run-{}-XXXXXX", std::process::id())))?;
        // Until it is locked, whoever removes what is left may take it for that.
        let locked = File::open(&made).and_then(|lock| lock.lock().map(|()| lock));
        if let Ok(lock) = locked
            && made.exists()
        {
            // Without it what is left is cleaned in the folder of whoever cleans it.
            let _ = env::current_dir().and_then(|folder| symlink(folder, made.join(FOLDER)));
            return Ok((made, lock));
        }
    }
    Err(io::Error::other("what is made there is removed"))
}

/// Removes the folders of those that were killed together with their wardens, which nobody locks any more, and what
/// their programs have made outside of themselves.
fn remove_left(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().take(MOST_LOOKED_AT) {
        let path = entry.path();
        if let Ok(lock) = File::open(&path)
            && lock.try_lock().is_ok()
        {
            let left = Seat::Private { folder: path, _lock: lock };
            match left.clean() {
                Ok(failed) => failed.iter().for_each(|line| say(&format!("an earlier program left {line}"))),
                Err(error) => say(&format!("what an earlier program left is not removed: {error}")),
            }
            left.leave();
        }
    }
}

fn remove(folder: &Path) {
    // Somebody may have removed it, or put something there, which is not ours.
    for name in ["socket", CLEANUPS, FOLDER] {
        let _ = fs::remove_file(folder.join(name));
    }
    let _ = fs::remove_dir(folder);
}
