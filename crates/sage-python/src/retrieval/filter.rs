//! Filters, which Python writes as comparisons of fields.

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyNotImplementedError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PyString, PyTuple};
use sage_services::store::{self, Comparison, Value};

use super::arguments::kind;
use super::metadata::{named, object, objects, value};

/// The value of a name in the metadata of records, to be compared with others; see ``field``.
///
/// ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``is_in`` and ``contains`` make a ``Filter`` of it.
#[pyclass(frozen, module = "sage.services")]
#[derive(Clone)]
pub(crate) struct Field(String);

/// The value of this name in the metadata of records, for a ``Filter``.
///
/// >>> field("lang").is_in(["en", "de"]) & ~(field("year") < 2020)
/// field('lang').is_in(['en', 'de']) & ~(field('year') < 2020)
#[pyfunction]
pub(crate) fn field(name: String) -> Field {
    Field(name)
}

#[pymethods]
impl Field {
    /// ``name`` is that of the value.
    #[new]
    fn new(name: String) -> Self {
        Self(name)
    }

    fn __getnewargs__(&self) -> (&str,) {
        (&self.0,)
    }

    /// The value is equal to one of these.
    ///
    /// >>> field("lang").is_in(["en", "de"])
    /// field('lang').is_in(['en', 'de'])
    fn is_in(&self, values: &Bound<'_, PyAny>) -> PyResult<Filter> {
        if values.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("`values` is a list of values, not one text"));
        }
        let values = values.try_iter()?.map(|each| value(&self.0, &each?)).collect::<PyResult<Vec<_>>>()?;
        Ok(Filter(store::field(&*self.0).is_in(values)))
    }

    /// The value is a list that holds this, or a text that has this text in it.
    ///
    /// >>> field("tags").contains("rust")
    /// field('tags').contains('rust')
    fn contains(&self, value: &Bound<'_, PyAny>) -> PyResult<Filter> {
        Ok(Filter(store::field(&*self.0).contains(self::value(&self.0, value)?)))
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Filter> {
        let (field, value) = (store::field(&*self.0), value(&self.0, other)?);
        Ok(Filter(match op {
            CompareOp::Eq => field.equal(value),
            CompareOp::Ne => field.equal(value).not(),
            CompareOp::Lt => field.less(value),
            CompareOp::Le => field.at_most(value),
            CompareOp::Gt => field.greater(value),
            CompareOp::Ge => field.at_least(value),
        }))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("field({})", PyString::new(py, &self.0).repr()?))
    }
}

/// Which records are meant, by their metadata.
///
/// >>> recent = (field("year") >= 2020) & ~field("tags").contains("draft")
/// >>> store = VectorStore(2)
/// >>> store.upsert("a", [1.0, 0.0], metadata={"year": 2024, "tags": ["rust"]})
/// >>> store.upsert("b", [1.0, 0.0], metadata={"year": 2024, "tags": ["draft"]})
/// >>> [hit.id for hit in store.search([1.0, 0.0], filter=recent)]
/// ['a']
///
/// ``&``, ``|`` and ``~`` join filters; ``and``, ``or`` and ``not`` cannot. Wherever a filter is taken, a mapping is as
/// well: all of its values are equal to the record's. A record without the named value meets no comparison but ``!=``,
/// and neither does a value of another type; ``int`` and ``float`` are both numbers.
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(Clone, PartialEq)]
pub(crate) struct Filter(pub(super) store::Filter);

impl Filter {
    /// That which stands for a filter.
    pub(super) fn read(given: &Bound<'_, PyAny>) -> PyResult<store::Filter> {
        if let Ok(filter) = given.cast::<Self>() {
            return Ok(filter.get().0.clone());
        }
        let mapping = given.cast::<PyMapping>().map_err(|_| {
            let found = kind(given);
            PyTypeError::new_err(format!("a filter is made of fields, or is a mapping of names to values, not {found}"))
        })?;
        let mut all: Vec<_> = mapping
            .items()?
            .iter()
            .map(|item| named(&item).map(|(name, value)| store::field(name).equal(value)))
            .collect::<PyResult<_>>()?;
        Ok(if all.len() == 1 { all.remove(0) } else { store::Filter::And(all) })
    }
}

#[pymethods]
impl Filter {
    /// Records whose values are equal to those of the mapping, by their names; all records for an empty one.
    #[new]
    fn new(equal: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::read(equal).map(Self)
    }

