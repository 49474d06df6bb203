//! What a job manager does at its start with the jobs that are not over: those of reapers that live it watches on,
//! those that wait it lets wait, and of those whose reaper is gone it finds out how they ended.

use std::path::PathBuf;

use sage::Outcome;
use sage_api::job::{JobRecord, JobSpec};

use super::supervise::gone;
use super::{JobError, Jobs, Waiting};
use crate::live::Live;
use crate::{folder, record};

impl Jobs {
    /// Takes up all jobs that are not over. Returns before those that were started are dialled.
    pub(crate) fn adopt_all(&self) -> Result<(), JobError> {
        let open = self.table().store.open_jobs()?;
        for record in open {
            let files = self.files(&record.id);
            match record::of_folder(&files) {
                Ok(Some((spec, found))) => self.adopt_one(spec, found, &record)?,
                other => {
                    let why = match other {
                        Err(error) => format!("its folder cannot be read: {error}"),
                        Ok(_) => format!("its file {} is gone", files.spec().display()),
                    };
                    tracing::error!(job = %record.id, why, "lost");
                    self.end_waiting(&spec_of(&record), &record::lost(why, Vec::new(), Vec::new()))?;
                }
            }
        }
        self.start_waiting();
        Ok(())
    }

    fn adopt_one(&self, spec: JobSpec, mut found: JobRecord, last: &JobRecord) -> Result<(), JobError> {
        let files = self.files(&spec.id);
        if found.state.is_over() {
            let bytes = folder::size(files.path());
            self.table().store.put_ended(&found, bytes)?;
        } else if folder::was_started(&files) {
            (found.state, found.why) = (last.state, last.why.clone());
            let (live, inbox) = Live::new(spec, found);
            self.table().live.insert(live.spec.id.clone(), live.clone());
            self.0.adopting.send_modify(|count| *count += 1);
            drop(tokio::spawn(self.clone().adopt(live, inbox)));
        } else if let Some(name) = spec.variables.first() {
            self.end_waiting(&spec, &record::not_started(Outcome::Failed, gone(name)))?;
        } else {
            self.table().waiting.push_back(Waiting { spec, record: found });
        }
        Ok(())
    }
}

/// What can be said of a job whose `job.json` is gone.
fn spec_of(record: &JobRecord) -> JobSpec {
    JobSpec {
        id: record.id.clone(),
        number: record.number,
        name: record.name.clone(),
        program: sage_api::job::Program::File { path: PathBuf::from("?"), arguments: Vec::new(), python: None },
        folder: record.folder.clone(),
        variables: Vec::new(),
        autostop: record.autostop,
        limits: sage_api::job::Limits::default(),
        submitted_ms: record.submitted_ms,
        restart_count: record.restart_count,
        log_folder: PathBuf::new(),
    }
}
