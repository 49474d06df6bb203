//! Tests through the public interface.

#![expect(clippy::unwrap_used, reason = "in tests, also outside of their functions")]

mod chunking;
mod citing;
mod dialogues;
mod document_index;
#[cfg(feature = "docx")]
mod docx;
mod evaluating;
mod ingesting;
mod labelled;
mod loading;
#[cfg(feature = "pdf")]
mod pdf;
