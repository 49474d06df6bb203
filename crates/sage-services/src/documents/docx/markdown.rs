//! The paragraphs and tables of a Word file as Markdown.

use quick_xml::events::{BytesStart, Event};

use super::styles::{Styles, outline_level};
use super::{push_text, value};

/// Takes the parts of a file, one event after the other.
pub(super) struct Markdown {
    styles: Styles,
    text: String,
    last: Block,
    /// A paragraph in a text box lies in another.
    paragraphs: Vec<Paragraph>,
    /// The cells of the row of a table, each with its paragraphs.
    row: Vec<Vec<String>>,
    tables: usize,
    /// Elements open in one that is left out: text that was moved, or is there again for older programs.
    left_out: usize,
    is_in_run: bool,
    is_in_text: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Other,
    Item,
    Row,
}

#[derive(Default)]
struct Paragraph {
    text: String,
    level: Option<usize>,
    is_item: bool,
}

impl Markdown {
    pub(super) fn new(styles: Styles) -> Self {
        Self {
            styles,
            text: String::new(),
            last: Block::Other,
            paragraphs: Vec::new(),
            row: Vec::new(),
            tables: 0,
            left_out: 0,
            is_in_run: false,
            is_in_text: false,
        }
    }

    pub(super) fn end(self) -> String {
        self.text
    }

    pub(super) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(tag) if self.left_out > 0 || matches!(tag.local_name().as_ref(), "Fallback" | "moveFrom") => {
                self.left_out += 1;
            }
            Event::End(_) if self.left_out > 0 => self.left_out -= 1,
            _ if self.left_out > 0 => {}
            Event::Start(tag) => self.begin(tag),
            Event::Empty(tag) => {
                self.begin(tag);
                self.finish(tag.local_name().as_ref());
            }
            Event::End(tag) => self.finish(tag.local_name().as_ref()),
            _ if self.is_in_text => {
                if let Some(paragraph) = self.paragraphs.last_mut() {
                    push_text(event, &mut paragraph.text);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, tag: &BytesStart<'_>) {
        match tag.local_name().as_ref() {
            "p" => self.paragraphs.push(Paragraph::default()),
            "r" => self.is_in_run = true,
            "t" => self.is_in_text = true,
            "tbl" => {
                self.tables += 1;
                if self.tables == 1 {
                    self.last = Block::Other;
                }
            }
            "tr" if self.tables == 1 => self.row.clear(),
            "tc" if self.tables == 1 => self.row.push(Vec::new()),
            name => {
                if let Some(paragraph) = self.paragraphs.last_mut() {
                    match name {
                        "pStyle" => paragraph.level = value(tag, "val").and_then(|id| self.styles.level(&id)),
                        "outlineLvl" => paragraph.level = outline_level(tag),
                        "numPr" => paragraph.is_item = true,
                        "tab" if self.is_in_run => paragraph.text.push('\t'),
                        "br" | "cr" if self.is_in_run => paragraph.text.push('\n'),
                        "noBreakHyphen" => paragraph.text.push('-'),
                        _ => {}
                    }
                }
            }
        }
    }

    fn finish(&mut self, name: &str) {
        match name {
            "p" => {
                if let Some(paragraph) = self.paragraphs.pop() {
                    self.add(paragraph);
                }
            }
            "r" => self.is_in_run = false,
            "t" => self.is_in_text = false,
            "tbl" => self.tables = self.tables.saturating_sub(1),
            "tr" if self.tables == 1 => self.add_row(),
            _ => {}
        }
    }

    fn add(&mut self, Paragraph { text, level, is_item }: Paragraph) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let in_one_line = || text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let (1.., Some(cell)) = (self.tables, self.row.last_mut()) {
            cell.push(in_one_line());
        } else if let Some(level) = level {
            self.block(Block::Other, &format!("{} {}", "#".repeat(level), in_one_line()));
        } else if is_item {
            self.block(Block::Item, &format!("- {}", in_one_line()));
        } else {
            self.block(Block::Other, text);
        }
    }

    /// A row of one cell is a frame around text and not part of a table.
    fn add_row(&mut self) {
        match std::mem::take(&mut self.row).as_slice() {
            [frame] => frame.iter().for_each(|paragraph| self.block(Block::Other, paragraph)),
            cells if cells.iter().all(Vec::is_empty) => {}
            cells => {
                let cells: Vec<String> = cells.iter().map(|cell| cell.join(" ").replace('|', "\\|")).collect();
                self.block(Block::Row, &format!("| {} |", cells.join(" | ")));
            }
        }
    }

    /// Adds a block, after a blank line unless it belongs to a list or a table that has begun.
    fn block(&mut self, block: Block, text: &str) {
        if !(self.text.is_empty() || (block == self.last && block != Block::Other)) {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.text.push('\n');
        self.last = block;
    }
}
