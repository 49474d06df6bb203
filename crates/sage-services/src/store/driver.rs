//! [`Driver`]: what a kind of store does.

use std::fmt::Debug;
use std::pin::Pin;

use super::error::StoreError;
use super::filter::Filter;
use super::record::{Hit, Record, Search};
use super::schema::Schema;

/// What a [`Driver`] gives back at once and answers later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A kind of store, holding one collection. [`VectorStore`](super::VectorStore) calls it, with nothing that it has not
/// checked: schema, records, searches and filters are as their documentation says, and a batch has no id twice.
///
/// What a driver keeps to:
/// 1. A write that was answered is seen by every search and count that begins after it.
/// 2. Writes take effect in the order in which they were asked for. One whose future is dropped takes effect whole, or
///    not at all, before those that were asked for after it.
/// 3. A batch is written whole or, on an error, not at all, where the store can do that; a driver that cannot says so.
/// 4. A search gives exactly `k` hits where as many records meet its filter, best first; equal scores by their ids.
/// 5. Ids that are not there are neither got nor counted as deleted.
/// 6. After [`close`](Self::close) it holds no connection, thread or file.
pub trait Driver: Debug + Send + Sync + 'static {
    /// The kind of store, for messages, such as "Chroma".
    fn kind(&self) -> &'static str;

    /// Whether texts are searched by their words.
    fn has_text_search(&self) -> bool {
        false
    }

    /// Takes up the collection, or makes it.
    fn open<'a>(&'a self, schema: &'a Schema) -> StoreFuture<'a, ()>;

    /// Fails if the store cannot be reached.
    fn health(&self) -> StoreFuture<'_, ()>;

    /// Stores records, and replaces those with the same ids.
    fn upsert(&self, records: Vec<Record>) -> StoreFuture<'_, ()>;

    /// The records with these ids that are there, in any order.
    fn get(&self, ids: Vec<String>) -> StoreFuture<'_, Vec<Record>>;

    /// Deletes the records with these ids, and says how many were there.
    fn delete(&self, ids: Vec<String>) -> StoreFuture<'_, usize>;

    /// Deletes the records that meet the filter, and says how many they were.
    fn delete_where(&self, filter: Filter) -> StoreFuture<'_, usize>;

    /// Searches.
    fn search(&self, search: Search) -> StoreFuture<'_, Vec<Hit>>;

    /// The number of records that meet the filter; all without one.
    fn count(&self, filter: Option<Filter>) -> StoreFuture<'_, usize>;

    /// Returns when all that was written survives a loss of power, as far as the store can say.
    fn persist(&self) -> StoreFuture<'_, ()>;

    /// Ends. It is called once.
    fn close(&self) -> StoreFuture<'_, ()>;
}
