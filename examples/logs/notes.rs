//! Notes that the operators take beside their records, and how they are shown.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::ProgressBar;
use sage::{JobHandle, JobReport, RunError};

use crate::line::Mended;

/// Files to name in the summary; the rest is only counted.
const MAX_NAMED: usize = 10;

/// Shared by all operators that take notes.
#[derive(Clone)]
pub struct Notes {
    inner: Arc<Inner>,
    bar: ProgressBar,
}

#[derive(Default)]
struct Inner {
    passed_over: AtomicU64,
    /// The first of them, in words.
    named: Mutex<Vec<String>>,
    mended: [AtomicU64; Notes::WAYS.len()],
    /// Whether nobody reads standard output any more, as after `| head`.
    unread: AtomicBool,
}

impl Notes {
    /// How lines were mended.
    pub const WAYS: [Mended; 3] = [Mended::Continuation, Mended::TimeInside, Mended::NotUtf8];

    /// The bar is drawn only where standard error is a terminal and, without `verbose`, nothing else is written there.
    pub fn new(verbose: bool) -> Self {
        let drawn = io::stderr().is_terminal() && !verbose;
        let bar = if drawn { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self { inner: Arc::default(), bar }
    }

    /// Notes a file that could not be read, or not to its end.
    pub fn passed_over(&self, file: &str, error: &(dyn Error + 'static)) {
        let what = format!("`{file}`: {}", in_words(error));
        tracing::info!("passed over: {what}");
        self.inner.passed_over.fetch_add(1, Ordering::Relaxed);
        let mut named = self.inner.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < MAX_NAMED {
            named.push(what);
        }
    }

    /// How many files could not be read, or not to their ends, and the first of them, in words.
    pub fn all_passed_over(&self) -> (u64, Vec<String>) {
        let named = self.inner.named.lock().unwrap_or_else(PoisonError::into_inner);
        (self.inner.passed_over.load(Ordering::Relaxed), named.clone())
    }

    /// Counts a line that was mended.
    pub fn mended(&self, how: Mended) {
        for (way, count) in Self::WAYS.iter().zip(&self.inner.mended) {
            if *way == how {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many lines were mended in each way.
    pub fn all_mended(&self) -> impl Iterator<Item = (Mended, u64)> {
        Self::WAYS.into_iter().zip(&self.inner.mended).map(|(way, count)| (way, count.load(Ordering::Relaxed)))
    }

    /// Prints a text on standard output. If nobody reads that any more, the job goes on, for the sake of its files.
    pub fn print(&self, text: &str) -> io::Result<()> {
        if self.inner.unread.load(Ordering::Relaxed) {
            return Ok(());
        }
        let printed = self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.inner.unread.store(true, Ordering::Relaxed);
                Ok(())
            }
            printed => printed,
        }
    }

    /// Waits for a job, showing how far it is.
    pub fn watch(&self, job: &JobHandle) -> Result<JobReport, RunError> {
        let ended = loop {
            if let Some(ended) = job.wait_timeout(Duration::from_millis(100)) {
                break ended;
            }
            let metrics = job.metrics();
            let done = |name| metrics.operator(name).map_or(0, |operator| operator.records_out);
            let (read, malformed, windows) = (done("read"), done("dead-letters"), done("print"));
            self.bar.set_message(format!("{read} lines read, {malformed} malformed, {windows} windows"));
            self.bar.tick();
        };
        self.bar.finish_and_clear();
        ended
    }
}

/// An error and what caused it.
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        words.push_str(&format!(": {source}"));
        cause = source.source();
    }
    words
}
