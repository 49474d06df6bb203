//! Answers in a file that is only appended to: what a journal and a cache on disk are made of.
//!
//! Invariants:
//!  1. An answer that [`Store::append`] has taken is in the file: it outlives the process, and with `sync` the machine.
//!     An answer that [`Store::get`] gives is so as well.
//!  2. Frames stand one after another without gaps. A frame that could be written only in part is cut off.
//!  3. What is to be erased is said in the file before the first byte is overwritten. Opening finishes it.
//!
//! Lock order: `syncing`, then `state`. `state` is held while a frame is written, which takes microseconds; nothing of
//! a user's runs inside. Knows nothing of answers' types.

mod disk;
mod error;
mod format;
mod index;
mod scan;

use std::io;
use std::path::{Path, PathBuf};

pub(super) use disk::{Disk, Folder};
pub use error::StoreError;
use format::{Checks, HEAD, Head, Header, header, read_header};
pub(super) use format::{FileKind, Kind, millis};
use index::{Entry, Index, Place};
use scan::{ScanError, places_to_bytes, scan};

use super::key::{CallKey, Secret, TagKey};
use super::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// Answers in a file.
pub(super) struct Store<D> {
    path: PathBuf,
    kind: FileKind,
    secret: Secret,
    checks: Checks,
    limit: u64,
    /// Whether answers have to outlive the machine.
    syncs: bool,
    state: Mutex<State<D>>,
    /// Up to where the file is on the medium.
    synced: AtomicU64,
    /// Held by the one that waits for the medium. Those that wait for this lock are often done when they have it.
    syncing: Mutex<()>,
    torn: u64,
}

struct State<D> {
    disk: Arc<D>,
    index: Index,
    /// Where the next frame goes.
    end: u64,
    /// Nobody knows what a write that failed has left.
    is_broken: bool,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) torn: u64,
    pub(super) erased: u64,
}

