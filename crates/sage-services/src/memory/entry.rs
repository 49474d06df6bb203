//! [`Entry`]: what a frame of a memory's log says, as bytes.
//!
//! A frame is about one turn, or about the erasure of turns, so that a turn is erased by blanking its frames. Its
//! layout is that of postcard 1, whose format is stable. Moments are microseconds since 1970.
//!
//! Knows nothing of files.

use serde::{Deserialize, Serialize};

use super::scope::Scope;
use crate::embed::EmbedderId;
use crate::store::stored::{StoredMetadata, StoredVector};

/// What the first frame says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header<'a> {
    format: &'a str,
    /// What makes the vectors.
    pub(super) embedder: Option<String>,
    /// How many numbers a vector has; 0 for none.
    pub(super) dimensions: u32,
}

/// Tells a memory from other files of the same kind of log.
const FORMAT: &str = "sage memory 1";

impl Header<'_> {
    pub(super) fn of(embedder: Option<&EmbedderId>) -> Header<'static> {
        let dimensions = embedder.map_or(0, |embedder| u32::try_from(embedder.dimensions()).unwrap_or(u32::MAX));
        Header { format: FORMAT, embedder: embedder.map(ToString::to_string), dimensions }
    }

    /// What a frame says, if it is the first of a memory.
    pub(super) fn read(says: &[u8]) -> Option<Header<'_>> {
        postcard::from_bytes(says).ok().filter(|header: &Header<'_>| header.format == FORMAT)
    }
}

/// What every other frame says. Written by its place in this list: new ones go to the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Entry<'a> {
    /// A turn is appended.
    #[serde(borrow)]
    Append(Appended<'a>),
    /// A turn has another version.
    Update(Updated<'a>),
    /// All turns of a scope are erased, or one: this is blanked itself once they are.
    Erase(StoredScope<'a>, Option<&'a str>),
    /// Turns of the same scope are erased, and another stands in their place.
    Replace(Vec<&'a str>, Appended<'a>),
}

/// A turn's first version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Appended<'a> {
    pub(super) scope: StoredScope<'a>,
    pub(super) id: &'a str,
    /// Its place among all turns.
    pub(super) place: u64,
    pub(super) role: &'a str,
    pub(super) said: i64,
    pub(super) expires: Option<i64>,
    #[serde(borrow)]
    pub(super) says: Says<'a>,
}

/// A later version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Updated<'a> {
    pub(super) scope: StoredScope<'a>,
    pub(super) id: &'a str,
    #[serde(borrow)]
    pub(super) says: Says<'a>,
}

/// What a version says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Says<'a> {
    pub(super) recorded: i64,
    /// `None` from when it was deleted.
    pub(super) text: Option<&'a str>,
    pub(super) importance: f32,
    #[serde(borrow)]
    pub(super) metadata: StoredMetadata<'a>,
    pub(super) vector: Option<StoredVector<'a>>,
}

/// The names of a scope: tenant, user, agent, session.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct StoredScope<'a>(&'a str, #[serde(borrow)] [Option<&'a str>; 3]);

impl<'a> StoredScope<'a> {
    pub(super) fn of(scope: &'a Scope) -> Self {
        let [user, agent, session] = scope.within();
        Self(scope.tenant_name(), [user.as_deref(), agent.as_deref(), session.as_deref()])
    }

    pub(super) fn scope(&self) -> Scope {
        let names = self.1.iter().enumerate();
        names.fold(Scope::tenant(self.0), |scope, (part, name)| scope.with(part, name.map(Into::into)))
    }
}

pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("what is in memory has bytes")
}
