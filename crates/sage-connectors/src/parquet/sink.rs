//! [`ParquetSink`].

use std::fmt;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use sage::{BoxError, CloseContext, FinishContext, OpenContext, Sink};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::columns::{check, columns_of};
use super::file::{Layout, ParquetCompression, ParquetFile};
use crate::error::OutputError;
use crate::open::Compression;
use crate::output::Output;

/// Writes each record as a row of Parquet to a file that appears when it is complete.
///
/// [The crate's page](crate#files-that-appear-when-they-are-complete) says for all file sinks when the file appears,
/// under which name, and what is there after a failure. A `.partial` file that a signal leaves can be read, and has
/// every record that came to the sink before.
///
/// **Columns.** They are the fields of the type of the records, whatever the records are, so that each replica's file
/// has the same, also one without records. Their types are those that pyarrow would choose: an `Option` is a column
/// with nulls, a `Vec` a list, a struct or a tuple a struct, a `HashMap` a map, and an enum without data the names of
/// its variants. The sink makes a `T` of zeros and empty texts to learn them. So it does not open for a type that
/// refuses these, such as most types of times, nor for `serde_json::Value`: give the columns for those, and for columns
/// of other types, see [`with_schema`](Self::with_schema). Parquet has no columns for an enum with data, and for a type
/// that contains itself. [`batches`](Self::batches) takes batches of Arrow instead of records.
///
/// A record that does not fit its columns fails the job with [`OutputError::Record`], which tells its number. If an
/// error policy lets that pass, the records after it are refused too, and no file appears.
///
/// **Memory.** A replica holds the row group that it makes, packed: up to [65,536 rows](Self::group_rows) and about
/// [64 MiB](Self::group_bytes). Before that it holds a batch of up to 1,024 records; of fewer if the batch before says
/// that so many have more than 4 MiB.
///
/// ```
/// use sage::Environment;
/// use sage_connectors::{ParquetSink, ParquetSource};
/// use serde::{Deserialize, Serialize};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("passages.parquet");
/// # let into = path.clone();
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct Passage {
///     id: u64,
///     text: String,
///     vector: Option<Vec<f32>>,
/// }
/// let passages = [
///     Passage { id: 1, text: "pears".to_owned(), vector: Some(vec![0.25, 0.5]) },
///     Passage { id: 2, text: "plums".to_owned(), vector: None },
/// ];
///
/// let env = Environment::local("passages");
/// env.from_iter(passages.clone()).sink_to(move |_replica| ParquetSink::new(into.clone()));
/// env.run()?;
///
/// let env = Environment::local("again");
/// let again = env.from_source(move |_replica| ParquetSource::<Passage>::new(path.clone())).collect();
/// env.run()?;
/// assert_eq!(again.take(), passages);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ParquetSink<T> {
    path: PathBuf,
    columns: Columns,
    layout: Layout,
    private: bool,
    write: fn(&mut ParquetFile, &T) -> Result<(), OutputError>,
    file: Option<ParquetFile>,
}

/// Where the columns come from.
enum Columns {
    Type(fn() -> Result<SchemaRef, String>),
    Given(SchemaRef),
}

impl<T: Serialize + DeserializeOwned> ParquetSink<T> {
    /// Writes the file at `path`. The columns are the fields of `T`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::of(path.into(), Columns::Type(columns_of::<T>), ParquetFile::write)
    }
}

impl<T: Serialize> ParquetSink<T> {
    /// Writes the file at `path`, with columns that you give. A field of a record goes to the column of its name, and
    /// one without a column is left out. A column of times takes numbers, in its unit, and texts in the form of RFC
    /// 3339.
    ///
    /// ```
    /// use sage::Environment;
    /// use sage_connectors::ParquetSink;
    /// use sage_connectors::arrow_schema::{DataType, Field, Schema, TimeUnit};
    /// use serde::Serialize;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("visits.parquet");
    ///
    /// #[derive(Serialize)]
    /// struct Visit {
    ///     page: &'static str,
    ///     at_ms: i64,
    /// }
    ///
    /// let at = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    /// let schema = Schema::new(vec![Field::new("page", DataType::Utf8, false), Field::new("at_ms", at, false)]);
    /// let env = Environment::local("visits");
    /// env.from_iter([Visit { page: "/", at_ms: 1_790_000_000_000 }])
    ///     .sink_to(move |_replica| ParquetSink::with_schema(path.clone(), schema.clone()));
    /// env.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_schema(path: impl Into<PathBuf>, schema: impl Into<SchemaRef>) -> Self {
        Self::of(path.into(), Columns::Given(schema.into()), ParquetFile::write)
    }
}

