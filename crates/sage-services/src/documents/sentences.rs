//! Finds the sentences of a passage and the lines they stand on.
//!
//! A sentence ends at a stop that is followed by white space and something that can begin one; a list item, a row of a
//! table and a block of fenced code end one, too. Headings are no sentences.

use super::layout::{Format, Line, LineKind, PARAGRAPH_SEPARATOR, classify, item_marker_len};

/// A sentence, a row of a table, or a block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sentence {
    /// Without the mark of a list item; white space collapsed, but for code, whose lines are kept.
    pub(crate) text: String,
    /// Lines of the passage, counted from 0, both inclusive.
    pub(crate) first_line: usize,
    pub(crate) last_line: usize,
    /// Number of the paragraph; sentences of one can be quoted together.
    pub(crate) paragraph: usize,
    pub(crate) is_code: bool,
}

/// Shortened words whose stop ends no sentence.
const ABBREVIATIONS: &[&str] =
    &["e.g.", "i.e.", "cf.", "vs.", "al.", "approx.", "Dr.", "Mr.", "Mrs.", "No.", "Fig.", "resp."];

/// Returns the sentences of `text` in order, read as Markdown; in plain text a line that looks like a heading or a
/// fence is rare, and costs that line.
pub(crate) fn sentences(text: &str) -> Vec<Sentence> {
    let lines = classify(Format::Markdown, text, usize::MAX);
    let mut found = Vec::new();
    let mut paragraph = 0;
    let mut at = 0;
    while at < lines.len() {
        let end = paragraph_end(&lines, at);
        let block = &lines[at..end];
        match block[0].kind {
            LineKind::Blank | LineKind::Heading { .. } => {}
            LineKind::Fence { .. } => code(block, paragraph, &mut found),
            LineKind::Item | LineKind::Text => prose(block, paragraph, &mut found),
        }
        paragraph += 1;
        at = end;
    }
    found
}

/// Returns the bytes where sentences, headings, rows of tables and blocks of code begin, in order.
pub(super) fn sentence_starts(format: Format, text: &str) -> Vec<usize> {
    let lines = classify(format, text, usize::MAX);
    let mut starts = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let end = paragraph_end(&lines, at);
        let (kind, bytes) = (lines[at].kind, lines[at].bytes().start..lines[end - 1].bytes().end);
        if kind != LineKind::Blank {
            starts.push(bytes.start);
        }
        if matches!(kind, LineKind::Item | LineKind::Text) && !is_table_row(&lines[at]) {
            let mut from = bytes.start;
            while let Some(stop) = sentence_end(&text[from..bytes.end]) {
                let rest = &text[from + stop..bytes.end];
                from = bytes.end - rest.trim_start().len();
                if from < bytes.end {
                    starts.push(from);
                }
            }
        }
        at = end;
    }
    starts
}

fn is_table_row(line: &Line<'_>) -> bool {
    line.text.trim_start().starts_with('|')
}

