//! Documents: which a folder has, their text, and the passages they are cut into.
//!
//! Knows nothing of vectors and stores.

mod chunk;
mod folder;
mod html;
mod layout;
mod sentences;

pub use chunk::{Chunker, Passage};
pub use folder::{DocumentError, DocumentText, MAX_DOCUMENT_BYTES, documents, read_document};
pub use layout::Format;
pub(crate) use sentences::{Sentence, ends_sentence, sentences};
