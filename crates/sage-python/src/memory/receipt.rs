//! What was erased.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use sage_services::memory;

use super::scope::Scope;

/// What was erased, and what an erasure cannot reach. ``str`` of it says both.
///
/// >>> with Memory() as memory:
/// ...     ids = memory.append(Scope("acme", user="u1"), [("user", "I moved to Basel.")])
/// ...     receipt = memory.erase(Scope("acme", user="u1"))
/// >>> print(receipt)  # doctest: +ELLIPSIS
/// erased of tenant acme, user u1: 1 turns in 1 versions, 0 bytes of the file, 0 answers of services
/// out of reach:
/// - files that were exported, and copies of the memory's file
/// - ...
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Receipt(pub(super) memory::Receipt);

#[pymethods]
impl Receipt {
    /// What may still have some of it, and an erasure cannot reach.
    #[classattr]
    #[expect(non_snake_case, reason = "a constant of the class")]
    fn OUT_OF_REACH(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, memory::Receipt::OUT_OF_REACH)
    }

    /// A memory makes receipts; others are for tests.
    #[new]
    #[pyo3(signature = (scope, *, id=None, turns=0, versions=0, bytes=0, answers=0, tags=Vec::new()))]
    #[pyo3(text_signature = "(scope, *, id=None, turns=0, versions=0, bytes=0, answers=0, tags=())")]
    fn new(
        scope: &Scope,
        id: Option<String>,
        turns: usize,
        versions: usize,
        bytes: u64,
        answers: u64,
        tags: Vec<String>,
    ) -> Self {
        let mut receipt = memory::Receipt::new(scope.0.clone());
        (receipt.id, receipt.turns, receipt.versions) = (id, turns, versions);
        (receipt.bytes, receipt.answers, receipt.tags) = (bytes, answers, tags);
        Self(receipt)
    }

    /// What was to be erased.
    #[getter]
    fn scope(&self) -> Scope {
        Scope(self.0.scope.clone())
    }

    /// The turn that was to be erased, if it was one.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Turns that are gone.
    #[getter]
    fn turns(&self) -> usize {
        self.0.turns
    }

    /// Their versions, with those that said that they were deleted.
    #[getter]
    fn versions(&self) -> usize {
        self.0.versions
    }

    /// Bytes of the file that are zeros now.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Answers of other services that are gone, as far as these were given.
    #[getter]
    fn answers(&self) -> u64 {
        self.0.answers
    }

    /// The tags of answers that are about what was erased.
    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.tags)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((Scope,), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("id", self.id())?;
        named.set_item("turns", self.turns())?;
        named.set_item("versions", self.versions())?;
        named.set_item("bytes", self.bytes())?;
        named.set_item("answers", self.answers())?;
        named.set_item("tags", self.tags(py)?)?;
        Ok(((self.scope(),), named))
    }

    fn __str__(&self) -> String {
        self.0.to_string().trim_end().to_owned()
    }

    fn __repr__(&self) -> String {
        format!("<Receipt of {}: {} turns>", self.0.scope, self.0.turns)
    }
}
