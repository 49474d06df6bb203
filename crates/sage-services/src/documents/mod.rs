//! Documents: which a folder has, their text, and the passages they are cut into.
//!
//! Knows nothing of vectors and stores.

mod chunk;
#[cfg(feature = "docx")]
mod docx;
mod folder;
mod html;
mod layout;
mod load;
mod passage;
#[cfg(feature = "pdf")]
mod pdf;
mod rows;
mod sections;
mod sentences;
mod windows;

pub use chunk::Chunker;
pub use folder::documents;
pub use layout::Format;
pub use load::{DocumentError, DocumentText, Loader, MAX_DOCUMENT_BYTES, Row, read_document};
pub use passage::Passage;
pub(crate) use sentences::{Sentence, ends_sentence, sentences};
