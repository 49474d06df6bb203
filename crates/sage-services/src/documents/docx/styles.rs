//! Which styles of paragraphs are those of headings.

use std::collections::HashMap;

use quick_xml::events::{BytesStart, Event};

use super::value;

/// How many styles a style may be derived from.
const MAX_ANCESTORS: usize = 16;

/// The styles of a file, by id.
#[derive(Default)]
pub(super) struct Styles {
    styles: HashMap<String, Style>,
    /// The id of the style being read.
    open: String,
}

#[derive(Default)]
struct Style {
    level: Option<usize>,
    based_on: Option<String>,
}

impl Styles {
    pub(super) fn take(&mut self, event: &Event<'_>) {
        let (Event::Start(tag) | Event::Empty(tag)) = event else { return };
        let name = tag.local_name();
        if name.as_ref() == "style" {
            self.open = value(tag, "styleId").unwrap_or_default();
        }
        let style = self.styles.entry(self.open.clone()).or_default();
        match name.as_ref() {
            // These names are English in all languages of Word; ids are not.
            "name" => style.level = style.level.or(value(tag, "val").and_then(|name| level_of(&name))),
            "basedOn" => style.based_on = value(tag, "val"),
            "outlineLvl" => style.level = outline_level(tag),
            _ => {}
        }
    }

    /// The level of the headings of this style, 1 to 6.
    pub(super) fn level(&self, id: &str) -> Option<usize> {
        let mut style = self.styles.get(id)?;
        for _ in 0..MAX_ANCESTORS {
            if style.level.is_some() {
                return style.level;
            }
            style = self.styles.get(style.based_on.as_deref()?)?;
        }
        None
    }
}

fn level_of(name: &str) -> Option<usize> {
    match name.to_ascii_lowercase().strip_prefix("heading ") {
        Some(level) => level.parse().ok().map(|level: usize| level.clamp(1, 6)),
        None => name.eq_ignore_ascii_case("title").then_some(1),
    }
}

/// The level that `outlineLvl` gives, 1 to 6; 9 is body text.
pub(super) fn outline_level(tag: &BytesStart<'_>) -> Option<usize> {
    value(tag, "val")?.parse().ok().filter(|&level: &usize| level < 9).map(|level| (level + 1).min(6))
}
