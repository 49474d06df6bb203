//! [`Log`]: the file in which an embedded store, or a memory, keeps what it was told, frame by frame.
//!
//! A file begins with [`MAGIC`]; frames follow. A frame is a mark, the length of what it says, a checksum (CRC-32) of
//! both, and what it says. The first one says what the file is. A frame that was blanked has another mark, its length,
//! and zeros.
//!
//! Invariants:
//! 1. One process has a log open: it holds the lock (`flock`) on the file that the path names.
//! 2. What was appended is in the file when [`append`](Log::append) returns, so it survives the end of the process;
//!    when [`persist`](Log::persist) returns, it survives a loss of power.
//! 3. A frame is in the file whole, or not at all once the file is opened again. A frame that is not whole and has none
//!    behind it was being written when the process ended, and is cut off. One that has a frame behind it is damage,
//!    and nothing is cut.
//! 4. A frame whose mark says that it is blank is all zeros before anything is read from the log, also if the process
//!    that blanked it was killed.
//!
//! Knows nothing of what frames say.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The first bytes of a log, with the version of its format.
const MAGIC: &[u8; 8] = b"SAGELOG1";
/// The first bytes of a frame.
const MARK: [u8; 4] = *b"\xf5rec";
/// The first bytes of a frame that was blanked.
const BLANK: [u8; 4] = *b"\xf5nil";
/// Mark, length and checksum.
const HEAD: usize = 12;
/// The longest frame, 1 GiB.
pub(crate) const LONGEST: usize = 1 << 30;

/// Why a log cannot be read or written. The fields are those of [`StoreError`](super::StoreError).
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error("another process has `{}` open", path.display())]
    Locked { path: PathBuf },
    #[error("`{}` is damaged at byte {offset}: {why}", path.display())]
    Damaged { path: PathBuf, offset: u64, why: String },
    #[error("`{}` cannot be {done}", path.display())]
    File { path: PathBuf, done: &'static str, source: io::Error },
}

/// The log of a store.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// Behind the last whole frame.
    end: u64,
    /// Of the checksums of all frames: tells one state of the file from another.
    stamp: u64,
    /// Whether each append is to survive a loss of power.
    sync: bool,
    /// A frame that failed could not be taken back.
    is_broken: bool,
}

impl Log {
    /// Opens a log, or makes one, and reads its frames: the first goes to `first`, the others to `each`, with their
    /// offsets. `header` is what the first frame of a new log says; `None` if none is to be made.
    pub(crate) fn open<E: From<LogError>>(
        path: &Path,
        sync: bool,
        header: Option<&[u8]>,
        mut each: impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let Some(file) = lock(path, header.is_some())? else { return Ok(None) };
        let mut log = Self { path: path.to_owned(), file, end: 0, stamp: 0, sync, is_broken: false };
        // A copy that a process which was killed had not finished.
        let _ = fs::remove_file(beside(path, "new"));
        let length = log.file.metadata().map_err(|error| log.failed("read", error))?.len();
        let mut unfinished = Vec::new();
        (log.end, log.stamp) = log.read(length, &mut unfinished, &mut each)?;
        log.blank(&unfinished)?;
        if log.end == 0 {
            let Some(header) = header else { return Ok(None) };
            log.begin(header)?;
            each(header, MAGIC.len() as u64)?;
        } else if log.end < length {
            let lost = length - log.end;
            tracing::warn!(path = %path.display(), lost, "the last write was not finished: it is cut off");
            log.file.set_len(log.end).map_err(|error| log.failed("written", error))?;
        }
        Ok(Some(log))
    }

