//! Services for [`sage`] pipelines, and the steps of retrieval that go with them, without a model, a download or a
//! network.
//!
//! | part | what it is |
//! |---|---|
//! | [`Embedder`] | a trait of services: text to vector |
//! | [`LexicalEmbedder`] | an embedder that hashes words |
//! | `StaticEmbedder` | behind the feature `static`: an embedder with a vector for each token, from the files of a model |
//! | `LlmEmbedder` | behind the feature `llm`: an embedder that asks a provider |
//! | `MiniLmEmbedder` | behind the feature `minilm`: an embedder that runs a transformer, from the files of a model |
//! | [`VectorStore`](store::VectorStore) | a service: vectors with texts and metadata, in a file or in memory, searched by vector, by words or by both |
//! | [`DocumentIndex`] | a service: documents that can be asked; an embedder, a store and a chunker in one |
//! | [`documents`], [`read_document`], [`Loader`] | functions: folder to files, file to text |
//! | [`Chunker`] | a function: document to passages with path, lines and headings |
//! | [`Ingest`] | brings a collection to what documents say now: only what changed is embedded |
//! | [`rerank`] | a function: retrieved passages, ordered by the words they share with the question |
//! | `CrossEncoder` | behind the feature `minilm`: a service that orders passages by a transformer |
//! | [`Extractor`] | a function: question and passages to the best quotation and its source |
//! | [`Sources`] | passages with numbers for the prompt of a model, and what the numbers in its answer stand for |
//! | [`evaluate`] | functions: how good what was found and answered is |
//! | [`Memory`](memory::Memory) | a service: the turns of conversations, recalled by words, meaning, time and importance |
//! | `llm` | a service, behind the feature of this name: a client of language models |
//!
//! ```
//! use sage::{BoxError, Environment};
//! use sage_services::store::{Embedded, Schema, VectorStore};
//! use sage_services::{Chunker, Embedder, Format, LexicalEmbedder, Passage};
//!
//! # fn main() -> Result<(), BoxError> {
//! let env = Environment::local("index");
//! let embedder = env.register_service("embedder", LexicalEmbedder::default).build();
//! let schema = Schema::made_by("passages", LexicalEmbedder::default().id());
//! let made = VectorStore::constructor(schema, Embedded::in_memory)?;
//! let store = env.register_async_service("store", made).after(&embedder).build();
//! let text = "# Stopping\n\nServices stop in reverse order.";
//! let passages = Chunker::default().chunks("stop.md", Format::Markdown, text);
//! let indexed = env
//!     .from_collection(passages)
//!     .try_map(move |passage: Passage| {
//!         let vector = embedder.call(|embedder| embedder.embed_passage(&passage.text_with_heading()))?;
//!         store.try_call_blocking(async move |store| store.upsert(vec![passage.record(vector)]).await)
//!     })
//!     .count()
//!     .collect();
//! env.run()?;
//! assert_eq!(indexed.take(), [1]);
//! # Ok(())
//! # }
//! ```
//!
//! # How well it finds
//!
//! Measured on 19,011 passages of the books about Rust (one machine, two cores). 401 questions were each made of every
//! other of ten neighbouring long words of one passage; found means that this passage or a neighbour of it came back.
//!
//! | dimensions | first | among four | among fifty | first, reranked | among four, reranked | memory of vectors |
//! |---|---|---|---|---|---|---|
//! | 512 | 35 % | 57 % | 94 % | 65 % | 80 % | 39 MB |
//! | 1,024 (default) | 43 % | 68 % | 98 % | 66 % | 81 % | 78 MB |
//! | 2,048 | 52 % | 74 % | 99 % | 67 % | 83 % | 156 MB |
//!
//! A search of the default store takes somewhat less than 1 ms per 1,000 passages, reranking fifty 2 to 3 ms.
//! Paraphrases that share no word with their passage are not found: that takes an embedding model, which can stand in
//! the embedder's place.

#[cfg(feature = "http")]
mod connection;
mod documents;
mod embed;
#[cfg(feature = "llm")]
pub mod llm;
pub mod memory;
mod retrieval;
pub mod store;
mod terms;
mod tokens;
mod wait;
#[cfg(feature = "http")]
mod worker;

pub use documents::{
    Chunker, DocumentError, DocumentText, Format, Loader, MAX_DOCUMENT_BYTES, Passage, Row, documents, read_document,
};
#[cfg(feature = "llm")]
pub use embed::LlmEmbedder;
#[cfg(feature = "minilm")]
pub use embed::MiniLmEmbedder;
pub use embed::{EmbedError, Embedder, EmbedderId, EmbedderMismatch, LexicalEmbedder, TextKind, embed_method};
#[cfg(feature = "static")]
pub use embed::{ModelError, StaticEmbedder};
#[cfg(feature = "minilm")]
pub use retrieval::CrossEncoder;
pub use retrieval::{
    Answer, Citation, Citations, DocumentIndex, Extractor, IndexError, Ingest, Lookup, Plan, Sources, evaluate, rerank,
};
pub use tokens::estimated_tokens;
pub use wait::wait;
