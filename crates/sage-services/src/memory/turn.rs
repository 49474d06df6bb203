//! What goes into a memory and comes out of it: [`NewTurn`], [`Turn`], [`Version`], [`Change`].

use std::time::Duration;

use jiff::Timestamp;

use super::error::MemoryError;
use super::scope::Scope;
use crate::store::{MAX_ID_BYTES, MAX_TEXT_BYTES, Metadata, Value, check_metadata};

/// The longest name of a role, in bytes.
pub const MAX_ROLE_BYTES: usize = 128;

/// A turn that is to be remembered.
///
/// ```
/// use std::time::Duration;
/// use sage_services::memory::NewTurn;
///
/// let turn = NewTurn::user("I moved to Basel.").id("17").importance(0.8).ttl(Duration::from_secs(86_400));
/// assert_eq!(turn.role, "user");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NewTurn {
    /// What identifies it in its scope, 1 to 512 bytes. A turn that is appended again under its id is remembered once.
    /// Without one it gets one, and appended again it is another turn.
    pub id: Option<String>,
    /// Who said it, 1 to 128 bytes, such as "user".
    pub role: String,
    /// What was said, 1 byte to 1 MiB.
    pub text: String,
    /// When it was said; the moment it is appended unless set.
    pub said: Option<Timestamp>,
    /// How long it is remembered; for ever unless set, or as [`Memory::ttl`](super::Memory::ttl) says.
    pub ttl: Option<Duration>,
    /// How important it is, 0 to 1; 0 unless set.
    pub importance: f32,
    /// What else it says: up to 64 values.
    pub metadata: Metadata,
    /// Its vector, where the memory has no embedder that makes it.
    pub vector: Option<Vec<f32>>,
}

impl NewTurn {
    /// A turn of a role.
    pub fn new(role: impl Into<String>, text: impl Into<String>) -> Self {
        let (id, said, ttl, vector) = (None, None, None, None);
        Self { id, role: role.into(), text: text.into(), said, ttl, importance: 0.0, metadata: Metadata::new(), vector }
    }

    /// A turn of the role `user`.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new("user", text)
    }

    /// A turn of the role `assistant`.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new("assistant", text)
    }

    /// Sets its id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets when it was said.
    #[must_use]
    pub fn said(mut self, said: Timestamp) -> Self {
        self.said = Some(said);
        self
    }

    /// Sets how long it is remembered, from the moment it is appended.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how important it is, 0 to 1.
    #[must_use]
    pub fn importance(mut self, importance: f32) -> Self {
        self.importance = importance;
        self
    }

    /// Sets one of its values.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets its vector.
    #[must_use]
    pub fn vector(mut self, vector: Vec<f32>) -> Self {
        self.vector = Some(vector);
        self
    }

    pub(super) fn check(&self) -> Result<(), MemoryError> {
        if let Some(id) = &self.id {
            check_id(id)?;
        }
        let refused = |why| MemoryError::BadTurn { id: self.shown_id(), why };
        if self.role.is_empty() || self.role.len() > MAX_ROLE_BYTES {
            return Err(refused(format!("its role has {} bytes; 1 to {MAX_ROLE_BYTES} are taken", self.role.len())));
        }
        check_text(&self.text).map_err(refused)?;
        check_importance(self.importance).map_err(refused)?;
        check_metadata(&self.metadata).map_err(refused)?;
        if self.ttl == Some(Duration::ZERO) {
            return Err(refused("it is to be remembered for no time at all".to_owned()));
        }
        self.said.map_or(Ok(()), check_moment).map_err(refused)
    }

    pub(super) fn shown_id(&self) -> String {
        self.id.as_deref().map_or_else(|| "without an id".to_owned(), shortened)
    }
}

/// A turn that is remembered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Turn {
    /// Whose it is.
    pub scope: Scope,
    /// What identifies it in its scope.
    pub id: String,
    /// Who said it.
    pub role: String,
    /// What was said.
    pub text: String,
    /// When it was said.
    pub said: Timestamp,
    /// When this version of it was recorded.
    pub recorded: Timestamp,
    /// When it is forgotten.
    pub expires: Option<Timestamp>,
    /// How important it is, 0 to 1.
    pub importance: f32,
    /// What else it says.
    pub metadata: Metadata,
}

