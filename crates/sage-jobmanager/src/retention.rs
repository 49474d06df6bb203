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

#[cfg(test)]
mod tests {
    use sage::Outcome;
    use sage_api::home::Home;
    use sage_api::job::{JobSpec, Limits, Program};
    use tempfile::TempDir;

    use super::*;
    use crate::arrivals::Arrivals;
    use crate::jobs::JobOptions;
    use crate::store::{Asked, Store};
    use crate::{folder, record};

    /// Jobs that ended so many seconds ago, the first first, each with some output.
    fn ended(ago_s: &[u64], retention: Retention) -> (TempDir, Jobs) {
        let kept = tempfile::tempdir().unwrap();
        let manager = Home::at(kept.path()).manager(0);
        folder::make(&manager.jobs()).unwrap();
        for (number, ago_s) in (1..).zip(ago_s) {
            let spec = JobSpec {
                id: format!("{number:08x}-0000-4000-8000-000000000000"),
                number,
                name: "a job".to_owned(),
                program: Program::File { path: "/bin/true".into(), arguments: Vec::new(), python: None },
                folder: "/".into(),
                variables: Vec::new(),
                autostop: false,
                limits: Limits::default(),
                submitted_ms: 0,
                restart_count: 0,
                log_folder: kept.path().join("logs/session_1").join(format!("job_{number}")),
            };
            let files = manager.job(&spec.id);
            folder::submit(&files, &spec, None).unwrap();
            folder::make(&spec.log_folder).unwrap();
            std::fs::write(files.output(0), vec![b'x'; 10_000]).unwrap();
            let mut end = record::not_started(Outcome::Succeeded, String::new());
            end.at_ms = now_ms() - ago_s * 1000;
            folder::write_json(&files.outcome(), &end).unwrap();
        }
        let options = JobOptions {
            folder: manager.clone(),
            logs: kept.path().join("logs/session_2"),
            sage: Vec::new(),
            limit: 1,
            retention,
        };
        let jobs = Jobs::new(options, Store::open(&manager).unwrap(), Arrivals::new().unwrap());
        (kept, jobs)
    }

    async fn numbers_left(ago_s: &[u64], retention: Retention) -> Vec<u64> {
        let (kept, jobs) = ended(ago_s, retention);
        while expire(&jobs).await.unwrap().is_some() {}
        let page = jobs.page(&Asked { limit: 100, ..Asked::default() }).unwrap();
        let folders = |path| std::fs::read_dir(kept.path().join(path)).unwrap().count();
        assert_eq!((folders("jobmanager/0/jobs"), folders("logs/session_1")), (page.jobs.len(), page.jobs.len()));
        page.jobs.iter().map(|record| record.number).collect()
    }

    #[tokio::test]
    async fn what_is_too_old_too_many_or_too_large_is_deleted_and_what_ended_first_at_first() {
        let ago_s = [500, 400, 900, 100, 200];
        let all = Retention::default;
        assert_eq!(numbers_left(&ago_s, all()).await, [5, 4, 3, 2, 1]);
        assert_eq!(numbers_left(&ago_s, Retention { jobs: 3, ..all() }).await, [5, 4, 2]);
        assert_eq!(numbers_left(&ago_s, Retention { age: Duration::from_secs(450), ..all() }).await, [5, 4, 2]);
        assert_eq!(numbers_left(&ago_s, Retention { bytes: 25_000, ..all() }).await, [5, 4]);
        assert_eq!(numbers_left(&ago_s, Retention { jobs: 0, ..all() }).await, [] as [u64; 0]);
    }

    #[tokio::test]
    async fn the_next_look_is_when_the_oldest_is_too_old() {
        let (_kept, jobs) = ended(&[100, 400], Retention { age: Duration::from_secs(1000), ..Retention::default() });
        let until = until_next(&jobs).unwrap();
        assert!(until > Duration::from_secs(595) && until <= Duration::from_secs(601), "{until:?}");
    }
}
