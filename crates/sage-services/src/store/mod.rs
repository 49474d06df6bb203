//! Stores of vectors: one interface, and the kinds of stores behind it.
//!
//! Knows nothing of what makes the vectors, or of how texts were cut.

#[cfg(feature = "chroma")]
mod chroma;
mod driver;
mod embedded;
mod error;
mod filter;
pub(crate) mod log;
mod methods;
#[cfg(feature = "milvus")]
mod milvus;
pub(crate) mod postings;
mod record;
#[cfg(any(feature = "chroma", feature = "milvus"))]
mod remote;
pub(crate) mod rows;
#[doc(hidden)]
pub mod scan;
mod schema;
pub(crate) mod stored;
mod value;
mod vector_store;
pub(crate) mod vectors;

#[cfg(feature = "chroma")]
pub use chroma::Chroma;
pub use driver::{Driver, StoreFuture};
pub use embedded::Embedded;
pub use error::StoreError;
pub use filter::{Comparison, Field, Filter, field};
#[cfg(feature = "milvus")]
pub use milvus::Milvus;
pub(crate) use record::check_metadata;
pub use record::{
    Hit, MAX_ID_BYTES, MAX_METADATA_NAME_BYTES, MAX_METADATA_VALUES, MAX_RESULTS, MAX_TEXT_BYTES, Record, Search,
};
pub use schema::{Metric, Schema};
pub use value::{Metadata, Value};
pub use vector_store::VectorStore;
