//! Vectors: those that the embedder makes, and whatever else Python has for a row of numbers.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PyTuple};

use super::arguments::kind;

/// A vector of 32-bit floats, as an embedder makes it and a store takes it, without a Python object for each
/// coordinate.
///
/// A sequence that cannot be changed: ``len(vector)``, ``vector[0]``, ``list(vector)``;
/// ``numpy.asarray(vector.tolist())``.
#[pyclass(frozen, sequence, module = "sage.services")]
pub(crate) struct Vector(pub(crate) Arc<[f32]>);

#[pymethods]
impl Vector {
    /// ``coordinates`` is a list or a tuple of numbers, or an array of floats; ``TypeError`` for anything else.
    #[new]
    fn made(coordinates: &Bound<'_, PyAny>) -> PyResult<Self> {
        self::coordinates(coordinates).map(Self)
    }

    /// The coordinates, as a list of floats.
    ///
    /// >>> Vector([0.5, 1.0]).tolist()
    /// [0.5, 1.0]
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.0.iter())
    }

    /// Whether no coordinate differs from 0: the vector has no direction, and a store refuses it. That of a text
    /// without a word is, and that of a question whose words no passage holds.
    ///
    /// >>> Vector([0.0, 0.0]).is_zero(), Vector([0.0, 1.0]).is_zero()
    /// (True, False)
    fn is_zero(&self) -> bool {
        self.0.iter().all(|&x| x == 0.0)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<f32> {
        let from_start = if index < 0 { self.0.len().checked_add_signed(index) } else { usize::try_from(index).ok() };
        let found = from_start.and_then(|index| self.0.get(index));
        found.copied().ok_or_else(|| PyIndexError::new_err("vector index out of range"))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.tolist(py)?.try_iter()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Four bytes a coordinate, which a list of floats has more than twice of.
    fn __getnewargs__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>,)> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|x| x.to_ne_bytes()).collect();
        Ok((py.import("array")?.call_method1("array", ("f", PyBytes::new(py, &bytes)))?,))
    }

    pub(super) fn __repr__(&self) -> String {
        let first: Vec<_> = self.0.iter().take(3).map(ToString::to_string).collect();
        let more = if self.0.len() > 3 { ", …" } else { "" };
        format!("<Vector of {}: {}{more}>", self.0.len(), first.join(", "))
    }
}

/// The coordinates of whatever may stand for a vector.
pub(crate) fn coordinates(value: &Bound<'_, PyAny>) -> PyResult<Arc<[f32]>> {
    if let Ok(vector) = value.cast::<Vector>() {
        return Ok(vector.get().0.clone());
    }
    if let Ok(list) = value.cast::<PyList>() {
        return list.iter().enumerate().map(coordinate).collect();
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return tuple.iter().enumerate().map(coordinate).collect();
    }
    if let Ok(singles) = PyBuffer::<f32>::get(value) {
        one_dimension(singles.dimensions())?;
        return singles.to_vec(value.py()).map(Into::into);
    }
    if let Ok(doubles) = PyBuffer::<f64>::get(value) {
        one_dimension(doubles.dimensions())?;
        return Ok(doubles.to_vec(value.py())?.into_iter().map(|x| x as f32).collect());
    }
    Err(PyTypeError::new_err(format!(
        "a vector is a Vector, a list or tuple of numbers, or an array of floats, not {}",
        kind(value)
    )))
}

fn coordinate((index, number): (usize, Bound<'_, PyAny>)) -> PyResult<f32> {
    number.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(number.py()) {
            PyValueError::new_err(format!("coordinate {index} of a vector is not finite: it is too large for a float"))
        } else if error.is_instance_of::<PyTypeError>(number.py()) {
            PyTypeError::new_err(format!("coordinate {index} of a vector is not a number but {}", kind(&number)))
        } else {
            error
        }
    })
}

fn one_dimension(dimensions: usize) -> PyResult<()> {
    if dimensions == 1 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("a vector is an array of one dimension, not of {dimensions}")))
}
