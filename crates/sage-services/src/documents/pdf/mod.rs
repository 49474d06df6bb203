//! The text of PDF files, page by page.
//!
//! Invariants:
//! 1. Whatever the file holds, reading it ends: with its text, or with what is wrong. A panic of the reader is such an
//!    error, and it runs on a thread with a stack for the deepest nesting that it allows.
//! 2. Nothing is unpacked before it is known how much it becomes (`streams.rs`).
//!
//! Knows nothing of files and passages.

mod lines;
mod streams;

use std::thread;
use std::time::Instant;

use hayro_interpret::hayro_syntax::{LoadPdfError, Pdf};
use hayro_interpret::util::{RectExt, TransformExt};
use hayro_interpret::{Context, InterpreterCache, InterpreterSettings, RenderContent, interpret_page};

use self::lines::{Lines, Stopped};
use self::streams::Unbound;
use super::layout::Format;
use super::load::{DocumentError, DocumentText, Loader, Reading};

/// Forms lie in forms up to 50 deep, each of which takes several function calls.
const STACK_BYTES: usize = 64 << 20;

/// Reads the text of a PDF file.
pub(super) fn read(mut bytes: Vec<u8>, reading: Reading<'_>) -> Result<DocumentText, DocumentError> {
    let Loader { max_text_bytes, max_time, .. } = *reading.loader;
    let path = || reading.path.to_owned();
    // What is too long to be added is no limit.
    let until = Instant::now().checked_add(max_time);
    streams::bound(&mut bytes, max_text_bytes).map_err(|unbound| match unbound {
        Unbound::TooMuch => reading.too_much_text(),
        Unbound::Open => reading.damaged("too many of its streams do not end"),
    })?;
    let draw = move || pages(bytes, usize::try_from(max_text_bytes).unwrap_or(usize::MAX), until);
    let drawing = thread::Builder::new().name("sage-pdf".to_owned()).stack_size(STACK_BYTES).spawn(draw);
    let drawn = drawing.map_err(|error| reading.damaged(error))?.join();
    let document = drawn.map_err(|panic| match panic.downcast_ref::<Stopped>() {
        Some(Stopped::TooLate) => DocumentError::TooSlow { path: path(), max_time },
        Some(Stopped::TooMuchText) => reading.too_much_text(),
        None => reading.damaged("it broke the reader"),
    })?;
    let document = document.map_err(|error| match error {
        LoadPdfError::Decryption(_) => DocumentError::Encrypted { path: path() },
        LoadPdfError::Invalid => reading.damaged("it is not a PDF file, or cut off"),
    })?;
    if document.text.trim().is_empty() { Err(DocumentError::NoText { path: path() }) } else { Ok(document) }
}

fn pages(bytes: Vec<u8>, max_text_bytes: usize, until: Option<Instant>) -> Result<DocumentText, LoadPdfError> {
    let pdf = Pdf::new(bytes)?;
    let settings = InterpreterSettings { render_content: RenderContent::PAGE, ..InterpreterSettings::default() };
    let cache = InterpreterCache::new();
    let mut lines = Lines::new(max_text_bytes, until);
    let mut starts = Vec::new();
    for page in pdf.pages().iter() {
        starts.push(lines.begin_page());
        let (transform, crop) = (page.initial_transform(true).to_kurbo(), page.intersected_crop_box().to_kurbo());
        let mut context = Context::new(transform, crop, &cache, pdf.xref(), settings.clone());
        interpret_page(page, &mut context, &mut lines);
    }
    let (text, is_utf8) = lines.end();
    let title = pdf.metadata().title.as_deref().map(in_words).filter(|title| !title.is_empty());
    Ok(DocumentText { text, is_utf8, format: Format::Text, title, pages: starts, rows: Vec::new() })
}

/// Text outside of pages is UTF-16 or UTF-8 if it says so, else nearly Latin-1.
fn in_words(bytes: &[u8]) -> String {
    let text = match bytes {
        [0xfe, 0xff, rest @ ..] => {
            let units = rest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => bytes.iter().copied().map(char::from).collect::<String>(),
    };
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}
