//! What the class `Memory` of the package calls.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString, PyTuple};
use sage::BoxError;
use sage_services::memory::{self, MemoryError};

use super::arguments::moment_of;
use super::embedder::{PythonEmbedder, id_of};
use super::errors::raised;
use super::recalled::{Recalled, Weights};
use super::receipt::Receipt;
use super::scope::Scope;
use super::turn::{NewTurn, Turn, Version, new_turn};
use crate::error::attempt;
use crate::retrieval::{coordinates, date, kind, metadata};
use crate::spec::Seconds;
use crate::thread::{attach, call, is_ending, lock};

/// A memory.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct MemoryLog {
    memory: ManuallyDrop<memory::Memory>,
    clock: Option<Py<PyAny>>,
}

impl MemoryLog {
    /// Asks the memory, detached from the interpreter.
    fn ask<T: Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&memory::Memory) -> Result<T, MemoryError> + Send,
    ) -> PyResult<T> {
        py.detach(|| ask(&self.memory)).map_err(|error| raised(py, &error))
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        // Its thread may be about to read a clock in Python, for which it is parked by then. The process ends.
        if is_ending() {
            return;
        }
        // SAFETY: it is not used any more.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        // Closing it waits for that thread.
        attach(|py| py.detach(|| drop(memory)));
    }
}

