//! Whose memory a turn is.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyString};
use sage_services::memory;

use super::errors::raised;

/// Whose memory a turn is: that of a tenant, and within it of a user, an agent and a session, as far as they are named.
///
/// A scope contains every scope that has all the names it has. So what is remembered in a session of a user is found in
/// the scope of the user, too, and in that of the tenant; but nothing of one user in the scope of another, and nothing
/// of one tenant in that of another, whatever they are asked for.
///
/// >>> user, session = Scope("acme", user="u1"), Scope("acme", user="u1", session="monday")
/// >>> user.contains(session), session.contains(user), Scope("acme", user="u2").contains(session)
/// (True, False, False)
///
/// Scopes with the same names are equal, and can be keys of a ``dict``.
#[pyclass(frozen, eq, hash, module = "sage.services")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Scope(pub(super) memory::Scope);

#[pymethods]
impl Scope {
    /// Names have 1 to 256 bytes, and no control characters.
    #[new]
    #[pyo3(signature = (tenant, *, user=None, agent=None, session=None))]
    fn new(
        py: Python<'_>,
        tenant: &str,
        user: Option<&str>,
        agent: Option<&str>,
        session: Option<&str>,
    ) -> PyResult<Self> {
        let scope = memory::Scope::tenant(tenant);
        let scope = user.into_iter().fold(scope, memory::Scope::user);
        let scope = agent.into_iter().fold(scope, memory::Scope::agent);
        let scope = session.into_iter().fold(scope, memory::Scope::session);
        scope.check().map_err(|error| raised(py, &error))?;
        Ok(Self(scope))
    }

    /// The tenant's name.
    #[getter]
    fn tenant(&self) -> &str {
        self.0.tenant_name()
    }

    /// The user's name.
    #[getter]
    fn user(&self) -> Option<&str> {
        self.0.user_name()
    }

    /// The agent's name.
    #[getter]
    fn agent(&self) -> Option<&str> {
        self.0.agent_name()
    }

    /// The session's name.
    #[getter]
    fn session(&self) -> Option<&str> {
        self.0.session_name()
    }

    /// Whether what is remembered in ``other`` is found in this scope.
    ///
    /// >>> Scope("acme").contains(Scope("acme", session="monday"))
    /// True
    fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// A text for the answers of services that are about this scope, by which ``Memory.erase`` erases them with it: the
    /// ``tag`` of a ``Keep``. No other scope has it.
    ///
    /// >>> Scope("acme", user="u1").tag()
    /// 'memory ["acme","u1",null,null]'
    fn tag(&self) -> String {
        self.0.tag()
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((&str,), Bound<'py, PyDict>)> {
        let names = [("user", self.user()), ("agent", self.agent()), ("session", self.session())];
        Ok(((self.tenant(),), names.into_py_dict(py)?))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let quoted = |name: &str| Ok::<_, PyErr>(PyString::new(py, name).repr()?.to_string());
        let mut words = quoted(self.tenant())?;
        for (part, name) in [("user", self.user()), ("agent", self.agent()), ("session", self.session())] {
            if let Some(name) = name {
                words = format!("{words}, {part}={}", quoted(name)?);
            }
        }
        Ok(format!("Scope({words})"))
    }
}
