//! The layer of cache and journal: the answers of a method's calls that are kept, and who makes the calls.
//!
//! A call looks in memory, then in the journal of the run. Otherwise it joins those that make an equal call; the one
//! that leads looks again, then on disk, and makes the call. Its answer is in the journal before anybody gets it.
//!
//! Not kept are errors, and the answers of calls without a key: those whose arguments have no canonical form.

use std::future::Future;
use std::io;
use std::sync::Arc as StdArc;
use std::time::Instant;

use super::BoxError;
use super::cache::{Cache, CacheFigures, DiskCache, Memory};
use super::flight::{Flight, FlightFigures};
use super::journal::{OpenJournal, Outgoing};
use super::key::{CallKey, Codec, MethodKey, Secret, TagKey};
use super::store::StoreError;
use super::sync::{Arc, AtomicBool, AtomicU64, Ordering};
use super::time::Time;

/// The kept answers of one method.
pub(super) struct Kept<R, E> {
    codec: Arc<dyn Codec<R>>,
    secret: Secret,
    method: MethodKey,
    memory: Option<Memory<R>>,
    journal: Option<Arc<OpenJournal>>,
    disk: Option<Shelf>,
    runs_without_disk: bool,
    /// Answers that are kept nowhere.
    unkept: AtomicU64,
    flight: Flight<CallKey, Result<R, NotKept<E>>>,
}

/// A cache on disk, which several methods share.
struct Shelf {
    cache: Arc<DiskCache>,
    method: MethodKey,
}

/// Whose calls are kept: the name of the service, its declared version, and the method.
pub(super) struct Whose<'a> {
    pub(super) service: &'a str,
    pub(super) version: &'a str,
    pub(super) method: &'a str,
}

/// What tells one call from another.
pub(super) struct Asked<'a> {
    /// In their canonical form.
    pub(super) arguments: Vec<u8>,
    /// Tells apart calls with equal arguments that want an answer each.
    pub(super) sample: u64,
    /// Under which the answer can be erased.
    pub(super) tag: Option<&'a str>,
    /// Until when the caller waits for another that makes an equal call.
    pub(super) until: Option<Instant>,
}

/// Why a call has no answer.
#[derive(Debug, Clone)]
pub(super) enum NotKept<E> {
    /// The call ended so.
    Call(E),
    /// The answer could not be kept, or one that was kept could not be read.
    Store(StdArc<StoreError>),
    /// It was too late while another caller made an equal call.
    PastDeadline,
}

impl<E> From<StoreError> for NotKept<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(StdArc::new(error))
    }
}

impl<R: Clone + Send + Sync, E: Clone> Kept<R, E> {
    /// `disk` is the opened folder of the cache, if it has one that is not in use elsewhere.
    pub(super) fn new(
        whose: &Whose<'_>,
        codec: Arc<dyn Codec<R>>,
        cache: &Cache,
        disk: Option<Arc<DiskCache>>,
        journal: Option<Arc<OpenJournal>>,
    ) -> io::Result<Self> {
        let method = |secret: &Secret| secret.method(whose.service, whose.version, whose.method);
        // That of the journal, if there is one: its keys are the idempotency keys.
        let secret = match (&journal, &disk) {
            (Some(journal), _) => journal.secret().clone(),
            (None, Some(disk)) => disk.secret().clone(),
            (None, None) => Secret::random()?,
        };
        Ok(Self {
            codec,
            method: method(&secret),
            secret,
            memory: cache.memory.map(|(entries, bytes)| Memory::new(entries, bytes, cache.lives)),
            journal,
            runs_without_disk: cache.disk.is_some() && disk.is_none(),
            disk: disk.map(|cache| Shelf { method: method(cache.secret()), cache }),
            unkept: AtomicU64::new(0),
            flight: Flight::new(),
        })
    }

    /// The answer that is kept, or else that of `call`. `call` gets the call's place in the journal, if there is one,
    /// and says there when its first attempt goes out. `is_own` says of an error that it concerns its caller alone.
    pub(super) async fn answer<F: Future<Output = Result<R, E>>>(
        &self,
        time: &impl Time,
        asked: Asked<'_>,
        call: impl FnOnce(Option<Arc<Outgoing>>) -> F,
        is_own: impl Fn(&E) -> bool,
    ) -> Result<R, NotKept<E>> {
        let on_disk = self.disk.as_ref().map(|disk| disk.method.of_bytes(asked.arguments.clone(), asked.sample));
        let key = self.method.of_bytes(asked.arguments, asked.sample);
        if let Some(answer) = self.found(key, asked.tag, time)? {
            return Ok(answer);
        }
        // One that cannot be copied as bytes is its caller's alone: others make a call of their own.
        let fits = AtomicBool::new(true);
        let lead = || self.lead(time, key, on_disk, asked.tag, call, &fits);
        let is_own = |result: &Result<R, NotKept<E>>| match result {
            Err(NotKept::Call(error)) => is_own(error),
            Err(_) => false,
            Ok(_) => !fits.load(Ordering::Relaxed),
        };
        let ended = self.flight.share(time, asked.until, key, lead, is_own).await;
        ended.unwrap_or(Err(NotKept::PastDeadline))
    }