/// How much of an erasure is written at once.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl<D: Disk> Store<D> {
    /// Opens a file, and puts right what a crash has left in it. One that is empty gets a header. `limit` is the most
    /// bytes of an answer.
    pub(super) fn open(disk: D, path: &Path, kind: FileKind, syncs: bool, limit: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: path.to_owned(), source };
        let mut start = [0; HEAD];
        let known = disk.bytes().map_err(failed)?.min(HEAD as u64) as usize;
        disk.read_at(&mut start[..known], 0).map_err(failed)?;
        let secret = match read_header(kind, &start[..known]) {
            Header::Of(secret) => secret,
            Header::Torn => begin(&disk, kind, syncs).map_err(failed)?,
            Header::Foreign => return Err(StoreError::Foreign { path: path.to_owned() }),
            Header::Newer(version) => return Err(StoreError::Newer { path: path.to_owned(), version }),
            Header::Damaged => return Err(StoreError::Damaged { path: path.to_owned(), offset: 0 }),
        };
        let checks = Checks::of(&secret);
        let scanned = scan(&disk, &checks).map_err(|error| match error {
            ScanError::Hole(offset) => StoreError::Damaged { path: path.to_owned(), offset },
            ScanError::Io(source) => failed(source),
        })?;
        if scanned.torn > 0 {
            disk.cut(scanned.end).map_err(failed)?;
        }
        erase(&disk, &checks, &scanned.unfinished).map_err(failed)?;
        if syncs {
            disk.sync().map_err(failed)?;
        }
        let state = State { disk: Arc::new(disk), index: scanned.index, end: scanned.end, is_broken: false };
        Ok(Self {
            path: path.to_owned(),
            kind,
            secret,
            checks,
            limit,
            syncs,
            state: Mutex::new(state),
            synced: AtomicU64::new(scanned.end),
            syncing: Mutex::new(()),
            torn: scanned.torn,
        })
    }

    /// What its keys are hashed under.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Appends a frame. Returns when an answer can no longer be lost.
    pub(super) fn append(&self, kind: Kind, key: CallKey, tag: Option<TagKey>, body: &[u8]) -> Result<(), StoreError> {
        let length = match u32::try_from(body.len()) {
            Ok(length) if u64::from(length) <= self.limit => length,
            _ => return Err(StoreError::TooLarge { bytes: body.len() as u64, limit: self.limit }),
        };
        let head = Head::of(kind, key, tag, length, self.checks.body(body));
        let mut frame = Vec::with_capacity(HEAD + body.len());
        frame.extend([0; HEAD]);
        frame.extend(body);
        let end = {
            let mut state = lock(&self.state);
            self.write(&mut state, &head, &mut frame)?;
            state.end
        };
        if kind == Kind::Answer { self.wait_synced(end) } else { Ok(()) }
    }

    /// The answer of a call, and when it was written.
    pub(super) fn get(&self, key: CallKey) -> Result<Option<(Vec<u8>, u64)>, StoreError> {
        loop {
            let state = lock(&self.state);
            let Some(&Entry { place, written_at, .. }) = state.index.answers.get(&key) else { return Ok(None) };
            let disk = state.disk.clone();
            drop(state);
            self.wait_synced(place.offset + HEAD as u64 + u64::from(place.body))?;
            if let Some(body) = self.read(&*disk, key, place)? {
                return Ok(Some((body, written_at)));
            }
            // It may have been erased, or replaced, meanwhile.
            let is_there = {
                let state = lock(&self.state);
                Arc::ptr_eq(&disk, &state.disk) && state.index.answers.get(&key).is_some_and(|now| now.place == place)
            };
            if is_there {
                return Err(StoreError::Damaged { path: self.path.clone(), offset: place.offset });
            }
        }
    }

    /// Erases the answers of a tag, and those that they have replaced, and says how many. They are missing at once;
    /// when this returns, their bytes are nowhere in the file.
    pub(super) fn erase(&self, tag: TagKey) -> Result<u64, StoreError> {
        let mut state = lock(&self.state);
        let answers = state.index.tagged(tag);
        if answers.is_empty() {
            return Ok(0);
        }
        let places: Vec<Place> = answers.iter().map(|(_, entry)| entry.place).collect();
        let body = places_to_bytes(places.iter().copied());
        let nobody = CallKey([0; CallKey::BYTES]);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let head = Head::of(Kind::Erase, nobody, Some(tag), length, self.checks.body(&body));
        let mut frame = vec![0; HEAD];
        frame.extend(body);
        self.write(&mut state, &head, &mut frame)?;
        state.index.forget(&answers);
        let disk = state.disk.clone();
        drop(state);
        // It has to be known what is erased before it is; and gone means gone from the medium.
        let erased = disk.sync().and_then(|()| erase(&*disk, &self.checks, &places)).and_then(|()| disk.sync());
        erased.map_err(|source| StoreError::Io { path: self.path.clone(), source })?;
        Ok(places.len() as u64)
    }

    /// The calls that went out and have not ended.
    pub(super) fn begun(&self) -> Vec<CallKey> {
        lock(&self.state).index.begun.iter().copied().collect()
    }

    pub(super) fn size(&self) -> Size {
        let State { index, end, .. } = &*lock(&self.state);
        Size { entries: index.answers.len() as u64, bytes: *end, torn: self.torn, erased: index.erased }
    }

    /// Writes the newest answers, up to `most` bytes of them, to a new file, which then takes the place of this one:
    /// `made` makes it, and `put` puts it there.
    pub(super) fn rewrite(
        &self,
        most: u64,
        made: impl FnOnce() -> Result<D, StoreError>,
        put: impl FnOnce(&D) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { path: self.path.clone(), source };
        let mut state = lock(&self.state);
        let mut kept: Vec<(CallKey, Place)> = Vec::new();
        let mut newest: Vec<_> = state.index.answers.iter().map(|(key, entry)| (*key, entry.place)).collect();
        newest.sort_unstable_by_key(|(_, place)| std::cmp::Reverse(place.offset));
        let mut bytes = 0;
        for (key, place) in newest {
            bytes += HEAD as u64 + u64::from(place.body);
            if bytes > most {
                break;
            }
            kept.push((key, place));
        }
        let new = made()?;
        new.write_at(&header(self.kind, &self.secret), 0).map_err(failed)?;
        let (mut index, mut end) = (Index::default(), HEAD as u64);
        for (_, place) in kept.into_iter().rev() {
            // What is damaged is left behind.
            let Some((head, mut frame)) = self.read_frame(&*state.disk, place)? else { continue };
            frame[..HEAD].copy_from_slice(&self.checks.head(end, &head));
            new.write_at(&frame, end).map_err(failed)?;
            index.note(end, &head);
            end += head.frame();
        }
        put(&new).map_err(failed)?;
        index.erased = state.index.erased;
        *state = State { disk: Arc::new(new), index, end, is_broken: false };
        Ok(())
    }

    /// Writes a frame, whose first bytes are left for its head.
    fn write(&self, state: &mut MutexGuard<'_, State<D>>, head: &Head, frame: &mut [u8]) -> Result<(), StoreError> {
        if state.is_broken {
            return Err(StoreError::Broken { path: self.path.clone() });
        }
        let offset = state.end;
        frame[..HEAD].copy_from_slice(&self.checks.head(offset, head));
        if let Err(source) = state.disk.write_at(frame, offset) {
            state.is_broken = state.disk.cut(offset).is_err();
            let path = self.path.clone();
            return Err(if error::is_full(&source) {
                StoreError::Full { path, source }
            } else {
                StoreError::Io { path, source }
            });
        }
        state.index.note(offset, head);
        state.end += head.frame();
        Ok(())
    }

    /// Waits until the file is on the medium up to `end`, if it has to be. One call to the system serves all that wait.
    fn wait_synced(&self, end: u64) -> Result<(), StoreError> {
        if !self.syncs || self.synced.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        let _turn = lock(&self.syncing);
        if self.synced.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        let (disk, end, is_broken) = {
            let state = lock(&self.state);
            (state.disk.clone(), state.end, state.is_broken)
        };
        if is_broken {
            return Err(StoreError::Broken { path: self.path.clone() });
        }
        if let Err(source) = disk.sync() {
            // The system may have dropped what it could not write: to ask again would be answered with yes.
            lock(&self.state).is_broken = true;
            return Err(StoreError::Io { path: self.path.clone(), source });
        }
        self.synced.store(end, Ordering::Release);
        Ok(())
    }

    /// The answer that stands there; `None` if it is another one, or none.
    fn read(&self, disk: &D, key: CallKey, place: Place) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source| StoreError::Io { path: self.path.clone(), source };
        let mut start = [0; HEAD];
        disk.read_at(&mut start, place.offset).map_err(failed)?;
        let head = self.checks.read_head(place.offset, &start);
        let Some(head) = head.filter(|head| head.kind == Kind::Answer && head.key == key && head.body == place.body)
        else {
            return Ok(None);
        };
        let mut body = vec![0; place.body as usize];
        disk.read_at(&mut body, place.offset + HEAD as u64).map_err(failed)?;
        Ok((self.checks.body(&body) == head.body_check).then_some(body))
    }

    fn read_frame(&self, disk: &D, place: Place) -> Result<Option<(Head, Vec<u8>)>, StoreError> {
        let mut frame = vec![0; HEAD + place.body as usize];
        let failed = |source| StoreError::Io { path: self.path.clone(), source };
        disk.read_at(&mut frame, place.offset).map_err(failed)?;
        let (start, body) = frame.split_first_chunk().expect("a frame has a head");
        let head = self.checks.read_head(place.offset, start);
        let head = head.filter(|head| head.body == place.body && head.body_check == self.checks.body(body));
        Ok(head.map(|head| (head, frame)))
    }
}

/// Makes an empty file of it.
fn begin(disk: &dyn Disk, kind: FileKind, syncs: bool) -> io::Result<Secret> {
    let secret = Secret::random()?;
    disk.cut(0)?;
    disk.write_at(&header(kind, &secret), 0)?;
    if syncs { disk.sync().map(|()| secret) } else { Ok(secret) }
}

/// Overwrites frames with frames of the same lengths that have nothing in them.
fn erase(disk: &dyn Disk, checks: &Checks, places: &[Place]) -> io::Result<()> {
    for place in places {
        let (mut pieces, body, mut written) = (checks.pieces(), place.body as usize, 0);
        while written < body {
            let piece = &ZEROS[..ZEROS.len().min(body - written)];
            disk.write_at(piece, place.offset + (HEAD + written) as u64)?;
            pieces.add(piece);
            written += piece.len();
        }
        let nobody = CallKey([0; CallKey::BYTES]);
        let head = Head { written_at: 0, ..Head::of(Kind::Erased, nobody, None, place.body, pieces.check()) };
        disk.write_at(&checks.head(place.offset, &head), place.offset)?;
    }
    if places.is_empty() { Ok(()) } else { disk.sync() }
}
