//! A record's metadata as servers keep it, in JSON.
//!
//! A value is there for conditions by its name; a date, as microseconds, by `sage_date:` and its name, so that no
//! number is taken for it. `sage_kinds` has the kinds of all values, as servers cannot be asked whether a value is
//! there, or of which type it is. `sage_metadata` is one text, which gives back exactly what went in.

use serde_json::{Map, Value as Json};

use super::values::{exact, from_exact};
use crate::store::value::{Metadata, Value};

pub(in crate::store) const KINDS: &str = "sage_kinds";
const EXACT: &str = "sage_metadata";

/// Where a date is, or a list of them.
pub(super) fn date_key(name: &str) -> String {
    format!("sage_date:{name}")
}

/// How [`KINDS`] says that a value is there: `string:lang`, or `strings:tags` for a list. An integer and a float are
/// both numbers.
pub(super) fn kind_of(name: &str, value: &Value) -> String {
    let kind = |value: &Value| match value {
        Value::Integer(_) | Value::Float(_) => "number",
        other => other.kind(),
    };
    match value {
        Value::List(values) if !values.is_empty() => format!("{}s:{name}", kind(&values[0])),
        _ => format!("{}:{name}", kind(value)),
    }
}

/// A record's metadata as a server is to keep it.
pub(in crate::store) fn kept(metadata: &Metadata) -> Map<String, Json> {
    let mut kept = Map::new();
    for (name, value) in metadata {
        let (key, value) = match value {
            // Chroma forgets an empty list, and no condition is about one.
            Value::List(values) if values.is_empty() => continue,
            Value::Date(_) => (date_key(name), json(value)),
            Value::List(values) if matches!(values[0], Value::Date(_)) => {
                (date_key(name), values.iter().map(json).collect())
            }
            Value::List(values) => (name.clone(), values.iter().map(json).collect()),
            _ => (name.clone(), json(value)),
        };
        kept.insert(key, value);
    }
    kept.insert(KINDS.to_owned(), metadata.iter().map(|(name, value)| kind_of(name, value)).collect());
    kept.insert(EXACT.to_owned(), exact(metadata).into());
    kept
}

/// A value that is no list.
pub(in crate::store) fn json(value: &Value) -> Json {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::Date(date) => date.as_microsecond().into(),
        Value::List(_) => Json::Null,
    }
}

/// What went in; `None` if something else has written it.
pub(in crate::store) fn as_kept(kept: &Map<String, Json>) -> Option<Metadata> {
    from_exact(kept.get(EXACT)?.as_str()?)
}
