//! [`Inner`]: the file and the turns of a memory, and how both change.
//!
//! The file is a log (`store/log.rs`) of what was said (`entry.rs`); all of it is in memory, too (`contents.rs`), and
//! only the log is the truth.
//!
//! Lock order: `writer`, then `contents`. A write holds `writer` from beginning to end; it takes `contents` for the
//! moment in which it becomes visible, so readers never wait for a disk. No code of the user's runs under either.
//!
//! What is erased goes in this order: a frame says so, and is on the disk; readers do not see it any more; the frames
//! of the turns become zeros, the latest of each turn first; the frame that said so becomes zeros. A process that is
//! killed in between leaves the rest to the next one that opens the file, before it reads anything.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;

use super::alarm::Shared;
use super::contents::Contents;
use super::entry::{Entry, Header, to_bytes};
use super::error::MemoryError;
use super::memory::Memory;
use super::times::{from_micros, to_micros};
use crate::embed::{Embedder, EmbedderId};
use crate::store::log::{LONGEST, Log};

pub(super) struct Inner {
    pub(super) path: Option<PathBuf>,
    pub(super) synced: bool,
    pub(super) max_turns: usize,
    pub(super) ttl: Option<Duration>,
    pub(super) embedder: Option<Box<dyn Embedder>>,
    /// What makes the vectors.
    pub(super) made_by: Option<EmbedderId>,
    pub(super) clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The latest moment that was told.
    latest: AtomicI64,
    alarm: Arc<Shared>,
    /// Turns that have expired are gone, but their frames are not blanked yet.
    is_behind: AtomicBool,
    writer: Mutex<Writer>,
    contents: RwLock<Option<Contents>>,
}

/// What writes hold.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) log: Option<Log>,
    /// Frames of turns that are gone, which are not blank yet.
    pub(super) to_blank: Vec<u64>,
}

/// The least that is blank in a file, in bytes, before it is written anew.
const FEW: u64 = 1 << 20;

