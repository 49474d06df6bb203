//! [`Scope`]: whose memory a turn is.

use std::fmt;
use std::sync::Arc;

use super::error::MemoryError;

/// The longest name of a tenant, user, agent or session, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Whose memory a turn is: that of a tenant, and within it of a user, an agent and a session, as far as they are named.
///
/// A scope contains every scope that has all the names it has. So what is remembered in a session of a user is found in
/// the scope of the user, too, and in that of the tenant; but nothing of one user in the scope of another, and nothing
/// of one tenant in that of another, whatever they are asked for.
///
/// ```
/// use sage_services::memory::Scope;
///
/// let user = Scope::tenant("acme").user("u1");
/// let session = user.clone().agent("support").session("s1");
/// assert!(user.contains(&session) && !session.contains(&user));
/// assert!(!Scope::tenant("acme").user("u2").contains(&session));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    tenant: Arc<str>,
    /// The user, the agent and the session.
    within: [Option<Arc<str>>; 3],
}

/// What is named within a tenant.
pub(super) const PARTS: [&str; 3] = ["user", "agent", "session"];

impl Scope {
    /// The scope of all that a tenant has. Names have 1 to 256 bytes, and no control characters.
    pub fn tenant(name: impl Into<Arc<str>>) -> Self {
        Self { tenant: name.into(), within: [None, None, None] }
    }

    /// Names the user.
    #[must_use]
    pub fn user(self, name: impl Into<Arc<str>>) -> Self {
        self.with(0, Some(name.into()))
    }

    /// Names the agent.
    #[must_use]
    pub fn agent(self, name: impl Into<Arc<str>>) -> Self {
        self.with(1, Some(name.into()))
    }

    /// Names the session.
    #[must_use]
    pub fn session(self, name: impl Into<Arc<str>>) -> Self {
        self.with(2, Some(name.into()))
    }

    pub(super) fn with(mut self, part: usize, name: Option<Arc<str>>) -> Self {
        self.within[part] = name;
        self
    }

    /// The tenant's name.
    pub fn tenant_name(&self) -> &str {
        &self.tenant
    }

    /// The user's name.
    pub fn user_name(&self) -> Option<&str> {
        self.within[0].as_deref()
    }

    /// The agent's name.
    pub fn agent_name(&self) -> Option<&str> {
        self.within[1].as_deref()
    }

    /// The session's name.
    pub fn session_name(&self) -> Option<&str> {
        self.within[2].as_deref()
    }

    /// Whether what is remembered in `other` is found in this scope.
    pub fn contains(&self, other: &Self) -> bool {
        let has = |(own, other): (&Option<Arc<str>>, &Option<Arc<str>>)| own.is_none() || own == other;
        self.tenant == other.tenant && self.within.iter().zip(&other.within).all(has)
    }

    /// A word for the answers of services that are about this scope, by which they are erased with it: see
    /// [`MethodBuilder::keep`](sage::MethodBuilder) and [`Memory::erase_with`](super::Memory::erase_with). No other
    /// scope has it.
    pub fn tag(&self) -> String {
        let names = std::iter::once(Some(&*self.tenant)).chain(self.within.iter().map(Option::as_deref));
        let names: Vec<Option<&str>> = names.collect();
        format!("memory {}", serde_json::to_string(&names).expect("names are text"))
    }

    pub(super) fn tenant_arc(&self) -> &Arc<str> {
        &self.tenant
    }

    pub(super) fn within(&self) -> &[Option<Arc<str>>; 3] {
        &self.within
    }

    /// Checks its names, as every method of a memory does.
    ///
    /// # Errors
    /// [`MemoryError::BadScope`].
    pub fn check(&self) -> Result<(), MemoryError> {
        let named = PARTS.iter().zip(&self.within).filter_map(|(part, name)| Some((*part, name.as_deref()?)));
        for (part, name) in std::iter::once(("tenant", &*self.tenant)).chain(named) {
            let why = if name.is_empty() {
                "it is empty".to_owned()
            } else if name.len() > MAX_NAME_BYTES {
                format!("it has {} bytes; {MAX_NAME_BYTES} are taken", name.len())
            } else if name.chars().any(char::is_control) {
                "it has a control character".to_owned()
            } else {
                continue;
            };
            let name = super::turn::shortened(name);
            return Err(MemoryError::BadScope { part, name, why });
        }
        Ok(())
    }
}

/// As in `tenant acme, user u1`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}", self.tenant)?;
        let named = PARTS.iter().zip(&self.within).filter_map(|(part, name)| Some((part, name.as_deref()?)));
        named.into_iter().try_for_each(|(part, name)| write!(f, ", {part} {name}"))
    }
}