    /// Erases the answers of a tag wherever they are kept, and says how many there were. The answer of a call that is
    /// being made is kept nevertheless.
    pub(super) fn erase(&self, tag: &str) -> Result<u64, StoreError> {
        let own = self.secret.tag(tag);
        let in_memory = self.memory.as_ref().map_or(0, |memory| memory.erase(own));
        let in_journal = self.journal.as_ref().map_or(Ok(0), |journal| journal.erase(own))?;
        let on_disk = self.disk.as_ref().map_or(Ok(0), |disk| disk.cache.erase(disk.cache.secret().tag(tag)))?;
        // What is in memory came from elsewhere, or will go nowhere else.
        Ok(in_memory.max(in_journal).max(on_disk))
    }

    /// Counts an answer that is kept nowhere.
    pub(super) fn not_kept(&self) {
        self.unkept.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> (CacheFigures, FlightFigures) {
        let mut figures = CacheFigures { runs_without_disk: self.runs_without_disk, ..CacheFigures::default() };
        if let Some(memory) = self.memory.as_ref().map(Memory::figures) {
            figures.memory_entries = memory.entries;
            figures.memory_bytes = memory.bytes;
            figures.memory_hits = memory.hits;
            figures.evicted = memory.evicted;
        }
        if let Some(disk) = self.disk.as_ref().map(|disk| disk.cache.figures()) {
            figures.disk_entries = disk.entries;
            figures.disk_bytes = disk.bytes;
            figures.disk_hits = disk.hits;
            figures.uncached = disk.uncached;
        }
        figures.uncached += self.unkept.load(Ordering::Relaxed);
        (figures, self.flight.figures())
    }

    /// The answer that is in memory, or in the journal.
    fn found(&self, key: CallKey, tag: Option<&str>, time: &impl Time) -> Result<Option<R>, StoreError> {
        if let Some(memory) = &self.memory
            && let Some(answer) = memory.get(key, time.now())
        {
            return Ok(Some(R::clone(&answer)));
        }
        let Some(bytes) = self.journal.as_ref().map_or(Ok(None), |journal| journal.get(key))? else { return Ok(None) };
        let answer = self.codec.decode(&bytes).map_err(|source| StoreError::Codec { source })?;
        self.remember(key, self.tag(tag), &answer, bytes.len() as u64, time);
        Ok(Some(answer))
    }

    /// Makes the call, unless the answer has come meanwhile or is on disk.
    async fn lead<F: Future<Output = Result<R, E>>>(
        &self,
        time: &impl Time,
        key: CallKey,
        on_disk: Option<CallKey>,
        tag: Option<&str>,
        call: impl FnOnce(Option<Arc<Outgoing>>) -> F,
        fits: &AtomicBool,
    ) -> Result<R, NotKept<E>> {
        if let Some(answer) = self.found(key, tag, time)? {
            return Ok(answer);
        }
        let own_tag = self.tag(tag);
        let place = self.journal.as_ref().map(|journal| Arc::new(journal.call(key)));
        let shelf = self.disk.as_ref().zip(on_disk);
        // One that does not fit the codec any more is none: the next takes its place.
        let found = shelf.as_ref().and_then(|(disk, key)| disk.cache.get(*key));
        let found = found.and_then(|bytes| Some((self.codec.decode(&bytes).ok()?, bytes)));
        let was_found = found.is_some();
        let (answer, bytes) = match found {
            Some(found) => found,
            None => {
                let answer = call(place.clone()).await.map_err(NotKept::Call)?;
                match self.encoded(&answer) {
                    Ok(bytes) => (answer, bytes),
                    // A journal that cannot keep what is handed on breaks its promise; a cache makes none.
                    Err(source) if place.is_some() => return Err(StoreError::Codec { source }.into()),
                    Err(_) => {
                        fits.store(false, Ordering::Relaxed);
                        self.not_kept();
                        return Ok(answer);
                    }
                }
            }
        };
        if let Some(place) = place {
            place.answer(own_tag, &bytes)?;
        }
        if let (Some((disk, key)), false) = (shelf, was_found) {
            disk.cache.put(key, tag.map(|tag| disk.cache.secret().tag(tag)), &bytes);
        }
        self.remember(key, own_tag, &answer, bytes.len() as u64, time);
        Ok(answer)
    }

    fn remember(&self, key: CallKey, tag: Option<TagKey>, answer: &R, bytes: u64, time: &impl Time) {
        if let Some(memory) = &self.memory {
            memory.put(key, Arc::new(answer.clone()), bytes, tag, time.now());
        }
    }

    fn encoded(&self, answer: &R) -> Result<Vec<u8>, BoxError> {
        let mut bytes = Vec::new();
        self.codec.encode(answer, &mut bytes).map(|()| bytes)
    }

    fn tag(&self, tag: Option<&str>) -> Option<TagKey> {
        tag.map(|tag| self.secret.tag(tag))
    }
}