impl Inner {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            synced: false,
            max_turns: Memory::DEFAULT_MAX_TURNS as usize,
            ttl: None,
            embedder: None,
            made_by: None,
            clock: Box::new(Timestamp::now),
            latest: AtomicI64::new(i64::MIN),
            alarm: Arc::default(),
            is_behind: AtomicBool::new(false),
            writer: Mutex::default(),
            contents: RwLock::default(),
        }
    }

    pub(super) fn alarm(&self) -> &Arc<Shared> {
        &self.alarm
    }

    pub(super) fn embedder(&self) -> Option<&dyn Embedder> {
        self.embedder.as_deref()
    }

    fn dimensions(&self) -> usize {
        self.made_by.as_ref().map_or(0, EmbedderId::dimensions)
    }

    /// What the time is. It never goes back. The clock is the user's, so it is asked before anything is locked.
    pub(super) fn now(&self) -> i64 {
        let now = to_micros((self.clock)());
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Takes note of a moment that was told elsewhere.
    pub(super) fn tell(&self, moment: i64) {
        self.latest.fetch_max(moment, Ordering::Relaxed);
    }

    /// A moment that comes after every other that was told; right after [`now`](Self::now), the earliest.
    pub(super) fn stamp(&self) -> i64 {
        let next = |latest: i64| latest.saturating_add(1);
        let told = self.latest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |latest| Some(next(latest)));
        next(told.expect("it always is another moment"))
    }

    pub(super) fn open(&self) -> Result<(), MemoryError> {
        let clock = to_micros((self.clock)());
        let mut writer = self.lock();
        let opened = self.read_file(&mut writer, clock);
        if opened.is_err() {
            // Another process may open it.
            *writer = Writer::default();
        }
        *self.contents.write().unwrap_or_else(PoisonError::into_inner) = Some(opened?);
        Ok(())
    }

    fn read_file(&self, writer: &mut Writer, clock: i64) -> Result<Contents, MemoryError> {
        let mut contents = Contents::new(self.dimensions());
        if let Some(path) = &self.path {
            let header = to_bytes(&Header::of(self.made_by.as_ref()));
            let mut is_checked = false;
            let to_blank = &mut writer.to_blank;
            let log = Log::open(path, self.synced, Some(&header), |says, offset| {
                if !is_checked {
                    is_checked = true;
                    return self.check_header(path, says, offset);
                }
                self.take_up(path, says, offset, &mut contents, to_blank)
            })?;
            writer.log = log;
        }
        if contents.recorded() > clock {
            let (now, recorded) = (from_micros(clock), from_micros(contents.recorded()));
            tracing::warn!(%now, %recorded, "the clock went back: the memory waits for it");
        }
        self.tell(contents.recorded());
        let expired = contents.expired(clock.max(contents.recorded()));
        writer.to_blank.extend(contents.remove(&expired));
        writer.blank()?;
        Ok(contents)
    }

    fn check_header(&self, path: &Path, says: &[u8], offset: u64) -> Result<(), MemoryError> {
        let damaged = |why: &str| MemoryError::Damaged { path: path.to_owned(), offset, why: why.to_owned() };
        let header = Header::read(says).ok_or_else(|| damaged("it is no memory, or one of another version"))?;
        let given = self.made_by.as_ref().map(ToString::to_string);
        if header.embedder != given || header.dimensions as usize != self.dimensions() {
            let told = |embedder: Option<String>| embedder.unwrap_or_else(|| "no embedder".to_owned());
            let (path, found, expected) = (path.to_owned(), told(header.embedder), told(given));
            return Err(MemoryError::OtherEmbedder { path, found, expected });
        }
        Ok(())
    }

    /// Takes up what a frame of the file says.
    fn take_up(
        &self,
        path: &Path,
        says: &[u8],
        offset: u64,
        contents: &mut Contents,
        to_blank: &mut Vec<u64>,
    ) -> Result<(), MemoryError> {
        let damaged = |why: &str| MemoryError::Damaged { path: path.to_owned(), offset, why: why.to_owned() };
        let entry: Entry<'_> = postcard::from_bytes(says).map_err(|_| damaged("it is of another version"))?;
        let is_orphan =
            matches!(&entry, Entry::Update(updated) if contents.find(&updated.scope.scope(), updated.id).is_none());
        if is_orphan {
            // Its turn was being erased when the power was lost.
            to_blank.push(offset);
            return Ok(());
        }
        if let Entry::Append(appended) = &entry
            && let Some(earlier) = contents.find(&appended.scope.scope(), appended.id)
            && contents.slot(earlier).is_expired(appended.says.recorded)
        {
            // It had expired when this was said, and the process was killed before it was blanked.
            to_blank.extend(contents.remove(&[earlier]));
        }
        let erased = contents.apply(&entry, frame(offset, says)).ok_or_else(|| damaged("it fits no other frame"))?;
        to_blank.extend(erased);
        if matches!(entry, Entry::Erase(..)) {
            to_blank.push(offset);
        }
        Ok(())
    }

    pub(super) fn close(&self) {
        let mut writer = self.lock();
        drop(self.contents.write().unwrap_or_else(PoisonError::into_inner).take());
        // Only now may another process open it.
        *writer = Writer::default();
    }

    /// Writes entries into the file, and has them take effect. What they erase is blanked.
    pub(super) fn write(&self, writer: &mut Writer, entries: &[Entry<'_>]) -> Result<(), MemoryError> {
        if entries.is_empty() {
            return Ok(());
        }
        let frames: Vec<Vec<u8>> = entries.iter().map(to_bytes).collect();
        let offsets = writer.append(&frames)?;
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
        let before = contents.next_to_expire();
        for ((entry, offset), says) in entries.iter().zip(offsets).zip(&frames) {
            let erased =
                contents.apply(entry, frame(offset, says)).expect("entries are checked before they are written");
            writer.to_blank.extend(erased);
        }
        if contents.next_to_expire() != before {
            self.alarm.ring();
        }
        Ok(())
    }

    /// Erases turns as entries say, and says how many bytes of the file are zeros now.
    pub(super) fn erase(&self, writer: &mut Writer, entries: &[Entry<'_>]) -> Result<u64, MemoryError> {
        // That is not part of this.
        writer.blank()?;
        let frames: Vec<Vec<u8>> = entries.iter().map(to_bytes).collect();
        let offsets = writer.append(&frames)?;
        if let Some(log) = &writer.log {
            log.persist()?;
        }
        {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
            for ((entry, offset), says) in entries.iter().zip(&offsets).zip(&frames) {
                writer.to_blank.extend(contents.apply(entry, frame(*offset, says)).unwrap_or_default());
            }
            contents.live.tidy();
        }
        // Behind those of the turns: they say that these are to be blanked.
        let bytes = writer.blank()?;
        writer.to_blank.extend(offsets);
        self.clear(writer)?;
        Ok(bytes)
    }

    /// Erases what has expired, and says how many turns.
    pub(super) fn expire(&self) -> Result<usize, MemoryError> {
        let now = self.now();
        let mut writer = self.writing()?;
        let expired = self.reading()?.expired(now);
        if !expired.is_empty() {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
            writer.to_blank.extend(contents.remove(&expired));
        }
        self.is_behind.store(false, Ordering::Relaxed);
        self.clear(&mut writer)?;
        Ok(expired.len())
    }

    /// Blanks what is to be, and says how many bytes that were. Rewrites the file when most of it is blank.
    pub(super) fn clear(&self, writer: &mut Writer) -> Result<u64, MemoryError> {
        let bytes = writer.blank()?;
        let Some(log) = &mut writer.log else { return Ok(bytes) };
        let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
        let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
        if log.bytes() > 2 * contents.bytes() + FEW {
            let before = contents.offsets();
            match log.keep(&before) {
                Ok(now) => contents.move_frames(&before, &now),
                // What was asked for is done by then.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot rewrite the memory's file")
                }
            }
        }
        Ok(bytes)
    }

    /// How long it is until the next turn expires.
    pub(super) fn until_next_expires(&self) -> Option<Duration> {
        if self.is_behind.load(Ordering::Relaxed) {
            return Some(Duration::ZERO);
        }
        let now = self.now();
        let next = self.reading().ok()?.next_to_expire()?;
        Some(Duration::from_micros(u64::try_from(next.saturating_sub(now)).unwrap_or(0)))
    }

    /// Reads the turns as they are now.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Contents, i64) -> T) -> Result<T, MemoryError> {
        let now = self.now();
        Ok(read(&*self.reading()?, now))
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writers' lock of a memory that is open.
    pub(super) fn writing(&self) -> Result<MutexGuard<'_, Writer>, MemoryError> {
        let writer = self.lock();
        self.reading().map(|_| writer)
    }

    /// The writers' lock, for a write at this moment: what has expired by then is not there any more.
    pub(super) fn begin(&self, now: i64) -> Result<MutexGuard<'_, Writer>, MemoryError> {
        let mut writer = self.writing()?;
        let expired = self.reading()?.expired(now);
        if !expired.is_empty() {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            writer.to_blank.extend(contents.as_mut().ok_or(MemoryError::NotOpen)?.remove(&expired));
            // The thread waits for the disk.
            self.is_behind.store(true, Ordering::Relaxed);
            self.alarm.ring();
        }
        Ok(writer)
    }

    pub(super) fn reading(&self) -> Result<Reading<'_>, MemoryError> {
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        if contents.is_some() { Ok(Reading(contents)) } else { Err(MemoryError::NotOpen) }
    }

    /// Takes the words of turns that are gone out of the lists of words.
    pub(super) fn tidy_words(&self) {
        if let Some(contents) = &mut *self.contents.write().unwrap_or_else(PoisonError::into_inner) {
            contents.live.tidy();
        }
    }
}

