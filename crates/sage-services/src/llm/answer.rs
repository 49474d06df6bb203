//! [`ChatAnswer`]: what a model says. Read from whatever has it: fields that are missing or unknown are no errors.

use sage::ServiceError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::LlmError;
use super::request::Message;
use super::tokens::TokenUsage;

/// What a model says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ChatAnswer {
    /// Its text; empty if it only asks for tools.
    pub text: String,
    /// The tools it asks to be called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ends here; `None` if the provider does not say.
    pub finish: Option<Finish>,
    /// What the call took of tokens; `None` if the provider does not say.
    pub usage: Option<TokenUsage>,
    /// The model that was asked.
    pub requested: String,
    /// The model that has answered, as the provider names it; empty if it does not say.
    pub model: String,
    /// The answer's id; empty if there is none.
    pub id: String,
    /// Why the model refuses to answer.
    pub refusal: Option<String>,
    /// What the model says of its reasoning, where a provider tells that.
    pub reasoning: Option<String>,
}

/// Why an answer ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Finish {
    /// The model has said all.
    Stop,
    /// It has as many tokens as it may have.
    Length,
    /// It asks for tools.
    ToolCalls,
    /// The provider has stopped it for what it says.
    ContentFilter,
    /// What else a provider says.
    Other(String),
}

/// A tool that a model asks to be called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ToolCall {
    /// The id by which the [result](Message::tool) is given back; empty if the provider has none.
    pub id: String,
    /// The tool's name, as the model gives it: perhaps none that was offered.
    pub name: String,
    /// The arguments, as the model gives them: perhaps no JSON.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as a value.
    ///
    /// # Errors
    /// They are no JSON, or of another shape.
    pub fn parsed<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.arguments)
    }
}

impl ChatAnswer {
    /// The text as a value, for a request with a [schema](super::ChatRequest::json_schema).
    ///
    /// # Errors
    /// It is no JSON, or of another shape: a model may not heed the schema.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.text)
    }

    /// The message that says this, for the next request of a conversation.
    pub fn message(&self) -> Message {
        if self.tool_calls.is_empty() {
            return Message::assistant(&self.text);
        }
        let calls = self.tool_calls.iter().map(|ToolCall { id, name, arguments }| {
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
        });
        let content = Some(&self.text).filter(|text| !text.is_empty());
        Message::json(json!({"role": "assistant", "content": content, "tool_calls": calls.collect::<Vec<_>>()}))
    }

    /// Reads the body of an answer by the model that was asked.
    pub(super) fn of(body: &Value, requested: &str) -> Result<Self, ServiceError> {
        let choice = body.get("choices").and_then(|choices| choices.get(0));
        let Some(message) = choice.and_then(|choice| choice.get("message")) else {
            return Err(LlmError::malformed("it has no message"));
        };
        let calls = message.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            text: message.get("content").map(text_of).unwrap_or_default(),
            tool_calls: calls.map(tool_call).collect(),
            finish: choice.and_then(|choice| Finish::of(choice.get("finish_reason")?)),
            usage: TokenUsage::of(body),
            requested: requested.to_owned(),
            model: text(body, "model"),
            id: text(body, "id"),
            refusal: said(message, "refusal"),
            reasoning: reasoning(message),
        })
    }
}

impl Finish {
    /// The reason that a provider tells; `None` if it tells none.
    pub(super) fn of(reason: &Value) -> Option<Self> {
        Some(match reason.as_str()? {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::ContentFilter,
            other => Self::Other(other.to_owned()),
        })
    }

    /// The reason in the protocol's words.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other(other) => other,
        }
    }
}

fn tool_call(call: &Value) -> ToolCall {
    let function = call.get("function").unwrap_or(call);
    ToolCall { id: text(call, "id"), name: text(function, "name"), arguments: arguments(function).unwrap_or_default() }
}

/// The arguments of a tool: text, or, from some providers, an object.
pub(super) fn arguments(function: &Value) -> Option<String> {
    match function.get("arguments")? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        object => Some(object.to_string()),
    }
}

/// The text of a content: a string, or parts of which some are text.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect(),
        Value::Object(part) => part.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// A field's text; empty if there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A field's text; `None` if there is none or it says nothing.
pub(super) fn said(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

pub(super) fn reasoning(message: &Value) -> Option<String> {
    said(message, "reasoning_content").or_else(|| said(message, "reasoning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_fields_are_no_errors() {
        let bare = ChatAnswer::of(&json!({"choices": [{"message": {"content": "Hi."}}]}), "m").unwrap();
        assert_eq!(bare, ChatAnswer { text: "Hi.".to_owned(), requested: "m".to_owned(), ..ChatAnswer::default() });
        let odd = json!({
            "id": 7, "model": null, "service_tier": "new", "usage": {"prompt_tokens": 1, "cost": {"x": 1}},
            "choices": [{
                "index": null,
                "finish_reason": "tired",
                "message": {
                    "role": "robot", "content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"],
                    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}, {"type": "unknown"}],
                    "annotations": [], "reasoning_content": "hm",
                },
            }],
        });
        let odd = ChatAnswer::of(&odd, "m").unwrap();
        assert_eq!((odd.text.as_str(), odd.reasoning.as_deref()), ("ab", Some("hm")));
        assert_eq!(odd.finish, Some(Finish::Other("tired".to_owned())));
        assert_eq!(odd.usage, Some(TokenUsage::new(1, 0)));
        assert_eq!(odd.tool_calls[0].parsed::<Value>().unwrap(), json!({"x": 1}));
        assert_eq!(odd.tool_calls[1], ToolCall::default());
        let silent = json!({"choices": [{"message": {"content": null, "refusal": "No."}}]});
        assert_eq!(ChatAnswer::of(&silent, "m").unwrap().refusal.as_deref(), Some("No."));
        for useless in [json!({}), json!([]), json!({"choices": []}), json!({"choices": [{}]}), json!(3)] {
            ChatAnswer::of(&useless, "m").unwrap_err();
        }
    }

    #[test]
    fn an_answer_that_asks_for_tools_can_be_said_again() {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
        let answer = ChatAnswer { tool_calls: vec![call], ..ChatAnswer::default() };
        let said = serde_json::to_value(answer.message()).unwrap();
        assert_eq!((&said["content"], &said["tool_calls"][0]["function"]["name"]), (&Value::Null, &json!("f")));
        assert_eq!(
            ChatAnswer::of(&json!({"choices": [{"message": said}]}), "m").unwrap().tool_calls,
            answer.tool_calls
        );
    }
}
