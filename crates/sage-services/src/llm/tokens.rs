//! [`TokenUsage`]: what a call took of tokens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a call took of tokens, as its provider counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TokenUsage {
    /// Those of the request.
    pub input: u64,
    /// Those of the request, among [`input`](Self::input), that the provider had in its cache.
    pub cached_input: u64,
    /// Those of the answer, the model's reasoning included.
    pub output: u64,
}

impl TokenUsage {
    /// Those of a request and of its answer.
    pub fn new(input: u64, output: u64) -> Self {
        Self { input, cached_input: 0, output }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.input + self.output
    }

    /// What an answer tells; `None` if it tells nothing.
    pub(super) fn of(answer: &Value) -> Option<Self> {
        let usage = answer.get("usage").filter(|usage| usage.is_object())?;
        let of = |names: [&str; 2]| names.iter().find_map(|name| count(usage.get(*name)?));
        let details = ["prompt_tokens_details", "input_tokens_details"].iter().find_map(|name| usage.get(*name));
        let input = of(["prompt_tokens", "input_tokens"]);
        let output = of(["completion_tokens", "output_tokens"]);
        let total = count(usage.get("total_tokens").unwrap_or(&Value::Null));
        let input = input.or_else(|| Some(total?.saturating_sub(output.unwrap_or(0))))?;
        let cached = details.and_then(|details| count(details.get("cached_tokens")?));
        Some(Self { input, cached_input: cached.unwrap_or(0).min(input), output: output.unwrap_or(0) })
    }
}

/// A number of tokens; some providers send one with a point.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
}

/// Logs a call by OpenTelemetry's names.
pub(super) fn told(operation: &str, requested: &str, answered: &str, usage: Option<TokenUsage>) {
    tracing::debug!(
        gen_ai.operation.name = operation,
        gen_ai.request.model = requested,
        gen_ai.response.model = answered,
        gen_ai.usage.input_tokens = usage.map(|usage| usage.input),
        gen_ai.usage.output_tokens = usage.map(|usage| usage.output),
        "answered"
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_is_read_from_whatever_tells_it() {
        let of = |usage| TokenUsage::of(&json!({ "usage": usage }));
        let known = Some(TokenUsage { input: 9, cached_input: 4, output: 3 });
        let details = json!({"cached_tokens": 4, "audio_tokens": null});
        assert_eq!(of(json!({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": details})), known);
        assert_eq!(of(json!({"input_tokens": 9.0, "output_tokens": 3, "input_tokens_details": details})), known);
        assert_eq!(of(json!({"total_tokens": 9, "prompt_tokens_details": null})), Some(TokenUsage::new(9, 0)));
        assert_eq!(of(json!(null)), None);
        assert_eq!(of(json!({"prompt_tokens": "many"})), None);
        assert_eq!(TokenUsage::of(&json!({})), None);
    }
}
