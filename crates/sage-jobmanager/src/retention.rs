//! Which jobs that are over are deleted: by age, by number, and by what they take of the disk.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::clock::now_ms;
use crate::jobs::{JobError, Jobs};

/// How long jobs that are over are kept. What is over a limit is deleted, what ended first at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// For so long. 30 days, if nothing else is said.
    pub age: Duration,
    /// So many. 100,000, if nothing else is said.
    pub jobs: u64,
    /// As long as their folders have so many bytes together. 10 GiB, if nothing else is said.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 24 * 3600), jobs: 100_000, bytes: 10 << 30 }
    }
}

/// How many are deleted before others have their turn.
const AT_ONCE: u64 = 100;

/// The longest sleep: a system's clock may be set.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Deletes what is to be deleted, when a job has ended or one is too old, for ever.
pub(crate) async fn run(jobs: Jobs) {
    loop {
        let next = loop {
            match expire(&jobs).await {
                Ok(Some(0)) | Err(_) => break LONGEST,
                Ok(Some(_)) => {}
                Ok(None) => break until_next(&jobs).unwrap_or(LONGEST),
            }
        };
        tokio::select! {
            () = jobs.has_ended() => {}
            () = sleep_until(Instant::now() + next.min(LONGEST)) => {}
        }
    }
}

/// Deletes some. Says how many; `None` if none is to be.
async fn expire(jobs: &Jobs) -> Result<Option<u64>, JobError> {
    let Retention { age, jobs: most, bytes: most_bytes } = jobs.retention().clone();
    let (count, bytes) = jobs.ended_size()?;
    let (mut over_count, mut over_bytes) = (count.saturating_sub(most), bytes.saturating_sub(most_bytes));
    let oldest = now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let mut expired = Vec::new();
    for ended in jobs.oldest_ended(AT_ONCE)? {
        if over_count == 0 && over_bytes == 0 && ended.ended_ms > oldest {
            break;
        }
        over_count = over_count.saturating_sub(1);
        over_bytes = over_bytes.saturating_sub(ended.bytes);
        expired.push(ended.id);
    }
    if expired.is_empty() {
        return Ok(None);
    }
    let mut deleted = 0;
    for id in expired {
        match jobs.delete(&id, false).await {
            Ok(()) => deleted += 1,
            // It is gone, or was started anew.
            Err(JobError::NotFound(_) | JobError::Conflict(_)) => {}
            Err(error) => {
                tracing::error!(job = %id, error = &error as &dyn std::error::Error, "it cannot be deleted");
            }
        }
    }
    Ok(Some(deleted))
}

/// When the next job is too old.
fn until_next(jobs: &Jobs) -> Option<Duration> {
    let oldest = jobs.oldest_ended(1).ok()?.pop()?;
    let age = Duration::from_millis(now_ms().saturating_sub(oldest.ended_ms));
    // A little later, so that it is too old then.
    Some(jobs.retention().age.saturating_sub(age) + Duration::from_secs(1))
}