/// The turns of a memory that is open.
pub(super) struct Reading<'a>(RwLockReadGuard<'a, Option<Contents>>);

impl std::ops::Deref for Reading<'_> {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        self.0.as_ref().expect("it was looked at when it was locked")
    }
}

impl Writer {
    /// Appends frames, and says where each begins. Without a file they begin nowhere.
    fn append(&mut self, frames: &[Vec<u8>]) -> Result<Vec<u64>, MemoryError> {
        let bytes = frames.iter().map(Vec::len).sum();
        if bytes > LONGEST {
            return Err(MemoryError::TooMuchAtOnce { bytes, most: LONGEST });
        }
        match &mut self.log {
            Some(log) => Ok(log.append_all(frames)?),
            None => Ok(vec![0; frames.len()]),
        }
    }

    /// Blanks the frames of turns that are gone, and says how many bytes that were.
    fn blank(&mut self) -> Result<u64, MemoryError> {
        let bytes = match &mut self.log {
            Some(log) => log.blank(&self.to_blank)?,
            None => 0,
        };
        self.to_blank.clear();
        Ok(bytes)
    }
}

/// Where a frame begins, and how long what it says is.
fn frame(offset: u64, says: &[u8]) -> (u64, u32) {
    (offset, u32::try_from(says.len()).expect("a frame is no longer than that"))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, made_by, .. } = self;
        f.debug_struct("Inner").field("path", path).field("made_by", made_by).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::entry::StoredScope;
    use crate::memory::{NewTurn, Scope, Window};
    use crate::store::log::tests::blanked_to;

    fn scope(user: &str) -> Scope {
        Scope::tenant("t").user(user)
    }

    /// The process is killed before the thread has blanked what had expired.
    #[test]
    fn an_id_that_is_used_again_is_no_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory");
        let now = Arc::new(AtomicI64::new(1_800_000_000_000_000));
        let clock = Arc::clone(&now);
        let memory = Memory::at(&path).clock(move || from_micros(clock.load(Ordering::Relaxed)));
        // Without the thread.
        memory.inner.open().expect("it opens");
        let turn = |text: &str| NewTurn::user(text).id("a").ttl(Duration::from_secs(1));
        memory.append(&scope("u"), vec![turn("first")]).expect("it is appended");
        memory.update(&scope("u"), "a", "second").expect("it is changed");
        now.fetch_add(1_000_000, Ordering::Relaxed);
        memory.append(&scope("u"), vec![NewTurn::user("third").id("a")]).expect("the id is free");
        let file = || std::fs::read(&path).expect("it is there");
        assert!(file().windows(6).any(|window| window == b"second"));
        drop(memory);
        let memory = Memory::at(&path);
        memory.open().expect("it is no damage");
        assert_eq!(memory.window(&scope("u"), 9).expect("it is open")[0].text, "third");
        assert_eq!(memory.history(&scope("u"), "a").expect("it is open").len(), 1);
        assert!(!file().windows(6).any(|window| window == b"second"));
    }

    /// What a process that is killed at any byte of an erasure leaves behind is erased by the next one.
    #[test]
    fn an_erasure_is_finished_from_wherever_it_was_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("memory");
        let begun = folder.path().join("begun");
        let memory = Memory::at(&path);
        memory.open().expect("it opens");
        for user in ["gone", "stays"] {
            let turns =
                vec![NewTurn::user(format!("{user} one")).id("1"), NewTurn::user(format!("{user} two")).id("2")];
            memory.append(&scope(user), turns).expect("it is appended");
            memory.update(&scope(user), "1", format!("{user} three")).expect("it is changed");
            memory.delete(&scope(user), "2").expect("it is deleted");
        }
        // As `erase` does, to the point at which the log says so.
        let offsets = {
            let mut writer = memory.inner.writing().expect("it is open");
            let gone = scope("gone");
            let entry = Entry::Erase(StoredScope::of(&gone), None);
            let said = writer.append(&[to_bytes(&entry)]).expect("there is room");
            std::fs::copy(&path, &begun).expect("it is copied");
            let mut contents = memory.inner.contents.write().unwrap_or_else(PoisonError::into_inner);
            let mut offsets = contents.as_mut().expect("it is open").apply(&entry, (0, 0)).expect("it fits");
            offsets.extend(said);
            offsets
        };
        drop(memory);
        let begun = std::fs::read(begun).expect("it is there");
        let (turns, said) = offsets.split_at(4);
        let steps = blanked_to(&begun, turns).into_iter().chain({
            let turns_blank = blanked_to(&begun, turns).pop().expect("all are blank in the end");
            blanked_to(&turns_blank, said)
        });
        let mut seen = 0;
        for bytes in steps {
            std::fs::write(&path, &bytes).expect("it is written");
            let memory = Memory::at(&path);
            memory.open().unwrap_or_else(|error| panic!("step {seen}: {error}"));
            let file = std::fs::read(&path).expect("it is there");
            assert!(!file.windows(4).any(|window| window == b"gone"), "step {seen}");
            assert_eq!(memory.scopes(&Scope::tenant("t")).expect("it is open"), [scope("stays")]);
            assert_eq!(memory.window(&scope("stays"), 9).expect("it is open")[0].text, "stays three");
            assert_eq!(memory.history(&scope("stays"), "2").expect("it is open").len(), 2);
            let past = Window::turns(9).at(from_micros(memory.inner.stamp()));
            assert_eq!(memory.window(&scope("gone"), past).expect("it is open"), []);
            seen += 1;
        }
        assert!(seen > 100, "{seen} steps");
    }
}
