//! Sources and sinks for [`sage`] pipelines: files of text, JSON lines and CSV, compressed or not, files of Parquet, a
//! clock, and Kafka topics.
//!
//! They use only the public interface of the engine, so your own source or sink can do all that these do. [The end of
//! this page](#your-own-source-and-sink) shows one of each.
//!
//! | part | what it is | order | again in the next run | what is lost, or comes twice |
//! |---|---|---|---|---|
//! | [`TextSource`], [`JsonlSource`], [`CsvSource`], `ParquetSource` | sources: records of files | files by path, records as in the file; replicas are independent | from the first file on | nothing within a run; there is no resuming |
//! | [`Ticks`] | a source: a clock | by number | from tick 0 on | nothing, unless asked to skip |
//! | [`TextSink`], [`JsonlSink`], [`CsvSink`], `ParquetSink` | sinks: a file that appears when it is complete | as the records arrive at the replica | replaces the file | every record of a finished task is in its file once, or there is no file |
//! | `KafkaSource` | a source: records of Kafka topics | by offset within a partition; each partition is one replica's | from the offset committed for the group, or as told | nothing within a run; between runs see [Kafka](#kafka) |
//! | `KafkaSink` | a sink: a Kafka topic | as the records arrive at the replica, within a partition | writes them again | every record of a successful job is acknowledged; once within a run, at least once over several |
//! | [`Files`] | which files a source reads, in what order and encoding, how large records may be | | | |
//! | [`BadLine`] | malformed input as a record of its own | | | |
//!
//! ```
//! # use std::fs;
//! use sage::Environment;
//! use sage_connectors::{CsvSource, JsonlSink};
//! use serde::{Deserialize, Serialize};
//! # let dir = tempfile::tempdir()?;
//! # let (input, output) = (dir.path().join("fruit.csv"), dir.path().join("dear.jsonl.gz"));
//! # fs::write(&input, "fruit,price\npear,45\nplum,20\n")?;
//!
//! #[derive(Deserialize, Serialize)]
//! struct Price {
//!     fruit: String,
//!     price: u32,
//! }
//!
//! let env = Environment::local("dear");
//! env.from_source(move |_replica| CsvSource::<Price>::new(input.clone())) // or a pattern: "data/*.csv.gz"
//!     .filter(|price| price.price > 30)
//!     .sink_to(move |_replica| JsonlSink::new(output.clone()));
//! let report = env.run()?;
//! # assert!(report.is_success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Files that appear when they are complete
//!
//! A file sink writes to a temporary file in the folder of its target, named `.sage-` with random letters and `.tmp`.
//! When the sink's own task has processed all of its records, at the end of input or of a
//! [drain](sage::JobView::drain), the sink [finishes](sage::Sink::finish): it writes out what is buffered, syncs the
//! file to the disk (`fsync`), gives it the target's name by one rename, and syncs the folder as far as the file system
//! can. In every other case `close` removes the temporary file: after a failure or a panic in any task the sink depends
//! on, after a cancel and a time limit. To end an endless job and have the file, drain it.
//!
//! **After a signal**, also the first, there is no file under the target's name either, because a job that a signal
//! stops does not succeed. But what was written stays beside it: `out.jsonl.partial` for `out.jsonl`. It replaces an
//! earlier one, is not synced, and may end in the middle of a line if a second signal came. The report names it, in its
//! [`notes`](sage::JobReport::notes). With [`SignalPolicy::Finish`](sage::SignalPolicy::Finish) the sinks finish, and
//! the file is complete.
//!
//! - **Whoever opens the target finds the old file or the new one, whole**, never a part of one. That holds through a
//!   crash of the process or the machine, as far as the file system keeps its promises about `fsync` and rename.
//! - **The rename belongs to the task, not to the job.** A task elsewhere in the job, another replica of the same sink
//!   or another sink, may fail after it, also in its own rename, and the file stays. This much is sure: each file that
//!   has its name is whole, and the report names the task that failed first. If you need all or nothing of several
//!   files, wait for the job to succeed before you use any.
//! - Every failure to open, write or finish a file is an [`OutputError`] with the target's path.
//! - **What fails at the end fails the job**: a disk that is full, a folder that is gone, a rename that is refused. The
//!   old file is still there, and the temporary one is not: the job has failed, and it is clean. Only a temporary file
//!   that cannot be removed makes it unclean.
//! - An [error policy](sage::SinkHandle::on_error) that lets records pass does not make a file with a gap: if a record
//!   could not be written, the job fails at the end with [`OutputError::Incomplete`].
//! - A process that is killed, or a task abandoned at its deadline, may leave the temporary file. Nothing reads it:
//!   patterns of [`Files`] leave out names with a dot in front. You may remove it whenever no job writes to the folder.
//! - Running again replaces the file. Two sinks with one target do not mix their records; the one that ends last stays.
//! - A replaced file keeps its permissions, which the temporary file has from the beginning, but not its owner. A new
//!   file's permissions are as the process's mask says; with [`private`](JsonlSink::private) only its owner may read
//!   and write it. If the target is a symbolic link to a file, that file is replaced. The folder must exist.
//!
//! **With several replicas** each writes its own part: for `out.jsonl.gz` with two, `out.part-00000-of-00002.jsonl.gz`
//! and `out.part-00001-of-00002.jsonl.gz`. `out.part-*-of-00002.jsonl.gz` reads them back. Parts of an earlier run with
//! another number of replicas are not removed.
//!
//! **A target that is a device or a pipe**, such as `/dev/stdout`, cannot be replaced. It is written in place, by one
//! replica, and flushed whenever no record is waiting. Nothing above holds for it.
//!
//! A target that ends in `.gz` is compressed. `.zst` can be read but not written.
//!
//! # Parquet
//!
//! `ParquetSource` and `ParquetSink` come with the feature `parquet`, which is off by default. It compiles the crates
//! of Arrow, whose types are in `arrow_array` and `arrow_schema`, and zstd, which needs a C compiler. All that is said
//! of files above holds for these too, with two exceptions: they are compressed inside, and not as a whole; and rows
//! are written when a row group is full, not whenever no record is waiting.
//!
//! # Kafka
//!
//! `KafkaSource` and `KafkaSink` come with the feature `kafka`, which is off by default. It compiles librdkafka, which
//! needs only a C and a C++ compiler and make.
//!
//! The engine has no checkpoints yet, so the guarantee over several runs depends on when offsets are committed: once,
//! when the source's task has reached the end of its input or of a drain, and every record it gave was handed
//! downstream.
//!
//! | how the run ends | committed | the next run of the group |
//! |---|---|---|
//! | end of input, drain | where the source stands | goes on behind it |
//! | a failure while the source runs, a cancel, a signal, a time limit, a crash | nothing | gives every record of this run again |
//! | a failure in a task behind an exchange, or in `close` of a sink, after the source's task has ended | where the source stands | goes on behind it: **what that task had not finished is lost** |
//!
//! So a chain from `KafkaSource` to `KafkaSink` without an exchange is at least once. `KafkaOffsets` makes every other
//! pipeline so: it keeps the offsets until you commit them, when the job has succeeded.
//!
//! # Your own source and sink
//!
//! A source says what its next record is; a sink takes one record after the other. Both open what they need when the
//! job starts, on the thread they then run on, and release it in `close`, which always runs. A sink makes final what it
//! wrote in `finish`, which runs only when its input has ended well. Here is one of each, in some fifty lines, and a
//! job around them:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::os::unix::net::UnixDatagram;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//! use sage::{BoxError, Environment, FinishContext, Next, OpenContext, Sink, Source, SourceContext};
//!
//! /// Datagrams of text; "end" is the last one.
//! struct Datagrams {
//!     socket: UnixDatagram,
//!     buffer: [u8; 1500],
//! }
//!
//! impl Source for Datagrams {
//!     type Item = String;
//!
//!     fn open(&mut self, _cx: &SourceContext) -> Result<(), BoxError> {
//!         // A wait that the engine cannot end should be short, so that a drain or a cancel is soon noticed.
//!         Ok(self.socket.set_read_timeout(Some(Duration::from_millis(50)))?)
//!     }
//!
//!     fn next(&mut self, _cx: &SourceContext) -> Result<Next<String>, BoxError> {
//!         use std::io::ErrorKind::{TimedOut, WouldBlock};
//!         match self.socket.recv(&mut self.buffer) {
//!             Ok(length) if &self.buffer[..length] == b"end" => Ok(Next::End),
//!             Ok(length) => Ok(Next::Record(std::str::from_utf8(&self.buffer[..length])?.to_owned())),
//!             Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => Ok(Next::Idle),
//!             Err(error) => Err(error.into()), // fails the job, which names this source
//!         }
//!     }
//! }
//!
//! /// Counts words, and hands the counts over when they are complete.
//! struct WordCount {
//!     counts: BTreeMap<String, u32>,
//!     result: Arc<Mutex<BTreeMap<String, u32>>>,
//! }
//!
//! impl Sink for WordCount {
//!     type In = String;
//!
//!     fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
//!         if cx.parallelism == 1 { Ok(()) } else { Err("word counts need one replica".into()) }
//!     }
//!
//!     fn write(&mut self, text: String) -> Result<(), BoxError> {
//!         *self.counts.entry(text).or_default() += 1;
//!         Ok(())
//!     }
//!
//!     // Not in `close`: that also runs after a failure, and the counts would be of some words only.
//!     fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
//!         *self.result.lock().map_err(|_| "the result is lost")? = std::mem::take(&mut self.counts);
//!         Ok(())
//!     }
//! }
//!
//! let (sender, inlet) = UnixDatagram::pair()?;
//! for word in ["tea", "milk", "tea", "end"] {
//!     sender.send(word.as_bytes())?;
//! }
//! let result = Arc::new(Mutex::new(BTreeMap::new()));
//! let shared = result.clone();
//!
//! let env = Environment::local("words");
//! let socket = move || inlet.try_clone().expect("a descriptor is free");
//! env.from_source(move |_replica| Datagrams { socket: socket(), buffer: [0; 1500] })
//!     .sink_to(move |_replica| WordCount { counts: BTreeMap::new(), result: shared.clone() });
//! env.run()?;
//! assert_eq!(result.lock().unwrap()["tea"], 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bad_line;
mod csv;
mod encoding;
mod error;
mod files;
mod jsonl;
#[cfg(feature = "kafka")]
mod kafka;
mod lines;
mod open;
mod output;
#[cfg(feature = "parquet")]
mod parquet;
mod target;
mod text;
mod ticks;
mod walk;

#[cfg(feature = "parquet")]
pub use {arrow_array, arrow_schema};

pub use bad_line::BadLine;
pub use csv::{CsvSink, CsvSource};
pub use encoding::Encoding;
pub use error::{InputError, OutputError};
pub use files::Files;
pub use jsonl::{JsonlSink, JsonlSource};
#[cfg(feature = "kafka")]
pub use kafka::{BadRecord, KafkaError, KafkaOffsets, KafkaRecord, KafkaSink, KafkaSource, OffsetReset};
#[cfg(feature = "parquet")]
pub use parquet::{ParquetCompression, ParquetSink, ParquetSource};
pub use text::{TextSink, TextSource};
pub use ticks::{Tick, Ticks};

/// Tools for tests of pipelines that use Kafka, behind the feature `kafka`.
#[cfg(feature = "kafka")]
pub mod testing {
    pub use crate::kafka::KafkaCluster;
}
