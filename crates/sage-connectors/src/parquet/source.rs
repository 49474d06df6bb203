//! [`ParquetSource`].

use std::fs::File;
use std::io::{self, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::vec;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use sage::BoxError;
use serde::de::DeserializeOwned;
use serde_arrow::Deserializer;

use super::columns::told;
use crate::bad_line::strict_source;
use crate::error::InputError;
use crate::files::Files;
use crate::walk::{Format, Parsed, Walk};

/// Reads a `T` from each row of files of Parquet; see [`Files`] for which files, and in what order.
///
/// A `T` takes its fields from the columns of their names, and leaves the others; [`columns`](Self::columns) keeps them
/// from being read. A null is `None` for an `Option`. Columns may be packed with Snappy, gzip or zstd, and the file may
/// have any extension, but it may not be a pipe. What [`Files`] says of encodings and large records is for text.
/// [`batches`](Self::batches) gives batches of Arrow instead of records.
///
/// A row that is not a `T` fails the job with [`InputError::Row`]; a file that is not one of Parquet, or is damaged,
/// with [`InputError::Table`]. Checksums are not read, so that damage to the values may go unnoticed.
///
/// **Guarantees.** One replica gives every record of its files once, in order, in each run. It keeps no position: a run
/// begins with the first file again. Every failure to read on is an [`InputError`].
///
/// **Memory.** A replica holds [1,024 rows](Self::batch_rows) of one file, and a page of each column, as large as the
/// writer of the file has made it: 1 MiB is usual.
///
/// ```
/// use sage::Environment;
/// use sage_connectors::{ParquetSink, ParquetSource};
/// use serde::Deserialize;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("fruit.parquet");
/// # let into = path.clone();
/// # #[derive(serde::Serialize, Deserialize)]
/// # struct Fruit { name: String, price: u32, count: u32 }
/// # let env = Environment::local("fruit");
/// # env.from_iter([Fruit { name: "pear".to_owned(), price: 45, count: 2 }])
/// #     .sink_to(move |_replica| ParquetSink::new(into.clone()));
/// # env.run()?;
///
/// #[derive(Deserialize)]
/// struct Price {
///     name: String,
///     price: u32,
/// }
///
/// let env = Environment::local("prices");
/// let prices = env
///     .from_source(move |_replica| ParquetSource::<Price>::new(path.clone()).columns(["name", "price"]))
///     .map(|price| format!("{} {}", price.price, price.name))
///     .collect();
/// env.run()?;
/// assert_eq!(prices.take(), ["45 pear"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ParquetSource<T: Send + 'static>(Walk<ParquetFormat<T>>);

impl<T: DeserializeOwned + Send + 'static> ParquetSource<T> {
    /// Rows of the files a pattern matches, or of one file; see [`Files`].
    pub fn new(files: impl Into<Files>) -> Self {
        Self::of(files.into(), records)
    }
}

impl ParquetSource<RecordBatch> {
    /// Batches of Arrow of the files a pattern matches, or of one file. A batch has up to
    /// [`batch_rows`](Self::batch_rows) rows of one file.
    pub fn batches(files: impl Into<Files>) -> Self {
        Self::of(files.into(), |batch| (vec![batch], None))
    }
}

impl<T: Send + 'static> ParquetSource<T> {
    fn of(files: Files, unpack: fn(RecordBatch) -> Unpacked<T>) -> Self {
        let format = ParquetFormat { columns: None, batch_rows: 1_024, unpack };
        Self(Walk::new(files, format))
    }

    /// Reads only the columns of these names; a file that lacks one fails the job. Default: all.
    pub fn columns(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.format.columns = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how many rows become records at a time, at least 1. Default: 1,024.
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.0.format.batch_rows = rows;
        self
    }
}

strict_source!(ParquetSource<T: Send>, T);

/// The records of a batch up to one that is not a `T`, and what is wrong with that.
type Unpacked<T> = (Vec<T>, Option<String>);

fn records<T: DeserializeOwned>(batch: RecordBatch) -> Unpacked<T> {
    let mut records = Vec::with_capacity(batch.num_rows());
    let rows = match Deserializer::from_record_batch(&batch) {
        Ok(rows) => rows,
        Err(error) => return (records, Some(told(&error))),
    };
    for row in &rows {
        match T::deserialize(row) {
            Ok(record) => records.push(record),
            Err(error) => return (records, Some(told(&error))),
        }
    }
    (records, None)
}

