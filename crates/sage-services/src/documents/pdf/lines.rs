//! Puts the glyphs of a page together to lines of text, in the order in which the file draws them.
//!
//! A PDF file says where each glyph stands, not where words and lines end. Glyphs that follow each other along one
//! baseline are a line; a gap between them is a space; a gap between baselines wider than one line ends a paragraph.
//!
//! Invariant: drawing stops when the text or the time it may take is used up, by unwinding with a [`Stopped`].

use std::panic::resume_unwind;
use std::time::Instant;

use hayro_interpret::font::{Glyph, GlyphRun};
use hayro_interpret::hayro_cmap::{BfString, WritingMode};
use hayro_interpret::kurbo::{Affine, BezPath, Point, Vec2};
use hayro_interpret::{BlendMode, ClipPath, Device, DrawMode, DrawProps, Image, ImageDrawProps, SoftMask};

/// A gap along a line that is a space, in sizes of the font. Letters are moved by a tenth to fit each other.
const SPACE: f64 = 0.17;
/// How far from a baseline a glyph may stand, in sizes of the font: indices and footnote marks belong to their line.
const SAME_LINE: f64 = 0.5;
/// From where on the distance of two baselines ends a paragraph, in sizes of the font.
const PARAGRAPH: f64 = 1.7;
/// Glyphs are measured in thousandths of their size.
const UNITS: f64 = 1_000.0;

/// Why a page was not drawn to its end.
pub(super) enum Stopped {
    TooMuchText,
    TooLate,
}

/// The text of the pages drawn so far.
pub(super) struct Lines {
    text: String,
    is_known: bool,
    last: Option<Last>,
    max_text_bytes: usize,
    until: Option<Instant>,
}

/// The glyph that was drawn last.
struct Last {
    /// Where the next one is expected.
    end: Point,
    /// Where the line goes, of length 1.
    direction: Vec2,
    size: f64,
}

impl Lines {
    pub(super) fn new(max_text_bytes: usize, until: Option<Instant>) -> Self {
        Self { text: String::new(), is_known: true, last: None, max_text_bytes, until }
    }

    /// Ends the line, and returns the byte of the text where the page begins.
    pub(super) fn begin_page(&mut self) -> usize {
        self.check();
        self.end_line();
        self.last = None;
        self.text.len()
    }

    /// Returns the text, and whether every glyph told which character it is.
    pub(super) fn end(mut self) -> (String, bool) {
        self.end_line();
        (self.text, self.is_known)
    }

    /// Called for everything that is drawn: forms within forms would draw for ever.
    fn check(&self) {
        if self.until.is_some_and(|until| Instant::now() > until) {
            resume_unwind(Box::new(Stopped::TooLate));
        }
        if self.text.len() > self.max_text_bytes {
            resume_unwind(Box::new(Stopped::TooMuchText));
        }
    }

    fn end_line(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        if !(self.text.is_empty() || self.text.ends_with('\n')) {
            self.text.push('\n');
        }
    }

    fn add(&mut self, glyph: &Glyph<'_>, place: Affine, mode: WritingMode) {
        let origin = place * Point::ORIGIN;
        let advance = match glyph {
            Glyph::Outline(outline) => outline.advance_width(),
            Glyph::Type3(drawn) => drawn.advance_width(),
        };
        let (end, along) = match mode {
            WritingMode::Vertical => (Point::new(0.0, -UNITS), Point::new(0.0, -UNITS)),
            _ => (Point::new(advance.map_or(UNITS / 2.0, f64::from), 0.0), Point::new(UNITS, 0.0)),
        };
        let (end, along) = (place * end, place * along - origin);
        let size = (place * Point::new(0.0, UNITS) - origin).hypot();
        if !(size.is_finite() && size > 0.0 && along.hypot() > 0.0) {
            return;
        }
        self.separate(origin, along.normalize(), size);
        match glyph.as_unicode() {
            Some(BfString::Char(c)) => self.push(c),
            Some(BfString::String(text)) => text.chars().for_each(|c| self.push(c)),
            None => {
                self.is_known = false;
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.last = Some(Last { end, direction: along.normalize(), size });
    }

    /// Writes what lies between the last glyph and one at `origin`.
    fn separate(&mut self, origin: Point, direction: Vec2, size: f64) {
        let Some(last) = &self.last else { return };
        let gap = origin - last.end;
        let size = size.max(last.size);
        // Below the line is positive: the axis that goes down is turned clockwise from the direction.
        let (along, below) = (gap.dot(last.direction) / size, last.direction.cross(gap) / size);
        if below.abs() > SAME_LINE || last.direction.dot(direction) < 0.9 {
            self.end_line();
            let ends_paragraph = !(0.0..PARAGRAPH).contains(&below);
            if ends_paragraph && !self.text.ends_with("\n\n") {
                self.text.push('\n');
            }
        } else if along.abs() > SPACE && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
    }

    fn push(&mut self, c: char) {
        /// Two or three letters in one glyph, from U+FB00 on.
        const LIGATURES: [&str; 7] = ["ff", "fi", "fl", "ffi", "ffl", "st", "st"];
        match c {
            '\u{fb00}'..='\u{fb06}' => self.text.push_str(LIGATURES[c as usize - 0xfb00]),
            c if c.is_control() => {}
            c if c.is_whitespace() => {
                if !(self.text.is_empty() || self.text.ends_with([' ', '\n'])) {
                    self.text.push(' ');
                }
            }
            c => self.text.push(c),
        }
    }
}

impl<'a> Device<'a> for Lines {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, _: &DrawMode) {
        self.check();
        for glyph in run.glyphs() {
            self.add(glyph, props.transform * glyph.transform(), run.writing_mode());
        }
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'a>, _: &DrawMode) {
        self.check();
    }

    fn push_clip_path(&mut self, _: &ClipPath) {
        self.check();
    }

    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'a>>, _: BlendMode) {
        self.check();
    }

    fn draw_image(&mut self, _: Image<'a, '_>, _: ImageDrawProps<'a>) {
        self.check();
    }

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}
}
