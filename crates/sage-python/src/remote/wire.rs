//! Frames on a stream between two processes: what is read in pieces becomes frames, and a frame becomes what is
//! written.
//!
//! A frame is a head of 16 bytes (version, kind, two zeros, the number of its parts as four bytes, an id of eight), the
//! length of each part as eight bytes, and the parts. Numbers are little-endian. A frame that says that it has more
//! than [`MOST_PARTS`], or more bytes than [`MOST_BYTES`], ends the connection; memory is taken as its bytes come, and
//! not by what it says.

use std::collections::VecDeque;
use std::io;

/// Changes with the format of frames and what they mean: both sides have to have the same.
pub(crate) const VERSION: u8 = 1;

/// A batch has up to 4,096 records, and each may have some buffers.
pub(crate) const MOST_PARTS: usize = 1 << 16;

/// So many bytes in all parts of a frame.
pub(crate) const MOST_BYTES: u64 = 4 << 30;

const HEAD: usize = 16;

/// How much is read at a time of what is small, and how much room for a part is made at a time.
const PIECE: usize = 128 << 10;

/// How much is read at a time of what is large: sockets hold less.
const MOST_AT_ONCE: usize = 1 << 20;

/// Room is made by a copy of these, which is fast in every build.
static ROOM: [u8; MOST_AT_ONCE] = [0; MOST_AT_ONCE];

/// What came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) id: u64,
    pub(crate) parts: Vec<Vec<u8>>,
}

/// What goes before the parts.
pub(crate) fn head(kind: u8, id: u64, lengths: &[usize]) -> Result<Vec<u8>, String> {
    let bytes: u64 = lengths.iter().map(|length| *length as u64).sum();
    if bytes > MOST_BYTES {
        return Err(format!("{bytes} bytes are too many for one frame, which has at most {MOST_BYTES}"));
    }
    let Some(count) = u32::try_from(lengths.len()).ok().filter(|count| *count as usize <= MOST_PARTS) else {
        return Err(format!("{} buffers are too many for one frame, which has at most {MOST_PARTS}", lengths.len()));
    };
    let mut head = Vec::with_capacity(HEAD + lengths.len() * 8);
    head.extend([VERSION, kind, 0, 0]);
    head.extend(count.to_le_bytes());
    head.extend(id.to_le_bytes());
    lengths.iter().for_each(|length| head.extend((*length as u64).to_le_bytes()));
    Ok(head)
}

/// Puts together what is read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What was read and is not in a frame yet: from `at` to `end`.
    read: Vec<u8>,
    at: usize,
    end: usize,
    /// The frame whose parts are read, how much of the last of these was read, behind which there may be room, and the
    /// lengths of those that are not there yet, the next one last.
    frame: Frame,
    filled: usize,
    lengths: Vec<usize>,
    is_inside: bool,
    ready: VecDeque<Frame>,
}

impl Reader {
    /// The next frame.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    /// Whether there is one.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether nothing of a frame was read that is not there as a whole.
    #[cfg(test)]
    pub(crate) fn is_between(&self) -> bool {
        !self.is_inside && self.at == self.end
    }

