//! Texts of Python's that are read where they lie, also by a thread that is not attached.

use std::ptr::NonNull;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::weight::weight;

/// Some texts, in their order.
#[derive(Default)]
pub(crate) struct Texts(Vec<Text>);

struct Text {
    at: NonNull<str>,
    weight: usize,
    /// Keeps it.
    _kept: Py<PyAny>,
}

// SAFETY: what lies there is never written: see `Texts::take`.
unsafe impl Send for Text {}

impl Texts {
    /// Takes an object that is a plain text; returns any other one. One with a surrogate has no UTF-8, and is none.
    #[inline]
    pub(crate) fn take<'py>(&mut self, object: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let Ok(text) = object.cast_exact::<PyString>() else { return Some(object) };
        let Ok(text) = text.to_str() else { return Some(object) };
        // A text never changes, and its UTF-8 lies in it, or belongs to it from now on: it is there as long as the
        // object is, which is kept beside it.
        self.0.push(Text { at: NonNull::from(text), weight: weight(&object), _kept: object.unbind() });
        None
    }

    /// Each of them, and about how many bytes its object takes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        // SAFETY: it lies there unchanged for as long as `self` is borrowed, as said above.
        self.0.iter().map(|text| (unsafe { text.at.as_ref() }, text.weight))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets go of them, while the thread is attached: otherwise each would be kept until a thread is.
    pub(crate) fn clear(&mut self, _py: Python<'_>) {
        self.0.clear();
    }
}
