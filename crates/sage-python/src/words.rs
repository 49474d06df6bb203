//! The words of a text, as `str.split` has them, found eight bytes at a time.

/// The lowest and the highest bit of each byte of eight.
const LOWEST: u64 = 0x0101_0101_0101_0101;
const HIGHEST: u64 = 0x8080_8080_8080_8080;

/// What `str.split` and `str.strip` take for white space.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// The same of ASCII.
#[inline]
fn is_ascii_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0x1C..=0x1F)
}

/// The highest bit of each byte of eight that is at most a space.
#[inline]
fn up_to_space(bytes: u64) -> u64 {
    // With its highest bit set, no byte borrows from the next one.
    !((bytes | HIGHEST) - u64::from(b' ' + 1) * LOWEST) & !bytes & HIGHEST
}

/// Calls a function with each word of a text: where it begins, and where it ends.
#[inline]
pub(crate) fn each_span<E>(text: &str, mut take: impl FnMut(usize, usize) -> Result<(), E>) -> Result<(), E> {
    let bytes = text.as_bytes();
    let mut start = 0;
    let mut space = |at: usize, length: usize| {
        let begun = std::mem::replace(&mut start, at + length);
        if at > begun { take(begun, at) } else { Ok(()) }
    };
    let (eights, rest) = bytes.as_chunks::<8>();
    for (number, eight) in eights.iter().enumerate() {
        let (from, eight) = (8 * number, u64::from_le_bytes(*eight));
        if eight & HIGHEST == 0 {
            let mut left = up_to_space(eight);
            while left != 0 {
                let at = from + left.trailing_zeros() as usize / 8;
                if is_ascii_space(bytes[at]) {
                    space(at, 1)?;
                }
                left &= left - 1;
            }
        } else {
            (from..from + 8).try_for_each(|at| space_at(text, at).map_or(Ok(()), |length| space(at, length)))?;
        }
    }
    let from = bytes.len() - rest.len();
    (from..bytes.len()).try_for_each(|at| space_at(text, at).map_or(Ok(()), |length| space(at, length)))?;
    if start < bytes.len() { take(start, bytes.len()) } else { Ok(()) }
}

/// How many bytes the white space has that begins at one of a text's.
#[inline]
fn space_at(text: &str, at: usize) -> Option<usize> {
    match text.as_bytes()[at] {
        byte if byte.is_ascii() => is_ascii_space(byte).then_some(1),
        // What all the white space beyond ASCII begins with.
        0xC2 | 0xE1..=0xE3 => text[at..].chars().next().filter(|first| is_space(*first)).map(char::len_utf8),
        _ => None,
    }
}

/// Calls a function with each word of a text.
#[inline]
pub(crate) fn each_word<'a, E>(text: &'a str, mut take: impl FnMut(&'a str) -> Result<(), E>) -> Result<(), E> {
    each_span(text, |start, end| take(&text[start..end]))
}
