//! What follows a search: the passages found are ordered, and one is quoted.

mod answer;
pub mod evaluate;
mod passage;
mod question;
mod rerank;

pub use answer::{Answer, Extractor};
pub use rerank::rerank;
