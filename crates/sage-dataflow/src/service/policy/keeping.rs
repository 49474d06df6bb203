//! The layer of a method whose answers are kept.

use std::path::PathBuf;

use super::cache::DiskCache;
use super::call::Way;
use super::failure::{Failed, Failure};
use super::keep::Keep;
use super::kept::{Asked, Kept, NotKept, Whose};
use super::layers::Layers;
use super::method::{Answering, Declared, Keeps, Method};
use super::shelves::Shelf;
use super::store::StoreError;
use crate::sync::{Arc, lock};

impl<Q, R> Keep<Q, R>
where
    Q: Clone + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    fn kept(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<Kept<R, Failed>>, StoreError> {
        let mut shelves = lock(&layers.shelves);
        if let Some(shelf) = shelves.get(&declared.name) {
            // Of another type if a second method was declared after the job was submitted, where that is refused.
            let shelf = shelf.clone().any().downcast();
            return shelf.map_err(|_| StoreError::SameName { method: declared.name.clone() });
        }
        let disk = DiskCache::open(&self.cache)?.map(Arc::new);
        let journal = match (&declared.state.policy.journal, self.in_journal) {
            (Some(journal), true) => Some(layers.journal(journal)?),
            _ => None,
        };
        let version = declared.state.policy.version.as_deref().unwrap_or_default();
        let whose = Whose { service: &declared.service, version, method: &declared.name };
        let kept = Kept::new(&whose, self.codec.clone(), &self.cache, disk, journal);
        let kept = Arc::new(kept.map_err(|source| StoreError::Io { path: PathBuf::new(), source })?);
        shelves.insert(declared.name.clone(), kept.clone());
        Ok(kept)
    }
}

impl<Q, R> Keeps<Q, R> for Keep<Q, R>
where
    Q: Clone + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    fn answer<'a>(&'a self, method: &'a Method<Q, R>, way: Way<'a>, request: Q) -> Answering<'a, R> {
        let Way { layers, number, may_block, .. } = way;
        Box::pin(async move {
            let kept = self.kept(&method.declared, layers).map_err(|error| method.store(Arc::new(error)))?;
            let Some(arguments) = (self.arguments)(&request) else {
                kept.not_kept();
                return method.through_outages(&way, request).await.map_err(Failed::told);
            };
            let tag = self.tag.as_ref().and_then(|tag| tag(&request));
            let asked =
                Asked { arguments, sample: method.call.sample, tag: tag.as_deref(), until: method.deadline(layers) };
            let call = |place| async move {
                let way = Way { layers, number, may_block, place };
                method.through_outages(&way, request).await
            };
            match kept.answer(&layers.time, asked, call, Failed::is_own).await {
                Ok(answer) => Ok(answer),
                Err(NotKept::Call(failed)) => Err(failed.told()),
                Err(NotKept::Store(error)) => Err(method.store(error).into()),
                Err(NotKept::PastDeadline) => Err(Failure::PastDeadline(None).told(&method.declared.service, 1).into()),
            }
        })
    }

    fn shelf(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<dyn Shelf>, StoreError> {
        let kept: Arc<dyn Shelf> = self.kept(declared, layers)?;
        Ok(kept)
    }
}
