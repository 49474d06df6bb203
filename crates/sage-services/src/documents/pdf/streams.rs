//! Bounds what the streams of a PDF file unpack to, before a reader unpacks them whole.
//!
//! Pictures and attached files are the bulk of many files, and none of their text: they are wiped, so that they never
//! unpack. All other streams are unpacked here without being kept, and counted. What is packed in a way that is not
//! read here counts as 128 times its size.
//!
//! Streams are found by their keywords, so that a broken table of contents hides none.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::DeflateDecoder;
use memchr::memmem;

/// How many streams may lack their end. A reader searches the rest of the file for each.
const MAX_OPEN_STREAMS: usize = 1_000;
/// How far before a stream its dictionary is looked for, in bytes.
const MAX_DICTIONARY_BYTES: usize = 4_096;
/// What a packed stream that cannot be counted is taken to unpack to, in multiples of its size.
const UNKNOWN_RATIO: u64 = 128;
/// How often a stream may be packed again.
const MAX_LAYERS: usize = 8;

/// Why a file is not given to a reader.
pub(super) enum Unbound {
    TooMuch,
    /// Too many streams lack their end.
    Open,
}

/// Wipes pictures and attached files. Fails if the other streams of a file unpack to more than `max_bytes` together.
pub(super) fn bound(file: &mut [u8], max_bytes: u64) -> Result<(), Unbound> {
    let starts: Vec<usize> = memmem::find_iter(file, "stream").filter(|&at| !file[..at].ends_with(b"end")).collect();
    let ends: Vec<usize> = memmem::find_iter(file, "endstream").collect();
    let mut left = max_bytes;
    let mut open = 0;
    for (index, &start) in starts.iter().enumerate() {
        let before = index.checked_sub(1).map_or(0, |index| starts[index] + "stream".len());
        let dictionary = &file[before.max(start.saturating_sub(MAX_DICTIONARY_BYTES))..start];
        let dictionary = &dictionary[memmem::rfind(dictionary, b"obj").unwrap_or(0)..];
        let data = start + "stream".len();
        let data = data + file[data..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let end = ends.get(ends.partition_point(|&end| end < data)).copied().unwrap_or(file.len());
        let next = starts.get(index + 1).map_or(file.len(), |&next| next.max(data));
        open += usize::from(end > next);
        if open > MAX_OPEN_STREAMS {
            return Err(Unbound::Open);
        }
        if is_no_text(dictionary) {
            file[data..end.min(next)].fill(0);
        } else if holds(dictionary, "Filter") || holds(dictionary, "#") {
            left = left.checked_sub(unpacked_bytes(&file[data..], end - data, left)).ok_or(Unbound::TooMuch)?;
        } else {
            left = left.checked_sub((end.min(next) - data) as u64).ok_or(Unbound::TooMuch)?;
        }
    }
    Ok(())
}

fn holds(dictionary: &[u8], what: &str) -> bool {
    memmem::find(dictionary, what.as_bytes()).is_some()
}

/// Whether a stream can be nothing else than a picture or another file: names may be written with `#`.
fn is_no_text(dictionary: &[u8]) -> bool {
    let says = |key: &str, value: &str| {
        memmem::find_iter(dictionary, key).any(|at| {
            let after = dictionary[at + key.len()..].trim_ascii_start();
            let rest = after.strip_prefix(value.as_bytes());
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()))
        })
    };
    let can_be_text = ["#", "/ObjStm", "/XRef", "/Form"].iter().any(|other| holds(dictionary, other));
    !can_be_text && (says("/Subtype", "/Image") || says("/Type", "/EmbeddedFile"))
}

/// How much a stream unpacks to, in all its layers; any number above `limit` if it is more. Packed data may hold the
/// keyword that ends a stream, so the first `length` bytes of `packed` may not be all of it.
fn unpacked_bytes(packed: &[u8], length: usize, limit: u64) -> u64 {
    let mut total: u64 = 0;
    let mut layer = Cow::Borrowed(packed);
    let mut length = length;
    for _ in 0..MAX_LAYERS {
        let (next, more) = match &layer[..] {
            [method, flags, deflated @ ..] if is_zlib(*method, *flags) => inflated(deflated, length, limit - total),
            text if text[..length].iter().all(u8::is_ascii) => (from_ascii(&text[..length]), 0),
            _ => (Vec::new(), unknown(length)),
        };
        total = total.saturating_add(more);
        if total > limit || next.len() < 2 || !is_zlib(next[0], next[1]) {
            return total.saturating_add(next.len() as u64);
        }
        length = next.len();
        layer = Cow::Owned(next);
    }
    u64::MAX
}

fn unknown(length: usize) -> u64 {
    UNKNOWN_RATIO * length as u64
}

/// The first two bytes of what zlib has packed.
fn is_zlib(method: u8, flags: u8) -> bool {
    method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31) && flags & 0x20 == 0
}

/// Unpacks up to a little more than `limit` bytes. Where that fails, a reader may do better, which is what the number
/// counts.
fn inflated(deflated: &[u8], length: usize, limit: u64) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    let ended = DeflateDecoder::new(deflated).take(limit.saturating_add(1)).read_to_end(&mut bytes);
    (bytes, if ended.is_err() { unknown(length) } else { 0 })
}

/// Digits for bytes, as some writers have them around what is packed: two hexadecimal ones for one, else five of 85 for
/// four.
fn from_ascii(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"<~").unwrap_or(text);
    let text: Vec<u8> = text.iter().copied().take_while(|&c| c != b'~').filter(|c| !c.is_ascii_whitespace()).collect();
    let hexadecimal = |c: &u8| char::from(*c).to_digit(16);
    let digits = text.strip_suffix(b">").unwrap_or(&text);
    if let Some(digits) = digits.iter().map(hexadecimal).collect::<Option<Vec<u32>>>() {
        return digits.chunks(2).map(|pair| (pair[0] << 4 | pair.get(1).unwrap_or(&0)) as u8).collect();
    }
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4);
    let mut rest = &text[..];
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b"z") {
            bytes.extend([0; 4]);
            rest = after;
            continue;
        }
        let group;
        (group, rest) = rest.split_at(rest.len().min(5));
        let digit = |index| u32::from(group.get(index).map_or(84, |c: &u8| c.wrapping_sub(b'!')));
        let value = (0..5).fold(0_u32, |value, index| value.wrapping_mul(85).wrapping_add(digit(index)));
        bytes.extend(&value.to_be_bytes()[..group.len() - 1]);
    }
    bytes
}
