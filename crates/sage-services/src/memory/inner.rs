//! [`Inner`]: the file and the turns of a memory, and how both change.
//!
//! The file is a log (`store/log.rs`) of what was said (`entry.rs`); all of it is in memory, too (`contents.rs`), and
//! only the log is the truth.
//!
//! Lock order: `writer`, then `contents`. A write holds `writer` from beginning to end; it takes `contents` for the
//! moment in which it becomes visible, so readers never wait for a disk. No code of the user's runs under either,
//! except the clock.
//!
//! What is erased goes in this order: a frame says so, and is on the disk; readers do not see it any more; the frames
//! of the turns become zeros, the latest of each turn first; the frame that said so becomes zeros. A process that is
//! killed in between leaves the rest to the next one that opens the file, before it reads anything.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use jiff::Timestamp;

use super::alarm::Shared;
use super::contents::{Contents, Slot, with_role};
use super::entry::{Appended, Entry, Header, Says, StoredScope, Updated, to_bytes};
use super::error::MemoryError;
use super::memory::Memory;
use super::recall::Recall;
use super::scope::Scope;
use super::times::{from_micros, later, to_micros};
use super::turn::{Change, NewTurn, Turn};
use crate::embed::{Embedder, EmbedderId};
use crate::store::log::{LONGEST, Log};
use crate::store::stored::{StoredMetadata, StoredVector};

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

    /// What the time is. It never goes back.
    pub(super) fn now(&self) -> i64 {
        let now = to_micros((self.clock)());
        self.latest.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// A moment that comes after every other that was told.
    pub(super) fn stamp(&self) -> i64 {
        let now = to_micros((self.clock)());
        let next = |latest: i64| latest.saturating_add(1).max(now);
        let told = self.latest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |latest| Some(next(latest)));
        next(told.expect("it always is another moment"))
    }

    pub(super) fn open(&self) -> Result<(), MemoryError> {
        let mut writer = self.lock();
        let mut contents = Contents::new(self.dimensions());
        if let Some(path) = &self.path {
            writer.to_blank.clear();
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
        let clock = to_micros((self.clock)());
        if contents.recorded() > clock {
            let (now, recorded) = (from_micros(clock), from_micros(contents.recorded()));
            tracing::warn!(%now, %recorded, "the clock went back: the memory waits for it");
        }
        self.latest.fetch_max(contents.recorded(), Ordering::Relaxed);
        let expired = contents.expired(self.now());
        writer.to_blank.extend(contents.remove(&expired));
        writer.blank()?;
        *self.contents.write().unwrap_or_else(PoisonError::into_inner) = Some(contents);
        Ok(())
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

    pub(super) fn append(&self, turns: Vec<(Scope, NewTurn)>) -> Result<Vec<String>, MemoryError> {
        for (scope, turn) in &turns {
            scope.check()?;
            turn.check()?;
            self.check_vector(&turn.shown_id(), turn.vector.as_deref())?;
        }
        let turns = self.with_vectors(turns)?;
        let mut writer = self.writing()?;
        let (now, recorded) = (self.now(), self.stamp());
        let (ids, fresh) = self.planned(&turns, recorded)?;
        let entries: Vec<Entry<'_>> = fresh
            .iter()
            .map(|&(at, place)| {
                let (scope, turn) = &turns[at];
                Entry::Append(self.appended(scope, &ids[at], place, turn, (now, recorded)))
            })
            .collect();
        self.write(&mut writer, &entries)?;
        Ok(ids)
    }

    /// The ids of turns, and those that are not there yet, by position, with their places.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn planned(
        &self,
        turns: &[(Scope, NewTurn)],
        recorded: i64,
    ) -> Result<(Vec<String>, Vec<(usize, u64)>), MemoryError> {
        let contents = self.reading()?;
        let mut ids = Vec::with_capacity(turns.len());
        let mut fresh = Vec::new();
        let mut here: HashMap<(&Scope, &str), &NewTurn> = HashMap::new();
        let mut place = contents.next_place();
        for (at, (scope, turn)) in turns.iter().enumerate() {
            let id = turn.id.clone().unwrap_or_else(|| format!("{recorded:x}-{place}"));
            let other = || MemoryError::OtherText { scope: scope.clone(), id: id.clone() };
            if let Some(slot) = contents.find(scope, &id).map(|slot| contents.slot(slot)) {
                if !is_same(slot, turn) {
                    return Err(other());
                }
            } else {
                let earlier = turn.id.as_deref().and_then(|id| here.insert((scope, id), turn));
                match earlier {
                    Some(earlier) if (&earlier.role, &earlier.text) != (&turn.role, &turn.text) => return Err(other()),
                    Some(_) => {}
                    None => {
                        fresh.push((at, place));
                        place += 1;
                    }
                }
            }
            ids.push(id);
        }
        if contents.len() + fresh.len() > self.max_turns {
            return Err(MemoryError::Full { max_turns: self.max_turns });
        }
        Ok((ids, fresh))
    }

    pub(super) fn appended<'a>(
        &self,
        scope: &'a Scope,
        id: &'a str,
        place: u64,
        turn: &'a NewTurn,
        (now, recorded): (i64, i64),
    ) -> Appended<'a> {
        Appended {
            scope: StoredScope::of(scope),
            id,
            place,
            role: &turn.role,
            said: turn.said.map_or(now, to_micros),
            expires: turn.ttl.or(self.ttl).map(|ttl| later(now, ttl)),
            says: Says {
                recorded,
                text: Some(&turn.text),
                importance: turn.importance,
                metadata: StoredMetadata::of(&turn.metadata),
                vector: turn.vector.as_deref().map(StoredVector::of),
            },
        }
    }

    pub(super) fn update(&self, scope: &Scope, id: &str, change: Change) -> Result<(), MemoryError> {
        scope.check()?;
        change.check(id)?;
        self.check_vector(id, change.vector.as_deref())?;
        let unknown = || MemoryError::UnknownTurn { scope: scope.clone(), id: id.to_owned() };
        let role = {
            let contents = self.reading()?;
            contents.slot(contents.find(scope, id).ok_or_else(unknown)?).role.clone()
        };
        let vector = match (&change.text, change.vector) {
            (Some(text), None) => self.embed(&[with_role(&role, text)])?.map(|mut vectors| vectors.remove(0)),
            (_, vector) => vector,
        };
        let mut writer = self.writing()?;
        let contents = self.reading()?;
        let slot = contents.slot(contents.find(scope, id).ok_or_else(unknown)?);
        let state = slot.latest();
        let before = state.text.clone().ok_or_else(unknown)?;
        let before_vector = slot.row.and_then(|row| contents.live.vector(row));
        let metadata = change.metadata.unwrap_or_else(|| state.metadata.clone());
        let importance = change.importance.unwrap_or(state.importance);
        drop(contents);
        // A text without a vector of its own has none.
        let vector = if change.text.is_some() { vector } else { vector.or(before_vector) };
        let says = Says {
            recorded: self.stamp(),
            text: Some(change.text.as_deref().unwrap_or(&before)),
            importance,
            metadata: StoredMetadata::of(&metadata),
            vector: vector.as_deref().map(StoredVector::of),
        };
        self.write(&mut writer, &[Entry::Update(Updated { scope: StoredScope::of(scope), id, says })])
    }

    pub(super) fn delete(&self, scope: &Scope, id: &str) -> Result<(), MemoryError> {
        scope.check()?;
        let mut writer = self.writing()?;
        let is_there = {
            let contents = self.reading()?;
            contents.find(scope, id).is_some_and(|slot| contents.slot(slot).row.is_some())
        };
        if !is_there {
            return Err(MemoryError::UnknownTurn { scope: scope.clone(), id: id.to_owned() });
        }
        let nothing = crate::store::Metadata::new();
        let says = Says {
            recorded: self.stamp(),
            text: None,
            importance: 0.0,
            metadata: StoredMetadata::of(&nothing),
            vector: None,
        };
        self.write(&mut writer, &[Entry::Update(Updated { scope: StoredScope::of(scope), id, says })])
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

    /// Erases turns as an entry says, and says how many bytes of the file are zeros now.
    pub(super) fn erase(&self, writer: &mut Writer, entry: Entry<'_>) -> Result<u64, MemoryError> {
        let says = to_bytes(&entry);
        let offsets = writer.append(std::slice::from_ref(&says))?;
        if let Some(log) = &writer.log {
            log.persist()?;
        }
        {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
            writer.to_blank.extend(contents.apply(&entry, frame(offsets[0], &says)).unwrap_or_default());
            contents.live.tidy();
        }
        // Behind those of the turns: it says that they are to be blanked.
        let bytes = writer.blank()?;
        writer.to_blank.extend(offsets);
        self.clear(writer)?;
        Ok(bytes)
    }

    /// Writes the entries of turns that were exported, from a place on, and says how many turns.
    pub(super) fn import<'a>(
        &self,
        turns: usize,
        entries: impl FnOnce(&Contents, u64) -> Result<Vec<Entry<'a>>, MemoryError>,
    ) -> Result<usize, MemoryError> {
        let mut writer = self.writing()?;
        let entries = {
            let contents = self.reading()?;
            if contents.len() + turns > self.max_turns {
                return Err(MemoryError::Full { max_turns: self.max_turns });
            }
            entries(&contents, contents.next_place())?
        };
        self.write(&mut writer, &entries)?;
        self.latest.fetch_max(self.reading()?.recorded(), Ordering::Relaxed);
        Ok(entries.iter().filter(|entry| matches!(entry, Entry::Append(_))).count())
    }

    /// Puts a summary in the place of turns, if all of them are as they were.
    pub(super) fn replace(&self, scope: &Scope, old: &[Turn], summary: NewTurn) -> Result<Option<Turn>, MemoryError> {
        let summaries = vec![(scope.clone(), summary)];
        summaries[0].1.check()?;
        let summaries = self.with_vectors(summaries)?;
        let mut writer = self.writing()?;
        let recorded = self.stamp();
        let place = {
            let contents = self.reading()?;
            let is_as_it_was = |turn: &&Turn| {
                let slot = contents.find(scope, &turn.id).map(|slot| contents.slot(slot));
                slot.filter(|slot| from_micros(slot.latest().recorded) == turn.recorded).map(|slot| slot.place)
            };
            let places: Option<Vec<u64>> = old.iter().map(|turn| is_as_it_was(&turn)).collect();
            let changed = || MemoryError::Changed { scope: scope.clone() };
            places.and_then(|places| places.last().copied()).ok_or_else(changed)?
        };
        let id = format!("{recorded:x}-summary");
        let ids = old.iter().map(|turn| &*turn.id).collect();
        let appended = self.appended(scope, &id, place, &summaries[0].1, (recorded, recorded));
        self.write(&mut writer, &[Entry::Replace(ids, appended)])?;
        self.tidy_words();
        self.clear(&mut writer)?;
        let contents = self.reading()?;
        let slot = contents.slot(contents.find(scope, &id).expect("it was just written"));
        Ok(Some(contents.turn(slot, slot.latest())))
    }

    /// Erases what has expired, and says how many turns.
    pub(super) fn expire(&self) -> Result<usize, MemoryError> {
        let mut writer = self.writing()?;
        let expired = self.reading()?.expired(self.now());
        if !expired.is_empty() {
            let mut contents = self.contents.write().unwrap_or_else(PoisonError::into_inner);
            let contents = contents.as_mut().ok_or(MemoryError::NotOpen)?;
            writer.to_blank.extend(contents.remove(&expired));
        }
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
        let next = self.reading().ok()?.next_to_expire()?;
        Some(Duration::from_micros(u64::try_from(next.saturating_sub(self.now())).unwrap_or(0)))
    }

    /// A recall that is checked, and has its vector.
    pub(super) fn prepared(&self, mut recall: Recall) -> Result<Recall, MemoryError> {
        recall.check()?;
        self.check_vector("the query", recall.vector.as_deref())?;
        if recall.vector.is_none()
            && recall.weights.similarity > 0.0
            && let Some(embedder) = &self.embedder
        {
            let vectors = self.checked(embedder.embed_queries(&[&recall.text])?, 1)?;
            recall.vector = vectors.into_iter().next();
        }
        Ok(recall)
    }

    /// As many vectors as texts, which are as long as the embedder's id says.
    fn checked(&self, vectors: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vec<f32>>, MemoryError> {
        if vectors.len() != texts {
            let why = format!("{} were made of {texts} texts", vectors.len());
            return Err(MemoryError::BadVector { of: "the embedder".to_owned(), why });
        }
        vectors.iter().try_for_each(|vector| self.check_vector("the embedder", Some(vector)))?;
        Ok(vectors)
    }

    pub(super) fn check_vector(&self, of: &str, vector: Option<&[f32]>) -> Result<(), MemoryError> {
        let Some(vector) = vector else { return Ok(()) };
        let refused = |why| Err(MemoryError::BadVector { of: of.to_owned(), why });
        let Some(made_by) = &self.made_by else {
            return refused("the memory was made without an embedder".to_owned());
        };
        if vector.len() != made_by.dimensions() {
            return refused(format!("it has {} numbers, not those of {made_by}", vector.len()));
        }
        match vector.iter().position(|x| !x.is_finite()) {
            Some(at) => refused(format!("number {at} is not finite")),
            None => Ok(()),
        }
    }

    /// Has turns without a vector embedded, if they are not there already.
    fn with_vectors(&self, mut turns: Vec<(Scope, NewTurn)>) -> Result<Vec<(Scope, NewTurn)>, MemoryError> {
        if self.embedder.is_none() {
            return Ok(turns);
        }
        let is_there = {
            let contents = self.reading()?;
            let known = |(scope, turn): &(Scope, NewTurn)| {
                turn.id.as_deref().is_some_and(|id| contents.find(scope, id).is_some())
            };
            turns.iter().map(known).collect::<Vec<_>>()
        };
        let lacks = |(at, (_, turn)): &(usize, &mut (Scope, NewTurn))| turn.vector.is_none() && !is_there[*at];
        let mut lacking: Vec<&mut NewTurn> =
            turns.iter_mut().enumerate().filter(lacks).map(|(_, (_, turn))| turn).collect();
        let texts: Vec<String> = lacking.iter().map(|turn| with_role(&turn.role, &turn.text)).collect();
        let vectors = self.embed(&texts)?.unwrap_or_default();
        lacking.iter_mut().zip(vectors).for_each(|(turn, vector)| turn.vector = Some(vector));
        Ok(turns)
    }

    /// The vectors of turns, with their roles.
    pub(super) fn embed(&self, texts: &[String]) -> Result<Option<Vec<Vec<f32>>>, MemoryError> {
        match &self.embedder {
            Some(embedder) if !texts.is_empty() => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                Ok(Some(self.checked(embedder.embed_passages(&texts)?, texts.len())?))
            }
            _ => Ok(None),
        }
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

/// Whether a turn is what was appended under its id, whatever became of it since.
fn is_same(slot: &Slot, turn: &NewTurn) -> bool {
    let first = slot.states.first().and_then(|state| state.text.as_deref());
    *slot.role == *turn.role && first == Some(&*turn.text)
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
    use crate::memory::Window;
    use crate::store::log::tests::blanked_to;

    fn scope(user: &str) -> Scope {
        Scope::tenant("t").user(user)
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
