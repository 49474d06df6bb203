//! Frames on a stream between two processes: what is read in pieces becomes frames, and a frame becomes what is
//! written.
//!
//! A frame is a head of 16 bytes (version, kind, two zeros, the number of its parts as four bytes, an id of eight), the
//! length of each part as eight bytes, of which the highest bit says that it is to be writable, and the parts. Numbers
//! are little-endian. A frame that says that it has more than [`MOST_PARTS`], or more bytes than [`MOST_BYTES`], ends
//! the connection. What a large part says to have is reserved; memory is taken as its bytes come.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;

/// Changes with the format of frames and what they mean: both sides have to have the same.
pub(crate) const VERSION: u8 = 2;

/// A batch has up to 4,096 records, and each may have some buffers.
pub(crate) const MOST_PARTS: usize = 1 << 16;

/// So many bytes in all parts of a frame.
pub(crate) const MOST_BYTES: u64 = 4 << 30;

pub(crate) const HEAD: usize = 16;

/// How much is read at a time of what is small.
pub(crate) const PIECE: usize = 128 << 10;

/// A part of so many bytes is a large one: it is read to where it stays.
pub(crate) const LARGE: usize = 64 << 10;

/// Of the length of a part: that it is to be writable.
const WRITABLE: u64 = 1 << 63;

/// Where a large part stays.
pub(crate) trait Room: Sized {
    /// Room for so many bytes.
    fn new(length: usize, is_writable: bool) -> io::Result<Self>;

    /// All of it, of which nothing else has any part until it is filled.
    fn bytes(&mut self) -> &mut [MaybeUninit<u8>];
}

/// A part that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<R> {
    Small(Vec<u8>, Span),
    Large(R),
}

/// How long a part is, and whether it is to be writable where it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) length: usize,
    pub(crate) is_writable: bool,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<R> {
    pub(crate) kind: u8,
    pub(crate) id: u64,
    pub(crate) parts: Vec<Part<R>>,
}

/// What goes before the parts.
pub(crate) fn head(kind: u8, id: u64, parts: &[Span]) -> Result<Vec<u8>, String> {
    let bytes: u64 = parts.iter().map(|part| part.length as u64).sum();
    if bytes > MOST_BYTES {
        return Err(format!("{bytes} bytes are too many for one frame, which has at most {MOST_BYTES}"));
    }
    let Some(count) = u32::try_from(parts.len()).ok().filter(|count| *count as usize <= MOST_PARTS) else {
        return Err(format!("{} buffers are too many for one frame, which has at most {MOST_PARTS}", parts.len()));
    };
    let mut head = Vec::with_capacity(HEAD + parts.len() * 8);
    head.extend([VERSION, kind, 0, 0]);
    head.extend(count.to_le_bytes());
    head.extend(id.to_le_bytes());
    let told = |part: &Span| part.length as u64 | if part.is_writable { WRITABLE } else { 0 };
    parts.iter().for_each(|part| head.extend(told(part).to_le_bytes()));
    Ok(head)
}

/// Puts together what is read.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    /// What was read and is not in a frame yet: from `at` to `end`.
    read: Vec<u8>,
    at: usize,
    end: usize,
    /// The frame whose parts are read, if one has begun.
    frame: Option<Frame<R>>,
    /// How much was read of its last part, and what parts are not there yet, the next one last: that is the one which
    /// is read.
    filled: usize,
    spans: Vec<Span>,
    ready: VecDeque<Frame<R>>,
}

impl<R> Default for Reader<R> {
    fn default() -> Self {
        let (read, spans, ready) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { read, at: 0, end: 0, frame: None, filled: 0, spans, ready }
    }
}

impl<R: Room> Reader<R> {
    /// The next frame.
    pub(crate) fn next(&mut self) -> Option<Frame<R>> {
        self.ready.pop_front()
    }

    /// Whether there is one.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads once by `read`, which is given room and says how much of it it has filled; returns that.
    pub(crate) fn fill(&mut self, read: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<usize>) -> io::Result<usize> {
        let part = self.frame.as_mut().and_then(|frame| frame.parts.last_mut());
        let count = match part {
            Some(Part::Large(room)) if self.at == self.end => {
                let count = read(&mut room.bytes()[self.filled..])?;
                self.filled += count;
                count
            }
            _ => {
                self.read.copy_within(self.at..self.end, 0);
                (self.at, self.end) = (0, self.end - self.at);
                if self.end == self.read.len() {
                    self.read.resize(self.end + PIECE, 0);
                }
                let count = read(written_only(&mut self.read[self.end..]))?;
                self.end += count;
                count
            }
        };
        self.parse()?;
        Ok(count)
    }

    fn parse(&mut self) -> io::Result<()> {
        loop {
            if self.frame.is_none() && !self.begin()? {
                return Ok(());
            }
            let Some(frame) = &mut self.frame else { return Ok(()) };
            while let Some(Span { length, .. }) = self.spans.last().copied() {
                let left = &self.read[self.at..self.end];
                let count = left.len().min(length - self.filled);
                match frame.parts.last_mut() {
                    Some(Part::Small(part, _)) => part.extend_from_slice(&left[..count]),
                    Some(Part::Large(room)) => {
                        room.bytes()[self.filled..][..count].write_copy_of_slice(&left[..count]);
                    }
                    None => {}
                }
                (self.at, self.filled) = (self.at + count, self.filled + count);
                if self.filled < length {
                    return Ok(());
                }
                self.filled = 0;
                self.spans.pop();
                if let Some(next) = self.spans.last() {
                    frame.parts.push(Part::new(*next)?);
                }
            }
            self.ready.extend(self.frame.take());
        }
    }

    /// Begins a frame, if its head is there.
    fn begin(&mut self) -> io::Result<bool> {
        let left = &self.read[self.at..self.end];
        let Some((head, rest)) = left.split_first_chunk::<HEAD>() else { return Ok(false) };
        let [version, kind, zero, nought, a, b, c, d, id @ ..] = *head;
        let count = u32::from_le_bytes([a, b, c, d]) as usize;
        if version != VERSION || zero != 0 || nought != 0 {
            return Err(refused(format!("this is no frame of version {VERSION}: {head:02x?}")));
        }
        if count > MOST_PARTS {
            return Err(refused(format!("a frame says that it has {count} parts")));
        }
        let Some(lengths) = rest.get(..count * 8) else { return Ok(false) };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let told: Vec<u64> = lengths.as_chunks().0.iter().map(number).collect();
        let bytes = told.iter().try_fold(0u64, |all, told| all.checked_add(told & !WRITABLE));
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            return Err(refused("a frame says that it has more bytes than one may have".to_owned()));
        }
        self.at += HEAD + count * 8;
        let span = |told: u64| Span { length: (told & !WRITABLE) as usize, is_writable: told & WRITABLE != 0 };
        self.spans = told.into_iter().rev().map(span).collect();
        let mut parts = Vec::with_capacity(count);
        if let Some(first) = self.spans.last() {
            parts.push(Part::new(*first)?);
        }
        self.frame = Some(Frame { kind, id: u64::from_le_bytes(id), parts });
        Ok(true)
    }
}

impl<R: Room> Part<R> {
    fn new(span: Span) -> io::Result<Self> {
        if span.length < LARGE {
            return Ok(Self::Small(Vec::with_capacity(span.length), span));
        }
        R::new(span.length, span.is_writable).map(Self::Large)
    }
}

/// Bytes, for who only writes to them.
fn written_only(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layout is the same; what is written by safe code is initialised, and the only code that is not writes
    // bytes which came.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
