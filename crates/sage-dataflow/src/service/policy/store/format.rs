//! The format of a file of answers: a header, then frames, one after another.
//!
//! A header has [`HEAD`] bytes: a magic word, the version, the kind of file, the secret, a check. So has the head of a
//! frame: a marker and the frame's kind, the length of the body, when it was written, the call's key, the tag's hash,
//! the body's check, and the head's own check, which its place in the file is part of. So what is copied to another
//! place, or stands in an answer, is never taken for a frame. Numbers are little-endian.

use std::time::SystemTime;

use super::super::key::{CallKey, Secret, TagKey};

/// The bytes of a header, and of the head of a frame.
pub(super) const HEAD: usize = 64;

const MAGIC: [u8; 8] = *b"sagecall";
const VERSION: u32 = 1;
const MARKER: [u8; 3] = [0xf5, b's', b'g'];

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum FileKind {
    Journal = 1,
    Cache = 2,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// The answer of a call: the body.
    Answer = 1,
    /// A call goes out.
    Begun = 2,
    /// A call that went out has ended without an answer.
    Ended = 3,
    /// The answers of a tag are to be erased: the body says where they stand.
    Erase = 4,
    /// Here was an answer. The body is zeros.
    Erased = 5,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) body: u32,
    /// In milliseconds since 1970.
    pub(super) written_at: u64,
    pub(super) key: CallKey,
    pub(super) tag: Option<TagKey>,
    pub(super) body_check: u64,
}

/// What a header says of its file.
pub(super) enum Header {
    Of(Secret),
    /// The file ends inside its header: it was just being made.
    Torn,
    Foreign,
    Newer(u32),
    Damaged,
}

pub(super) fn header(kind: FileKind, secret: &Secret) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes[16..48].copy_from_slice(secret.bytes());
    let check = short(&blake3::hash(&bytes[..56]));
    bytes[56..].copy_from_slice(&check.to_le_bytes());
    bytes
}

pub(super) fn read_header(kind: FileKind, bytes: &[u8]) -> Header {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Header::Foreign;
    }
    let Some(bytes) = bytes.first_chunk::<HEAD>() else { return Header::Torn };
    match u32_at(bytes, 8) {
        VERSION => {}
        newer => return Header::Newer(newer),
    }
    if u64_at(bytes, 56) != short(&blake3::hash(&bytes[..56])) {
        return Header::Damaged;
    }
    if u32_at(bytes, 12) != kind as u32 {
        return Header::Foreign;
    }
    Header::Of(Secret::from_bytes(array_at(bytes, 16)))
}

/// Writes and checks frames.
#[derive(Clone)]
pub(super) struct Checks {
    heads: [u8; 32],
    bodies: [u8; 32],
}

impl Checks {
    pub(super) fn of(secret: &Secret) -> Self {
        Self { heads: secret.derive("head", &[]), bodies: secret.derive("body", &[]) }
    }

    /// The bytes of a head that stands at `offset`.
    pub(super) fn head(&self, offset: u64, head: &Head) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..3].copy_from_slice(&MARKER);
        bytes[3] = head.kind as u8;
        bytes[4..8].copy_from_slice(&head.body.to_le_bytes());
        bytes[8..16].copy_from_slice(&head.written_at.to_le_bytes());
        bytes[16..32].copy_from_slice(&head.key.0);
        bytes[32..48].copy_from_slice(&head.tag.map_or([0; CallKey::BYTES], |tag| tag.0));
        bytes[48..56].copy_from_slice(&head.body_check.to_le_bytes());
        let check = self.check_of_head(offset, &bytes);
        bytes[56..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// The head that stands at `offset`, if it is one.
    pub(super) fn read_head(&self, offset: u64, bytes: &[u8; HEAD]) -> Option<Head> {
        if !starts_frame(bytes) || u64_at(bytes, 56) != self.check_of_head(offset, bytes) {
            return None;
        }
        let kinds = [Kind::Answer, Kind::Begun, Kind::Ended, Kind::Erase, Kind::Erased];
        let tag: [u8; CallKey::BYTES] = array_at(bytes, 32);
        Some(Head {
            kind: kinds.into_iter().find(|kind| *kind as u8 == bytes[3])?,
            body: u32_at(bytes, 4),
            written_at: u64_at(bytes, 8),
            key: CallKey(array_at(bytes, 16)),
            tag: (tag != [0; CallKey::BYTES]).then_some(TagKey(tag)),
            body_check: u64_at(bytes, 48),
        })
    }

    /// The check of a body.
    pub(super) fn body(&self, body: &[u8]) -> u64 {
        short(&blake3::keyed_hash(&self.bodies, body))
    }

    /// The check of a body that comes in pieces.
    pub(super) fn pieces(&self) -> Pieces {
        Pieces(blake3::Hasher::new_keyed(&self.bodies))
    }

    fn check_of_head(&self, offset: u64, bytes: &[u8; HEAD]) -> u64 {
        let mut checked = *bytes;
        checked[56..].copy_from_slice(&offset.to_le_bytes());
        short(&blake3::keyed_hash(&self.heads, &checked))
    }
}

pub(super) struct Pieces(blake3::Hasher);

impl Pieces {
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(super) fn check(&self) -> u64 {
        short(&self.0.finalize())
    }
}

impl Head {
    /// Of a frame of `kind` with this body.
    pub(super) fn of(kind: Kind, key: CallKey, tag: Option<TagKey>, body: u32, body_check: u64) -> Self {
        Self { kind, body, written_at: millis(SystemTime::now()), key, tag, body_check }
    }

    /// The bytes of the whole frame.
    pub(super) fn frame(&self) -> u64 {
        HEAD as u64 + u64::from(self.body)
    }
}

/// Whether a frame may start here.
pub(super) fn starts_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MARKER)
}

/// The first byte of every frame.
pub(super) const FIRST: u8 = MARKER[0];

/// Milliseconds since 1970; 0 before.
pub(in super::super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn short(hash: &blake3::Hash) -> u64 {
    u64_at(hash.as_bytes(), 0)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("callers name fields inside of a head")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
