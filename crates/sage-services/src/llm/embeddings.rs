//! [`Embedding`]: a text as a vector. Asks are cut into requests that a provider takes.

use std::ops::Range;

use sage::ServiceError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::LlmError;
use crate::tokens::estimated_tokens;

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Embedding {
    /// The vector, as long as the model makes it.
    pub vector: Vec<f32>,
    /// What the text took of tokens: of those of its request, a share by its length.
    pub tokens: u64,
    /// The model that has made it, as the provider names it; empty if it does not say.
    pub model: String,
}

/// Which texts go together, in their order: at most so many, and at most so many tokens as they are likely to have. A
/// text that alone has more goes alone.
pub(super) fn requests(texts: &[String], most: usize, most_tokens: u64) -> Vec<Range<usize>> {
    let mut requests = Vec::new();
    let (mut begin, mut tokens) = (0, 0);
    for (position, text) in texts.iter().enumerate() {
        let more = estimated_tokens(text);
        if position > begin && (position - begin == most || tokens + more > most_tokens) {
            requests.push(begin..position);
            (begin, tokens) = (position, 0);
        }
        tokens += more;
    }
    if begin < texts.len() {
        requests.push(begin..texts.len());
    }
    requests
}

/// What each of the texts took of the tokens of their request: a share by its length. All together they are as many as
/// that took; or as they are likely to have, if nobody says.
pub(super) fn shares(texts: &[String], tokens: Option<u64>) -> Vec<u64> {
    let lengths = texts.iter().map(|text| estimated_tokens(text).max(1));
    let mut rest: u64 = lengths.clone().sum();
    let mut left = tokens.unwrap_or(rest);
    let share = |length| {
        // Of what is left, by what is left: so they sum up.
        let share = u128::from(left) * u128::from(length) / u128::from(rest);
        let share = u64::try_from(share).expect("a share is no more than all");
        (left, rest) = (left - share, rest - length);
        share
    };
    lengths.map(share).collect()
}

/// Reads the vectors of so many texts, in the texts' order.
pub(super) fn vectors(body: &Value, texts: usize) -> Result<Vec<Vec<f32>>, ServiceError> {
    let Some(data) = body.get("data").and_then(Value::as_array) else {
        return Err(LlmError::malformed("it has no vectors"));
    };
    if data.len() != texts {
        return Err(LlmError::malformed(format!("it has {} vectors for {texts} texts", data.len())));
    }
    let mut vectors = vec![None; texts];
    for (position, item) in data.iter().enumerate() {
        let index = item.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let place = vectors.get_mut(index.unwrap_or(position));
        let Some(place) = place.filter(|place| place.is_none()) else {
            return Err(LlmError::malformed("two vectors have one index, or one has none of a text's"));
        };
        *place = Some(vector(item)?);
    }
    Ok(vectors.into_iter().flatten().collect())
}

fn vector(item: &Value) -> Result<Vec<f32>, ServiceError> {
    let numbers = item.get("embedding").and_then(Value::as_array).filter(|numbers| !numbers.is_empty());
    let numbers = numbers.ok_or_else(|| LlmError::malformed("an embedding is no list of numbers"))?;
    let number = |number: &Value| number.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    let vector: Option<Vec<f32>> = numbers.iter().map(number).collect();
    vector.ok_or_else(|| LlmError::malformed("a vector has something in it that is no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_request_has_more_texts_or_tokens_than_it_may() {
        let texts = |lengths: &[usize]| lengths.iter().map(|length| "a".repeat(*length)).collect::<Vec<_>>();
        assert!(requests(&[], 3, 10).is_empty());
        assert_eq!(requests(&texts(&[4; 7]), 3, 100), [0..3, 3..6, 6..7]);
        assert_eq!(requests(&texts(&[20, 20, 4, 400, 4]), 9, 10), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(requests(&texts(&[0, 0]), 1, 1), [0..1, 1..2]);
    }

    #[test]
    fn the_shares_of_a_requests_tokens_sum_up() {
        let texts = ["a", "abcdefgh", "abcd", ""].map(str::to_owned);
        assert_eq!(shares(&texts, None), [1, 2, 1, 1]);
        for tokens in [0, 1, 5, 7, 1_000_003, u64::MAX] {
            assert_eq!(shares(&texts, Some(tokens)).iter().sum::<u64>(), tokens);
        }
        assert!(shares(&[], Some(3)).is_empty());
    }

    #[test]
    fn vectors_are_in_the_order_of_their_texts() {
        let item = |index: Value, number: f64| json!({"index": index, "embedding": [number]});
        let of = |data: Value| vectors(&json!({ "data": data }), 2);
        assert_eq!(of(json!([item(json!(1), 1.0), item(json!(0), 0.5)])).unwrap(), [[0.5], [1.0]]);
        assert_eq!(of(json!([item(json!(null), 0.5), item(json!(null), 1.0)])).unwrap(), [[0.5], [1.0]]);
        for wrong in [
            json!([item(json!(0), 0.5)]),
            json!([item(json!(0), 0.5), item(json!(0), 0.5)]),
            json!([item(json!(0), 0.5), item(json!(9), 0.5)]),
            json!([item(json!(0), 0.5), {"embedding": [null]}]),
            json!([item(json!(0), 0.5), {"embedding": []}]),
            json!([item(json!(0), 0.5), {}]),
            json!(null),
        ] {
            of(wrong).unwrap_err();
        }
    }
}
