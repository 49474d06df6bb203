//! What is left outside of a program that is killed: [`ExternalCleanup`].

use std::env;
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::message::{self, Cleanup, Dialled, Journalled};
use crate::report::SOCKET_VARIABLE;
use crate::socket;

/// How long the reaper may take to write it down.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest name, and the most that a command has.
const MOST_NAME: usize = 200;
const MOST_WORDS: usize = 1000;

/// A command that removes something outside of this program, should the program be killed before it has.
///
/// A service that makes a table, a folder on another machine or a virtual machine journals how to remove it *before* it
/// makes it, and says [`done`](Self::done) when its `cleanup` has removed it. If the program is killed in between, its
/// reaper (`sage run`, or the job manager) runs the command, at least once: so it has to be one that may be run twice,
/// and that finds nothing to remove. Without a reaper nobody runs it.
///
/// ```
/// let cleanup = sage_api::ExternalCleanup::journal("folder /tmp/scratch", ["rm", "-rf", "/tmp/scratch"])?;
/// // It is made, used and removed.
/// cleanup.done()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "it is run when the program ends unless it is said to be done"]
pub struct ExternalCleanup {
    /// The reaper's socket, and the number that it gave; `None` without a reaper.
    journalled: Option<(PathBuf, u64)>,
}

impl ExternalCleanup {
    /// Has the reaper write down a command, a program and its arguments, with the name of what it removes. Returns when
    /// it is on the disk.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a command without words or with more than 1000, and for a name
    /// of more than 200 bytes; else what the reaper's disk or the connection to it has wrong. Nothing should be made
    /// then.
    pub fn journal<W: Into<String>>(name: &str, command: impl IntoIterator<Item = W>) -> io::Result<Self> {
        let command: Vec<String> = command.into_iter().map(Into::into).collect();
        if command.is_empty() || command.len() > MOST_WORDS || name.len() > MOST_NAME {
            let words = "a cleanup has a name of 200 bytes and a command of 1 to 1000 words";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        let Some(socket) = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from) else {
            return Ok(Self { journalled: None });
        };
        let cleanup = Cleanup { version: message::VERSION, name: name.to_owned(), command };
        let Journalled { id } = ask(&socket, &Dialled::Cleanup(cleanup))?;
        Ok(Self { journalled: Some((socket, id)) })
    }

    /// Says that what it removes is removed. Returns when that is on the disk.
    ///
    /// # Errors
    /// What the reaper's disk or the connection to it has wrong: the command may be run all the same.
    pub fn done(self) -> io::Result<()> {
        match self.journalled {
            Some((socket, id)) => ask(&socket, &Dialled::Cleaned { id }).map(drop),
            None => Ok(()),
        }
    }
}

fn ask(path: &std::path::Path, message: &impl Serialize) -> io::Result<Journalled> {
    let mut stream = socket::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&message::line(message)?)?;
    let answer = message::next(&mut BufReader::new(stream))?;
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the reaper did not write it down"))
}
