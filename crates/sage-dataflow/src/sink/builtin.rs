//! The built-in sinks: a function, a function that may fail, a `Vec`, the lines of a file.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Sink;
use crate::BoxError;
use crate::chain::{CloseContext, OpenContext};
use crate::guarded::opaque;
use crate::sync::lock;

/// Calls a function with each record.
pub struct FnSink<F, T> {
    function: F,
    types: PhantomData<fn(T)>,
}
opaque!(FnSink<F, T>);

impl<F, T> FnSink<F, T> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<F: FnMut(T) + Send + 'static, T: Send + 'static> Sink for FnSink<F, T> {
    type In = T;

    #[inline(always)]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        (self.function)(record);
        Ok(())
    }
}

/// Calls a function that may fail with each record.
pub struct TryFnSink<F, T, E> {
    function: F,
    types: PhantomData<fn(T) -> E>,
}
opaque!(TryFnSink<F, T, E>);

impl<F, T, E> TryFnSink<F, T, E> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, types: PhantomData }
    }
}

impl<F, T, E> Sink for TryFnSink<F, T, E>
where
    F: FnMut(T) -> Result<(), E> + Send + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type In = T;

    #[inline(always)]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        (self.function)(record).map_err(Into::into)
    }
}

/// The records a [`collect`](crate::Stream::collect) sink has gathered.
///
/// Clones share the records. Each run adds its records. With several replicas, their records come in the order in which
/// the replicas ended.
#[derive(Debug)]
pub struct Collected<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Collected<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    /// Takes the records gathered so far. Call it after the run: a replica hands its records over when it ends.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// Gathers records, handing them over when it closes, after a failure too.
pub(crate) struct CollectSink<T> {
    records: Vec<T>,
    into: Collected<T>,
}

impl<T> CollectSink<T> {
    pub(crate) fn new(into: Collected<T>) -> Self {
        Self { records: Vec::new(), into }
    }
}

impl<T: Send + 'static> Sink for CollectSink<T> {
    type In = T;

    #[inline(always)]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        self.records.push(record);
        Ok(())
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        lock(&self.into.0).append(&mut self.records);
        Ok(())
    }
}

/// A file of lines could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Writes each record as one line. The file is created, or emptied, when the sink opens.
pub(crate) struct FileLines<T> {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    types: PhantomData<fn(T)>,
}

impl<T> FileLines<T> {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, types: PhantomData }
    }

    fn with_file(&mut self, act: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), BoxError> {
        match &mut self.file {
            Some(file) => match act(file) {
                Ok(()) => Ok(()),
                Err(source) => {
                    // What could not be written is told once, and not tried again when the sink closes.
                    self.file.take().map(BufWriter::into_parts);
                    Err(WriteError { path: self.path.clone(), source }.into())
                }
            },
            None => Ok(()),
        }
    }
}

impl<T: Display + Send + 'static> Sink for FileLines<T> {
    type In = T;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        let file = File::create(&self.path).map_err(|source| WriteError { path: self.path.clone(), source })?;
        self.file = Some(BufWriter::new(file));
        Ok(())
    }

    #[inline]
    fn write(&mut self, record: T) -> Result<(), BoxError> {
        self.with_file(|file| writeln!(file, "{record}"))
    }

    fn flush(&mut self) -> Result<(), BoxError> {
        self.with_file(Write::flush)
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let flushed = self.with_file(Write::flush);
        self.file = None;
        flushed
    }
}