    /// Reads once by `read`, which is given room and says how much of it it has filled; returns that.
    pub(crate) fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let missing = match self.lengths.last() {
            Some(length) if self.is_inside => length - self.filled,
            _ => 0,
        };
        let count = match self.frame.parts.last_mut() {
            // What is left of a large part goes where it is to be.
            Some(part) if missing >= PIECE && self.at == self.end => {
                if part.len() == self.filled {
                    part.extend_from_slice(&ROOM[..missing.min(MOST_AT_ONCE)]);
                }
                let count = read(&mut part[self.filled..])?;
                self.filled += count;
                count
            }
            _ => {
                self.read.copy_within(self.at..self.end, 0);
                (self.at, self.end) = (0, self.end - self.at);
                if self.end == self.read.len() {
                    self.read.resize(self.end + PIECE, 0);
                }
                let count = read(&mut self.read[self.end..])?;
                self.end += count;
                count
            }
        };
        self.parse()?;
        Ok(count)
    }

    fn parse(&mut self) -> io::Result<()> {
        loop {
            if !self.is_inside && !self.begin()? {
                return Ok(());
            }
            while let Some(length) = self.lengths.last() {
                let Some(part) = self.frame.parts.last_mut() else { break };
                let left = &self.read[self.at..self.end];
                let count = left.len().min(length - self.filled);
                if count > 0 {
                    part.truncate(self.filled);
                    part.extend_from_slice(&left[..count]);
                    (self.at, self.filled) = (self.at + count, self.filled + count);
                }
                if self.filled < *length {
                    return Ok(());
                }
                self.filled = 0;
                self.lengths.pop();
                if !self.lengths.is_empty() {
                    self.frame.parts.push(Vec::new());
                }
            }
            self.is_inside = false;
            self.ready.push_back(std::mem::take(&mut self.frame));
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
        let lengths: Vec<u64> = lengths.as_chunks().0.iter().map(number).collect();
        let bytes = lengths.iter().try_fold(0u64, |all, length| all.checked_add(*length));
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            return Err(refused("a frame says that it has more bytes than one may have".to_owned()));
        }
        self.at += HEAD + count * 8;
        self.lengths = lengths.into_iter().rev().map(|length| length as usize).collect();
        self.frame = Frame { kind, id: u64::from_le_bytes(id), parts: Vec::with_capacity(count) };
        if count > 0 {
            self.frame.parts.push(Vec::new());
        }
        self.is_inside = true;
        Ok(true)
    }
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: &Frame) -> Vec<u8> {
        let lengths: Vec<_> = frame.parts.iter().map(Vec::len).collect();
        let mut bytes = head(frame.kind, frame.id, &lengths).expect("it is small");
        frame.parts.iter().for_each(|part| bytes.extend(part));
        bytes
    }

    fn read(mut bytes: &[u8], piece: usize) -> io::Result<Vec<Frame>> {
        let (mut reader, mut frames) = (Reader::default(), Vec::new());
        while !bytes.is_empty() {
            reader.fill(|room| {
                let count = piece.min(room.len()).min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                Ok(count)
            })?;
            frames.extend(std::iter::from_fn(|| reader.next()));
        }
        assert!(reader.is_between());
        Ok(frames)
    }

    #[test]
    fn frames_are_read_as_they_were_written_in_whatever_pieces_they_come() {
        let part = |length: usize, byte: u8| (0..length).map(|at| byte.wrapping_add(at as u8)).collect::<Vec<_>>();
        let frames = [
            Frame { kind: 3, id: 7, parts: vec![part(5, 1), Vec::new(), part(3 * PIECE + 1, 9)] },
            Frame { kind: 1, id: u64::MAX, parts: Vec::new() },
            Frame { kind: 2, id: 0, parts: vec![part(PIECE, 4), part(1, 2)] },
            Frame { kind: 9, id: 1, parts: vec![Vec::new()] },
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(written).collect();
        for piece in [1000, 4096, PIECE, PIECE + 1, usize::MAX] {
            assert_eq!(read(&bytes, piece).expect("they are frames"), frames, "in pieces of {piece}");
        }
        let short: Vec<u8> = frames[1..2].iter().chain(&frames[3..]).flat_map(written).collect();
        assert_eq!(read(&short, 1).expect("they are frames").len(), 2);
    }

    #[test]
    fn what_is_no_frame_is_refused_and_takes_no_memory() {
        let refused = |bytes: &[u8]| read(bytes, usize::MAX).expect_err("it is no frame").to_string();
        assert!(refused(b"GET / HTTP/1.1\r\n\r\n").contains("no frame of version"));
        let mut many = head(1, 1, &[]).expect("it is small");
        many[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(&many).contains("4294967295 parts"));
        let mut large = head(1, 1, &[0, 0]).expect("it is small");
        large[HEAD..].fill(0xFF);
        assert!(refused(&large).contains("more bytes"));
        assert!(head(1, 1, &[5 << 30]).is_err());
    }
}
