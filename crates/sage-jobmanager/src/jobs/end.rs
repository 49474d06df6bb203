//! What happens when a job is over: its record says so, its place is free, and the next one starts.

use std::sync::Arc;

use sage_api::job::{JobRecord, JobSpec};
use sage_api::outcome::ProgramEnd;

use super::{JobError, Jobs};
use crate::live::Live;
use crate::{folder, record};

impl Jobs {
    /// A job that was started is over.
    pub(super) async fn end(&self, live: &Arc<Live>, end: &ProgramEnd) {
        let files = self.files(&live.spec.id);
        let (written, is_written) = (end.clone(), files.outcome().exists());
        let finish = move || {
            let written = if is_written { Ok(()) } else { folder::write_json(&files.outcome(), &written) };
            (written, folder::size(files.path()))
        };
        let (noted, bytes) = tokio::task::spawn_blocking(finish).await.unwrap_or((Ok(()), 0));
        if let Err(error) = noted {
            tracing::error!(job = %live.spec.id, %error, "its outcome cannot be written");
        }
        let mut record = live.record();
        record::end(&mut record, end);
        live.known().record = record.clone();
        self.is_over(&record, bytes);
        live.seen.send_modify(|seen| (seen.record, seen.is_over) = (seen.record + 1, true));
        self.start_waiting();
    }

    /// A job that waited is over without having been started.
    pub(super) fn end_waiting(&self, spec: &JobSpec, end: &ProgramEnd) -> Result<JobRecord, JobError> {
        let files = self.files(&spec.id);
        folder::write_json(&files.outcome(), end)?;
        let mut record = record::queued(spec);
        record::end(&mut record, end);
        self.is_over(&record, folder::size(files.path()));
        Ok(record)
    }

    fn is_over(&self, record: &JobRecord, bytes: u64) {
        let JobRecord { id, state, why, .. } = record;
        tracing::info!(job = %id, state = state.word(), why = why.as_deref().unwrap_or_default(), "over");
        {
            let mut table = self.table();
            if let Err(error) = table.store.put_ended(record, bytes) {
                tracing::error!(job = %id, error = &error as &dyn std::error::Error, "its record cannot be written");
            }
            table.live.remove(id);
            table.values.is_over(id);
            table.put_again();
        }
        self.tell_changed();
        self.0.ended.notify_one();
    }
}
