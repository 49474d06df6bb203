//! What goes into a memory and comes out of it.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyMapping, PyString, PyTuple};
use pyo3::{IntoPyObjectExt, intern};
use sage_services::memory;

use super::arguments::{duration_of, moment_of, shortest};
use super::scope::Scope;
use crate::retrieval::{Vector, coordinates, date, kind, mapping, metadata, shown};

/// A turn that is to be remembered.
///
/// >>> turn = NewTurn("user", "I moved to Basel.", id="17", importance=0.8, ttl=86_400)
/// >>> turn.role, turn.importance
/// ('user', 0.8)
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct NewTurn(memory::NewTurn);

#[pymethods]
impl NewTurn {
    /// ``role`` is who said it, 1 to 128 bytes, such as ``"user"``; ``text`` what was said, 1 byte to 1 MiB.
    ///
    /// ``id`` identifies it in its scope, 1 to 512 bytes: a turn that is appended again under its id is remembered
    /// once. Without one it gets one, and appended again it is another turn. ``said`` is when it was said, a
    /// ``datetime`` with a time zone; the moment it is appended unless given. ``ttl`` is how long it is remembered from
    /// then on, in seconds or as a ``timedelta``; as the memory says unless given. ``importance`` is 0 to 1.
    /// ``metadata`` is what else it says, up to 64 values as those of a ``Record``; ``vector`` its vector, where the
    /// memory has no embedder.
    #[new]
    #[pyo3(signature = (role, text, *, id=None, said=None, ttl=None, importance=0.0, metadata=None, vector=None))]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn new(
        role: &str,
        text: &str,
        id: Option<String>,
        said: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
        importance: f32,
        metadata: Option<&Bound<'_, PyAny>>,
        vector: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut turn = memory::NewTurn::new(role, text).importance(importance);
        turn.id = id;
        turn.said = said.map(|given| moment_of("said", given)).transpose()?;
        turn.ttl = ttl.map(|given| duration_of("ttl", given)).transpose()?;
        turn.metadata = self::metadata(metadata)?;
        turn.vector = vector.map(coordinates).transpose()?.map(|vector| vector.to_vec());
        Ok(Self(turn))
    }

    /// What identifies it in its scope; ``None`` for one that is to get an id.
    #[getter]
    fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Who said it.
    #[getter]
    fn role(&self) -> &str {
        &self.0.role
    }

    /// What was said.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// When it was said, in UTC.
    #[getter]
    fn said<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.said.map(|said| date(py, said)).transpose()
    }

    /// How long it is remembered, in seconds.
    #[getter]
    fn ttl(&self) -> Option<f64> {
        self.0.ttl.map(|ttl| ttl.as_secs_f64())
    }

    /// How important it is, 0 to 1.
    #[getter]
    fn importance(&self) -> f64 {
        shortest(self.0.importance)
    }

    /// What else it says, by names; each time a new mapping.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        mapping(py, &self.0.metadata)
    }

    /// Its vector.
    #[getter]
    fn vector(&self) -> Option<Vector> {
        self.0.vector.as_deref().map(|vector| Vector(vector.into()))
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((&str, &str), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("id", self.id())?;
        named.set_item("said", self.said(py)?)?;
        named.set_item("ttl", self.ttl())?;
        named.set_item("importance", self.0.importance)?;
        named.set_item("metadata", self.metadata(py)?)?;
        named.set_item("vector", self.vector())?;
        Ok(((self.role(), self.text()), named))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (role, text) = (PyString::new(py, &self.0.role), shown(py, &self.0.text));
        Ok(format!("NewTurn({}, {})", role.repr()?, text.repr()?))
    }
}

