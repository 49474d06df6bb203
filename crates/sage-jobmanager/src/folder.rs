//! The files of a job that the daemon writes: what was submitted, that it is being started, and the outcome of what no
//! reaper can tell the outcome of.
//!
//! 1. A file that counts is written beside, brought to the disk and renamed: it is there as a whole or not at all.
//! 2. `job.json` is on the disk before anything is started, and `starting` before a reaper is.
//! 3. A restart first writes `job.json` with the next `restart_count`, then moves what the run before has left to
//!    `earlier-<its restart_count>`. As long as that folder is not there, the files are those of the run before.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sage_api::home::JobFolder;
use sage_api::job::JobSpec;
use sage_api::outcome::ProgramEnd;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest file with JSON that is read, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// How many earlier runs are kept.
const MOST_EARLIER: u32 = 3;

/// Makes a folder and those above it, for this user only.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file as a whole, for this user only.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// As [`write`], as JSON.
pub(crate) fn write_json(path: &Path, content: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(content)?)
}

/// What a file with JSON has; `None` if there is no file.
///
/// # Errors
/// Those of the system; [`InvalidData`](io::ErrorKind::InvalidData) if it has something else.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut content)?;
    serde_json::from_slice(&content).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes what was submitted: from here on there is a job.
pub(crate) fn submit(folder: &JobFolder, spec: &JobSpec, payload: Option<&[u8]>) -> io::Result<()> {
    make(folder.path())?;
    if let Some(payload) = payload {
        write(&folder.payload(), payload)?;
    }
    write_json(&folder.spec(), spec)?;
    let above = folder.path().parent().unwrap_or(Path::new("/"));
    File::open(above)?.sync_all()
}

/// Notes that a reaper is being started: see [`JobFolder::starting`].
pub(crate) fn note_starting(folder: &JobFolder) -> io::Result<()> {
    write(&folder.starting(), b"")
}

/// Whether a reaper was ever started, or tried to.
pub(crate) fn was_started(folder: &JobFolder) -> bool {
    folder.starting().exists() || folder.reaper().exists()
}

/// How it ended. A file that is damaged says nothing.
pub(crate) fn outcome(folder: &JobFolder) -> Option<ProgramEnd> {
    read_json(&folder.outcome()).ok().flatten()
}

/// Writes what is to be started anew, and puts the files of the run before aside.
pub(crate) fn restart(folder: &JobFolder, spec: &JobSpec) -> io::Result<()> {
    write_json(&folder.spec(), spec)?;
    finish_restart(folder, spec)
}

/// Puts the files of the run before aside, if that was begun and not finished.
pub(crate) fn finish_restart(folder: &JobFolder, spec: &JobSpec) -> io::Result<()> {
    let Some(before) = spec.restart_count.checked_sub(1) else { return Ok(()) };
    let earlier = folder.earlier(before);
    if earlier.exists() {
        return Ok(());
    }
    let partial = earlier.with_extension("partial");
    make(&partial)?;
    // The outcome first: without it, a job with a reaper that is gone would be lost, and with it alone over.
    let mut files = run_files(folder)?;
    files.sort_by_key(|path| *path != folder.outcome());
    for file in files {
        if let Some(name) = file.file_name() {
            fs::rename(&file, partial.join(name))?;
        }
    }
    fs::rename(&partial, &earlier)?;
    File::open(folder.path())?.sync_all()?;
    if let Some(old) = before.checked_sub(MOST_EARLIER) {
        match fs::remove_dir_all(folder.earlier(old)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All that one run has left: everything but what was submitted and earlier runs.
fn run_files(folder: &JobFolder) -> io::Result<Vec<PathBuf>> {
    let (spec, payload) = (folder.spec(), folder.payload());
    let paths = fs::read_dir(folder.path())?.map(|entry| Ok(entry?.path()));
    let paths = paths.collect::<io::Result<Vec<_>>>()?;
    let is_earlier = |path: &Path| path.is_dir();
    Ok(paths.into_iter().filter(|path| *path != spec && *path != payload && !is_earlier(path)).collect())
}

/// How much of the disk a folder takes, in bytes.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// The names of folders that are to be deleted begin so.
const DELETED: &str = ".deleted-";

/// Deletes a folder: at once under its name, and what is in it then.
pub(crate) fn delete(folder: &JobFolder) -> io::Result<()> {
    let (Some(above), Some(name)) = (folder.path().parent(), folder.path().file_name()) else { return Ok(()) };
    let renamed = above.join(format!("{DELETED}{}", name.to_string_lossy()));
    match fs::rename(folder.path(), &renamed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    fs::remove_dir_all(renamed)
}

/// The ids of the jobs that have a folder in this one. Deletes what was being deleted.
pub(crate) fn ids(jobs: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(jobs)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(DELETED) {
            fs::remove_dir_all(entry.path())?;
        } else if crate::ids::is_id(name) {
            ids.push(name.to_owned());
        }
    }
    Ok(ids)
}

/// Checks that folders belong to this user, and takes them from others' sight.
pub(crate) fn check_own(folders: &[&Path]) -> io::Result<()> {
    for folder in folders {
        let about = fs::symlink_metadata(folder)?;
        let me = nix::unistd::geteuid().as_raw();
        // The user's own folder may be a link to another disk.
        let about = if about.is_symlink() { fs::metadata(folder)? } else { about };
        if std::os::unix::fs::MetadataExt::uid(&about) != me {
            let words = format!("{} belongs to another user", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
        }
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    Ok(())
}
