//! Objects whose attributes are made when they are first asked for.

use pyo3::prelude::*;
use pyo3::types::PyString;

/// The base of classes with a method `_missing`, which gives an attribute that the object does not have.
///
/// `__getattr__` in a class written in Python would do, but that makes every attribute slow, those that are there as well.
#[pyclass(frozen, subclass, module = "sage._sage")]
pub(crate) struct Attributes;

#[pymethods]
impl Attributes {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self
    }

    fn __getattr__<'py>(this: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let missing = this.get_type().getattr(pyo3::intern!(this.py(), "_missing"))?;
        missing.call1((this, name))
    }
}