fn paragraph_end(lines: &[Line<'_>], start: usize) -> usize {
    let first = &lines[start];
    let following = &lines[start + 1..];
    start
        + 1
        + match first.kind {
            LineKind::Blank | LineKind::Heading { .. } => 0,
            LineKind::Fence { .. } => {
                following.iter().take_while(|line| line.kind == LineKind::Fence { opens: false }).count()
            }
            _ if is_table_row(first) => 0,
            _ => following.iter().take_while(|line| line.kind == LineKind::Text && !is_table_row(line)).count(),
        }
}

fn code(block: &[Line<'_>], paragraph: usize, found: &mut Vec<Sentence>) {
    let is_mark =
        |line: &Line<'_>| line.text.trim_start().starts_with("```") || line.text.trim_start().starts_with("~~~");
    let inside: Vec<&Line<'_>> = block.iter().filter(|line| !is_mark(line)).collect();
    if let (Some(first), Some(last)) = (inside.first(), inside.last()) {
        found.push(Sentence {
            text: inside.iter().map(|line| line.text.trim_end()).collect::<Vec<_>>().join("\n"),
            first_line: first.number - 1,
            last_line: last.number - 1,
            paragraph,
            is_code: true,
        });
    }
}

fn prose(block: &[Line<'_>], paragraph: usize, found: &mut Vec<Sentence>) {
    let mut open = Sentence { text: String::new(), first_line: 0, last_line: 0, paragraph, is_code: false };
    let mut close = |open: &mut Sentence| {
        if !open.text.is_empty() {
            found.push(Sentence { text: std::mem::take(&mut open.text), ..open.clone() });
        }
    };
    for (index, line) in block.iter().enumerate() {
        let trimmed = line.text.trim();
        let is_row = is_table_row(line);
        if is_row && trimmed.chars().all(|c| matches!(c, '|' | '-' | ':' | ' ')) {
            continue;
        }
        if line.text.starts_with(PARAGRAPH_SEPARATOR) {
            close(&mut open);
        }
        let mark = if index == 0 && line.kind == LineKind::Item { item_marker_len(trimmed) } else { 0 };
        let mut rest = trimmed[mark..].trim_start();
        while !rest.is_empty() {
            let end = if is_row { None } else { sentence_end(rest) };
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            if open.text.is_empty() {
                open.first_line = line.number - 1;
            }
            open.last_line = line.number - 1;
            for word in piece.split_whitespace() {
                if !open.text.is_empty() {
                    open.text.push(' ');
                }
                open.text.push_str(word);
            }
            if end.is_some() {
                close(&mut open);
            }
            rest = after.trim_start();
        }
        let next_begins = block.get(index + 1).is_none_or(|next| can_begin(next.text.trim_start()));
        if line.text.ends_with(PARAGRAPH_SEPARATOR) || (ends_sentence(&open.text) && next_begins) {
            close(&mut open);
        }
    }
    close(&mut open);
}

/// Index after the stop of the first sentence that ends inside `text`, or `None` when it goes on to its end.
fn sentence_end(text: &str) -> Option<usize> {
    text.char_indices().filter(|(_, c)| c.is_whitespace()).find_map(|(at, c)| {
        let ends = c == PARAGRAPH_SEPARATOR || (ends_sentence(&text[..at]) && can_begin(text[at..].trim_start()));
        (ends && at > 0).then_some(at)
    })
}

/// Whether `text` ends in a stop that is not an abbreviation's.
pub(crate) fn ends_sentence(text: &str) -> bool {
    let bare = text.trim_end_matches(['"', '\'', ')', '*', '_', '`', '”', '’', ']']);
    let last_word = bare.rsplit(char::is_whitespace).next().unwrap_or("").trim_start_matches('(');
    // The question mark operator, standing alone, ends nothing.
    let is_word = last_word.contains(char::is_alphanumeric);
    bare.ends_with(['.', '!', '?', '。', '！', '？']) && is_word && !ABBREVIATIONS.contains(&last_word)
}

fn can_begin(text: &str) -> bool {
    text.trim_start_matches(['"', '\'', '(', '*', '_', '`', '“', '[']).chars().next().is_some_and(|c| !c.is_lowercase())
        || text.starts_with('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, usize, usize)> {
        sentences(text).into_iter().map(|s| (s.text, s.first_line, s.last_line)).collect()
    }

    fn texts(text: &str) -> Vec<String> {
        sentences(text).into_iter().map(|s| s.text).collect()
    }

    #[test]
    fn wrapped_sentences_keep_their_lines() {
        let expected = [("One goes on to here.", 0, 1), ("Two (too).", 1, 1), ("Three", 2, 2)];
        assert_eq!(
            found("One goes on\nto here.  Two (too).\nThree"),
            expected.map(|(text, first, last)| (text.to_owned(), first, last))
        );
    }

    #[test]
    fn stops_inside_a_sentence_do_not_end_it() {
        for whole in [
            "It is 1.5 s long, e.g. Here.",
            "Use a.rs and `b.rs`. or not",
            "What? no, he said (cf. Smith)",
            "The ? Operator",
        ] {
            assert_eq!(texts(whole), [whole]);
        }
        assert_eq!(
            texts("He said \"stop.\" It did. **Then** `x` ran."),
            ["He said \"stop.\"", "It did.", "**Then** `x` ran."]
        );
    }

    #[test]
    fn headings_are_left_out_and_items_lose_their_mark() {
        assert_eq!(
            texts("# Title\n- first item\n  goes on\n7a. second\n\nlast"),
            ["first item goes on", "second", "last"]
        );
        let paragraphs: Vec<_> = sentences("A b. C d.\n\nE f.").iter().map(|s| s.paragraph).collect();
        assert_eq!(paragraphs, [0, 0, 2]);
    }

    #[test]
    fn tables_give_rows_and_fences_blocks() {
        assert_eq!(texts("| a | b |\n|---|:-:|\n| 1 | 2. Three |"), ["| a | b |", "| 1 | 2. Three |"]);
        let code = sentences("```rust\nlet a = 1. A;\n\n  b\n```\nafter");
        assert_eq!((code[0].text.as_str(), code[0].first_line, code[0].last_line), ("let a = 1. A;\n\n  b", 1, 3));
        assert!(code[0].is_code && !code[1].is_code);
    }

    #[test]
    fn paragraph_separators_end_sentences() {
        assert_eq!(texts("one\u{2029}two\u{2029}\nthree"), ["one", "two", "three"]);
    }
}
