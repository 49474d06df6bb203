//! Tells what each line of a document is: heading, code, list item, text or blank.
//!
//! Reads what ordinary Markdown uses to structure a document: `#` headings, fenced code and list items. Underlined
//! headings, indented code and quotes count as text; the only cost is a less suitable place to cut.

use std::ops::Range;
use std::sync::Arc;

/// Ends a paragraph within a line. HTML without line feeds is full of these once its tags are gone.
pub(crate) const PARAGRAPH_SEPARATOR: char = '\u{2029}';

/// How the lines of a document are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Format {
    /// Markdown: `#` headings begin a section, fenced code stays together.
    Markdown,
    /// HTML: tags are dropped, and a heading counts if it has a line to itself.
    Html,
    /// Anything else: a blank line separates paragraphs, nothing is a heading.
    #[default]
    Text,
}

impl Format {
    /// Chooses the format by a file name's extension: `md` and `markdown` are Markdown, `html` and `htm` HTML, all
    /// others text. The text that a [`Loader`](crate::Loader) makes of `docx` is Markdown, too.
    pub fn of(path: &str) -> Self {
        FileType::of(path).format()
    }
}

/// How the bytes of a file are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Text(Format),
    Table { delimiter: u8 },
    JsonLines,
    Pdf,
    Docx,
}

impl FileType {
    /// Chooses by a file name's extension.
    pub(super) fn of(path: &str) -> Self {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension.to_ascii_lowercase().as_str() {
            "md" | "markdown" => Self::Text(Format::Markdown),
            "html" | "htm" => Self::Text(Format::Html),
            "csv" => Self::Table { delimiter: b',' },
            "tsv" => Self::Table { delimiter: b'\t' },
            "jsonl" | "ndjson" => Self::JsonLines,
            "pdf" => Self::Pdf,
            "docx" => Self::Docx,
            _ => Self::Text(Format::Text),
        }
    }

