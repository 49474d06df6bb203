//! The key of a call: a keyed hash of its service, version, method, arguments and sample.
//!
//! Invariants:
//!  1. Two different calls have different keys, whoever has made up their arguments: the hash is a cryptographic one
//!     (BLAKE3, cut to 128 bits), under a random secret that stands in a file only its user can read.
//!  2. Arguments and tags are stored nowhere but as such a hash.

use std::{fmt, io};

use super::BoxError;

/// Turns values of a type into bytes and back.
///
/// Arguments that have the same bytes are the same to a cache: the bytes have to be canonical (the keys of a map in one
/// order, for example). Another form of the same type needs another `version` of the service.
pub trait Codec<T>: Send + Sync {
    /// Appends the bytes of a value.
    ///
    /// # Errors
    /// The value has no canonical form. A call with such arguments is neither cached nor journaled.
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError>;

    /// The value that has these bytes.
    ///
    /// # Errors
    /// The bytes are those of no value.
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError>;
}

/// The random secret under which the keys of a file, or of a cache in memory, are hashed.
#[derive(Clone)]
pub(super) struct Secret([u8; 32]);

/// What the keys of one method are hashed under.
#[derive(Clone)]
pub(super) struct MethodKey([u8; 32]);

/// The key of one call. Its text is the call's idempotency key: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CallKey(pub(super) [u8; Self::BYTES]);

/// The hash of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TagKey(pub(super) [u8; CallKey::BYTES]);

impl Secret {
    /// A new one, from the system's source of random bytes.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// For the keys of a method's calls.
    pub(super) fn method(&self, service: &str, version: &str, method: &str) -> MethodKey {
        MethodKey(self.derive("call", &[service, version, method]))
    }

    /// The hash of a tag.
    pub(super) fn tag(&self, tag: &str) -> TagKey {
        TagKey(shortened(&self.derive("tag", &[tag])))
    }

    /// A secret of its own for another purpose.
    pub(super) fn derive(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in std::iter::once(&purpose).chain(parts) {
            // Each with its length: `ab`, `c` is not `a`, `bc`.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

impl MethodKey {
    /// The key of a call with these arguments, in their canonical form. `sample` tells apart several calls with the
    /// same arguments that want an answer each.
    pub(super) fn of_bytes(&self, mut arguments: Vec<u8>, sample: u64) -> CallKey {
        arguments.extend(sample.to_le_bytes());
        CallKey(shortened(blake3::keyed_hash(&self.0, &arguments).as_bytes()))
    }
}

impl CallKey {
    pub(super) const BYTES: usize = 16;
}

fn shortened(hash: &[u8; 32]) -> [u8; CallKey::BYTES] {
    *hash.first_chunk().expect("a hash has 32 bytes")
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
