//! Cuts a document into passages at its headings and paragraphs.
//!
//! Invariants:
//! 1. Every line that is not blank is whole in at least one passage. A line longer than a passage is cut between
//!    characters; its pieces in order are the line, except for white space at a cut.
//! 2. The text of a passage is the document's text from its first to its last line, except where a long line is cut.
//!    The text of an HTML page is its lines without the markup.
//! 3. A passage has at most `max` characters, at least one of which is not white space.
//! 4. In Markdown a passage holds text of one section only; sub-sections without text of their own share a passage.
//!
//! Knows nothing of vectors, stores or file systems.

use std::sync::Arc;

use super::layout::{Format, Line, LineKind, Trail, classify};
use super::passage::Passage;

/// How long passages are, in characters: `0 < target ≤ max` and `overlap < target`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) target: usize,
    pub(super) max: usize,
    pub(super) overlap: usize,
}

/// Cuts a text into passages, in order; none when every line is blank.
pub(super) fn passages(limits: Limits, path: Arc<str>, format: Format, text: &str) -> Vec<Passage> {
    // A piece of a long line and the line feed before it must fit a passage.
    let lines = classify(format, text, limits.max.saturating_sub(1).max(1));
    let mut packer = Packer { limits, lines: &lines, path, trail: Trail::default(), open: None, passages: Vec::new() };
    let mut at = 0;
    while at < lines.len() {
        let end = block_end(&lines, at);
        packer.add_block(at, end);
        at = end;
    }
    packer.close();
    packer.passages
}

/// Index after the last line of the block that begins at `start`: a fence, a list item, a paragraph, or one line.
fn block_end(lines: &[Line<'_>], start: usize) -> usize {
    let following = &lines[start + 1..];
    let length = match lines[start].kind {
        LineKind::Blank | LineKind::Heading { .. } => 0,
        LineKind::Fence { opens } => {
            following.iter().take_while(|line| line.kind == LineKind::Fence { opens: false } && opens).count()
        }
        LineKind::Item | LineKind::Text => following.iter().take_while(|line| line.kind == LineKind::Text).count(),
    };
    start + 1 + length
}

/// The passage being filled: lines `start..end`.
struct Open {
    start: usize,
    end: usize,
    chars: usize,
    /// Index after the lines repeated from the passage before; `start` when there are none.
    new_from: usize,
    /// Whether anything but headings has been added.
    has_body: bool,
}

struct Packer<'a> {
    limits: Limits,
    lines: &'a [Line<'a>],
    path: Arc<str>,
    trail: Trail<'a>,
    open: Option<Open>,
    passages: Vec<Passage>,
}

