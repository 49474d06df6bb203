//! [`WorkerChain`]: a chain in the process that it was sent to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};

use crate::chain::{Chain, Failure, Manner};
use crate::cutter::{Cutter, Loop};
use crate::object::Object;
use crate::stage::Form;
use crate::thread::lock;

/// What has come out goes on after so long.
const SOON: Duration = Duration::from_millis(5);

/// The functions of one replica, which run over lists of records.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct WorkerChain {
    chain: Mutex<Chain>,
    gives: Form,
    cutter: Cutter,
    of: Arc<Loop>,
    /// Whether it is to end behind the record that is worked on.
    is_cut: AtomicBool,
}

/// An exception that a function raised, which function that was, and at which record: see [`Failure`].
type Told<'py> = (Bound<'py, PyAny>, Option<(String, String)>, Option<u64>);

/// Results, and what was raised.
type Worked<'py> = (Option<Bound<'py, PyList>>, Option<Told<'py>>);

#[pymethods]
impl WorkerChain {
    /// Of functions that were made; with each record goes what these forms say.
    #[new]
    fn new(adapter: Bound<'_, PyAny>, takes: Form, gives: Form) -> PyResult<Self> {
        let manner = Manner { takes, gives, most: crate::blocks::MOST_RECORDS, blocks: false };
        let cutter = Cutter::default();
        let mut chain = Chain::new(Object::from(adapter.clone()), manner, Arc::default());
        let of = cutter.watch();
        chain.begin(adapter, of.clone())?;
        Ok(Self { chain: Mutex::new(chain), gives, cutter, of, is_cut: AtomicBool::new(false) })
    }

    /// Gives it a list of records, which it takes over, when it has done what it had before.
    fn feed(&self, records: Bound<'_, PyList>) -> PyResult<()> {
        lock(&self.chain).feed(records)
    }

    /// Says that there are no more records.
    fn finish(&self) {
        lock(&self.chain).ended = Some(0);
    }

    /// Works for some milliseconds, or until the function that is at work returns. Returns the results, or ``None``
    /// where nothing was left to do; and what a function raised, which ends all of it.
    fn work<'py>(&self, py: Python<'py>) -> PyResult<Worked<'py>> {
        let gives = self.gives;
        let worked = lock(&self.chain).worked(py, |object| gives.checked(object));
        Ok(match worked {
            Ok(None) => (None, None),
            Ok(Some(results)) => (Some(PyList::new(py, results)?), None),
            Err(failure) => {
                let Failure { exception, function, record } = *failure;
                (None, Some((exception.into_value(py).into_bound(py).into_any(), function, record)))
            }
        })
    }

    /// Works on records one by one, for some milliseconds. Returns, for each, the list of its results or what its
    /// function raised; and whether none is left.
    fn each<'py>(&self, records: Bound<'py, PyIterator>) -> PyResult<(Vec<Bound<'py, PyAny>>, bool)> {
        let (py, gives, begun) = (records.py(), self.gives, Instant::now());
        let mut outcomes = Vec::new();
        for record in records {
            let mut chain = lock(&self.chain);
            chain.feed(PyList::new(py, [record?])?)?;
            let results = PyList::empty(py);
            let raised = loop {
                match chain.worked(py, |object| gives.checked(object)) {
                    Ok(None) => break None,
                    Ok(Some(some)) => some.into_iter().try_for_each(|result| results.append(result))?,
                    Err(failure) => break Some(failure.exception),
                }
            };
            outcomes.push(match raised {
                None => results.into_any(),
                Some(exception) => exception.into_value(py).into_bound(py).into_any(),
            });
            if begun.elapsed() > SOON || self.is_cut.load(Ordering::Relaxed) {
                return Ok((outcomes, false));
            }
        }
        Ok((outcomes, true))
    }

    /// Has the loop that runs end behind the record that is worked on.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.of.cut();
    }

    /// Ends the thread that ends loops.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.cutter.close());
    }
}

/// From here on this process is killed when the one that started it ends.
#[pyfunction]
pub(crate) fn die_with_parent() -> PyResult<()> {
    // SAFETY: it changes what the system does at the end of another process.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}
