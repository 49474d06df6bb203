//! [`Outbox`]: in a worker, what its job has not been told yet of the records that it asked for.

use std::sync::{Condvar, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::bridge::{Answer, Refused};
use crate::thread::lock;

/// News of records, by their numbers, for the thread that sends them.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    posted: Condvar,
}

#[derive(Default)]
struct Waiting {
    news: Vec<(u64, News)>,
    /// Whether nothing more comes.
    is_over: bool,
}

/// What has come of a record.
pub(crate) enum News {
    Begun,
    Answer(Answer),
}

/// The number of a record, a word for what has come of it, and the results, the exception or the text.
pub(crate) type Crossing<'py> = (u64, &'static str, Bound<'py, PyAny>);

impl Outbox {
    pub(crate) fn post(&self, number: u64, news: News) {
        lock(&self.waiting).news.push((number, news));
        self.posted.notify_one();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        lock(&self.waiting).is_over = true;
        self.posted.notify_all();
    }

    /// Waits for news; `None` when nothing more comes.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Vec<Crossing<'py>>>> {
        let news = py.detach(|| {
            let nothing = |waiting: &mut Waiting| waiting.news.is_empty() && !waiting.is_over;
            let waited = self.posted.wait_while(lock(&self.waiting), nothing);
            std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).news)
        });
        if news.is_empty() {
            return Ok(None);
        }
        news.into_iter().map(|(number, news)| news.crossing(py, number)).collect::<PyResult<_>>().map(Some)
    }
}

impl News {
    fn crossing(self, py: Python<'_>, number: u64) -> PyResult<Crossing<'_>> {
        Ok(match self {
            Self::Begun => (number, "begun", py.None().into_bound(py)),
            Self::Answer(Ok(records)) => {
                let results = records.into_iter().map(|record| record.value.into_object(py));
                (number, "done", PyList::new(py, results.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            Self::Answer(Err(Refused::Raised(raised))) => {
                (number, "raised", raised.exception.into_value(py).into_bound(py).into_any())
            }
            Self::Answer(Err(Refused::Stuck(why))) => (number, "stuck", PyString::new(py, &why).into_any()),
        })
    }
}