impl Packer<'_> {
    fn add_block(&mut self, start: usize, end: usize) {
        match self.lines[start].kind {
            LineKind::Blank => {}
            LineKind::Heading { level } => {
                if self.open.as_ref().is_some_and(|open| open.has_body) {
                    self.close();
                }
                self.trail.enter(level, self.lines[start].title());
                self.append(start, end);
            }
            _ if self.chars(start, end) <= self.limits.max => {
                let full = self.open.as_ref().is_some_and(|open| open.has_body && open.chars >= self.limits.target);
                if full {
                    self.close_and_overlap();
                }
                self.append(start, end);
            }
            _ => (start..end).for_each(|line| self.append(line, line + 1)),
        }
        let body = !matches!(self.lines[start].kind, LineKind::Blank | LineKind::Heading { .. });
        if let Some(open) = self.open.as_mut() {
            open.has_body |= body;
        }
    }

    /// Adds lines that fit a passage of their own to the open one, or to a new one when they do not fit there.
    fn append(&mut self, start: usize, end: usize) {
        if !self.fits(end) {
            self.close_and_overlap();
            if !self.fits(end) {
                // Only repeated lines are open: they give way.
                self.open = None;
            }
        }
        let chars = self.chars(start, end);
        match &mut self.open {
            Some(open) => {
                open.chars += self.lines[open.end..end].iter().map(Line::chars_with_line_feed).sum::<usize>();
                open.end = end;
            }
            None => self.open = Some(Open { start, end, chars, new_from: start, has_body: false }),
        }
    }

    fn fits(&self, end: usize) -> bool {
        self.open.as_ref().is_none_or(|open| self.chars(open.start, end) <= self.limits.max)
    }

    fn chars(&self, start: usize, end: usize) -> usize {
        self.lines[start..end].iter().map(Line::chars_with_line_feed).sum()
    }

    /// Ends the open passage and begins the next with its last lines, as far as they are short enough.
    fn close_and_overlap(&mut self) {
        let Some(closed) = self.close() else { return };
        let mut start = closed.end;
        let mut chars = 0;
        while start > closed.new_from + 1 {
            let line = &self.lines[start - 1];
            if matches!(line.kind, LineKind::Heading { .. })
                || chars + line.chars_with_line_feed() > self.limits.overlap
            {
                break;
            }
            chars += line.chars_with_line_feed();
            start -= 1;
        }
        if start < closed.end {
            self.open = Some(Open { start, end: closed.end, chars, new_from: closed.end, has_body: true });
        }
    }

    fn close(&mut self) -> Option<Open> {
        let open = self.open.take()?;
        if open.new_from == open.end {
            // Nothing was added to the repeated lines, which the passage before holds.
            return None;
        }
        let lines = &self.lines[open.start..open.end];
        let holds_text = |line: &Line<'_>| !line.text.trim().is_empty();
        let (first, last) = (lines.iter().position(holds_text)?, lines.iter().rposition(holds_text)?);
        let range = &lines[first..=last];
        let mut text = String::with_capacity(range.iter().map(|line| line.text.len() + 1).sum());
        for (position, line) in range.iter().enumerate() {
            if position > 0 && !line.continues {
                text.push('\n');
            }
            text.push_str(line.text);
        }
        self.passages.push(Passage {
            path: Arc::clone(&self.path),
            index: self.passages.len(),
            first_line: lines[first].number,
            last_line: lines[last].number,
            bytes: lines[first].bytes().start..lines[last].bytes().end,
            pages: None,
            heading: self.trail.heading(),
            text,
            metadata: Arc::default(),
        });
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chunker;
    use super::*;
    use proptest::prelude::*;

    fn chunks(text: &str) -> Vec<Passage> {
        Chunker::new(60, 90, 25).chunks("a.md", Format::Markdown, text)
    }

    #[test]
    fn headings_begin_passages_and_are_carried_along() {
        let passages = chunks("# Guide\n\n## Start\nfirst\n\n## Stop\n\nlast\n# End\nbye\n");
        let seen: Vec<_> = passages.iter().map(|p| (p.first_line, p.last_line, &*p.heading)).collect();
        assert_eq!(seen, [(1, 4, "Guide > Start"), (6, 8, "Guide > Stop"), (9, 10, "End")]);
        assert_eq!(passages[1].text, "## Stop\n\nlast");
        assert_eq!(passages[1].text_with_heading(), "Guide > Stop\n## Stop\n\nlast");
        assert_eq!(passages[2].id(), "a.md#000002");
    }

    #[test]
    fn a_fence_that_fits_stays_together() {
        let code = "```rust\n# not a heading\n\nlet a = 1;\n```";
        let passages = chunks(&format!("{}\n\n{code}\n\nafter", "words ".repeat(11)));
        assert_eq!(passages.len(), 2, "{passages:#?}");
        assert!(passages[1].text.starts_with(code), "{passages:#?}");
        assert_eq!(passages[1].heading.as_ref(), "");
    }

    #[test]
    fn a_fence_too_long_is_cut_between_lines() {
        let code = format!("~~~\n{}~~~", "a line of the code\n".repeat(12));
        let passages = chunks(&code);
        assert!(passages.len() > 2);
        assert!(passages.iter().flat_map(|p| p.text.lines()).all(|line| code.lines().any(|whole| whole == line)));
    }

    #[test]
    fn a_cut_section_overlaps_by_whole_lines() {
        let text = (1..=8).map(|n| format!("- the item number {n}\n")).collect::<String>();
        let passages = chunks(&text);
        assert!(passages.len() > 1);
        for pair in passages.windows(2) {
            assert_eq!(pair[1].first_line, pair[0].last_line, "{passages:#?}");
        }
    }

    #[test]
    fn a_very_long_line_is_cut_between_characters() {
        let line = "ä".repeat(200);
        let passages = chunks(&line);
        assert_eq!(passages.iter().map(|p| p.text.as_str()).collect::<String>(), line);
        assert!(passages.iter().all(|p| (p.first_line, p.last_line) == (1, 1)));
        let prose = "A sentence of words. ".repeat(20);
        assert!(chunks(&prose).iter().all(|p| p.text.trim_end().ends_with("words.")));
    }

    #[test]
    fn blank_documents_have_no_passages() {
        assert_eq!(chunks(""), []);
        assert_eq!(chunks("\n \n\t\r\n"), []);
    }

    #[test]
    fn a_page_keeps_its_line_numbers_and_headings() {
        let page = "<html><body>\n<h1>Guide</h1>\n\n<h2>Stop</h2>\n<p>Services\n<b>stop</b> last.</p>\n</body></html>";
        let passages = Chunker::default().chunks("a.html", Format::of("a.html"), page);
        assert_eq!((passages[0].first_line, passages[0].last_line, &*passages[0].heading), (2, 6, "Guide > Stop"));
        assert!(passages[0].text.contains("Services\nstop last."), "{passages:?}");
    }

    #[test]
    fn plain_text_has_no_headings() {
        let passages = Chunker::default().chunks("a.py", Format::of("a.py"), "# a comment\nx = 1\n");
        assert_eq!((passages.len(), &*passages[0].heading), (1, ""));
        assert_eq!(Format::of("docs/README.MD"), Format::Markdown);
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            2 => Just(String::new()),
            4 => "[a-c .é]{0,70}",
            1 => "[a-c .é]{80,260}",
            1 => "#{1,3} [a-c]{1,9}",
            1 => "- [a-c ]{1,30}",
            1 => prop::sample::select(vec!["```".to_owned(), "~~~~".to_owned(), "   ".to_owned()]),
        ]
    }

    proptest! {
        #[test]
        fn no_line_is_lost(lines in prop::collection::vec(line(), 0..60), markdown: bool, target in 10_usize..90) {
            let document = lines.join("\n");
            let format = if markdown { Format::Markdown } else { Format::Text };
            let passages = Chunker::new(target, 90, target / 3).chunks("a", format, &document);
            let squeeze = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            for (index, passage) in passages.iter().enumerate() {
                prop_assert_eq!(passage.index, index);
                prop_assert!(!passage.text.trim().is_empty() && passage.text.chars().count() <= 90);
                let source = lines[passage.first_line - 1..passage.last_line].join("\n");
                prop_assert!(source.contains(&passage.text), "{:?} is not from {source:?}", passage.text);
            }
            for (number, line) in lines.iter().enumerate().map(|(at, line)| (at + 1, line)) {
                let holders = passages.iter().filter(|p| (p.first_line..=p.last_line).contains(&number));
                if line.chars().count() < 90 {
                    let held = line.trim().is_empty() || holders.clone().any(|p| p.text.lines().any(|l| l == line));
                    prop_assert!(held, "line {number} {line:?} is lost");
                } else {
                    let piece = |p: &Passage| p.text.lines().nth(number - p.first_line).unwrap_or("").to_owned();
                    let pieces: String = holders.map(piece).collect();
                    prop_assert!(squeeze(&pieces).contains(&squeeze(line)), "line {number} of {pieces:?} is lost");
                }
            }
        }
    }
}
