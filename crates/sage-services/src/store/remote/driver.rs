//! [`Remote`]: a driver whose collection is a server's, and the two traits that a server's protocol fills in.

use std::sync::{Arc, Mutex, PoisonError};

use sage::{ServiceError, Verdict};

use super::search::{how_many, search};
use crate::store::driver::StoreFuture;
use crate::store::error::StoreError;
use crate::store::filter::Filter;
use crate::store::record::{Hit, Record, Search};
use crate::store::schema::{Metric, Schema};
use crate::worker::{Ended, Worker};

/// A server that keeps collections.
pub(in crate::store) trait Server: std::fmt::Debug + Send + Sync + 'static {
    const KIND: &'static str;
    /// The name of the thread that speaks to it.
    const THREAD: &'static str;
    type Collection: Collection;

    /// Takes up the collection, or makes it.
    fn open(&self, schema: &Schema) -> impl Future<Output = Result<Self::Collection, StoreError>> + Send;
}

/// A collection of a server. Writes come one after the other.
pub(in crate::store) trait Collection: Send + Sync + 'static {
    fn metric(&self) -> Metric;
    fn health(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn upsert(&self, records: Vec<Record>) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn get(&self, ids: &[String]) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;
    /// Those of the ids that are there.
    fn existing(&self, ids: &[String]) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
    /// Deletes records that are there.
    fn delete(&self, ids: Vec<String>) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The ids of all records that meet the filter.
    fn matching(&self, filter: Option<&Filter>) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
    /// The number of all records.
    fn count(&self) -> impl Future<Output = Result<usize, StoreError>> + Send;
    /// Up to `k` records near the vector. All of them that meet the filter are looked at, and others may come along.
    fn nearest(
        &self,
        vector: &[f32],
        k: usize,
        filter: Option<&Filter>,
    ) -> impl Future<Output = Result<Vec<Hit>, StoreError>> + Send;
    fn persist(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A driver whose collection is a server's.
#[derive(Debug)]
pub(in crate::store) struct Remote<S: Server> {
    server: Arc<S>,
    opened: Mutex<Option<Opened<S::Collection>>>,
}

struct Opened<C> {
    worker: Arc<Worker>,
    collection: Arc<C>,
}

impl<C> std::fmt::Debug for Opened<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl<S: Server> Remote<S> {
    pub(in crate::store) fn new(server: S) -> Self {
        Self { server: Arc::new(server), opened: Mutex::new(None) }
    }

    /// The server, to set options of before it is opened.
    pub(in crate::store) fn server_mut(&mut self) -> &mut S {
        Arc::get_mut(&mut self.server).expect("it is shared only while it is being opened, which borrows the driver")
    }

    pub(in crate::store) async fn open(&self, schema: &Schema) -> Result<(), StoreError> {
        let worker = Worker::start(S::THREAD).map_err(|error| StoreError::Server {
            server: S::KIND.to_owned(),
            what: "get a thread to be spoken to on",
            source: ServiceError::new(Verdict::Passing(None), error),
        })?;
        let (server, schema) = (self.server.clone(), schema.clone());
        let opening = worker.read(async move { server.open(&schema).await });
        match opening.await.map_err(|Ended| StoreError::Closed).flatten() {
            Ok(collection) => {
                let opened = Opened { worker: Arc::new(worker), collection: Arc::new(collection) };
                *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
                Ok(())
            }
            Err(error) => {
                worker.end().await;
                Err(error)
            }
        }
    }

    pub(in crate::store) fn health(&self) -> StoreFuture<'_, ()> {
        self.read(|collection| async move { collection.health().await })
    }

    pub(in crate::store) fn upsert(&self, records: Vec<Record>) -> StoreFuture<'_, ()> {
        self.write(|collection| async move { collection.upsert(records).await })
    }

    pub(in crate::store) fn get(&self, ids: Vec<String>) -> StoreFuture<'_, Vec<Record>> {
        self.read(|collection| async move { collection.get(&ids).await })
    }

    /// Servers count ids that are not there as deleted, so they are asked before, within the turn of the write.
    pub(in crate::store) fn delete(&self, ids: Vec<String>) -> StoreFuture<'_, usize> {
        self.write(|collection| async move {
            let ids = collection.existing(&ids).await?;
            deletes(&*collection, ids).await
        })
    }

    pub(in crate::store) fn delete_where(&self, filter: Filter) -> StoreFuture<'_, usize> {
        self.write(|collection| async move {
            let ids = collection.matching(Some(&filter)).await?;
            deletes(&*collection, ids).await
        })
    }

    pub(in crate::store) fn search(&self, asked: Search) -> StoreFuture<'_, Vec<Hit>> {
        self.read(|collection| async move { search(&*collection, &asked).await })
    }

    pub(in crate::store) fn count(&self, filter: Option<Filter>) -> StoreFuture<'_, usize> {
        self.read(|collection| async move { how_many(&*collection, filter.as_ref()).await })
    }

    pub(in crate::store) fn persist(&self) -> StoreFuture<'_, ()> {
        self.write(|collection| async move { collection.persist().await })
    }

    pub(in crate::store) async fn close(&self) -> Result<(), StoreError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Opened { worker, .. }) = opened {
            worker.end().await;
        }
        Ok(())
    }

    fn read<T: Send + 'static, F>(&self, read: impl FnOnce(Arc<S::Collection>) -> F) -> StoreFuture<'_, T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let asked = self.opened().map(|(worker, collection)| worker.read(read(collection)));
        Box::pin(async move { asked?.await.map_err(|Ended| StoreError::Closed).flatten() })
    }

    /// Its place in the order of writes is taken now.
    fn write<T: Send + 'static, F>(&self, write: impl FnOnce(Arc<S::Collection>) -> F) -> StoreFuture<'_, T>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let asked = self.opened().map(|(worker, collection)| worker.write(write(collection)));
        Box::pin(async move { asked?.await.map_err(|Ended| StoreError::Closed).flatten() })
    }

    fn opened(&self) -> Result<(Arc<Worker>, Arc<S::Collection>), StoreError> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or(StoreError::Closed)?;
        Ok((opened.worker.clone(), opened.collection.clone()))
    }
}

