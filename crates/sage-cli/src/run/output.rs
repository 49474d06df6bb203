//! What the program prints, kept in the job's folder: in parts, of which the newest are kept.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use sage_api::home::JobFolder;

use super::files::created;
use super::say;

/// The most bytes of a part, and how many of them are kept.
const PART_BYTES: u64 = 8 << 20;
const MOST_PARTS: usize = 8;

/// What is read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// What is read of a program that has ended: more than a pipe holds, unless something that is left goes on writing.
const MOST_AT_THE_END: u64 = 16 << 20;

/// The output of a program.
#[derive(Debug)]
pub(super) struct Output {
    /// What it comes from, until its end.
    pipe: Option<File>,
    chunk: Vec<u8>,
    folder: JobFolder,
    part: File,
    /// Where the parts begin that are kept, the last one being written.
    starts: VecDeque<u64>,
    length: u64,
    /// A write has failed, which was said.
    is_broken: bool,
}

impl Output {
    /// Keeps what comes from a pipe, and returns the end that is written to.
    pub(super) fn keep(folder: &JobFolder) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        // The other end is the program's, which is not prepared for writes that do not wait.
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let part = created(OpenOptions::new().truncate(true), &folder.output(0))?;
        let (pipe, chunk) = (Some(File::from(read)), vec![0; CHUNK_BYTES]);
        let starts = VecDeque::from([0]);
        Ok((Self { pipe, chunk, folder: folder.clone(), part, starts, length: 0, is_broken: false }, write))
    }

    /// What to wait for, as long as there may be more.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The length of the output since its begin, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Keeps what there is, at most one chunk, and says whether there may be more at once.
    pub(super) fn take(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(&mut self.chunk) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                if let Err(error) = self.write(count) {
                    if !self.is_broken {
                        say(&format!("the output of the job cannot be written, and some is missing: {error}"));
                    }
                    self.is_broken = true;
                }
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.pipe = None,
        }
        false
    }

    /// Keeps all that there is, and puts it on the disk.
    pub(super) fn end(&mut self) {
        let most = self.length + MOST_AT_THE_END;
        while self.length < most && self.take() {}
        // It fails on file systems that have no disk.
        let _ = self.part.sync_data();
    }

    fn write(&mut self, count: usize) -> io::Result<()> {
        let mut written = 0;
        while written < count {
            let start = *self.starts.back().expect("there is always a part");
            let room = PART_BYTES - (self.length - start);
            if room == 0 {
                self.begin_part()?;
                continue;
            }
            let until = count.min(written + usize::try_from(room).unwrap_or(usize::MAX));
            let more = self.part.write(&self.chunk[written..until])?;
            if more == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += more;
            self.length += more as u64;
        }
        Ok(())
    }

    fn begin_part(&mut self) -> io::Result<()> {
        self.part = created(OpenOptions::new().truncate(true), &self.folder.output(self.length))?;
        self.starts.push_back(self.length);
        while self.starts.len() > MOST_PARTS {
            let oldest = self.starts.pop_front().expect("there are some");
            // Somebody may have removed it.
            let _ = fs::remove_file(self.folder.output(oldest));
        }
        Ok(())
    }
}
