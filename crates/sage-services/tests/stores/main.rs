//! Stores of vectors: the suite that every kind passes, and what each does when things go wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(all(feature = "chroma", feature = "milvus"))]
mod alike;
#[cfg(feature = "chroma")]
mod chroma;
mod conformance;
mod embedded;
mod embedded_faults;
#[cfg(any(feature = "chroma", feature = "milvus"))]
mod faults;
#[cfg(feature = "milvus")]
mod milvus;
#[cfg(any(feature = "chroma", feature = "milvus"))]
#[path = "../llm/proxy.rs"]
mod proxy;
#[cfg(any(feature = "chroma", feature = "milvus"))]
mod server;
