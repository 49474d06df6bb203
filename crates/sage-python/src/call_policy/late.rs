//! [`Late`]: what Python tells of an answer after it was given.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use sage::{BoxError, PolicyService, Tally};

use crate::service::PythonService;

/// Told by an answer that comes in pieces, at its end: see `ChatStream` in `python/sage/_llm.py`.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Late(pub(super) PolicyService<PythonService>);

#[pymethods]
impl Late {
    fn tally(&self, of: BTreeMap<String, String>, sums: BTreeMap<String, f64>) {
        self.0.tally(tally(of, sums));
    }

    fn broke_off(&self, why: String) {
        self.0.broke_off(&*BoxError::from(why));
    }
}

pub(super) fn tally(of: BTreeMap<String, String>, sums: BTreeMap<String, f64>) -> Tally {
    let tally = of.into_iter().fold(Tally::new(), |tally, (name, value)| tally.of(name, value));
    sums.into_iter().fold(tally, |tally, (name, sum)| tally.add(name, sum))
}
