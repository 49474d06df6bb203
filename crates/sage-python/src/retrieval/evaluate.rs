//! Measures of retrieval and answers.

use std::collections::{HashMap, HashSet};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sage_services::evaluate;

use super::arguments::several;

fn ids(name: &str, given: &Bound<'_, PyAny>) -> PyResult<HashSet<String>> {
    Ok(several(name, given)?.into_iter().collect())
}

/// The share of the ``relevant`` ids among the first ``k`` found: 0 to 1, and 0 if nothing is relevant.
///
/// >>> recall_at(["sink.md", "stop.md"], {"stop.md", "drain.md"}, 10)
/// 0.5
#[pyfunction]
pub(crate) fn recall_at(found: &Bound<'_, PyAny>, relevant: &Bound<'_, PyAny>, k: usize) -> PyResult<f64> {
    Ok(evaluate::recall_at(&several("found", found)?, &ids("relevant", relevant)?, k))
}

/// The share of the first ``k`` places that hold a ``relevant`` id: 0 to 1, and 0 if ``k`` is 0.
///
/// >>> precision_at(["sink.md", "stop.md"], {"stop.md", "drain.md"}, 4)
/// 0.25
#[pyfunction]
pub(crate) fn precision_at(found: &Bound<'_, PyAny>, relevant: &Bound<'_, PyAny>, k: usize) -> PyResult<f64> {
    Ok(evaluate::precision_at(&several("found", found)?, &ids("relevant", relevant)?, k))
}

/// 1 divided by the place of the first ``relevant`` id, counted from 1; 0 if none is found.
///
/// >>> reciprocal_rank(["sink.md", "stop.md"], {"stop.md"})
/// 0.5
#[pyfunction]
pub(crate) fn reciprocal_rank(found: &Bound<'_, PyAny>, relevant: &Bound<'_, PyAny>) -> PyResult<f64> {
    Ok(evaluate::reciprocal_rank(&several("found", found)?, &ids("relevant", relevant)?))
}

/// The normalised discounted cumulative gain of the first ``k`` found: what they gain, as a share of what the best
/// order gains. ``gains`` says how relevant ids are, as numbers from 0.
///
/// >>> ndcg_at(["stop.md", "sink.md"], {"stop.md": 1.0}, 10)
/// 1.0
#[pyfunction]
pub(crate) fn ndcg_at(found: &Bound<'_, PyAny>, gains: HashMap<String, f64>, k: usize) -> PyResult<f64> {
    if let Some((id, gain)) = gains.iter().find(|(_, gain)| !(gain.is_finite() && **gain >= 0.0)) {
        return Err(PyValueError::new_err(format!("a gain is a number from 0, unlike {gain} of {id:?}")));
    }
    Ok(evaluate::ndcg_at(&several("found", found)?, &gains, k))
}

/// 1 if both texts have the same words, else 0. Case, punctuation, articles and white space are left out of account.
///
/// >>> exact_match("In reverse order.", "in the reverse order")
/// 1.0
#[pyfunction]
pub(crate) fn exact_match(answer: &str, reference: &str) -> f64 {
    evaluate::exact_match(answer, reference)
}

/// The harmonic mean of precision and recall of the answer's words, as ``exact_match`` sees them: 0 to 1.
///
/// >>> token_f1("In reverse order.", "the reverse order")
/// 0.8
#[pyfunction]
pub(crate) fn token_f1(py: Python<'_>, answer: &str, reference: &str) -> f64 {
    py.detach(|| evaluate::token_f1(answer, reference))
}

/// The harmonic mean of precision and recall of the longest sequence of words that both texts have in this order, with
/// others between them or not: 0 to 1. It takes time in proportion to the product of the texts' lengths.
///
/// >>> rouge_l("services stop last", "services always stop last of all")
/// 0.6666666666666666
#[pyfunction]
pub(crate) fn rouge_l(py: Python<'_>, answer: &str, reference: &str) -> f64 {
    py.detach(|| evaluate::rouge_l(answer, reference))
}
