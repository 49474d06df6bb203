//! A Parquet file that is being written: [`ParquetFile`].
//!
//! Records become batches of columns, batches become the row group that is being made, and a full row group goes to the
//! [`Output`]. Invariants: the memory for all that does not depend on the number of records; after anything that could
//! not be written, no more is, and the file does not appear.

use std::fmt;
use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use sage::{BoxError, CloseContext, StopReason};
use serde::Serialize;
use serde_arrow::ArrayBuilder;

use super::columns::told;
use crate::error::OutputError;
use crate::output::Output;

/// The most records in a batch, and about how many bytes; also no more than a row group has.
const BATCH_ROWS: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// How a Parquet file is compressed inside, column by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ParquetCompression {
    /// Not at all.
    None,
    /// Snappy, the default, as in pyarrow: every reader knows it.
    #[default]
    Snappy,
    /// Gzip, at level 6 of 9: smaller, and slower to write.
    Gzip,
    /// Zstd, at level 3 of 22: smaller than Snappy, as in polars.
    Zstd,
}

impl ParquetCompression {
    fn codec(self) -> Compression {
        match self {
            Self::None => Compression::UNCOMPRESSED,
            Self::Snappy => Compression::SNAPPY,
            Self::Gzip => Compression::GZIP(GzipLevel::default()),
            Self::Zstd => Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a level of zstd")),
        }
    }
}

/// How large the row groups are, and how they are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) group_rows: usize,
    pub(super) group_bytes: usize,
    pub(super) compression: ParquetCompression,
}

/// The file, and the rows that are on their way into it.
pub(super) struct ParquetFile {
    schema: SchemaRef,
    writer: ArrowWriter<Slot>,
    /// The records that are not in the writer yet.
    builder: ArrayBuilder,
    held_rows: usize,
    /// How many records become a batch; it follows their size.
    batch_rows: usize,
    batch_bytes: usize,
    /// Records or batches that were given, with the one that is being written.
    given: u64,
}

impl ParquetFile {
    pub(super) fn begin(output: Output, schema: SchemaRef, layout: Layout) -> Result<Self, OutputError> {
        let path = output.target().to_owned();
        let columns = |source: BoxError| OutputError::Columns { path: path.clone(), source };
        let properties = WriterProperties::builder()
            .set_compression(layout.compression.codec())
            .set_max_row_group_row_count(Some(layout.group_rows))
            .set_max_row_group_bytes(Some(layout.group_bytes))
            .build();
        let builder = ArrayBuilder::from_arrow(schema.fields()).map_err(|error| columns(told(&error).into()))?;
        let writer = ArrowWriter::try_new(Slot(Some(output)), schema.clone(), Some(properties));
        let writer = writer.map_err(|error| columns(error.into()))?;
        let batch_bytes = BATCH_BYTES.min(layout.group_bytes);
        // The size of a record is not known yet.
        Ok(Self { schema, writer, builder, held_rows: 0, batch_rows: 1, batch_bytes, given: 0 })
    }

    /// Adds a record.
    #[inline]
    pub(super) fn write<T: Serialize>(&mut self, record: &T) -> Result<(), OutputError> {
        self.check()?;
        self.given += 1;
        if let Err(error) = self.builder.push(record) {
            return Err(self.unfit(format!("record {}: {}", self.given, told(&error))));
        }
        self.held_rows += 1;
        if self.held_rows < self.batch_rows { Ok(()) } else { self.write_held() }
    }

    /// Adds the rows of a batch.
    pub(super) fn write_batch(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        self.check()?;
        self.given += 1;
        let (ours, theirs) = (&self.schema, batch.schema_ref());
        let same = ours.fields().len() == theirs.fields().len()
            && ours
                .fields()
                .iter()
                .zip(theirs.fields())
                .all(|(our, their)| our.name() == their.name() && our.data_type() == their.data_type());
        if !same {
            let why = format!("batch {}: its columns are {theirs}, and those of the file {ours}", self.given);
            return Err(self.unfit(why));
        }
        self.writer.write(batch).map_err(|error| self.failed(error, format!("batch {}", self.given)))
    }

    /// Turns the records that are held into columns.
    fn write_held(&mut self) -> Result<(), OutputError> {
        let rows = std::mem::take(&mut self.held_rows);
        if rows == 0 {
            return Ok(());
        }
        let which = format!("records {} to {}", self.given - rows as u64 + 1, self.given);
        let batch = match self.builder.to_record_batch() {
            Ok(batch) => batch,
            Err(error) => return Err(self.unfit(format!("{which}: {}", told(&error)))),
        };
        // As many as records of this size are a batch, but not many more at once, for the next may be larger.
        let row_bytes = (batch.get_array_memory_size() / rows).max(1);
        self.batch_rows = (self.batch_bytes / row_bytes).clamp(1, BATCH_ROWS.min(rows * 2));
        self.writer.write(&batch).map_err(|error| self.failed(error, which))
    }

    /// Writes what is left and the footer, and makes the file the target.
    pub(super) fn publish(mut self) -> Result<(), OutputError> {
        if !self.output().is_broken() {
            self.end()?;
        }
        self.into_output().publish()
    }

    /// Ends a file that will not be complete; see [`Output::close`].
    pub(super) fn close(mut self, cx: &CloseContext) -> Result<(), OutputError> {
        if matches!(cx.reason(), StopReason::Signal(_)) && self.given > 0 && !self.output().is_broken() {
            // Without the footer nothing could read it. What cannot be written any more is missing.
            let _ = self.end();
        }
        self.into_output().close(cx)
    }

    fn end(&mut self) -> Result<(), OutputError> {
        self.write_held()?;
        let ended = self.writer.finish().map(drop);
        ended.map_err(|error| self.failed(error, "the last row group".to_owned()))
    }

    /// The output, without what the writer still has for it.
    fn into_output(mut self) -> Output {
        self.writer.inner_mut().0.take().expect("the output is taken once")
    }

    fn output(&self) -> &Output {
        self.writer.inner().0.as_ref().expect("the output is taken at the end")
    }

    /// Refuses to go on after a failure: it has left columns of different lengths.
    fn check(&self) -> Result<(), OutputError> {
        match self.output().is_broken() {
            true => Err(OutputError::Incomplete { path: self.output().target().to_owned() }),
            false => Ok(()),
        }
    }

    #[cold]
    fn unfit(&mut self, why: String) -> OutputError {
        self.writer.inner_mut().0.as_mut().expect("the output is taken at the end").unfit(why)
    }

    #[cold]
    fn failed(&mut self, error: ParquetError, which: String) -> OutputError {
        match error {
            ParquetError::External(source) => match source.downcast::<io::Error>() {
                Ok(source) => self.output().failed(*source),
                Err(source) => self.unfit(format!("{which}: {source}")),
            },
            other => self.unfit(format!("{which}: {other}")),
        }
    }
}

impl fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetFile").field("output", self.output()).finish_non_exhaustive()
    }
}

/// The output, until it is taken out. A writer of Parquet that is dropped writes out what it has; then it finds none.
#[derive(Debug)]
struct Slot(Option<Output>);

impl Slot {
    fn output(&mut self) -> io::Result<&mut Output> {
        self.0.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Write for Slot {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output()?.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output()?.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output()?.flush()
    }
}
