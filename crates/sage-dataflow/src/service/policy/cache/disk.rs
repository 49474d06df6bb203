//! Answers on disk: a file as a journal's, which belongs to no run and is bounded in bytes.
//!
//! A file that is full is written anew, beside the old one, with the newer half of what may be in it; then it takes the
//! old one's place. Calls wait meanwhile. A cache never fails a call: what it cannot keep, or read, is counted.
//!
//! Lock order: `rewriting`, then the store's.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use super::super::key::{CallKey, Secret, TagKey};
use super::super::store::{FileKind, Folder, Kind, Store, StoreError, millis};
use super::super::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock};
use super::{Cache, WhenInUse};

const FILE: &str = "answers";
const NEW_FILE: &str = "answers.new";

/// What a frame takes beside the answer.
const BESIDE: u64 = 64;

/// Answers on disk.
pub(in super::super) struct DiskCache {
    store: Store<File>,
    folder: Folder,
    most: u64,
    lives: Option<Duration>,
    rewriting: Mutex<()>,
    /// The file could not be written anew. It takes what still fits.
    is_stuck: AtomicBool,
    hits: AtomicU64,
    uncached: AtomicU64,
}

/// The figures of answers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct DiskFigures {
    pub(in super::super) entries: u64,
    pub(in super::super) bytes: u64,
    pub(in super::super) hits: u64,
    pub(in super::super) uncached: u64,
}

impl DiskCache {
    /// Opens the folder of a cache that has one. `None` if it is in use, and the job is to go on without it.
    pub(in super::super) fn open(cache: &Cache) -> Result<Option<Self>, StoreError> {
        let Some((path, most)) = &cache.disk else { return Ok(None) };
        let folder = match Folder::take(path) {
            Err(StoreError::InUse { .. }) if cache.shared == WhenInUse::GoOn => return Ok(None),
            folder => folder?,
        };
        folder.remove(NEW_FILE)?;
        let file = folder.file(FILE, false)?;
        let store = Store::open(file, &folder.path(FILE), FileKind::Cache, false, cache.largest)?;
        let [hits, uncached] = [0; 2].map(AtomicU64::new);
        let (rewriting, is_stuck) = (Mutex::new(()), AtomicBool::new(false));
        Ok(Some(Self { store, folder, most: *most, lives: cache.lives, rewriting, is_stuck, hits, uncached }))
    }

    pub(in super::super) fn secret(&self) -> &Secret {
        self.store.secret()
    }

    /// The bytes of the answer of a call, unless it is too old.
    pub(in super::super) fn get(&self, key: CallKey) -> Option<Vec<u8>> {
        self.get_at(key, SystemTime::now())
    }

    pub(in super::super) fn get_at(&self, key: CallKey, now: SystemTime) -> Option<Vec<u8>> {
        let found = self.store.get(key).unwrap_or_else(|_| {
            self.uncached.fetch_add(1, Ordering::Relaxed);
            None
        });
        let (bytes, written_at) = found?;
        // One from the future, as the clock was set back, is new.
        let age = Duration::from_millis(millis(now).saturating_sub(written_at));
        if self.lives.is_some_and(|lives| age >= lives) {
            return None;
        }
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }

    /// Keeps an answer, if it can.
    pub(in super::super) fn put(&self, key: CallKey, tag: Option<TagKey>, bytes: &[u8]) {
        let needed = bytes.len() as u64 + BESIDE;
        let is_kept = self.makes_room(needed) && self.store.append(Kind::Answer, key, tag, bytes).is_ok();
        if !is_kept {
            self.uncached.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Erases the answers of a tag, and says how many.
    pub(in super::super) fn erase(&self, tag: TagKey) -> Result<u64, StoreError> {
        self.store.erase(tag)
    }

    pub(in super::super) fn figures(&self) -> DiskFigures {
        let size = self.store.size();
        DiskFigures {
            entries: size.entries,
            bytes: size.bytes,
            hits: self.hits.load(Ordering::Relaxed),
            uncached: self.uncached.load(Ordering::Relaxed),
        }
    }

    /// Sees to it that so many bytes fit; `false` if they do not.
    fn makes_room(&self, needed: u64) -> bool {
        let fits = || self.store.size().bytes.saturating_add(needed) <= self.most;
        if fits() {
            return true;
        }
        if self.is_stuck.load(Ordering::Relaxed) || needed > self.most / 2 {
            return false;
        }
        let _turn = lock(&self.rewriting);
        if !fits() && self.rewrite().is_err() {
            self.is_stuck.store(true, Ordering::Relaxed);
            // What was written is of no use. If it stays, the next opening removes it.
            let _ = self.folder.remove(NEW_FILE);
        }
        fits()
    }

    fn rewrite(&self) -> Result<(), StoreError> {
        let put = |new: &File| -> io::Result<()> {
            new.sync_data()?;
            std::fs::rename(self.folder.path(NEW_FILE), self.folder.path(FILE))?;
            self.folder.sync()
        };
        self.store.rewrite((self.most / 2).saturating_sub(BESIDE), || self.folder.file(NEW_FILE, true), put)
    }
}
