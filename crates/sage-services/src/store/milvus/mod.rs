//! [`Milvus`]: a driver for collections of a Milvus server, behind the feature `milvus`.
//!
//! It speaks Milvus's gRPC interface. A collection has the fields `id`, `vector`, `text` and `metadata`, and an index
//! of the kind HNSW. Searches see all that was written before (consistency level Strong).
//!
//! A batch is written by several requests if it has more than 5,000 records or 16 MiB. If one of them fails, those
//! before it have been written.

mod client;
mod collection;
mod columns;
mod filter;
mod messages;

use std::time::Duration;

use super::driver::{Driver, StoreFuture};
use super::error::StoreError;
use super::filter::Filter;
use super::record::{Hit, Record, Search};
use super::remote::{Remote, Server, driver_of};
use super::schema::Schema;
use crate::connection::{Address, Key};
use client::Client;
use collection::MilvusCollection;

/// The fields of a collection.
const ID: &str = "id";
const VECTOR: &str = "vector";
const TEXT: &str = "text";
const METADATA: &str = "metadata";

/// A collection of a Milvus server, or of Milvus Lite's.
///
/// A text has up to 65,535 bytes, and so has a record's metadata, written as JSON twice over: Milvus takes no more. A
/// filter that Milvus cannot say exactly is said as well as it can, and the rest of it is applied here: that is an
/// order of strings, a list that is equal, text within text, a number with a fraction or beyond 2⁵³. Scores are
/// computed here.
///
/// ```no_run
/// use sage_services::store::{Milvus, Record, Schema, Search, VectorStore};
///
/// # async fn stores() -> Result<(), sage_services::store::StoreError> {
/// let store = VectorStore::new(Schema::new("passages", 2), Milvus::at("http://127.0.0.1:19530"))?;
/// store.open().await?;
/// store.upsert(vec![Record::new("a", vec![0.6, 0.8]).text("Services stop last.")]).await?;
/// let hits = store.search(Search::vector(vec![0.6, 0.8], 1)).await?;
/// assert_eq!(hits[0].id, "a");
/// store.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct Milvus(Remote<MilvusServer>);

#[derive(Debug)]
struct MilvusServer {
    address: Address,
    database: String,
    token: Option<Key>,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Milvus {
    /// A server by its address, such as `http://127.0.0.1:19530`, with its default database. It connects when it is
    /// opened.
    pub fn at(address: impl Into<String>) -> Self {
        Self(Remote::new(MilvusServer {
            address: Address(address.into()),
            database: "default".to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
        }))
    }

    /// The database, which must be there. Default: `default`.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.0.server_mut().database = database.into();
        self
    }

    /// What the server knows its users by: an API key, or a name and a password as `name:password`. It is not shown.
    /// Default: none.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.0.server_mut().token = Some(Key(token.into()));
        self
    }

    /// How long connecting may take. Default: 10 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.0.server_mut().connect_timeout = timeout;
        self
    }

    /// How long a request may take, of which a call may make several, and how long the server may take to load a
    /// collection or to flush one. Default: 60 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.0.server_mut().request_timeout = timeout;
        self
    }
}

driver_of!(Milvus, MilvusServer);

impl Server for MilvusServer {
    const KIND: &'static str = "Milvus";
    const THREAD: &'static str = "sage-milvus";
    type Collection = MilvusCollection;

    async fn open(&self, schema: &Schema) -> Result<MilvusCollection, StoreError> {
        MilvusCollection::open(Client::new(self)?, schema, self.request_timeout).await
    }
}
