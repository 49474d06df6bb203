//! Services for [`sage`] pipelines, and the steps of retrieval that go with them, without a model, a download or a
//! network.
//!
//! | part | what it is |
//! |---|---|
//! | [`Embedder`] | a trait of services: text to vector |
//! | [`LexicalEmbedder`] | an embedder that hashes words |
//! | [`VectorStore`] | a service: vectors in memory, searched exactly |
//! | [`documents`], [`read_document`] | functions: folder to files, file to text |
//! | [`Chunker`] | a function: document to passages with path, lines and headings |
//! | [`rerank`] | a function: retrieved passages, ordered by the words they share with the question |
//! | [`Extractor`] | a function: question and passages to the best quotation and its source |
//! | `llm` | a service, behind the feature of this name: a client of language models |
//!
//! ```
//! use sage::Environment;
//! use sage_services::{Chunker, Format, LexicalEmbedder, VectorStore};
//!
//! let env = Environment::local("index");
//! let embedder = env.register_service("embedder", LexicalEmbedder::default).build();
//! let store = env
//!     .register_service("store", || VectorStore::new(LexicalEmbedder::DEFAULT_DIMENSIONS))
//!     .after(&embedder)
//!     .build();
//! let text = "# Stopping\n\nServices stop in reverse order.";
//! let passages = Chunker::default().chunks("stop.md", Format::Markdown, text);
//! let indexed = env
//!     .from_collection(passages)
//!     .try_map(move |passage| {
//!         let vector = embedder.call(|embedder| embedder.embed_passage(&passage.text_with_heading()))?;
//!         store.try_call(|store| store.upsert(passage.id(), &vector, passage))
//!     })
//!     .count()
//!     .collect();
//! env.run()?;
//! assert_eq!(indexed.take(), [1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
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
mod retrieval;
pub mod store;
mod terms;
mod wait;

pub use documents::{
    Chunker, DocumentError, DocumentText, Format, MAX_DOCUMENT_BYTES, Passage, documents, read_document,
};
pub use embed::{EmbedError, Embedder, EmbedderId, EmbedderMismatch, LexicalEmbedder, TextKind, embed_method};
pub use retrieval::{Answer, Extractor, rerank};
pub use store::{OldHit as Hit, OldRecord as Record, OldStoreError as StoreError, OldVectorStore as VectorStore};
pub use wait::wait;
