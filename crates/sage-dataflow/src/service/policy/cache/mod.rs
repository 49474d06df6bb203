//! [`Cache`]: what is remembered of a method's answers, beyond the calls that are being made.

mod disk;
mod memory;

use std::path::PathBuf;
use std::time::Duration;

pub(super) use disk::DiskCache;
pub(super) use memory::Memory;
use serde::{Deserialize, Serialize};

use super::journal::{LARGEST, largest_mistake};
use super::sync::FOREVER;

/// Remembers the answers of a method: in memory, on disk, or in both. Errors are not remembered. Calls with equal
/// arguments that are made at the same time share one.
///
/// ```
/// use std::time::Duration;
/// use sage::Cache;
///
/// let cache = Cache::new().memory(10_000, 64 << 20).disk("cache/llm", 1 << 30);
/// let for_an_hour = cache.time_to_live(Duration::from_secs(3600));
/// # let _ = for_an_hour;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// The most entries, and the most bytes.
    pub(super) memory: Option<(usize, u64)>,
    /// The folder, and the most bytes.
    pub(super) disk: Option<(PathBuf, u64)>,
    pub(super) lives: Option<Duration>,
    pub(super) shared: WhenInUse,
    pub(super) largest: u64,
}

/// What happens when another process uses the folder of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenInUse {
    /// The job does not start: [`StoreError::InUse`](super::StoreError::InUse).
    #[default]
    Fail,
    /// The job runs without it, and its figures say so.
    GoOn,
}

/// What a cache has and has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheFigures {
    /// The answers in memory.
    pub memory_entries: u64,
    /// The bytes of memory they take, with 128 for each beside its own.
    pub memory_bytes: u64,
    /// The calls that were answered from memory.
    pub memory_hits: u64,
    /// The answers that left the memory for newer ones.
    pub evicted: u64,
    /// The answers on disk.
    pub disk_entries: u64,
    /// The bytes of the file.
    pub disk_bytes: u64,
    /// The calls that were answered from disk.
    pub disk_hits: u64,
    /// The answers that were not kept: on disk, where they could not be written or read again; or nowhere, as their
    /// arguments have no canonical form, or as they do not fit the codec.
    pub uncached: u64,
    /// Whether the folder was in use, so that the job runs without it.
    pub runs_without_disk: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Self::new()
    }
}

impl Cache {
    /// A cache that remembers nothing but the calls that are being made.
    pub fn new() -> Self {
        Self { memory: None, disk: None, lives: None, shared: WhenInUse::Fail, largest: LARGEST }
    }

    /// Remembers answers in memory: at most so many, and at most so many bytes of them. Those that were not asked for
    /// longest go first.
    pub fn memory(mut self, entries: usize, bytes: u64) -> Self {
        self.memory = Some((entries, bytes));
        self
    }

    /// Remembers answers in a file in this folder, of at most so many bytes. The oldest go first. One process at a time
    /// uses a folder. A file that is damaged is refused; remove the folder then.
    pub fn disk(mut self, folder: impl Into<PathBuf>, bytes: u64) -> Self {
        self.disk = Some((folder.into(), bytes));
        self
    }

    /// For how long an answer is used. Default: for ever. On disk its age is told by the system's clock.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.lives = Some(time.min(FOREVER));
        self
    }

    /// What happens when another process uses the folder. Default: the job does not start.
    pub fn when_in_use(mut self, shared: WhenInUse) -> Self {
        self.shared = shared;
        self
    }

    /// The most bytes of an answer that is remembered, from 1 to `u32::MAX`. Default: 64 MiB.
    pub fn largest_answer(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// What is wrong with these settings.
    pub(crate) fn mistake(&self) -> Option<String> {
        let told = |is_mistake: bool, what: &str| is_mistake.then(|| what.to_owned());
        told(self.memory.is_some_and(|(entries, bytes)| entries == 0 || bytes == 0), "a cache in memory of size zero")
            .or_else(|| told(self.disk.as_ref().is_some_and(|(_, bytes)| *bytes == 0), "a cache on disk of size zero"))
            .or_else(|| {
                let nameless = self.disk.as_ref().is_some_and(|(folder, _)| folder.as_os_str().is_empty());
                told(nameless, "a cache on disk needs the name of a folder")
            })
            .or_else(|| told(self.lives == Some(Duration::ZERO), "answers that live for no time; leave the cache out"))
            .or_else(|| largest_mistake(self.largest))
    }
}
