//! The optional log files of one session: the events of the job, nothing per record.
//!
//! `<dir>/jobmanager/session_<time>/` holds `Dispatcher.log` (every change of state), `Error.log` (every failure) and
//! `env_<environment>/`, a folder for what the environment's own functions write. A line that cannot be written is
//! dropped with a warning: a full disk must not end a job.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{self, Path, PathBuf};
use std::time::SystemTime;

use crate::guarded::guard;
use crate::submit_error::LogError;

/// The log files of one job, or none.
#[derive(Debug, Default)]
pub(crate) struct SessionLog(Option<Files>);

#[derive(Debug)]
struct Files {
    dispatcher: File,
    error: File,
    environment: PathBuf,
}

impl SessionLog {
    /// Opens the files of a new session below `dir`, for a job of this environment.
    pub(crate) fn open(dir: &Path, environment: &str) -> Result<Self, LogError> {
        let parent = dir.join("jobmanager");
        let failed = |source| LogError { path: parent.clone(), source };
        // The program may go to another folder while the job runs.
        let parent = path::absolute(&parent).map_err(failed)?;
        let failed = |source| LogError { path: parent.clone(), source };
        fs::create_dir_all(&parent).map_err(failed)?;
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        // 2026-11-22T23:50:00Z becomes 20261122_235000.
        let stamp = now.replace(['-', ':', 'Z'], "").replace('T', "_");
        let session = (0_u32..)
            .map(|nth| match nth {
                0 => parent.join(format!("session_{stamp}")),
                nth => parent.join(format!("session_{stamp}_{nth}")),
            })
            .find_map(|path| match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                created => Some(created.map(|()| path)),
            });
        let session = session.expect("one of four thousand million names is free").map_err(failed)?;
        // What errors say may be nobody else's business.
        let open = |name| OpenOptions::new().write(true).create_new(true).mode(0o600).open(session.join(name));
        let dispatcher = open("Dispatcher.log").map_err(failed)?;
        let error = open("Error.log").map_err(failed)?;
        let environment = session.join(folder_of(environment));
        DirBuilder::new().mode(0o700).create(&environment).map_err(failed)?;
        Ok(Self(Some(Files { dispatcher, error, environment })))
    }

    /// The folder of the environment.
    pub(crate) fn environment(&self) -> Option<&Path> {
        self.0.as_ref().map(|files| files.environment.as_path())
    }

    pub(super) fn dispatcher(&mut self, line: fmt::Arguments<'_>) {
        if let Some(files) = &mut self.0 {
            write(&mut files.dispatcher, line);
        }
    }

    pub(super) fn error(&mut self, line: fmt::Arguments<'_>) {
        if let Some(files) = &mut self.0 {
            write(&mut files.error, line);
        }
    }
}

/// The name of an environment's folder. A file system takes 255 bytes, and a `/` would lead elsewhere.
fn folder_of(environment: &str) -> String {
    const MOST_BYTES: usize = 200;
    let plain = |letter: char| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let ends = environment.char_indices().map(|(at, letter)| at + letter.len_utf8());
    let end = ends.take_while(|end| *end <= MOST_BYTES).last().unwrap_or(0);
    let letters = environment[..end].chars().map(plain);
    "env_".chars().chain(letters).collect()
}

fn write(file: &mut File, line: fmt::Arguments<'_>) {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    if let Err(error) = file.write_all(format!("{now} {line}\n").as_bytes()) {
        drop(guard(|| tracing::warn!(%error, "a log line could not be written")));
    }
}
