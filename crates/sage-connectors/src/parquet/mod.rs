//! Parquet, a format of columns: [`ParquetSource`] and [`ParquetSink`], over the crates of Arrow.
//!
//! `columns.rs` turns records into columns and back. `file.rs` has the file that is being written.

mod columns;
mod file;
mod sink;
mod source;

pub use file::ParquetCompression;
pub use sink::ParquetSink;
pub use source::ParquetSource;
