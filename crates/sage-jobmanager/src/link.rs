//! The daemon's connection to a reaper.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use sage_api::home::JobFolder;
use sage_api::message::{self, Dialled, FromReaper, MOST_BYTES, ToReaper, VERSION};
use sage_api::socket;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// How long the reaper may take to take a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    lines: BufReader<OwnedReadHalf>,
    writes: OwnedWriteHalf,
    /// What came of the next line.
    line: Vec<u8>,
}

impl Link {
    /// Dials the reaper of this job.
    pub(crate) async fn dial(job: &JobFolder) -> io::Result<Self> {
        timeout(PATIENCE, async {
            // The address of a socket is short: the folder is called by its number.
            let folder = File::open(job.path())?;
            let stream = UnixStream::connect(format!("/proc/self/fd/{}/socket", folder.as_raw_fd())).await?;
            let stream = stream.into_std()?;
            socket::check_peer(&stream)?;
            let (reads, mut writes) = UnixStream::from_std(stream)?.into_split();
            writes.write_all(&message::line(&Dialled::Watch { version: VERSION })?).await?;
            Ok(Self { lines: BufReader::new(reads), writes, line: Vec::new() })
        })
        .await?
    }

    /// The next message; `None` at the end. Nothing is lost if it is dropped before it is ready.
    pub(crate) async fn next(&mut self) -> io::Result<Option<FromReaper>> {
        loop {
            let bytes = self.lines.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(bytes.len(), |end| end + 1);
            self.line.extend_from_slice(&bytes[..count]);
            self.lines.consume(count);
            if self.line.len() > MOST_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the reaper is too long"));
            }
            if end.is_some() {
                let message = serde_json::from_slice(&self.line);
                self.line = Vec::new();
                return message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Tells the reaper.
    pub(crate) async fn tell(&mut self, message: ToReaper) -> io::Result<()> {
        timeout(PATIENCE, self.writes.write_all(&message::line(&message)?)).await?
    }
}
