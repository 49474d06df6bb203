//! Answers in memory: bounded in number and bytes, and those that were not asked for longest go first.
//!
//! Invariant: an answer is copied and dropped outside of the lock.

use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashlink::LruCache;

use super::super::key::{CallKey, TagKey};
use super::super::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// What an answer takes beside its own bytes.
const BESIDE: u64 = 128;

/// Answers in memory.
pub(in super::super) struct Memory<V> {
    most_bytes: u64,
    lives: Option<Duration>,
    shelf: Mutex<Shelf<V>>,
    hits: AtomicU64,
    evicted: AtomicU64,
}

struct Shelf<V> {
    answers: LruCache<CallKey, Answer<V>, RandomState>,
    most: usize,
    bytes: u64,
}

struct Answer<V> {
    value: Arc<V>,
    bytes: u64,
    tag: Option<TagKey>,
    until: Option<Instant>,
}

/// The figures of answers in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct MemoryFigures {
    pub(in super::super) entries: u64,
    pub(in super::super) bytes: u64,
    pub(in super::super) hits: u64,
    pub(in super::super) evicted: u64,
}

impl<V> Memory<V> {
    pub(in super::super) fn new(most: usize, most_bytes: u64, lives: Option<Duration>) -> Self {
        // It is bounded by hand, so that what leaves it is dropped outside of the lock.
        let answers = LruCache::with_hasher(usize::MAX, RandomState::default());
        let shelf = Mutex::new(Shelf { answers, most, bytes: 0 });
        Self { most_bytes, lives, shelf, hits: AtomicU64::new(0), evicted: AtomicU64::new(0) }
    }

    /// The answer of a call, unless it is too old.
    pub(in super::super) fn get(&self, key: CallKey, now: Instant) -> Option<Arc<V>> {
        let mut shelf = lock(&self.shelf);
        let answer = shelf.answers.get(&key)?;
        if answer.until.is_some_and(|until| until <= now) {
            let old = shelf.remove(key);
            drop(shelf);
            drop(old);
            return None;
        }
        let value = answer.value.clone();
        drop(shelf);
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// Remembers an answer of so many bytes, unless it alone is larger than all may be.
    pub(in super::super) fn put(&self, key: CallKey, value: Arc<V>, bytes: u64, tag: Option<TagKey>, now: Instant) {
        let bytes = bytes.saturating_add(BESIDE);
        let until = self.lives.and_then(|lives| now.checked_add(lives));
        let mut shelf = lock(&self.shelf);
        let before = shelf.remove(key);
        let mut gone = Vec::new();
        if bytes <= self.most_bytes {
            shelf.bytes += bytes;
            shelf.answers.insert(key, Answer { value, bytes, tag, until });
            while shelf.answers.len() > shelf.most || shelf.bytes > self.most_bytes {
                let Some((_, answer)) = shelf.answers.remove_lru() else { break };
                shelf.bytes -= answer.bytes;
                gone.push(answer);
            }
        }
        drop(shelf);
        self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
        drop((before, gone));
    }

    /// Forgets the answers of a tag, and says how many.
    pub(in super::super) fn erase(&self, tag: TagKey) -> u64 {
        let mut shelf = lock(&self.shelf);
        let tagged = shelf.answers.iter().filter(|(_, answer)| answer.tag == Some(tag));
        let keys: Vec<CallKey> = tagged.map(|(key, _)| *key).collect();
        let gone: Vec<_> = keys.into_iter().filter_map(|key| shelf.remove(key)).collect();
        drop(shelf);
        gone.len() as u64
    }

    pub(in super::super) fn figures(&self) -> MemoryFigures {
        let shelf = lock(&self.shelf);
        MemoryFigures {
            entries: shelf.answers.len() as u64,
            bytes: shelf.bytes,
            hits: self.hits.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }
}

impl<V> Shelf<V> {
    fn remove(&mut self, key: CallKey) -> Option<Answer<V>> {
        let answer = self.answers.remove(&key)?;
        self.bytes -= answer.bytes;
        Some(answer)
    }
}
