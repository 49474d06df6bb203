//! [`Chroma`]: a driver for collections of a Chroma server, behind the feature `chroma`.
//!
//! It speaks version 2 of the server's HTTP interface; metadata with lists takes Chroma 1.5 or later. What a record
//! says besides its text is there twice: value by value, for conditions, and as one text, which comes back exactly.
//!
//! A batch is written by several requests if it has more records than the server takes at once (5,461), or more than
//! 16 MiB. If one of them fails, those before it have been written.

mod client;
mod collection;
mod filter;
mod values;

use std::time::Duration;

use super::driver::{Driver, StoreFuture};
use super::error::StoreError;
use super::filter::Filter;
use super::record::{Hit, Record, Search};
use super::remote::{Remote, Server, driver_of};
use super::schema::Schema;
use crate::connection::{Address, Key};
use client::Client;
use collection::ChromaCollection;

/// A collection of a Chroma server.
///
/// Without a limit of its own a search of Chroma may miss records, as its index is approximate: this driver asks again,
/// and at last compares all records itself, until as many are found as there are. A filter that Chroma cannot say is
/// said as well as it can, and the rest of it is applied here: that is an order of strings, a list that is equal, text
/// within text, a number with a fraction or beyond 2⁵³.
///
/// ```no_run
/// use sage_services::store::{Chroma, Record, Schema, Search, VectorStore};
///
/// # async fn stores() -> Result<(), sage_services::store::StoreError> {
/// let store = VectorStore::new(Schema::new("passages", 2), Chroma::at("http://127.0.0.1:8000"))?;
/// store.open().await?;
/// store.upsert(vec![Record::new("a", vec![0.6, 0.8]).text("Services stop last.")]).await?;
/// let hits = store.search(Search::vector(vec![0.6, 0.8], 1)).await?;
/// assert_eq!(hits[0].id, "a");
/// store.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct Chroma(Remote<ChromaServer>);

#[derive(Debug)]
struct ChromaServer {
    address: Address,
    tenant: String,
    database: String,
    token: Option<Key>,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl Chroma {
    /// A server by its address, such as `http://127.0.0.1:8000`, with its default tenant and database. It connects when
    /// it is opened.
    pub fn at(address: impl Into<String>) -> Self {
        Self(Remote::new(ChromaServer {
            address: Address(address.into()),
            tenant: "default_tenant".to_owned(),
            database: "default_database".to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
        }))
    }

    /// Whose database it is. Default: `default_tenant`.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.0.server_mut().tenant = tenant.into();
        self
    }

    /// The database, which must be there. Default: `default_database`.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.0.server_mut().database = database.into();
        self
    }

    /// What the server knows its users by. It is sent as `x-chroma-token` and as a bearer's token, and not shown.
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

    /// How long a request may take, of which a call may make several. Default: 60 seconds.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.0.server_mut().request_timeout = timeout;
        self
    }
}

driver_of!(Chroma, ChromaServer);

impl Server for ChromaServer {
    const KIND: &'static str = "Chroma";
    const THREAD: &'static str = "sage-chroma";
    type Collection = ChromaCollection;

    async fn open(&self, schema: &Schema) -> Result<ChromaCollection, StoreError> {
        ChromaCollection::open(Client::new(self)?, schema).await
    }
}
