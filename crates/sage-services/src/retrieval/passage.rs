//! Passages as records of a store, and as what a search found.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::documents::Passage;
use crate::store::{Hit, MAX_METADATA_NAME_BYTES, MAX_METADATA_VALUES, Record, Value};

/// Names of the values by which a record says which passage it is.
pub(super) const PATH: &str = "path";
const INDEX: &str = "index";
const FIRST_LINE: &str = "first_line";
const LAST_LINE: &str = "last_line";
const HEADING: &str = "heading";
const START_BYTE: &str = "start_byte";
const END_BYTE: &str = "end_byte";
const FIRST_PAGE: &str = "first_page";
const LAST_PAGE: &str = "last_page";
/// Of ingest: what the passage was, and what its document was.
pub(super) const PASSAGE_HASH: &str = "passage_hash";
pub(super) const DOCUMENT_HASH: &str = "document_hash";
const OWN: &[&str] = &[
    PATH,
    INDEX,
    FIRST_LINE,
    LAST_LINE,
    HEADING,
    START_BYTE,
    END_BYTE,
    FIRST_PAGE,
    LAST_PAGE,
    PASSAGE_HASH,
    DOCUMENT_HASH,
];

impl Passage {
    /// Makes a record of it, for a store: its [id](Self::id), its text, and where that stands as the values `path`,
    /// `index`, `first_line`, `last_line`, `heading`, `start_byte` and `end_byte`, and `first_page` and `last_page` if
    /// it has pages.
    ///
    /// What is known of its row goes along. In a name, `_` stands for what stores do not take; one of the names above
    /// gets `_` at its end. Objects and mixed lists become JSON.
    pub fn record(&self, vector: Vec<f32>) -> Record {
        let number = |number: usize| i64::try_from(number).expect("a text is shorter than that");
        let own = Record::new(self.id(), vector)
            .text(&*self.text)
            .with(PATH, &*self.path)
            .with(INDEX, number(self.index))
            .with(FIRST_LINE, number(self.first_line))
            .with(LAST_LINE, number(self.last_line))
            .with(HEADING, &*self.heading)
            .with(START_BYTE, number(self.bytes.start))
            .with(END_BYTE, number(self.bytes.end));
        let paged = self
            .pages
            .iter()
            .fold(own, |record, &(first, last)| record.with(FIRST_PAGE, number(first)).with(LAST_PAGE, number(last)));
        let of_row = self.metadata.iter().filter_map(|(name, json)| Some((plain(name), value_of(json)?)));
        of_row.take(MAX_METADATA_VALUES - OWN.len()).fold(paged, |record, (name, value)| record.with(name, value))
    }
}

/// A name that stores take.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let mut name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if name.starts_with("sage_") {
        name.insert(0, '_');
    }
    name.truncate(name.floor_char_boundary(MAX_METADATA_NAME_BYTES));
    if name.is_empty() || OWN.contains(&&*name) { name + "_" } else { name }
}

/// `None` for null, which says nothing.
fn value_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(truth) => Value::Boolean(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(all) => {
            let values: Vec<Value> = all.iter().filter(|one| !one.is_array()).filter_map(value_of).collect();
            let is_list = values.len() == all.len() && values.iter().all(|value| value.kind() == values[0].kind());
            if is_list { Value::List(values) } else { Value::String(json.to_string()) }
        }
        Json::Object(_) => Value::String(json.to_string()),
    })
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::from(&**text),
        Value::Integer(whole) => Json::from(*whole),
        Value::Float(number) => Json::from(*number),
        Value::Boolean(truth) => Json::from(*truth),
        Value::Date(date) => Json::from(date.to_string()),
        Value::List(values) => values.iter().map(json_of).collect(),
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
        let others = hit.metadata.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        let first_line = number(FIRST_LINE).unwrap_or(1);
        Self {
            path: words(PATH).unwrap_or_else(|| Arc::from(&*hit.id)),
            index: number(INDEX).unwrap_or(0),
            first_line,
            last_line: number(LAST_LINE).unwrap_or_else(|| first_line + hit.text.lines().count().saturating_sub(1)),
            bytes: number(START_BYTE).unwrap_or(0)..number(END_BYTE).unwrap_or(hit.text.len()),
            pages: number(FIRST_PAGE).zip(number(LAST_PAGE)),
            heading: words(HEADING).unwrap_or_default(),
            text: hit.text.clone(),
            metadata: Arc::new(others.map(|(name, value)| (name.clone(), json_of(value))).collect::<Map<_, _>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::documents::{Chunker, Format};

    #[test]
    fn a_passage_that_was_found_is_the_one_that_was_stored() {
        let text = "# Stops\n\nServices stop last.\n\n## Order\n\nIn reverse.";
        let mut passages = Chunker::new(20, 40, 0).chunks("stop.md", Format::Markdown, text);
        passages[0].pages = Some((2, 3));
        passages[0].metadata = Arc::new(metadata(json!({"a": 1, "b": [1.5], "c": true, "d": "e", "f": []})));
        for passage in passages {
            assert_eq!(Passage::from(&found(&passage)), passage);
        }
    }

    fn metadata(json: Json) -> Map<String, Json> {
        serde_json::from_value(json).unwrap()
    }

    fn found(passage: &Passage) -> Hit {
        let Record { id, text, metadata, .. } = passage.record(vec![1.0]);
        Hit { metadata, ..Hit::new(id, 0.5, text) }
    }

    #[test]
    fn metadata_of_a_row_becomes_values_that_stores_take() {
        let of_row = json!({"path": "x", "my field": null, "no: 1!": 1e300, "mixed": [1, "a"], "deep": {"a": [1]}});
        let passage = Passage { metadata: Arc::new(metadata(of_row)), ..Passage::new("a.jsonl", "Text.") };
        let record = passage.record(vec![1.0]);
        let others = record.metadata.into_iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        let expected = [
            ("deep", Value::from(r#"{"a":[1]}"#)),
            ("mixed", r#"[1,"a"]"#.into()),
            ("no:_1_", 1e300.into()),
            ("path_", "x".into()),
        ];
        assert_eq!(others.collect::<Vec<_>>(), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_row_of_any_names_and_length_makes_a_record_that_stores_take() {
        use crate::store::{Embedded, Schema, VectorStore};

        let mut row: Map<String, Json> = (0..100).map(|n| (format!("column {n}"), json!(n))).collect();
        row.extend([("sage_kinds".to_owned(), json!("x")), ("é".repeat(100), json!(1)), (String::new(), json!(2))]);
        let passage = Passage { metadata: Arc::new(row), pages: Some((1, 2)), ..Passage::new("a.jsonl", "Text.") };
        let store = VectorStore::new(Schema::new("rows", 1), Embedded::in_memory()).unwrap();
        crate::wait(store.open()).unwrap();
        crate::wait(store.upsert(vec![passage.record(vec![1.0])])).unwrap();
    }

    #[test]
    fn a_text_that_says_nothing_of_itself_is_a_document_of_its_own() {
        let passage = Passage::from(&Hit::new("a", 0.5, "One.\nTwo."));
        assert_eq!((&*passage.path, passage.first_line, passage.last_line, &*passage.heading), ("a", 1, 2, ""));
    }
}