    /// Whether a record with this metadata is meant.
    ///
    /// >>> (field("year") >= 2020).is_met_by({"year": 2024})
    /// True
    fn is_met_by(&self, metadata: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.0.is_met_by(&super::metadata::metadata(Some(metadata))?))
    }

    fn __and__(&self, other: &Self) -> Self {
        Self(self.0.clone().and(other.0.clone()))
    }

    fn __or__(&self, other: &Self) -> Self {
        Self(self.0.clone().or(other.0.clone()))
    }

    fn __invert__(&self) -> Self {
        Self(match &self.0 {
            store::Filter::Not(filter) => (**filter).clone(),
            filter => filter.clone().not(),
        })
    }

    fn __bool__(&self) -> PyResult<bool> {
        Err(PyTypeError::new_err("a filter is neither true nor false: join filters by `&`, `|` and `~`"))
    }

    /// As the operators that have made it.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let operator = py.import("operator")?;
        let parts = |filters: &[store::Filter]| {
            let filters = filters.iter().map(|filter| Py::new(py, Self(filter.clone())));
            PyList::new(py, filters.collect::<PyResult<Vec<_>>>()?)
        };
        let method = |name| py.get_type::<Field>().getattr(name);
        Ok(match &self.0 {
            store::Filter::Compare(name, comparison, value) => {
                let function = operator.getattr(operator_name(*comparison))?;
                (function, (Field(name.clone()), object(py, value)?).into_pyobject(py)?)
            }
            store::Filter::In(name, values) => {
                (method("is_in")?, (Field(name.clone()), objects(py, values)?).into_pyobject(py)?)
            }
            store::Filter::Contains(name, value) => {
                (method("contains")?, (Field(name.clone()), object(py, value)?).into_pyobject(py)?)
            }
            store::Filter::And(all) if all.is_empty() => {
                (py.get_type::<Self>().into_any(), (PyDict::new(py),).into_pyobject(py)?)
            }
            store::Filter::And(filters) | store::Filter::Or(filters) => {
                let name = if matches!(self.0, store::Filter::And(_)) { "and_" } else { "or_" };
                let joined = (operator.getattr(name)?, parts(filters)?).into_pyobject(py)?;
                (py.import("functools")?.getattr("reduce")?, joined)
            }
            store::Filter::Not(filter) => (operator.getattr("invert")?, (Self((**filter).clone()),).into_pyobject(py)?),
            _ => return Err(PyNotImplementedError::new_err("this filter cannot be pickled")),
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        told(py, &self.0)
    }
}

fn operator_name(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "eq",
        Comparison::Less => "lt",
        Comparison::AtMost => "le",
        Comparison::Greater => "gt",
        Comparison::AtLeast => "ge",
    }
}

/// A filter as Python writes it.
fn told(py: Python<'_>, filter: &store::Filter) -> PyResult<String> {
    let of = |name: &str| Field(name.to_owned()).__repr__(py);
    let shown = |value: &Value| object(py, value)?.repr().map(|shown| shown.to_string());
    // What has another operator inside stands in parentheses.
    let part = |filter: &store::Filter| -> PyResult<String> {
        let is_plain = matches!(filter, store::Filter::In(..) | store::Filter::Contains(..) | store::Filter::Not(_));
        let inside = told(py, filter)?;
        Ok(if is_plain && !inside.contains(" != ") { inside } else { format!("({inside})") })
    };
    Ok(match filter {
        store::Filter::Compare(name, comparison, value) => {
            let sign = match comparison {
                Comparison::Equal => "==",
                Comparison::Less => "<",
                Comparison::AtMost => "<=",
                Comparison::Greater => ">",
                Comparison::AtLeast => ">=",
            };
            format!("{} {sign} {}", of(name)?, shown(value)?)
        }
        store::Filter::In(name, values) => format!("{}.is_in({})", of(name)?, objects(py, values)?.repr()?),
        store::Filter::Contains(name, value) => format!("{}.contains({})", of(name)?, shown(value)?),
        store::Filter::And(all) if all.is_empty() => "Filter({})".to_owned(),
        store::Filter::And(filters) => filters.iter().map(part).collect::<PyResult<Vec<_>>>()?.join(" & "),
        store::Filter::Or(filters) => filters.iter().map(part).collect::<PyResult<Vec<_>>>()?.join(" | "),
        store::Filter::Not(filter) => match &**filter {
            store::Filter::Compare(name, Comparison::Equal, value) => format!("{} != {}", of(name)?, shown(value)?),
            filter => format!("~{}", part(filter)?),
        },
        _ => "<Filter>".to_owned(),
    })
}
