//! What makes vectors of texts.

mod lexical;

pub use lexical::LexicalEmbedder;
