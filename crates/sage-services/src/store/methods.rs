//! The methods of a [`VectorStore`] that has a policy.

use std::collections::HashMap;

use sage::{Batch, Batching, Calling, MethodBuilder, PolicyService, ServiceError};

use super::record::{Hit, Record, Search};
use super::vector_store::VectorStore;

impl VectorStore {
    /// Declares a method by which a store with a policy is searched. What its errors mean is told to the policy: a
    /// search that is refused is not made again, and a server that is not there is an outage.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Batching, BoxError, Environment, Policy, Retry};
    /// use sage_services::store::{Embedded, Record, Schema, Search, VectorStore};
    ///
    /// # fn main() -> Result<(), BoxError> {
    /// let env = Environment::local("stored");
    /// let made = VectorStore::constructor(Schema::new("places", 2), Embedded::in_memory)?;
    /// let policy = Policy::new().timeout(Duration::from_secs(2)).retry(Retry::up_to(3));
    /// let store = env.register_async_service("store", made).policy(policy).build();
    /// let upsert = VectorStore::upsert_method(&store, Batching::of(64)).build();
    /// let search = VectorStore::search_method(&store).build();
    /// let found = env
    ///     .from_iter([("east", 1.0, 0.0), ("north", 0.0, 1.0)])
    ///     .try_map(move |(id, x, y)| upsert.call_blocking(Record::new(id, vec![x, y])))
    ///     .count()
    ///     .try_map(move |_stored| search.call_blocking(Search::vector(vec![0.1, 1.0], 1)))
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(found.take()[0][0].id, "north");
    /// # Ok(())
    /// # }
    /// ```
    pub fn search_method(store: &PolicyService<Self>) -> MethodBuilder<Search, Vec<Hit>> {
        store.method("search", |store: Calling<Self>, search: Search| async move {
            store.search(search).await.map_err(ServiceError::from)
        })
    }

    /// Declares a method by which records are stored. Those of all callers are put together as `batching` says. In one
    /// batch the last record with an id counts.
    pub fn upsert_method(store: &PolicyService<Self>, batching: Batching) -> MethodBuilder<Record, ()> {
        let upsert = |store: Calling<Self>, records: Batch<Record>| async move {
            let last: HashMap<&str, usize> = records.iter().enumerate().map(|(at, record)| (&*record.id, at)).collect();
            let is_last = |(at, record): &(usize, &Record)| last[&*record.id] == *at;
            let stored = records.iter().enumerate().filter(is_last).map(|(_, record)| record.clone()).collect();
            store.upsert(stored).await?;
            Ok::<_, ServiceError>(records.iter().map(|_| Ok(())).collect())
        };
        store.batch_method("upsert", batching, upsert)
    }
}
