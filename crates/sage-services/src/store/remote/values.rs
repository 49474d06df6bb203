//! Metadata as one text that gives back exactly what went in, for servers that would round, merge or drop some of it.

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::store::value::{Metadata, Value};

/// The text. Strings, integers, booleans and lists are JSON's own.
pub(super) fn exact(metadata: &Metadata) -> String {
    let all: Map<String, Json> = metadata.iter().map(|(name, value)| (name.clone(), written(value))).collect();
    Json::Object(all).to_string()
}

/// The metadata of such a text; `None` if it is none.
pub(super) fn from_exact(text: &str) -> Option<Metadata> {
    let all: Map<String, Json> = serde_json::from_str(text).ok()?;
    all.into_iter().map(|(name, value)| Some((name, read(value)?))).collect()
}

fn written(value: &Value) -> Json {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        // As text: a parser of JSON may give a neighbour of it.
        Value::Float(number) => json!({ "float": number.to_string() }),
        Value::Boolean(truth) => (*truth).into(),
        Value::Date(date) => json!({ "date": date.as_microsecond() }),
        Value::List(values) => values.iter().map(written).collect(),
    }
}

fn read(value: Json) -> Option<Value> {
    Some(match value {
        Json::String(text) => Value::String(text),
        Json::Number(number) => Value::Integer(number.as_i64()?),
        Json::Bool(truth) => Value::Boolean(truth),
        Json::Array(values) => Value::List(values.into_iter().map(read).collect::<Option<_>>()?),
        Json::Object(one) => match one.iter().next()? {
            (kind, Json::String(number)) if kind == "float" => Value::Float(number.parse().ok()?),
            (kind, Json::Number(micros)) if kind == "date" => {
                Value::Date(Timestamp::from_microsecond(micros.as_i64()?).ok()?)
            }
            _ => return None,
        },
        Json::Null => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let date = || Timestamp::MIN.as_microsecond()..Timestamp::MAX.as_microsecond();
        let float = || any::<f64>().prop_filter("is taken", |number| number.is_finite());
        prop_oneof![
            ".{0,9}".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            float().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            date().prop_map(|micros| Value::Date(Timestamp::from_microsecond(micros).unwrap())),
            prop::collection::vec(float(), 0..4).prop_map(Value::from),
            prop::collection::vec(".{0,3}", 0..4).prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn what_comes_back_is_what_went_in(metadata in prop::collection::btree_map("[a-zäö.:-]{1,5}", value(), 0..6)) {
            prop_assert_eq!(from_exact(&exact(&metadata)), Some(metadata));
        }
    }
}
