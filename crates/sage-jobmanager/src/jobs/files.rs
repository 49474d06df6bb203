//! Pieces of a job's output and of its log files.
//!
//! A name of a log file that a client sends is compared with those there are, and is never a part of a path.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use sage_api::api::{LogFile, LogFiles, MOST_BYTES_OF_A_PIECE};

use super::find::blocking;
use super::{JobError, Jobs};

/// How many log files are listed, and how deep they lie.
const MOST_FILES: usize = 1000;
const DEEPEST: usize = 3;

/// A piece of a file, or of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it begins, in bytes.
    pub from: u64,
    /// Where it ends.
    pub next: u64,
    /// How long all is.
    pub length: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Jobs {
    /// A piece of a job's output: from this byte on, or so many before the end if it is negative; of `limit` bytes at
    /// most. What is not kept any more is passed over.
    ///
    /// # Errors
    /// There is no such job; the files cannot be read.
    pub(crate) async fn output(&self, job: &str, from: i64, limit: u64) -> Result<Piece, JobError> {
        let record = self.record(job)?;
        let folder = self.files(&record.id).path().to_owned();
        blocking(move || output(&folder, from, limit.min(MOST_BYTES_OF_A_PIECE))).await
    }

    /// The log files of a job.
    ///
    /// # Errors
    /// There is no such job; the folder cannot be read.
    pub(crate) async fn log_files(&self, job: &str) -> Result<LogFiles, JobError> {
        let folder = self.log_folder(job).await?;
        let files = blocking(move || listed(&folder)).await?;
        let files = files.into_iter().map(|(name, path)| {
            let bytes = path.metadata().map_or(0, |about| about.len());
            LogFile { name, bytes }
        });
        Ok(LogFiles { files: files.collect() })
    }

    /// A piece of a log file, as of [`Self::output`].
    ///
    /// # Errors
    /// There is no such job, or no such file; it cannot be read.
    pub(crate) async fn log(&self, job: &str, name: &str, from: i64, limit: u64) -> Result<Piece, JobError> {
        let folder = self.log_folder(job).await?;
        let files = blocking(move || listed(&folder)).await?;
        let Some((_, path)) = files.into_iter().find(|(listed, _)| listed == name) else {
            return Err(JobError::NotFound("log file of this name".to_owned()));
        };
        blocking(move || {
            let (mut file, mut piece) = opened(&path, from)?;
            read(&mut file, piece.from, limit.min(MOST_BYTES_OF_A_PIECE), &mut piece.bytes)?;
            piece.next = piece.from + piece.bytes.len() as u64;
            Ok(piece)
        })
        .await
    }
}

fn opened(path: &Path, from: i64) -> io::Result<(File, Piece)> {
    // The files are the program's: a link is not followed.
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let length = file.metadata()?.len();
    let from = start(from, length);
    Ok((file, Piece { from, next: from, length, bytes: Vec::new() }))
}

/// Where to begin.
fn start(from: i64, length: u64) -> u64 {
    u64::try_from(from).map_or_else(|_| length.saturating_sub(from.unsigned_abs()), |from| from.min(length))
}

fn read(file: &mut File, from: u64, limit: u64, into: &mut Vec<u8>) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    file.take(limit).read_to_end(into)?;
    Ok(())
}

/// A piece of an output in several files.
fn output(folder: &Path, from: i64, limit: u64) -> io::Result<Piece> {
    let parts = parts(folder)?;
    let length = parts.last().map_or(0, |(start, _, length)| start + length);
    let mut piece = Piece { from: start(from, length), next: 0, length, bytes: Vec::new() };
    // The oldest parts go when there are many.
    piece.from = piece.from.max(parts.first().map_or(0, |(start, ..)| *start));
    piece.next = piece.from;
    for (start, path, length) in parts {
        let missing = limit - piece.bytes.len() as u64;
        if missing == 0 || piece.next >= start + length {
            continue;
        }
        if piece.next < start {
            // A part between is gone since it was listed.
            break;
        }
        match File::open(&path) {
            Ok(mut file) => {
                read(&mut file, piece.next - start, missing.min(start + length - piece.next), &mut piece.bytes)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        piece.next = piece.from + piece.bytes.len() as u64;
    }
    Ok(piece)
}

/// The parts of an output in their order: where each begins, and how long it is.
fn parts(folder: &Path) -> io::Result<Vec<(u64, PathBuf, u64)>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let start = name.to_str().and_then(|name| name.strip_prefix("output-")?.strip_suffix(".log")?.parse().ok());
        if let Some(start) = start {
            parts.push((start, entry.path(), entry.metadata()?.len()));
        }
    }
    parts.sort_unstable();
    Ok(parts)
}

/// The log files in a folder, by name.
fn listed(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    list(folder, "", DEEPEST, &mut files)?;
    files.sort_unstable();
    Ok(files)
}

fn list(folder: &Path, prefix: &str, deepest: usize, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // It has not written any.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if kind.is_file() && files.len() < MOST_FILES {
            files.push((format!("{prefix}{name}"), entry.path()));
        } else if kind.is_dir() && deepest > 1 {
            list(&entry.path(), &format!("{prefix}{name}/"), deepest - 1, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_in_parts_is_read_as_one_and_what_has_gone_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for (start, text) in [(10, "abcde"), (15, "fgh"), (18, "ij")] {
            fs::write(folder.path().join(format!("output-{start:016}.log")), text).unwrap();
        }
        let piece = |from, limit| {
            let Piece { from, next, length, bytes } = output(folder.path(), from, limit).unwrap();
            (from, next, length, String::from_utf8(bytes).unwrap())
        };
        assert_eq!(piece(0, 100), (10, 20, 20, "abcdefghij".to_owned()));
        assert_eq!(piece(13, 4), (13, 17, 20, "defg".to_owned()));
        assert_eq!(piece(-3, 2), (17, 19, 20, "hi".to_owned()));
        assert_eq!(piece(20, 5), (20, 20, 20, String::new()));
        assert_eq!(piece(99, 5), (20, 20, 20, String::new()));
        assert_eq!(piece(-99, 1), (10, 11, 20, "a".to_owned()));
    }
}
