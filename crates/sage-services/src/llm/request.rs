//! [`ChatRequest`]: what a model is asked. It is data: a policy may send it again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::tokens::estimated_tokens;

/// What a model is asked: messages, tools, and any other parameters of the request.
///
/// ```
/// use sage_services::llm::{ChatRequest, Message, Tool};
/// use serde_json::json;
///
/// let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
/// let request = ChatRequest::new([Message::system("Be short."), Message::user("Is it warm in Rome?")])
///     .tool(Tool::new("weather", "The weather of a city.", schema))
///     .temperature(0.0)
///     .max_tokens(100)
///     .set("seed", 7);
/// assert!(request.estimated_tokens() > 100);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    pub(super) model: Option<String>,
    messages: Vec<Message>,
    tools: Vec<Tool>,
    parameters: Map<String, Value>,
    pub(super) streamed: bool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(Value);

/// A function that a model may ask to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tool(Value);

impl Message {
    /// What the model is to heed throughout.
    pub fn system(text: impl Into<String>) -> Self {
        Self::of("system", text)
    }

    /// What the user says.
    pub fn user(text: impl Into<String>) -> Self {
        Self::of("user", text)
    }

    /// What the model has said. For one that asks for tools, see [`ChatAnswer::message`](super::ChatAnswer::message).
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::of("assistant", text)
    }

    /// What came of the call of a tool, by the [call's id](super::ToolCall::id).
    pub fn tool(id: impl Into<String>, result: impl Into<String>) -> Self {
        Self(json!({"role": "tool", "tool_call_id": id.into(), "content": result.into()}))
    }

    /// Any message as its provider wants it, such as one with an image.
    pub fn json(message: Value) -> Self {
        Self(message)
    }

    fn of(role: &str, text: impl Into<String>) -> Self {
        Self(json!({"role": role, "content": text.into()}))
    }
}

impl Tool {
    /// A function with its name, what it does, and the JSON schema of its arguments.
    pub fn new(name: impl Into<String>, what: impl Into<String>, arguments: Value) -> Self {
        let function = json!({"name": name.into(), "description": what.into(), "parameters": arguments});
        Self(json!({"type": "function", "function": function}))
    }

    /// Any tool as its provider wants it.
    pub fn json(tool: Value) -> Self {
        Self(tool)
    }
}

impl ChatRequest {
    /// Asks with these messages.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        let messages = messages.into_iter().collect();
        Self { model: None, messages, tools: Vec::new(), parameters: Map::new(), streamed: false }
    }

    /// Asks one question.
    pub fn ask(question: impl Into<String>) -> Self {
        Self::new([Message::user(question)])
    }

    /// Asks another model than that of the client's options.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Adds a message.
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Offers a tool.
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// How random the answer may be: 0 to 2. Default: the provider's.
    pub fn temperature(self, temperature: f64) -> Self {
        self.set("temperature", temperature)
    }

    /// The most tokens the answer may have, as `max_tokens`. Some models want another name for it: see
    /// [`set`](Self::set). Default: the provider's.
    pub fn max_tokens(self, tokens: u32) -> Self {
        self.set("max_tokens", tokens)
    }

    /// Has the answer follow a JSON schema, which gets a name: see [`ChatAnswer::json`](super::ChatAnswer::json).
    pub fn json_schema(self, name: impl Into<String>, schema: Value) -> Self {
        let schema = json!({"name": name.into(), "schema": schema, "strict": true});
        self.set("response_format", json!({"type": "json_schema", "json_schema": schema}))
    }

    /// Has the answer sent in pieces. It is put together again: [`Llm::chat`](super::Llm::chat) gives all of it. A
    /// provider that stops in its middle is noticed after the
    /// [read timeout](super::LlmOptions::read_timeout) at the latest. Default: it comes as a whole.
    pub fn streamed(mut self) -> Self {
        self.streamed = true;
        self
    }

    /// Sets any other parameter of the request, such as `seed` or `max_completion_tokens`; `null` leaves out one that
    /// the client would send.
    pub fn set(mut self, parameter: impl Into<String>, value: impl Into<Value>) -> Self {
        self.parameters.insert(parameter.into(), value.into());
        self
    }

    /// How many tokens the request costs, as far as that is known before: about one for four bytes of what is sent, and
    /// the most that the answer may have, or 512.
    pub fn estimated_tokens(&self) -> u64 {
        self.estimated_input() + self.estimated_output()
    }

    pub(super) fn estimated_input(&self) -> u64 {
        let text = |value: &Value| estimated_tokens(&value.to_string());
        let messages: u64 = self.messages.iter().map(|Message(message)| text(message)).sum();
        messages + self.tools.iter().map(|Tool(tool)| text(tool)).sum::<u64>()
    }

    pub(super) fn estimated_output(&self) -> u64 {
        let most = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| self.parameters.get(*name)?.as_u64());
        most.unwrap_or(512)
    }

    /// The arguments in their canonical form, for a service that asks `model` unless something else is said.
    pub(super) fn canonical(&self, model: &str) -> Option<Vec<u8>> {
        let mut body = self.body(model, self.streamed);
        body.sort_all_objects();
        serde_json::to_vec(&body).ok()
    }

    /// What is sent.
    pub(super) fn body(&self, model: &str, streamed: bool) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), self.model.as_deref().unwrap_or(model).into());
        body.insert("messages".into(), self.messages.iter().map(|Message(message)| message.clone()).collect());
        if !self.tools.is_empty() {
            body.insert("tools".into(), self.tools.iter().map(|Tool(tool)| tool.clone()).collect());
        }
        if streamed {
            body.insert("stream".into(), true.into());
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        for (name, value) in &self.parameters {
            match value {
                Value::Null => body.remove(name),
                value => body.insert(name.clone(), value.clone()),
            };
        }
        Value::Object(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_as_it_was_said() {
        let request = ChatRequest::ask("why?").model("other").set("seed", 7).max_tokens(9);
        let expected = json!({
            "model": "other", "messages": [{"role": "user", "content": "why?"}], "seed": 7, "max_tokens": 9,
        });
        assert_eq!(request.body("m", false), expected);
        let streamed = ChatRequest::ask("why?").set("stream_options", Value::Null).body("m", true);
        let expected = json!({"model": "m", "messages": [{"role": "user", "content": "why?"}], "stream": true});
        assert_eq!(streamed, expected);
    }

    #[test]
    fn equal_requests_have_equal_canonical_forms() {
        let [one, other] = [["a", "b"], ["b", "a"]]
            .map(|order| order.iter().fold(ChatRequest::ask("why?"), |request, name| request.set(*name, 1)));
        assert_eq!(one.canonical("m"), other.canonical("m"));
        assert_ne!(one.canonical("m"), one.canonical("n"));
        assert_eq!(one.canonical("n"), one.clone().model("n").canonical("m"));
    }
}
