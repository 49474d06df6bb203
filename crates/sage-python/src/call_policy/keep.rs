//! [`Keeping`]: how the answers of a method are kept, as the Python package says: see `python/sage/_keep.py`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use sage::{Cache, FullDisk, Journal, Keep, WhenInUse};

use super::answer::{Answer, Form, PythonCodec};
use super::request::Request;
use crate::object::Object;
use crate::spec::Seconds;
use crate::thread::attach;

/// Where answers are remembered, and for how long.
#[derive(FromPyObject)]
struct CacheOf {
    memory: Option<usize>,
    memory_bytes: u64,
    disk: Option<PathBuf>,
    disk_bytes: u64,
    time_to_live: Option<Seconds>,
    when_in_use: String,
    largest_answer: u64,
}

impl CacheOf {
    fn cache(&self) -> Cache {
        let goes_on = self.when_in_use == "go on";
        let mut cache = Cache::new().largest_answer(self.largest_answer);
        cache = cache.when_in_use(if goes_on { WhenInUse::GoOn } else { WhenInUse::Fail });
        if let Some(entries) = self.memory {
            cache = cache.memory(entries, self.memory_bytes);
        }
        if let Some(folder) = &self.disk {
            cache = cache.disk(folder, self.disk_bytes);
        }
        self.time_to_live.as_ref().map_or(cache.clone(), |time| cache.time_to_live(time.0))
    }
}

/// The journal of a run.
#[derive(FromPyObject)]
pub(super) struct JournalOf {
    folder: PathBuf,
    sync: bool,
    full_disk: String,
    largest_answer: u64,
}

impl JournalOf {
    pub(super) fn journal(&self) -> Journal {
        let full_disk = if self.full_disk == "go on" { FullDisk::GoOn } else { FullDisk::Fail };
        Journal::run(&self.folder).sync(self.sync).full_disk(full_disk).largest_answer(self.largest_answer)
    }
}

/// How the answers of a method are kept.
#[derive(FromPyObject)]
pub(crate) struct Keeping {
    cache: Option<CacheOf>,
    journal: bool,
    /// Says of the arguments of a call what they are known by, and its tag.
    form: Object,
    pub(super) coded: PythonCodec,
}

impl Keeping {
    pub(super) fn form(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Form> {
        self.form.bind(py).call1((args, kwargs))?.extract()
    }

    /// That of a request: a call of this method has it already, one that falls back to it does not.
    fn of(self: &Arc<Self>, request: &Request) -> Form {
        match &request.0.kept {
            Some((keeping, form)) if Arc::ptr_eq(keeping, self) => form.clone(),
            _ => attach(|py| {
                let kwargs = request.0.kwargs.as_ref().map(|kwargs| kwargs.bind(py));
                self.form(py, request.0.args.bind(py), kwargs).unwrap_or_else(|error| {
                    error.write_unraisable(py, Some(self.form.bind(py)));
                    (None, None)
                })
            }),
        }
    }

    pub(super) fn keep(self: &Arc<Self>) -> Keep<Request, Answer> {
        let (its_arguments, its_tag) = (self.clone(), self.clone());
        let mut keep = Keep::new(move |request| its_arguments.of(request).0, self.coded.clone());
        keep = keep.tag(move |request| its_tag.of(request).1);
        if let Some(cache) = &self.cache {
            keep = keep.cache(cache.cache());
        }
        if self.journal { keep.journal() } else { keep }
    }
}