/// A turn as `append` takes it: a `NewTurn`, a pair of a role and a text, or a message as chat interfaces have it.
pub(super) fn new_turn(given: &Bound<'_, PyAny>) -> PyResult<memory::NewTurn> {
    if let Ok(turn) = given.cast::<NewTurn>() {
        return Ok(turn.get().0.clone());
    }
    if let Ok(pair) = given.cast::<PyTuple>()
        && pair.len() == 2
    {
        return Ok(memory::NewTurn::new(text("role", &pair.get_item(0)?)?, text("text", &pair.get_item(1)?)?));
    }
    if let Ok(message) = given.cast::<PyMapping>()
        && !given.is_instance_of::<PyTuple>()
        && !given.is_instance_of::<PyList>()
    {
        return of_message(message);
    }
    Err(PyTypeError::new_err(format!(
        "a turn is a NewTurn, a tuple of its role and text, or a mapping with `role` and `content`, not this {}",
        kind(given)
    )))
}

/// A message has a `role` and its text as `content`, and may have what else a `NewTurn` has.
fn of_message(message: &Bound<'_, PyMapping>) -> PyResult<memory::NewTurn> {
    let py = message.py();
    let named = PyDict::new(py);
    let (mut role, mut content) = (None, None);
    for item in message.items()?.iter() {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        match &*text("the name of a part", &name)? {
            "role" => role = Some(text("role", &value)?),
            "content" => content = Some(text("content", &value)?),
            "id" | "said" | "ttl" | "importance" | "metadata" | "vector" => named.set_item(name, value)?,
            other => {
                return Err(PyValueError::new_err(format!(
                    "a message that is remembered has `role` and `content`, and what else a NewTurn has, but no \
                     `{other}`"
                )));
            }
        }
    }
    let (Some(role), Some(content)) = (role, content) else {
        return Err(PyValueError::new_err("a message that is remembered has `role` and `content`"));
    };
    let made = py.get_type::<NewTurn>().call((role, content), Some(&named))?;
    Ok(made.cast::<NewTurn>()?.get().0.clone())
}

/// A part of a turn that is a text.
fn text(name: &str, given: &Bound<'_, PyAny>) -> PyResult<String> {
    match given.cast::<PyString>() {
        Ok(text) => Ok(text.to_str()?.to_owned()),
        Err(_) => Err(PyTypeError::new_err(format!("`{name}` of a turn is a text, not {}", kind(given)))),
    }
}

/// A turn that is remembered.
///
/// >>> with Memory() as memory:
/// ...     ids = memory.append(Scope("acme"), [("user", "I moved to Basel.")])
/// ...     [turn] = memory.window(Scope("acme"), 1)
/// >>> turn.text, turn.message()
/// ('I moved to Basel.', {'role': 'user', 'content': 'I moved to Basel.'})
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Turn(pub(super) memory::Turn);

