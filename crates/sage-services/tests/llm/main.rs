//! The client of language models against servers that are none of ours, and against one that does what it is told.

#![expect(clippy::unwrap_used, reason = "in a test, also outside of its function")]

mod asked;
mod demo;
mod embedder;
mod llmock;
mod played;
mod proxy;
mod verdict;
