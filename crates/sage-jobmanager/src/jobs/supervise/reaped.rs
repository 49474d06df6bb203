//! What has become of a job whose reaper has ended: its outcome, or, if nobody has written one, what is left to be
//! ended and removed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use sage_api::outcome::ProgramEnd;
use tokio::time::{Instant, timeout, timeout_at};

use super::{REST, Supervisor};
use crate::process::Opened;
use crate::sweep::{Swept, sweep};
use crate::{folder, record, spawn};

/// How long a warden may take to end what a reaper that is gone has left.
const WARDEN: Duration = Duration::from_secs(10);

/// As long as it may take if it removes what the job has made outside of itself.
const CLEANING: Duration = Duration::from_secs(600);

impl Supervisor<'_> {
    /// The reaper has ended: what has become of the job.
    pub(super) async fn ended(mut self) -> ProgramEnd {
        // What it has said before, and what it has written.
        let rest = Instant::now() + REST;
        while let Some(link) = &mut self.link {
            match timeout_at(rest, link.next()).await {
                Ok(Ok(Some(line))) => self.hear(line),
                _ => self.link = None,
            }
        }
        if self.warden.is_none() {
            let warden = self.reaper_is().and_then(|is| is.warden);
            self.warden = warden.and_then(|warden| Opened::recorded(&warden).ok().flatten());
        }
        // Even if there is an outcome: nothing of the job lives when it is said to be over.
        let patience = if self.files.cleanups().exists() { CLEANING } else { WARDEN };
        if let Some(warden) = self.warden.take()
            && timeout(patience, warden.ended()).await.is_err()
        {
            tracing::error!(job = %self.live.spec.id, "its warden does not end, and is killed");
            if warden.signal(Signal::SIGKILL).is_ok() {
                warden.ended().await;
            }
        }
        self.catch_up(u64::MAX).await;
        let end = match folder::outcome(&self.files) {
            Some(end) => end,
            None => self.lost().await,
        };
        self.answer();
        self.is_known();
        end
    }

    /// Removes what the job has made outside of itself, as its reaper would have done; what failed, in words.
    async fn clean(&self) -> Vec<String> {
        if !self.files.cleanups().exists() {
            return Vec::new();
        }
        let spec = &self.live.spec;
        // Those that are gone with an earlier job manager are done without.
        let variables = self.jobs.table().values.of(&spec.id, &spec.variables).unwrap_or_default();
        let (sage, files) = (self.jobs.0.options.sage.clone(), self.files.clone());
        let cleaned = tokio::task::spawn_blocking(move || spawn::clean(&sage, &files, &variables)).await;
        cleaned.map_err(io::Error::other).flatten().unwrap_or_else(|error| {
            vec![format!("what it has made outside of itself: `sage run --cleanup` failed: {error}")]
        })
    }

    /// Nobody has said how it ended: ends what is left of it, and says so.
    async fn lost(&self) -> ProgramEnd {
        let Swept { ended, mut left } = sweep(&self.live.spec.id).await;
        left.extend(self.clean().await);
        tracing::warn!(job = %self.live.spec.id, ?ended, ?left, "its reaper is gone without an outcome");
        let end = if self.files.reaper().exists() || !left.is_empty() {
            let why = "the process that watched it was killed, and nobody saw how it ended";
            record::lost(why.to_owned(), ended, left)
        } else {
            // It says who it is before it starts anything.
            let why = format!("its reaper ended before it started the program{}", last_line(&self.files.reaper_log()));
            record::not_started(sage::Outcome::Failed, why)
        };
        let (files, written) = (self.files.clone(), end.clone());
        let write = move || folder::write_json(&files.outcome(), &written);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            // The next job manager finds the same.
            tracing::error!(job = %self.live.spec.id, %error, "its outcome cannot be written");
        }
        end
    }
}

/// The last line of a short file, behind a colon.
fn last_line(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        // What cannot be read is not said.
        let _ = file.take(64 << 10).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    text.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default()
}