#[pymethods]
impl MemoryLog {
    /// `made_by` is what makes the vectors, and `embedder` that itself, if it is to make them.
    #[new]
    #[pyo3(signature = (path, made_by, embedder, synced, max_turns, ttl, clock))]
    #[expect(clippy::too_many_arguments, reason = "as the package calls it")]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        made_by: Option<(String, usize)>,
        embedder: Option<Py<PyAny>>,
        synced: bool,
        max_turns: u32,
        ttl: Option<Seconds>,
        clock: Option<Py<PyAny>>,
    ) -> Self {
        let its_clock = clock.as_ref().map(|clock| clock.clone_ref(py));
        let memory = path.map_or_else(memory::Memory::in_memory, memory::Memory::at).max_turns(max_turns);
        let made_by = made_by.map(|(id, dimensions)| id_of(&id, dimensions));
        let memory = match (made_by, embedder) {
            (Some(id), Some(embedder)) => memory.embedder(PythonEmbedder::new(id, embedder)),
            (Some(id), None) => memory.vectors_made_by(id),
            (None, _) => memory,
        };
        let memory = if synced { memory.synced() } else { memory };
        let memory = ttl.into_iter().fold(memory, |memory, ttl| memory.ttl(ttl.0));
        let memory = its_clock.into_iter().fold(memory, |memory, clock| memory.clock(clock_of(clock)));
        Self { memory: ManuallyDrop::new(memory), clock }
    }

    fn open(&self, py: Python<'_>) -> PyResult<()> {
        // What is wrong with a clock is said now: later nobody waits for it.
        self.clock.as_ref().map_or(Ok(()), |clock| told(clock.bind(py)).map(drop))?;
        self.ask(py, memory::Memory::open)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.ask(py, |memory| {
            memory.close();
            Ok(())
        })
    }

    fn append(&self, py: Python<'_>, scope: &Scope, turns: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        check_several("turns", turns)?;
        let turns: Vec<_> = turns.try_iter()?.map(|turn| new_turn(&turn?)).collect::<PyResult<_>>()?;
        self.ask(py, |memory| memory.append(&scope.0, turns))
    }

    fn append_all(&self, py: Python<'_>, turns: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        check_several("turns", turns)?;
        let turns: Vec<_> = turns.try_iter()?.map(|pair| of_scope(&pair?)).collect::<PyResult<_>>()?;
        self.ask(py, |memory| memory.append_all(turns))
    }

    #[pyo3(signature = (scope, id, text, importance, metadata, vector))]
    #[expect(clippy::too_many_arguments, reason = "as the package calls it")]
    fn update(
        &self,
        py: Python<'_>,
        scope: &Scope,
        id: &str,
        text: Option<String>,
        importance: Option<f32>,
        metadata: Option<&Bound<'_, PyAny>>,
        vector: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let mut change = memory::Change::new();
        (change.text, change.importance) = (text, importance);
        change.metadata = metadata.map(|given| self::metadata(Some(given))).transpose()?;
        change.vector = vector.map(coordinates).transpose()?.map(|vector| vector.to_vec());
        self.ask(py, |memory| memory.update(&scope.0, id, change))
    }

    fn delete(&self, py: Python<'_>, scope: &Scope, id: &str) -> PyResult<()> {
        self.ask(py, |memory| memory.delete(&scope.0, id))
    }

    #[pyo3(signature = (scope, id, at))]
    fn get(&self, py: Python<'_>, scope: &Scope, id: &str, at: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Turn>> {
        let at = moment_at(at)?;
        let found = self.ask(py, |memory| match at {
            Some(at) => memory.get_at(&scope.0, id, at),
            None => memory.get(&scope.0, id),
        });
        Ok(found?.map(Turn))
    }

    fn history(&self, py: Python<'_>, scope: &Scope, id: &str) -> PyResult<Vec<Version>> {
        Ok(self.ask(py, |memory| memory.history(&scope.0, id))?.into_iter().map(Version).collect())
    }

    #[pyo3(signature = (scope, turns, tokens, count_by, at))]
    fn window(
        &self,
        py: Python<'_>,
        scope: &Scope,
        turns: Option<usize>,
        tokens: Option<usize>,
        count_by: Option<Py<PyAny>>,
        at: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Turn>> {
        let window = tokens.map_or_else(|| memory::Window::turns(usize::MAX), memory::Window::tokens);
        let window = turns.into_iter().fold(window, memory::Window::and_turns);
        let window = moment_at(at)?.into_iter().fold(window, memory::Window::at);
        let failed = Arc::new(Mutex::new(None));
        let window = match count_by {
            Some(count_by) => window.count_by(counting(count_by, failed.clone())),
            None => window,
        };
        let turns = self.ask(py, |memory| memory.window(&scope.0, window))?;
        let failed = lock(&failed).take();
        failed.map_or_else(|| Ok(turns.into_iter().map(Turn).collect()), Err)
    }

    #[pyo3(signature = (scope, text, k, weights, half_life, min_score, at, vector))]
    #[expect(clippy::too_many_arguments, reason = "as the package calls it")]
    fn recall(
        &self,
        py: Python<'_>,
        scope: &Scope,
        text: &str,
        k: usize,
        weights: Option<&Weights>,
        half_life: Option<Seconds>,
        min_score: Option<f32>,
        at: Option<&Bound<'_, PyAny>>,
        vector: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Recalled>> {
        let mut recall = memory::Recall::new(text).k(k);
        recall.weights = weights.map_or(recall.weights, |weights| weights.0);
        recall.half_life = half_life.map_or(recall.half_life, |half_life| half_life.0);
        (recall.min_score, recall.at) = (min_score, moment_at(at)?);
        recall.vector = vector.map(coordinates).transpose()?.map(|vector| vector.to_vec());
        Ok(self.ask(py, |memory| memory.recall(&scope.0, recall))?.into_iter().map(Recalled).collect())
    }

    fn count(&self, py: Python<'_>, scope: &Scope) -> PyResult<usize> {
        self.ask(py, |memory| memory.count(&scope.0))
    }

    fn scopes(&self, py: Python<'_>, within: &Scope) -> PyResult<Vec<Scope>> {
        Ok(self.ask(py, |memory| memory.scopes(&within.0))?.into_iter().map(Scope).collect())
    }

    fn moment<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        date(py, self.ask(py, memory::Memory::moment)?)
    }

    fn expire(&self, py: Python<'_>) -> PyResult<usize> {
        self.ask(py, memory::Memory::expire)
    }

    /// `answers` erases those with a tag, and says how many there were.
    #[pyo3(signature = (scope, answers))]
    fn erase(&self, py: Python<'_>, scope: &Scope, answers: Option<Py<PyAny>>) -> PyResult<Receipt> {
        let receipt = self.ask(py, |memory| match answers {
            None => memory.erase(&scope.0),
            Some(answers) => memory.erase_with(&scope.0, |tag| {
                let erased = attempt(|py| called(answers.bind(py), (tag,))?.extract());
                erased.map_err(BoxError::from)
            }),
        });
        receipt.map(Receipt)
    }

    fn erase_turn(&self, py: Python<'_>, scope: &Scope, id: &str) -> PyResult<Receipt> {
        self.ask(py, |memory| memory.erase_turn(&scope.0, id)).map(Receipt)
    }

    fn compact(&self, py: Python<'_>, scope: &Scope, keep: usize, summarise: Py<PyAny>) -> PyResult<Option<Turn>> {
        let summary = self.ask(py, |memory| {
            memory.compact(&scope.0, keep, |turns| {
                let made = attempt(|py| {
                    let turns: Vec<_> = turns.iter().cloned().map(Turn).collect();
                    let made = called(summarise.bind(py), (turns,))?;
                    let text = made
                        .cast::<PyString>()
                        .map_err(|_| PyTypeError::new_err(format!("`summarise` gives a text, not {}", kind(&made))))?;
                    Ok(text.to_str()?.to_owned())
                });
                made.map_err(BoxError::from)
            })
        });
        Ok(summary?.map(Turn))
    }

    fn keep_latest(&self, py: Python<'_>, scope: &Scope, keep: usize) -> PyResult<usize> {
        self.ask(py, |memory| memory.keep_latest(&scope.0, keep))
    }

    fn export(&self, py: Python<'_>, scope: &Scope, path: PathBuf) -> PyResult<usize> {
        self.ask(py, |memory| memory.export(&scope.0, path))
    }

    /// Gives how many turns were remembered, known, and expired.
    #[pyo3(name = "import_")]
    fn import(&self, py: Python<'_>, path: PathBuf) -> PyResult<(usize, usize, usize)> {
        let imported = self.ask(py, |memory| memory.import(path))?;
        Ok((imported.turns, imported.known, imported.expired))
    }
}

