//! The journal of a run: each answer is appended to it before it is handed on, so that a run which is started again
//! makes no call a second time whose answer was handed on.
//!
//! Invariant: [`Outgoing::answer`] returns before the answer is handed on, and the answer is then in the file.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::{CallKey, Secret, TagKey};
use super::store::{Disk, FileKind, Folder, Kind, Store, StoreError};
use super::sync::{Arc, AtomicU8, AtomicU64, Ordering};

/// Keeps the answers of a run's calls in a folder of its own, so that the same run, started again, makes no call a
/// second time whose answer was handed on.
///
/// A folder belongs to one run, and one process at a time uses it. It holds answers, and hashes of arguments; only its
/// user may read it. Calls that were out when the process was killed may be made again: the report names them.
///
/// ```
/// use sage::Journal;
///
/// let journal = Journal::run("runs/of-monday").sync(true);
/// # let _ = journal;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    folder: PathBuf,
    sync: bool,
    full_disk: FullDisk,
    largest: u64,
}

/// What a call does whose answer finds no room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FullDisk {
    /// It fails with [`StoreError::Full`].
    #[default]
    Fail,
    /// It goes on. Its answer is not kept, and counted as such.
    GoOn,
}

/// What a journal has and has done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalFigures {
    /// The answers that can be had.
    pub entries: u64,
    /// The bytes of the file.
    pub bytes: u64,
    /// The calls that were answered from it.
    pub hits: u64,
    /// The calls it had no answer for.
    pub misses: u64,
    /// The calls that were out when an earlier process was killed, by their idempotency keys: they may be made again.
    pub begun_not_ended: Vec<String>,
    /// The bytes of an answer that was being written when an earlier process was killed. They were cut off.
    pub torn_bytes: u64,
    /// The answers that were erased.
    pub erased: u64,
    /// The answers that were not kept, as the disk was full.
    pub uncached: u64,
}

/// A journal that is in use.
pub(super) struct OpenJournal<D: Disk = File> {
    store: Store<D>,
    full_disk: FullDisk,
    /// Out when an earlier process was killed.
    begun_not_ended: Vec<CallKey>,
    hits: AtomicU64,
    misses: AtomicU64,
    uncached: AtomicU64,
    /// Given back last.
    _folder: Option<Folder>,
}

/// A call that is being made. Dropped without an answer, it has ended without one.
pub(super) struct Outgoing<D: Disk = File> {
    journal: Arc<OpenJournal<D>>,
    key: CallKey,
    stage: AtomicU8,
}

/// The stages of a call.
const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const ENDED: u8 = 2;

/// The most bytes of an answer, if nothing else is said: 64 MiB.
pub(super) const LARGEST: u64 = 64 << 20;

impl Journal {
    /// The journal of the run that has this folder. The folder is made if it is not there.
    pub fn run(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), sync: false, full_disk: FullDisk::Fail, largest: LARGEST }
    }

    /// Whether an answer has to be on the medium before it is handed on. Then it also outlives a loss of power, and
    /// takes as long as the medium does; answers that come together share the wait. Default: no, it outlives a kill.
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// What a call does whose answer finds no room on the disk. Default: it fails.
    pub fn full_disk(mut self, full_disk: FullDisk) -> Self {
        self.full_disk = full_disk;
        self
    }

    /// The most bytes an answer may have, from 1 to `u32::MAX`; a call with a larger one fails. Default: 64 MiB.
    pub fn largest_answer(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is wrong with these settings.
    pub(crate) fn mistake(&self) -> Option<String> {
        if self.folder.as_os_str().is_empty() {
            return Some("a journal needs the name of a folder".to_owned());
        }
        largest_mistake(self.largest)
    }

    pub(super) fn open(&self) -> Result<Arc<OpenJournal>, StoreError> {
        let folder = Folder::take(&self.folder)?;
        let file = folder.file("journal", false)?;
        let path = folder.path("journal");
        let store = Store::open(file, &path, FileKind::Journal, self.sync, self.largest)?;
        if self.sync {
            folder.sync().map_err(|source| StoreError::Io { path, source })?;
        }
        Ok(OpenJournal::new(store, self.full_disk, Some(folder)))
    }
}

