//! Passages as records of a store, and as what a search found.

use std::sync::Arc;

use crate::documents::Passage;
use crate::store::{Hit, Record, Value};

/// Names of the values by which a record says which passage it is.
const PATH: &str = "path";
const INDEX: &str = "index";
const FIRST_LINE: &str = "first_line";
const LAST_LINE: &str = "last_line";
const HEADING: &str = "heading";

impl Passage {
    /// Makes a record of it, for a store: its [id](Self::id), its text, and where that stands as the values `path`,
    /// `index`, `first_line`, `last_line` and `heading`.
    pub fn record(&self, vector: Vec<f32>) -> Record {
        let number = |number: usize| i64::try_from(number).expect("a text is shorter than that");
        Record::new(self.id(), vector)
            .text(&*self.text)
            .with(PATH, &*self.path)
            .with(INDEX, number(self.index))
            .with(FIRST_LINE, number(self.first_line))
            .with(LAST_LINE, number(self.last_line))
            .with(HEADING, &*self.heading)
    }
}

/// What was found has the text and the values of [`Passage::record`]. What is missing is as in a text of its own: the
/// path is the id, and the first line is 1.
impl From<&Hit> for Passage {
    fn from(hit: &Hit) -> Self {
        let number = |name: &str| match hit.metadata.get(name) {
            Some(Value::Integer(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
        let words = |name: &str| match hit.metadata.get(name) {
            Some(Value::String(words)) => Some(Arc::from(&**words)),
            _ => None,
        };
        let first_line = number(FIRST_LINE).unwrap_or(1);
        Self {
            path: words(PATH).unwrap_or_else(|| Arc::from(&*hit.id)),
            index: number(INDEX).unwrap_or(0),
            first_line,
            last_line: number(LAST_LINE).unwrap_or_else(|| first_line + hit.text.lines().count().saturating_sub(1)),
            heading: words(HEADING).unwrap_or_default(),
            text: hit.text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::{Chunker, Format};

    #[test]
    fn a_passage_that_was_found_is_the_one_that_was_stored() {
        let text = "# Stops\n\nServices stop last.\n\n## Order\n\nIn reverse.";
        for passage in Chunker::new(20, 40, 0).chunks("stop.md", Format::Markdown, text) {
            let Record { id, text, metadata, .. } = passage.record(vec![1.0]);
            let mut hit = Hit::new(id, 0.5, text);
            hit.metadata = metadata;
            assert_eq!(Passage::from(&hit), passage);
        }
    }

    #[test]
    fn a_text_that_says_nothing_of_itself_is_a_document_of_its_own() {
        let passage = Passage::from(&Hit::new("a", 0.5, "One.\nTwo."));
        assert_eq!((&*passage.path, passage.first_line, passage.last_line, &*passage.heading), ("a", 1, 2, ""));
    }
}
