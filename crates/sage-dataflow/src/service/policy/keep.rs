//! [`Keep`]: which answers of a method are kept, and how they are known again.

use std::fmt;

use super::cache::Cache;
use super::journal::Journal;
use super::key::Codec;
use crate::sync::Arc;

/// Which answers of a method are kept, and how they are known again.
///
/// An answer belongs to the service's name, the [version](crate::Policy::version) that its policy declares, the method,
/// the arguments in their canonical form, and the [sample](crate::CallPolicy::sample). Errors are never kept. Calls
/// with equal arguments that are made at the same time share one, and its error.
///
/// See [`MethodBuilder::keep`](super::MethodBuilder::keep) for an example.
pub struct Keep<Q, R> {
    pub(super) arguments: Box<dyn Fn(&Q) -> Option<Vec<u8>> + Send + Sync>,
    pub(super) tag: Option<Box<dyn Fn(&Q) -> Option<String> + Send + Sync>>,
    pub(super) codec: Arc<dyn Codec<R>>,
    pub(super) cache: Cache,
    pub(super) in_journal: bool,
}

impl<Q, R> Keep<Q, R> {
    /// `arguments` gives the canonical form of a request's arguments: equal bytes for requests that may have the same
    /// answer, and for no others. `None`: this request has none, and its answer is not kept. `codec` makes bytes of an
    /// answer. Nothing is kept yet: say where by [`cache`](Self::cache) or [`journal`](Self::journal).
    pub fn new(
        arguments: impl Fn(&Q) -> Option<Vec<u8>> + Send + Sync + 'static,
        codec: impl Codec<R> + 'static,
    ) -> Self {
        let codec = Arc::new(codec);
        Self { arguments: Box::new(arguments), tag: None, codec, cache: Cache::new(), in_journal: false }
    }

    /// Keeps answers in a cache.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Keeps answers in the [journal](crate::Policy::journal) that the service's policy declares.
    pub fn journal(mut self) -> Self {
        self.in_journal = true;
        self
    }

    /// Gives answers a tag, such as a user's id, by which they can be erased later: see
    /// [`Method::erase`](super::Method::erase).
    pub fn tag(mut self, tag: impl Fn(&Q) -> Option<String> + Send + Sync + 'static) -> Self {
        self.tag = Some(Box::new(tag));
        self
    }

    /// What is wrong with these settings, for a service of this version.
    pub(super) fn mistake(&self, version: Option<&str>, journal: Option<&Journal>) -> Option<String> {
        if version.is_none() {
            return Some("answers are kept only for a declared version: say `Policy::version`".to_owned());
        }
        let is_lost = self.in_journal && journal.is_none();
        let lost = || "a method keeps its answers in a journal: say `Policy::journal`".to_owned();
        self.cache.mistake().or_else(|| is_lost.then(lost))
    }
}

impl<Q, R> fmt::Debug for Keep<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, in_journal, .. } = self;
        f.debug_struct("Keep").field("cache", cache).field("in_journal", in_journal).finish_non_exhaustive()
    }
}
