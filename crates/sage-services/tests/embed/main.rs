//! Embedders that read the files of models: they make the vectors that the libraries make whose files those are, and
//! name what is wrong with a file.

#![expect(clippy::unwrap_used, reason = "in a test, also outside of its function")]

mod agrees;
#[cfg(feature = "minilm")]
mod bert;
mod damaged;
mod files;
mod real;
mod shared;
