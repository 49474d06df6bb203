//! The values of environment variables that jobs were submitted with. They are in memory only.

use std::collections::{BTreeMap, VecDeque};

/// How much of the values of jobs that are over is kept, in bytes.
const MOST_BYTES: usize = 16 << 20;

/// The values, by job.
#[derive(Default)]
pub(crate) struct Values {
    by_job: BTreeMap<String, BTreeMap<String, String>>,
    /// The jobs that are over, in the order in which they ended.
    over: VecDeque<String>,
    bytes: usize,
}

impl Values {
    /// Keeps the values of a job.
    pub(crate) fn keep(&mut self, job: &str, values: BTreeMap<String, String>) {
        if !values.is_empty() {
            self.bytes += size(&values);
            self.by_job.insert(job.to_owned(), values);
        }
    }

    /// Those of a job that is to be started. If one of these names has none, that name is the error.
    pub(crate) fn of(&mut self, job: &str, names: &[String]) -> Result<BTreeMap<String, String>, String> {
        self.over.retain(|other| other != job);
        let values = self.by_job.get(job).cloned().unwrap_or_default();
        match names.iter().find(|name| !values.contains_key(*name)) {
            Some(name) => Err(name.clone()),
            None => Ok(values),
        }
    }

    /// A job is over. Its values are kept for when it is started anew; if there are many, those of others are not.
    pub(crate) fn is_over(&mut self, job: &str) {
        if self.by_job.contains_key(job) {
            self.over.push_back(job.to_owned());
        }
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.over.pop_front()
        {
            self.forget(&oldest);
        }
    }

    /// A job was deleted.
    pub(crate) fn forget(&mut self, job: &str) {
        self.over.retain(|other| other != job);
        if let Some(values) = self.by_job.remove(job) {
            self.bytes -= size(&values);
        }
    }
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").field("jobs", &self.by_job.len()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn size(values: &BTreeMap<String, String>) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str, bytes: usize) -> BTreeMap<String, String> {
        [(name.to_owned(), "x".repeat(bytes))].into()
    }

    #[test]
    fn values_of_jobs_that_are_over_go_when_there_are_too_many_and_those_of_others_stay() {
        let mut kept = Values::default();
        let names = ["KEY".to_owned()];
        for job in ["waits", "over-1", "over-2"] {
            kept.keep(job, values("KEY", MOST_BYTES / 2 - 100));
        }
        kept.is_over("over-1");
        assert_eq!(kept.of("over-1", &names), Err("KEY".to_owned()));
        kept.is_over("over-2");
        assert!(kept.of("over-2", &names).is_ok() && kept.of("waits", &names).is_ok());
        assert!(!format!("{kept:?}").contains("xx"));
    }
}