impl Turn {
    /// A turn that was said and recorded at this moment. A memory gives such; others are for what is tested with them,
    /// such as a summariser.
    pub fn new(
        scope: Scope,
        id: impl Into<String>,
        role: impl Into<String>,
        text: impl Into<String>,
        said: Timestamp,
    ) -> Self {
        Self {
            scope,
            id: id.into(),
            role: role.into(),
            text: text.into(),
            said,
            recorded: said,
            expires: None,
            importance: 0.0,
            metadata: Metadata::new(),
        }
    }
}

/// One of the states that a turn has had.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Version {
    /// From when on it was so.
    pub recorded: Timestamp,
    /// What it said; `None` from when it was deleted.
    pub text: Option<String>,
    /// How important it was.
    pub importance: f32,
    /// What else it said.
    pub metadata: Metadata,
}

impl Version {
    /// A state from a moment on: see [`Turn::new`].
    pub fn new(recorded: Timestamp, text: Option<String>) -> Self {
        Self { recorded, text, importance: 0.0, metadata: Metadata::new() }
    }
}

/// What is changed about a turn. A text is a change of the text alone.
///
/// ```
/// use sage_services::memory::Change;
///
/// let change = Change::from("I moved to Bern.").importance(1.0);
/// # let _ = change;
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Change {
    /// Its text.
    pub text: Option<String>,
    /// How important it is.
    pub importance: Option<f32>,
    /// What else it says: all of it.
    pub metadata: Option<Metadata>,
    /// The vector of its text, where the memory has no embedder that makes it.
    pub vector: Option<Vec<f32>>,
}

impl Change {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how important it is, 0 to 1.
    #[must_use]
    pub fn importance(mut self, importance: f32) -> Self {
        self.importance = Some(importance);
        self
    }

    /// Sets what else it says.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Sets the vector of its text.
    #[must_use]
    pub fn vector(mut self, vector: Vec<f32>) -> Self {
        self.vector = Some(vector);
        self
    }

    pub(super) fn check(&self, id: &str) -> Result<(), MemoryError> {
        let checked = self.text.as_deref().map_or(Ok(()), check_text);
        let checked = checked.and_then(|()| self.importance.map_or(Ok(()), check_importance));
        let checked = checked.and_then(|()| self.metadata.as_ref().map_or(Ok(()), check_metadata));
        checked.map_err(|why| MemoryError::BadTurn { id: shortened(id), why })
    }
}

impl From<&str> for Change {
    fn from(text: &str) -> Self {
        Self { text: Some(text.to_owned()), ..Self::default() }
    }
}

impl From<String> for Change {
    fn from(text: String) -> Self {
        Self { text: Some(text), ..Self::default() }
    }
}

pub(super) fn check_id(id: &str) -> Result<(), MemoryError> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        let why = format!("its id has {} bytes; 1 to {MAX_ID_BYTES} are taken", id.len());
        return Err(MemoryError::BadTurn { id: shortened(id), why });
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it says nothing".to_owned());
    }
    if text.len() > MAX_TEXT_BYTES {
        let bytes = text.len();
        return Err(format!(
            "its text has {bytes} bytes; {MAX_TEXT_BYTES} are taken: divide it, or remember a summary"
        ));
    }
    Ok(())
}

fn check_importance(importance: f32) -> Result<(), String> {
    if (0.0..=1.0).contains(&importance) {
        return Ok(());
    }
    Err(format!("its importance is {importance}, which is not from 0 to 1"))
}

/// Moments are kept in microseconds.
fn check_moment(moment: Timestamp) -> Result<(), String> {
    if moment.as_nanosecond() % 1_000 == 0 { Ok(()) } else { Err(format!("{moment} is finer than a microsecond")) }
}

/// What an error shows of a name.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
