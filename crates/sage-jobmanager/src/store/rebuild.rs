//! Makes the records anew from the jobs' folders, and takes up what they miss.

use std::collections::HashSet;
use std::fs;

use sage_api::home::ManagerFolder;

use super::{Store, StoreError, files_of};
use crate::{folder, record};

impl Store {
    /// Puts damaged records aside, in the place of those that were before, and makes them anew.
    pub(super) fn rebuilt(folder: &ManagerFolder, why: &StoreError) -> Result<Self, StoreError> {
        let aside = folder.path().join("records.damaged.sqlite");
        tracing::error!(
            error = %chain(why),
            "the records are damaged: they are made anew from the jobs' folders, and put aside as {}",
            aside.display()
        );
        for (from, to) in files_of(&folder.records()).into_iter().zip(files_of(&aside)) {
            if from.exists() {
                fs::rename(from, to)?;
            }
        }
        let mut store = Self::open_as_is(folder)?;
        store.compare()?;
        Ok(store)
    }

    /// Takes up the folders of which there is no record, and drops the records of which there is no folder.
    pub(super) fn compare(&mut self) -> Result<(), StoreError> {
        let ids = folder::ids(&self.path().join("jobs"))?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for id in &ids {
            if !self.has(id)? {
                self.take_up(id)?;
            }
        }
        let ids: HashSet<&str> = ids.iter().map(String::as_str).collect();
        for id in self.all_ids()? {
            if !ids.contains(id.as_str()) {
                tracing::warn!(job = %id, "its folder is gone, so its record is dropped");
                self.connection.prepare_cached("DELETE FROM jobs WHERE id = ?")?.execute([&id])?;
            }
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    fn take_up(&mut self, id: &str) -> Result<(), StoreError> {
        let files = self.folder.job(id);
        match record::of_folder(&files) {
            Ok(Some((spec, record))) if spec.id == id => {
                let bytes = record.state.is_over().then(|| folder::size(files.path()));
                self.put_once(&record, bytes)?;
                self.number = self.number.max(record.number);
            }
            // Submitting it was never finished: nobody was told that there is such a job.
            Ok(None) => {
                tracing::warn!(job = id, "its folder has no job.json: it was never submitted, and is deleted");
                folder::delete(&files)?;
            }
            Ok(Some(_)) => tracing::error!(job = id, "its folder has the job.json of another job: it is left alone"),
            Err(error) => tracing::error!(job = id, %error, "its folder cannot be read: it is left alone"),
        }
        Ok(())
    }

    fn all_ids(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare("SELECT id FROM jobs")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// The error and what caused it, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