fn moment_at(at: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Timestamp>> {
    at.map(|given| moment_of("at", given)).transpose()
}

/// One turn is no list of them, though it can be iterated over.
fn check_several(name: &str, given: &Bound<'_, PyAny>) -> PyResult<()> {
    if given.is_instance_of::<NewTurn>()
        || given.is_instance_of::<PyString>()
        || given.cast::<PyMapping>().is_ok_and(|_| !given.is_instance_of::<PyTuple>())
    {
        return Err(PyTypeError::new_err(format!(
            "`{name}` is a list of turns, not this {}: put it in one",
            kind(given)
        )));
    }
    Ok(())
}

/// A pair of a scope and a turn.
fn of_scope(pair: &Bound<'_, PyAny>) -> PyResult<(memory::Scope, memory::NewTurn)> {
    let parts = pair.cast::<PyTuple>().ok().filter(|parts| parts.len() == 2);
    let scope = parts.and_then(|parts| parts.get_item(0).ok()?.cast_into::<Scope>().ok());
    let (Some(parts), Some(scope)) = (parts, scope) else {
        return Err(PyTypeError::new_err(format!("`turns` are tuples of a Scope and a turn, not this {}", kind(pair))));
    };
    Ok((scope.get().0.clone(), new_turn(&parts.get_item(1)?)?))
}

/// Calls a function of the user's.
fn called<'py>(
    function: &Bound<'py, PyAny>,
    args: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    call(function, &args.into_pyobject(function.py())?, None)
}

/// Counts tokens. What is raised ends the count, and is kept.
fn counting(count_by: Py<PyAny>, failed: Arc<Mutex<Option<PyErr>>>) -> impl Fn(&str) -> usize + Send + Sync + 'static {
    move |text| {
        let counted = attach(|py| {
            let counted = called(count_by.bind(py), (text,))?;
            counted.extract().map_err(|_| {
                let found = counted.repr().map_or_else(|_| kind(&counted), |found| found.to_string());
                PyValueError::new_err(format!("`count_by` gives a number of tokens, not {found}"))
            })
        });
        counted.unwrap_or_else(|error| {
            *lock(&failed) = Some(error);
            // More than any window has.
            usize::MAX
        })
    }
}

/// The moment that a clock in Python tells.
fn told(clock: &Bound<'_, PyAny>) -> PyResult<Timestamp> {
    moment_of("clock()", &call(clock, &PyTuple::empty(clock.py()), None)?)
}

/// The time by a clock in Python. Where that raises, it stands still.
fn clock_of(clock: Py<PyAny>) -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let latest = Mutex::new(Timestamp::UNIX_EPOCH);
    move || {
        let told = attach(|py| {
            let told = told(clock.bind(py));
            told.map_err(|error| error.write_unraisable(py, Some(clock.bind(py)))).ok()
        });
        let mut latest = lock(&latest);
        *latest = told.unwrap_or(*latest);
        *latest
    }
}