async fn deletes<C: Collection>(collection: &C, ids: Vec<String>) -> Result<usize, StoreError> {
    let count = ids.len();
    if count > 0 {
        collection.delete(ids).await?;
    }
    Ok(count)
}

/// A driver's public type, which has a [`Remote`] in it, does what that does.
macro_rules! driver_of {
    ($driver:ident, $server:ident) => {
        impl Driver for $driver {
            fn kind(&self) -> &'static str {
                $server::KIND
            }

            fn open<'a>(&'a self, schema: &'a Schema) -> StoreFuture<'a, ()> {
                Box::pin(self.0.open(schema))
            }

            fn health(&self) -> StoreFuture<'_, ()> {
                self.0.health()
            }

            fn upsert(&self, records: Vec<Record>) -> StoreFuture<'_, ()> {
                self.0.upsert(records)
            }

            fn get(&self, ids: Vec<String>) -> StoreFuture<'_, Vec<Record>> {
                self.0.get(ids)
            }

            fn delete(&self, ids: Vec<String>) -> StoreFuture<'_, usize> {
                self.0.delete(ids)
            }

            fn delete_where(&self, filter: Filter) -> StoreFuture<'_, usize> {
                self.0.delete_where(filter)
            }

            fn search(&self, search: Search) -> StoreFuture<'_, Vec<Hit>> {
                self.0.search(search)
            }

            fn count(&self, filter: Option<Filter>) -> StoreFuture<'_, usize> {
                self.0.count(filter)
            }

            fn persist(&self) -> StoreFuture<'_, ()> {
                self.0.persist()
            }

            fn close(&self) -> StoreFuture<'_, ()> {
                Box::pin(self.0.close())
            }
        }
    };
}
pub(in crate::store) use driver_of;
