//! CSV: [`CsvSource`] and [`CsvSink`], and the text of the record that is being read.

mod kept;
mod sink;
mod source;

pub use sink::CsvSink;
pub use source::CsvSource;