impl ParquetSink<RecordBatch> {
    /// Writes batches of Arrow, as they are, to the file at `path`. All must have the columns of `schema`, in this
    /// order; another fails the job with [`OutputError::Record`]. Row groups do not follow the batches.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use sage::Environment;
    /// use sage_connectors::ParquetSink;
    /// use sage_connectors::arrow_array::{ArrayRef, Int64Array, RecordBatch};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("numbers.parquet");
    ///
    /// let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    /// let batch = RecordBatch::try_from_iter([("number", numbers)])?;
    /// let schema = batch.schema();
    /// let env = Environment::local("numbers");
    /// env.from_iter([batch]).sink_to(move |_replica| ParquetSink::batches(path.clone(), schema.clone()));
    /// env.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batches(path: impl Into<PathBuf>, schema: impl Into<SchemaRef>) -> Self {
        Self::of(path.into(), Columns::Given(schema.into()), ParquetFile::write_batch)
    }
}

impl<T> ParquetSink<T> {
    fn of(path: PathBuf, columns: Columns, write: fn(&mut ParquetFile, &T) -> Result<(), OutputError>) -> Self {
        let layout = Layout { group_rows: 65_536, group_bytes: 64 << 20, compression: ParquetCompression::default() };
        Self { path, columns, layout, private: false, write, file: None }
    }

    /// Sets how the columns are compressed inside the file. Default: Snappy.
    pub fn compression(mut self, compression: ParquetCompression) -> Self {
        self.layout.compression = compression;
        self
    }

    /// Sets the most rows of a row group, at least 1. Default: 65,536.
    pub fn group_rows(mut self, rows: usize) -> Self {
        self.layout.group_rows = rows;
        self
    }

    /// Sets about how many bytes a row group has at most, packed, at least 1. It is held in memory until it is full.
    /// Default: 64 MiB.
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.layout.group_bytes = bytes;
        self
    }

    /// Lets only its owner read and write a new file (mode 0600): for dead letters and other private data. A file that
    /// is replaced keeps its mode. Default: as the process's mask says.
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    fn check(&self) -> Result<(), OutputError> {
        let refused = |option, why| Err(OutputError::Option { option, why });
        if self.layout.group_rows == 0 {
            return refused("group_rows", "must be at least 1");
        }
        if self.layout.group_bytes == 0 {
            return refused("group_bytes", "must be at least 1");
        }
        if Compression::of(&self.path) != Compression::None {
            return refused(
                "path",
                "may not end in `.gz` or `.zst`, for Parquet is compressed inside: see `compression`",
            );
        }
        Ok(())
    }

    fn schema(&self) -> Result<SchemaRef, OutputError> {
        let schema = match &self.columns {
            Columns::Type(columns) => columns(),
            Columns::Given(schema) => Ok(schema.clone()),
        };
        schema
            .and_then(|schema| check(&schema).map(|()| schema))
            .map_err(|why| OutputError::Columns { path: self.path.clone(), source: why.into() })
    }
}

impl<T> fmt::Debug for ParquetSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetSink").field("path", &self.path).field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Sink for ParquetSink<T> {
    type In = T;

    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.check()?;
        let schema = self.schema()?;
        let output = Output::open(&self.path, self.private, cx)?;
        self.file = Some(ParquetFile::begin(output, schema, self.layout)?);
        Ok(())
    }

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        let file = self.file.as_mut().ok_or(OutputError::NotOpen)?;
        Ok((self.write)(file, &record)?)
    }

    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        self.file.take().map_or(Ok(()), |file| Ok(file.publish()?))
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.file.take().map_or(Ok(()), |file| Ok(file.close(cx)?))
    }
}
