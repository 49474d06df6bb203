//! Reads a file when it is opened: what stands where, and what a crash has left half done.
//!
//! A frame that is not whole is one of three things. If nothing after it is a frame, the file was torn while the frame
//! was written: it is cut off. If a later frame says that it is to be erased, a crash came while it was: that is
//! finished. Otherwise it is a hole.
//!
//! No length in a file is believed before it is known to fit into the file, and none makes the reader allocate.

use std::collections::HashMap;
use std::io;

use super::disk::Disk;
use super::format::{Checks, FIRST, HEAD, Head, Kind, starts_frame};
use super::index::{Index, Place};

/// How much is read at once.
const WINDOW: usize = 1 << 18;

/// The bytes of one place in the body of [`Kind::Erase`].
const PLACE: usize = 12;

/// What stands in a file.
pub(super) struct Scanned {
    pub(super) index: Index,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// How many bytes after that are of a frame that was torn.
    pub(super) torn: u64,
    /// What is to be erased, and may be so in part.
    pub(super) unfinished: Vec<Place>,
}

pub(super) enum ScanError {
    Hole(u64),
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads all frames of a file.
pub(super) fn scan(disk: &dyn Disk, checks: &Checks) -> Result<Scanned, ScanError> {
    let mut reader = Reader { disk, bytes: disk.bytes()?, window: Vec::new(), start: 0 };
    let (mut index, mut erased) = (Index::default(), HashMap::new());
    let (mut unfinished, mut later) = (Vec::new(), None);
    let mut offset = HEAD as u64;
    while offset < reader.bytes {
        if let Some(head) = reader.whole(offset, checks)? {
            index.note(offset, &head);
            if head.kind == Kind::Erase {
                reader.erasures(offset, &head, &mut erased)?;
            }
            offset += head.frame();
            continue;
        }
        let later = match &later {
            Some(later) => later,
            None => later.insert(reader.later(offset, checks)?),
        };
        if let Some(&body) = later.erased.get(&offset) {
            unfinished.push(Place { offset, body });
            index.erased += 1;
            offset += HEAD as u64 + u64::from(body);
        } else if later.last > offset {
            return Err(ScanError::Hole(offset));
        } else {
            break;
        }
    }
    let left = index.at(&erased.into_keys().collect());
    index.forget(&left);
    unfinished.extend(left.into_iter().map(|(_, entry)| entry.place));
    Ok(Scanned { index, end: offset, torn: reader.bytes.saturating_sub(offset), unfinished })
}

/// The body of a frame that says that these places are to be erased.
pub(super) fn places_to_bytes(places: impl Iterator<Item = Place>) -> Vec<u8> {
    let bytes = |place: Place| place.offset.to_le_bytes().into_iter().chain(place.body.to_le_bytes());
    places.flat_map(bytes).collect()
}

/// What is found behind a frame that is not whole.
struct Later {
    /// Where the last head stands; 0 if there is none.
    last: u64,
    /// What is to be erased: the length of the body by its place.
    erased: HashMap<u64, u32>,
}

/// Reads a file from front to back.
struct Reader<'a> {
    disk: &'a dyn Disk,
    bytes: u64,
    window: Vec<u8>,
    start: u64,
}

impl Reader<'_> {
    /// The bytes from `offset` on: `most`, but no more than a window has, or than there are.
    fn at(&mut self, offset: u64, most: u64) -> io::Result<&[u8]> {
        let most = most.min(WINDOW as u64).min(self.bytes.saturating_sub(offset)) as usize;
        let inside = offset.checked_sub(self.start).is_some_and(|at| at + most as u64 <= self.window.len() as u64);
        if !inside {
            let size = (self.bytes - offset).min(WINDOW as u64) as usize;
            self.window.resize(size, 0);
            self.start = offset;
            self.disk.read_at(&mut self.window, offset)?;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.window[at..at + most])
    }

    /// The head that stands at `offset`.
    fn head(&mut self, offset: u64, checks: &Checks) -> io::Result<Option<Head>> {
        let bytes = self.at(offset, HEAD as u64)?;
        Ok(bytes.first_chunk().and_then(|bytes| checks.read_head(offset, bytes)))
    }

    /// The head that stands at `offset`, if its whole frame is as it was written.
    fn whole(&mut self, offset: u64, checks: &Checks) -> io::Result<Option<Head>> {
        let room = self.bytes - offset;
        let Some(head) = self.head(offset, checks)?.filter(|head| head.frame() <= room) else { return Ok(None) };
        let body = u64::from(head.body);
        let at = offset + HEAD as u64;
        if body <= WINDOW as u64 {
            let check = checks.body(self.at(at, body)?);
            return Ok((check == head.body_check).then_some(head));
        }
        let (mut pieces, mut read) = (checks.pieces(), 0);
        while read < body {
            let piece = self.at(at + read, body - read)?;
            pieces.add(piece);
            read += piece.len() as u64;
        }
        Ok((pieces.check() == head.body_check).then_some(head))
    }

    /// Looks for frames behind the one at `offset`, wherever they may begin.
    fn later(&mut self, offset: u64, checks: &Checks) -> io::Result<Later> {
        let mut later = Later { last: 0, erased: HashMap::new() };
        let mut at = offset + 1;
        while at < self.bytes {
            let bytes = self.at(at, WINDOW as u64)?;
            if !starts_frame(bytes) {
                // Also the first byte of a marker that the window cuts is found again, at the start of the next one.
                at += 1 + bytes[1..].iter().position(|byte| *byte == FIRST).unwrap_or(bytes.len() - 1) as u64;
                continue;
            }
            match self.head(at, checks)? {
                Some(head) => {
                    later.last = at;
                    if head.kind == Kind::Erase && self.whole(at, checks)?.is_some() {
                        self.erasures(at, &head, &mut later.erased)?;
                    }
                    at += head.frame();
                }
                None => at += 1,
            }
        }
        Ok(later)
    }

    fn erasures(&mut self, at: u64, head: &Head, erased: &mut HashMap<u64, u32>) -> io::Result<()> {
        let (mut from, end) = (at + HEAD as u64, at + head.frame());
        while from + PLACE as u64 <= end {
            let bytes = self.at(from, PLACE as u64)?;
            let (offset, body) = bytes.split_at(8);
            let offset = u64::from_le_bytes(*offset.first_chunk().expect("a place has 12 bytes"));
            let body = u32::from_le_bytes(*body.first_chunk().expect("a place has 12 bytes"));
            if offset >= HEAD as u64 && offset.saturating_add(HEAD as u64 + u64::from(body)) <= at {
                erased.insert(offset, body);
            }
            from += PLACE as u64;
        }
        Ok(())
    }
}