struct ParquetFormat<T> {
    columns: Option<Vec<String>>,
    batch_rows: usize,
    unpack: fn(RecordBatch) -> Unpacked<T>,
}

impl<T: Send + 'static> Format for ParquetFormat<T> {
    type Item = T;
    type Reader = Rows<T>;

    fn check(&self) -> Result<(), InputError> {
        match self.batch_rows {
            0 => Err(InputError::Option { option: "batch_rows", why: "must be at least 1" }),
            _ => Ok(()),
        }
    }

    fn begin(&self, path: &Path, _files: &Files) -> Result<Rows<T>, InputError> {
        let file = Snapshot::open(path).map_err(|source| InputError::Open { path: path.to_owned(), source })?;
        let batches = guarded(|| self.batches(file));
        let batches = batches.map_err(|source| InputError::Table { path: path.to_owned(), row: 1, source })?;
        Ok(Rows { path: path.into(), batches, ready: Vec::new().into_iter(), row: 0, bad: None })
    }

    #[inline]
    fn next(&self, rows: &mut Rows<T>) -> Result<Option<Parsed<T>>, InputError> {
        loop {
            if let Some(record) = rows.ready.next() {
                return Ok(Some(Ok(record)));
            }
            if let Some(bad) = rows.bad.take() {
                return Err(bad);
            }
            if !rows.refill(self.unpack)? {
                return Ok(None);
            }
        }
    }
}

impl<T> ParquetFormat<T> {
    fn batches(&self, file: Snapshot) -> Result<ParquetRecordBatchReader, BoxError> {
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
        if let Some(columns) = &self.columns {
            let names: Vec<_> = reader.schema().fields().iter().map(|field| field.name()).collect();
            let place = |column: &String| {
                let place = names.iter().position(|name| *name == column);
                place.ok_or_else(|| format!("no column `{column}`; it has {names:?}"))
            };
            let places = columns.iter().map(place).collect::<Result<Vec<_>, _>>()?;
            let mask = ProjectionMask::roots(reader.parquet_schema(), places);
            reader = reader.with_projection(mask);
        }
        Ok(reader.with_batch_size(self.batch_rows).build()?)
    }
}

/// The rows of one file.
struct Rows<T> {
    path: Arc<Path>,
    batches: ParquetRecordBatchReader,
    ready: vec::IntoIter<T>,
    /// How many rows were read.
    row: u64,
    /// Why there is no record behind those that are ready.
    bad: Option<InputError>,
}

impl<T> Rows<T> {
    /// Reads the next batch; false at the end of the file.
    fn refill(&mut self, unpack: fn(RecordBatch) -> Unpacked<T>) -> Result<bool, InputError> {
        let path = || self.path.to_path_buf();
        let batch = guarded(|| Ok(self.batches.next().transpose()?));
        let batch = batch.map_err(|source| InputError::Table { path: path(), row: self.row + 1, source })?;
        let Some(batch) = batch else { return Ok(false) };
        let rows = batch.num_rows() as u64;
        let (records, bad) = unpack(batch);
        let row = self.row + records.len() as u64 + 1;
        self.bad = bad.map(|why| InputError::Row { path: path(), row, source: why.into() });
        self.ready = records.into_iter();
        self.row += rows;
        Ok(true)
    }
}

/// What the decoder does. It panics at some damaged files; it is not asked again after that.
fn guarded<R>(decode: impl FnOnce() -> Result<R, BoxError>) -> Result<R, BoxError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no reason that it tells");
        Err(format!("the file is damaged, and the decoder panicked: {what}").into())
    })
}

/// A file as long as it was when it was opened. Nothing beyond its end is asked for, whatever a damaged file says.
struct Snapshot {
    file: File,
    length: u64,
}

impl Snapshot {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        match about.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(Self { file, length: about.len() }),
        }
    }

    fn check(&self, start: u64, length: u64) -> ParquetResult<()> {
        match start.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(ParquetError::EOF(format!("{length} bytes from {start} on, in a file of {} bytes", self.length))),
        }
    }
}

impl Length for Snapshot {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Snapshot {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.check(start, 0)?;
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        self.check(start, length as u64)?;
        self.file.get_bytes(start, length)
    }
}