    /// How the lines of its text are to be read.
    pub(super) fn format(self) -> Format {
        match self {
            Self::Text(format) => format,
            Self::Docx => Format::Markdown,
            Self::Table { .. } | Self::JsonLines | Self::Pdf => Format::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineKind {
    Blank,
    /// `level` is the number of `#`, 1 to 6.
    Heading {
        level: usize,
    },
    /// A line of fenced code, the fences included; `opens` on the first.
    Fence {
        opens: bool,
    },
    /// First line of a list item.
    Item,
    Text,
}

/// A line of a document, or a piece of a line that is too long.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    /// Counted from 1; the pieces of a line share it.
    pub(crate) number: usize,
    /// Byte of the document where it begins.
    start: usize,
    pub(crate) text: &'a str,
    pub(crate) kind: LineKind,
    /// Whether this is a piece of the line before.
    pub(crate) continues: bool,
    chars: usize,
}

impl<'a> Line<'a> {
    /// Characters of the line and of the line feed that joins it to others.
    pub(crate) fn chars_with_line_feed(&self) -> usize {
        self.chars + 1
    }

    /// Where it lies in the document.
    pub(crate) fn bytes(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// The words of a heading, without its `#`s.
    pub(crate) fn title(&self) -> &'a str {
        self.text.trim().trim_matches('#').trim()
    }
}

/// The headings above a line.
#[derive(Default)]
pub(super) struct Trail<'a> {
    titles: Vec<(usize, &'a str)>,
    heading: Arc<str>,
}

impl<'a> Trail<'a> {
    /// Enters the section below a heading of `level`.
    pub(super) fn enter(&mut self, level: usize, title: &'a str) {
        /// Titles are repeated in every passage of their section, so a sentence of one is cut to a title's length.
        const MAX_TITLE_CHARS: usize = 120;
        let cut = title.char_indices().nth(MAX_TITLE_CHARS).map_or(title.len(), |(at, _)| at);
        self.titles.retain(|&(above, _)| above < level);
        self.titles.push((level, &title[..cut]));
        let titles: Vec<&str> = self.titles.iter().map(|&(_, title)| title).collect();
        self.heading = titles.join(" > ").into();
    }

    /// The titles, outermost first, joined by " > ".
    pub(super) fn heading(&self) -> Arc<str> {
        Arc::clone(&self.heading)
    }
}

/// Splits `text` into classified lines, none of them longer than `max_chars` characters.
pub(crate) fn classify(format: Format, text: &str, max_chars: usize) -> Vec<Line<'_>> {
    let begin = text.as_ptr().addr();
    let mut lines = Vec::new();
    let mut fence = None;
    for (index, text) in text.lines().enumerate() {
        let kind = match format {
            Format::Text if text.trim().is_empty() => LineKind::Blank,
            Format::Text => LineKind::Text,
            // The text of an HTML page has its headings marked like Markdown's.
            Format::Markdown | Format::Html => markdown_kind(text, &mut fence),
        };
        let mut rest = text;
        loop {
            let (piece, after) = rest.split_at(piece_end(rest, max_chars));
            let continues = rest.len() < text.len();
            let kind = match kind {
                LineKind::Fence { .. } if continues => LineKind::Fence { opens: false },
                LineKind::Fence { .. } | LineKind::Blank => kind,
                _ if continues => LineKind::Text,
                _ => kind,
            };
            let start = piece.as_ptr().addr() - begin;
            lines.push(Line { number: index + 1, start, text: piece, kind, continues, chars: piece.chars().count() });
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    lines
}

/// Where to cut `text` so that the first piece has at most `max_chars` characters: after a sentence if one ends in the
/// second half, else after white space there, else between two characters.
fn piece_end(text: &str, max_chars: usize) -> usize {
    let Some((limit, _)) = text.char_indices().nth(max_chars) else { return text.len() };
    let half = text.char_indices().nth(max_chars / 2).map_or(0, |(at, _)| at);
    let mut after_space = None;
    let mut after_sentence = None;
    for (at, c) in text[half..limit].char_indices().filter(|(_, c)| c.is_whitespace()) {
        let end = half + at + c.len_utf8();
        after_space = Some(end);
        if c == PARAGRAPH_SEPARATOR || text[..half + at].ends_with(['.', '!', '?', ';']) {
            after_sentence = Some(end);
        }
    }
    after_sentence.or(after_space).unwrap_or(limit)
}

/// Character and length of the fence that a code block waits for.
type OpenFence = Option<(char, usize)>;

fn markdown_kind(line: &str, fence: &mut OpenFence) -> LineKind {
    let trimmed = line.trim_start();
    let mark = fence_mark(trimmed);
    if let Some((character, length)) = *fence {
        let closes = mark.is_some_and(|(c, n)| c == character && n >= length && trimmed[n..].trim().is_empty());
        if closes {
            *fence = None;
        }
        return LineKind::Fence { opens: false };
    }
    if let Some(mark) = mark {
        *fence = Some(mark);
        return LineKind::Fence { opens: true };
    }
    let level = trimmed.bytes().take_while(|&b| b == b'#').count();
    if trimmed.is_empty() {
        LineKind::Blank
    } else if (1..=6).contains(&level)
        && line.len() - trimmed.len() < 4
        && trimmed[level..].starts_with([' ', '\t'])
        && !trimmed[level..].trim().trim_matches('#').is_empty()
    {
        LineKind::Heading { level }
    } else if begins_item(trimmed) {
        LineKind::Item
    } else {
        LineKind::Text
    }
}

fn fence_mark(trimmed: &str) -> OpenFence {
    ['`', '~'].into_iter().find_map(|character| {
        let length = trimmed.chars().take_while(|&c| c == character).count();
        // An inline span such as "```code```" has backticks again; a fence's info string cannot.
        let is_fence = length >= 3 && !(character == '`' && trimmed[length..].contains('`'));
        is_fence.then_some((character, length))
    })
}

/// Whether a line begins with a bullet or a number of a list.
pub(crate) fn begins_item(trimmed: &str) -> bool {
    item_marker_len(trimmed) > 0
}

/// Bytes of the marker of a list item and the space after it; 0 when the line begins no item.
pub(crate) fn item_marker_len(trimmed: &str) -> usize {
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let marker = match trimmed.as_bytes() {
        [b'-' | b'*' | b'+', ..] => 1,
        // Contract clauses are numbered like "7a.".
        bytes if (1..=3).contains(&digits) => {
            let letter = usize::from(bytes.get(digits).is_some_and(u8::is_ascii_lowercase));
            if matches!(bytes.get(digits + letter), Some(b'.' | b')')) { digits + letter + 1 } else { 0 }
        }
        _ => 0,
    };
    if marker > 0 && trimmed[marker..].starts_with(' ') { marker + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<LineKind> {
        classify(Format::Markdown, text, 100).into_iter().map(|line| line.kind).collect()
    }

    #[test]
    fn lines_are_told_apart() {
        use LineKind::{Blank, Heading, Item, Text};
        assert_eq!(
            kinds("# T\n\ntext\n#tag\n####### x\n### sub ##\n- a\n  wrapped\n12. b\n7a. c\n-no\n2026 was\n#"),
            [
                Heading { level: 1 },
                Blank,
                Text,
                Text,
                Text,
                Heading { level: 3 },
                Item,
                Text,
                Item,
                Item,
                Text,
                Text,
                Text
            ]
        );
    }

    #[test]
    fn a_fence_ends_at_its_own_mark() {
        let opens = |text| kinds(text).iter().map(|kind| matches!(kind, LineKind::Fence { .. })).collect::<Vec<_>>();
        assert_eq!(opens("````md\n```\n# x\n````\n# y"), [true, true, true, true, false]);
        assert_eq!(opens("```inline``` code\ntext"), [false, false]);
        assert_eq!(opens("~~~\nnever closed"), [true, true]);
    }

    #[test]
    fn long_lines_are_cut_after_a_sentence_or_a_word() {
        let pieces = |text| classify(Format::Text, text, 12).into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(pieces("One two. Three four five"), ["One two. ", "Three four ", "five"]);
        assert_eq!(pieces("aaaaaaaaaaaaaaa"), ["aaaaaaaaaaaa", "aaa"]);
    }
}