#[pymethods]
impl Turn {
    /// A memory makes turns; others are for what is tested with them, such as a summariser.
    #[new]
    #[pyo3(
        signature = (scope, id, role, text, said, *, recorded=None, expires=None, importance=0.0, metadata=None)
    )]
    #[expect(clippy::too_many_arguments, reason = "as Python calls it, by their names")]
    fn new(
        scope: &Scope,
        id: &str,
        role: &str,
        text: &str,
        said: &Bound<'_, PyAny>,
        recorded: Option<&Bound<'_, PyAny>>,
        expires: Option<&Bound<'_, PyAny>>,
        importance: f32,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut turn = memory::Turn::new(scope.0.clone(), id, role, text, moment_of("said", said)?);
        if let Some(recorded) = recorded {
            turn.recorded = moment_of("recorded", recorded)?;
        }
        turn.expires = expires.map(|given| moment_of("expires", given)).transpose()?;
        turn.importance = importance;
        turn.metadata = self::metadata(metadata)?;
        Ok(Self(turn))
    }

    /// Whose it is.
    #[getter]
    fn scope(&self) -> Scope {
        Scope(self.0.scope.clone())
    }

    /// What identifies it in its scope.
    #[getter]
    fn id(&self) -> &str {
        &self.0.id
    }

    /// Who said it.
    #[getter]
    fn role(&self) -> &str {
        &self.0.role
    }

    /// What was said.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    /// When it was said, in UTC.
    #[getter]
    fn said<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        date(py, self.0.said)
    }

    /// When this version of it was recorded, in UTC.
    #[getter]
    fn recorded<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        date(py, self.0.recorded)
    }

    /// When it is forgotten, in UTC; ``None`` for one that is not.
    #[getter]
    fn expires<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.expires.map(|expires| date(py, expires)).transpose()
    }

    /// How important it is, 0 to 1.
    #[getter]
    fn importance(&self) -> f64 {
        shortest(self.0.importance)
    }

    /// What else it says, by names; each time a new mapping.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        mapping(py, &self.0.metadata)
    }

    /// The message that says this, as language models are asked with it. The role of a summary is ``"system"`` there.
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let role = if self.0.role == "summary" { "system" } else { &self.0.role };
        [("role", role), ("content", &self.0.text)].into_py_dict(py)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let given = (self.scope(), self.id(), self.role(), self.text(), self.said(py)?).into_bound_py_any(py)?;
        let named = PyDict::new(py);
        named.set_item("recorded", self.recorded(py)?)?;
        named.set_item("expires", self.expires(py)?)?;
        named.set_item("importance", self.0.importance)?;
        named.set_item("metadata", self.metadata(py)?)?;
        Ok((given.cast_into::<PyTuple>()?, named))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (role, text) = (PyString::new(py, &self.0.role), shown(py, &self.0.text));
        Ok(format!("<Turn of {}: {}, {}>", self.0.scope, role.repr()?, text.repr()?))
    }
}

/// One of the states that a turn has had: see ``Memory.history``.
///
/// >>> with Memory() as memory:
/// ...     [id] = memory.append(Scope("acme"), [("user", "I live in Basel.")])
/// ...     memory.update(Scope("acme"), id, "I live in Bern.")
/// ...     memory.delete(Scope("acme"), id)
/// ...     [version.text for version in memory.history(Scope("acme"), id)]
/// ['I live in Basel.', 'I live in Bern.', None]
#[pyclass(frozen, eq, module = "sage.services")]
#[derive(PartialEq)]
pub(crate) struct Version(pub(super) memory::Version);

#[pymethods]
impl Version {
    /// A memory makes versions; others are for tests.
    #[new]
    #[pyo3(signature = (recorded, text, *, importance=0.0, metadata=None))]
    fn new(
        recorded: &Bound<'_, PyAny>,
        text: Option<String>,
        importance: f32,
        metadata: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut version = memory::Version::new(moment_of("recorded", recorded)?, text);
        version.importance = importance;
        version.metadata = self::metadata(metadata)?;
        Ok(Self(version))
    }

    /// From when on it was so, in UTC.
    #[getter]
    fn recorded<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        date(py, self.0.recorded)
    }

    /// What it said; ``None`` from when it was deleted.
    #[getter]
    fn text(&self) -> Option<&str> {
        self.0.text.as_deref()
    }

    /// How important it was, 0 to 1.
    #[getter]
    fn importance(&self) -> f64 {
        shortest(self.0.importance)
    }

    /// What else it said, by names; each time a new mapping.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        mapping(py, &self.0.metadata)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let given = (self.recorded(py)?, self.text()).into_bound_py_any(py)?;
        let named = PyDict::new(py);
        named.set_item(intern!(py, "importance"), self.0.importance)?;
        named.set_item(intern!(py, "metadata"), self.metadata(py)?)?;
        Ok((given.cast_into::<PyTuple>()?, named))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = self.0.text.as_deref().map(|text| shown(py, text));
        let text = text.map_or(Ok("deleted".to_owned()), |text| text.repr().map(|text| text.to_string()))?;
        Ok(format!("<Version of {}: {text}>", self.0.recorded))
    }
}