/// What is wrong with a largest answer.
pub(super) fn largest_mistake(bytes: u64) -> Option<String> {
    (bytes == 0 || bytes > u64::from(u32::MAX))
        .then(|| format!("the largest answer has between 1 and {} bytes, not {bytes}", u32::MAX))
}

impl<D: Disk> OpenJournal<D> {
    pub(super) fn new(store: Store<D>, full_disk: FullDisk, folder: Option<Folder>) -> Arc<Self> {
        let mut begun_not_ended = store.begun();
        begun_not_ended.sort_unstable_by_key(|key| key.0);
        let [hits, misses, uncached] = [0; 3].map(AtomicU64::new);
        Arc::new(Self { store, full_disk, begun_not_ended, hits, misses, uncached, _folder: folder })
    }

    pub(super) fn secret(&self) -> &Secret {
        self.store.secret()
    }

    /// The bytes of the answer that an equal call has got.
    pub(super) fn get(&self, key: CallKey) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get(key)?;
        self.hits.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        Ok(found.map(|(bytes, _)| bytes))
    }

    /// A call that is to be made, as there is no answer.
    pub(super) fn call(self: &Arc<Self>, key: CallKey) -> Outgoing<D> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        Outgoing { journal: self.clone(), key, stage: AtomicU8::new(WAITS) }
    }

    /// Erases the answers of a tag, and says how many. A call that is out meanwhile keeps its answer.
    pub(super) fn erase(&self, tag: TagKey) -> Result<u64, StoreError> {
        self.store.erase(tag)
    }

    pub(super) fn figures(&self) -> JournalFigures {
        let size = self.store.size();
        JournalFigures {
            entries: size.entries,
            bytes: size.bytes,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            begun_not_ended: self.begun_not_ended.iter().map(CallKey::to_string).collect(),
            torn_bytes: size.torn,
            erased: size.erased,
            uncached: self.uncached.load(Ordering::Relaxed),
        }
    }
}

impl<D: Disk> Drop for OpenJournal<D> {
    fn drop(&mut self) {
        // The report has named them. Where there is no room to say so, the next one names them again.
        for key in self.store.begun() {
            let _ = self.store.append(Kind::Ended, key, None, &[]);
        }
    }
}

impl<D: Disk> Outgoing<D> {
    /// The call's idempotency key.
    pub(super) fn key(&self) -> CallKey {
        self.key
    }

    /// Says that the call goes out now, before its first attempt does. Further attempts are not told apart.
    pub(super) fn begins(&self) -> Result<(), StoreError> {
        if self.stage.compare_exchange(WAITS, BEGUN, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Ok(());
        }
        match self.journal.store.append(Kind::Begun, self.key, None, &[]) {
            Err(StoreError::Full { .. }) if self.journal.full_disk == FullDisk::GoOn => Ok(()),
            ended => ended,
        }
    }

    /// Keeps the answer. It may be handed on when this has returned.
    pub(super) fn answer(&self, tag: Option<TagKey>, bytes: &[u8]) -> Result<(), StoreError> {
        match self.journal.store.append(Kind::Answer, self.key, tag, bytes) {
            Ok(()) => self.stage.store(ENDED, Ordering::Relaxed),
            Err(StoreError::Full { .. }) if self.journal.full_disk == FullDisk::GoOn => {
                self.journal.uncached.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<D: Disk> Drop for Outgoing<D> {
    fn drop(&mut self) {
        if self.stage.load(Ordering::Relaxed) == BEGUN {
            // Without it the next report names the call, which is no harm.
            let _ = self.journal.store.append(Kind::Ended, self.key, None, &[]);
        }
    }
}