    /// Reads all frames, and says where the last whole one ends, 0 if not even the first is whole, and the stamp. Those
    /// that are blank, but not all zeros yet, go to `unfinished`.
    fn read<E: From<LogError>>(
        &self,
        length: u64,
        unfinished: &mut Vec<u64>,
        each: &mut impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<(u64, u64), E> {
        let mut reader = BufReader::with_capacity(1 << 20, At { file: &self.file, offset: 0 });
        let mut magic = Vec::new();
        reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(|error| self.failed("read", error))?;
        if !MAGIC.starts_with(&magic) {
            return Err(self.damaged(0, "it is none of this kind, or one of another version").into());
        }
        let mut at = MAGIC.len() as u64;
        let mut frame = Vec::new();
        let mut is_first = true;
        let mut stamp = 0;
        while at < length {
            let read = read_frame(&mut reader, length - at, &mut frame).map_err(|error| self.failed("read", error))?;
            match read {
                None => {
                    self.check_torn(at, length)?;
                    break;
                }
                Some(Frame::Says(sum)) => {
                    stamp = stamped(stamp, sum);
                    each(&frame, at)?;
                }
                Some(Frame::Blank { is_zero }) => unfinished.extend((!is_zero).then_some(at)),
            }
            at += (HEAD + frame.len()) as u64;
            is_first = false;
        }
        Ok(if is_first { (0, 0) } else { (at, stamp) })
    }

    /// Fails if a whole frame follows the one at `at`, which is not whole.
    fn check_torn(&self, at: u64, length: u64) -> Result<(), LogError> {
        let mut behind = BufReader::with_capacity(1 << 20, At { file: &self.file, offset: at + 1 }).bytes();
        let mut latest = 0_u32;
        let mut frame = Vec::new();
        for offset in at + 1..length {
            let Some(byte) = behind.next() else { break };
            let byte = byte.map_err(|error| self.failed("read", error))?;
            latest = latest << 8 | u32::from(byte);
            if ![MARK, BLANK].contains(&latest.to_be_bytes()) {
                continue;
            }
            let begins = offset + 1 - MARK.len() as u64;
            let mut candidate = At { file: &self.file, offset: begins };
            let read = read_frame(&mut candidate, length - begins, &mut frame);
            if read.map_err(|error| self.failed("read", error))?.is_some() {
                return Err(self.damaged(at, "that is not what was written; restore the store from a snapshot"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, header: &[u8]) -> Result<(), LogError> {
        self.file.set_len(0).map_err(|error| self.failed("written", error))?;
        let mut bytes = MAGIC.to_vec();
        self.stamp = stamped(0, put_frame(&mut bytes, header));
        self.file.write_all_at(&bytes, 0).map_err(|error| self.failed("written", error))?;
        self.end = bytes.len() as u64;
        sync_folder_of(&self.path).map_err(|error| self.failed("written", error))?;
        if self.sync { self.persist() } else { Ok(()) }
    }

    /// Appends a frame.
    pub(crate) fn append(&mut self, says: &[u8]) -> Result<(), LogError> {
        self.append_all(&[says]).map(drop)
    }

    /// Appends frames at once, and says where each begins. If the process is killed meanwhile, the first of them may be
    /// in the file without the others.
    pub(crate) fn append_all<B: AsRef<[u8]>>(&mut self, frames: &[B]) -> Result<Vec<u64>, LogError> {
        if self.is_broken {
            return Err(self.failed("written", io::Error::other("an earlier write to it failed; open it again")));
        }
        let mut bytes = Vec::with_capacity(frames.iter().map(|says| HEAD + says.as_ref().len()).sum());
        let mut offsets = Vec::with_capacity(frames.len());
        let mut stamp = self.stamp;
        for says in frames {
            offsets.push(self.end + bytes.len() as u64);
            stamp = stamped(stamp, put_frame(&mut bytes, says.as_ref()));
        }
        let written = self.file.write_all_at(&bytes, self.end);
        let written = written.and_then(|()| if self.sync { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // Half a frame would hide those behind it.
            self.is_broken = self.file.set_len(self.end).is_err();
            return Err(self.failed("written", error));
        }
        self.end += bytes.len() as u64;
        self.stamp = stamp;
        Ok(offsets)
    }

    /// Overwrites the frames that begin there by zeros, so that what they said is nowhere in the file, and says how
    /// many bytes that were. If this process is killed meanwhile, the next one that opens the log finishes the frames
    /// whose marks are blank already. When it returns, all is on the disk.
    pub(crate) fn blank(&mut self, offsets: &[u64]) -> Result<u64, LogError> {
        if offsets.is_empty() {
            return Ok(0);
        }
        let blanked = || {
            // The marks have to be on the disk before the zeros: half a frame would be damage.
            offsets.iter().try_for_each(|&offset| self.file.write_all_at(&BLANK, offset))?;
            self.file.sync_data()?;
            let mut bytes = 0;
            for &offset in offsets {
                let mut length = [0; 4];
                self.file.read_exact_at(&mut length, offset + 4)?;
                let length = u64::from(u32::from_le_bytes(length));
                self.zero(offset + 8, 4 + length)?;
                bytes += length;
            }
            self.file.sync_data()?;
            Ok(bytes)
        };
        blanked().map_err(|error| self.failed("written", error))
    }

    fn zero(&self, mut offset: u64, mut bytes: u64) -> io::Result<()> {
        const ZEROS: [u8; 1 << 14] = [0; 1 << 14];
        while bytes > 0 {
            let now = bytes.min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..now as usize], offset)?;
            (offset, bytes) = (offset + now, bytes - now);
        }
        Ok(())
    }

    /// Has the system write to the disk what it holds.
    pub(crate) fn persist(&self) -> Result<(), LogError> {
        self.file.sync_all().map_err(|error| self.failed("written", error))
    }

    /// Replaces all frames by these, so that nothing else is left of the file.
    pub(crate) fn rewrite(&mut self, frames: impl Iterator<Item = Vec<u8>>) -> Result<(), LogError> {
        self.replace(frames.map(Ok))
    }

    /// Keeps the first frame and those that begin at these offsets, so that nothing else is left of the file, and says
    /// where they begin now.
    pub(crate) fn keep(&mut self, offsets: &[u64]) -> Result<Vec<u64>, LogError> {
        let reader = self.file.try_clone().map_err(|error| self.failed("read", error))?;
        let first = MAGIC.len() as u64;
        let mut now = Vec::with_capacity(offsets.len() + 1);
        let mut end = first;
        self.replace(std::iter::once(&first).chain(offsets).map(|&offset| {
            let mut says = Vec::new();
            let mut at = At { file: &reader, offset };
            let Some(Frame::Says(_)) = read_frame(&mut at, u64::MAX, &mut says)? else {
                return Err(io::Error::other(format!("it has been damaged at byte {offset} since it was opened")));
            };
            now.push(end);
            end += (HEAD + says.len()) as u64;
            Ok(says)
        }))?;
        now.remove(0);
        Ok(now)
    }

    fn replace(&mut self, frames: impl Iterator<Item = io::Result<Vec<u8>>>) -> Result<(), LogError> {
        let beside = beside(&self.path, "new");
        let _ = fs::remove_file(&beside);
        let (file, end, stamp) = write_new(&beside, frames)?;
        // Whoever opens the path from here on meets a locked file: this one, or the old one until it is replaced.
        file.try_lock().map_err(|error| self.failed("locked", error.into()))?;
        fs::rename(&beside, &self.path).map_err(|error| self.failed("replaced", error))?;
        (self.file, self.end, self.stamp, self.is_broken) = (file, end, stamp, false);
        if let Err(error) = sync_folder_of(&self.path) {
            // It is replaced for everybody, if not for whoever comes after a loss of power.
            tracing::warn!(path = %self.path.display(), %error, "the folder cannot be synced");
        }
        Ok(())
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the state of the file from all others that it had.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    fn damaged(&self, offset: u64, why: impl Into<String>) -> LogError {
        LogError::Damaged { path: self.path.clone(), offset, why: why.into() }
    }

    fn failed(&self, done: &'static str, source: io::Error) -> LogError {
        LogError::File { path: self.path.clone(), done, source }
    }
}

/// Writes a new log with these frames, which survives a loss of power; says where it ends, and its stamp. Fails if
/// there is a file of this name.
pub(crate) fn write_new(
    path: &Path,
    frames: impl Iterator<Item = io::Result<Vec<u8>>>,
) -> Result<(File, u64, u64), LogError> {
    let failed = |source| LogError::File { path: path.to_owned(), done: "written", source };
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let mut file = options.map_err(failed)?;
    let write = || {
        file.write_all(MAGIC)?;
        let (mut end, mut stamp) = (MAGIC.len() as u64, 0);
        let mut bytes = Vec::new();
        for says in frames {
            bytes.clear();
            stamp = stamped(stamp, put_frame(&mut bytes, &says?));
            file.write_all(&bytes)?;
            end += bytes.len() as u64;
        }
        file.sync_all()?;
        Ok((end, stamp))
    };
    match write() {
        Ok((end, stamp)) => Ok((file, end, stamp)),
        Err(error) => {
            // Half a copy helps nobody, and may be what filled the disk.
            let _ = fs::remove_file(path);
            Err(failed(error))
        }
    }
}

/// The file beside this one whose name says more.
pub(crate) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(more);
    name.into()
}

/// Reads a file from an offset on, and leaves its cursor alone.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Adds a frame, and returns its checksum.
fn put_frame(bytes: &mut Vec<u8>, says: &[u8]) -> u32 {
    let length = u32::try_from(says.len()).expect("a frame is no longer than LONGEST");
    let sum = checksum(length, says);
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(says);
    sum
}

fn checksum(length: u32, says: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(says);
    hasher.finalize()
}

/// The stamp of a file to which a frame with this checksum was added.
fn stamped(stamp: u64, sum: u32) -> u64 {
    // One step of FNV-1a, for 32 bits at once.
    (stamp ^ u64::from(sum)).wrapping_mul(0x0100_0000_01b3).wrapping_add(1)
}

/// A frame that was read.
enum Frame {
    /// It says something, and has this checksum.
    Says(u32),
    /// It was blanked: wholly, or not yet.
    Blank { is_zero: bool },
}

/// Reads a frame of at most `left` bytes; `None` if it is not whole.
fn read_frame(reader: &mut impl Read, left: u64, says: &mut Vec<u8>) -> io::Result<Option<Frame>> {
    if left < HEAD as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD];
    reader.read_exact(&mut head)?;
    let [mark, length, sum] = [0, 4, 8].map(|at| [head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, sum) = (u32::from_le_bytes(length), u32::from_le_bytes(sum));
    if ![MARK, BLANK].contains(&mark) || u64::from(length) > (left - HEAD as u64).min(LONGEST as u64) {
        return Ok(None);
    }
    says.resize(length as usize, 0);
    reader.read_exact(says)?;
    if mark == BLANK {
        return Ok(Some(Frame::Blank { is_zero: sum == 0 && says.iter().all(|byte| *byte == 0) }));
    }
    Ok((checksum(length, says) == sum).then_some(Frame::Says(sum)))
}

/// Opens and locks the file that the path names; `None` if there is none and it is not to be made.
fn lock(path: &Path, create: bool) -> Result<Option<File>, LogError> {
    let failed = |done, source| LogError::File { path: path.to_owned(), done, source };
    if create && let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed("made", error))?;
    }
    loop {
        let opened = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
            Err(error) => return Err(failed("opened", error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed("locked", error)),
        }
        // Whoever held the lock may have replaced the file since it was opened.
        let (ours, named) = (file.metadata(), fs::metadata(path));
        match (ours, named) {
            (Ok(ours), Ok(named)) if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) => return Ok(Some(file)),
            (Ok(_), Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(failed("opened", error)),
            (Err(error), _) => return Err(failed("opened", error)),
            _ => {}
        }
    }
}

/// So that a file that was made or renamed there is found after a loss of power.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a file is at each step of [`Log::blank`], as far as a process that is killed can leave it: from before the
    /// first mark to after the last zero.
    pub(crate) fn blanked_to(file: &[u8], offsets: &[u64]) -> Vec<Vec<u8>> {
        let mut file = file.to_vec();
        let mut steps = vec![file.clone()];
        for &offset in offsets {
            file[offset as usize..][..BLANK.len()].copy_from_slice(&BLANK);
            steps.push(file.clone());
        }
        for &offset in offsets {
            let at = offset as usize;
            let length = u32::from_le_bytes([file[at + 4], file[at + 5], file[at + 6], file[at + 7]]);
            for byte in at + 8..at + HEAD + length as usize {
                file[byte] = 0;
                steps.push(file.clone());
            }
        }
        steps
    }
}
