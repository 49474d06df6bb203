//! [`ChatStream`]: an answer that comes in pieces.
//!
//! Invariant: its end is only reached if the provider has said why the answer ends. A stream that stops before, or has
//! what is no event in it, is an error, and its connection is closed.

use std::collections::VecDeque;
use std::fmt;
use std::mem::take;
use std::sync::Arc;

use sage::ServiceError;
use serde_json::Value;

use super::answer::{ChatAnswer, Finish, arguments, reasoning, said, text, text_of};
use super::body::Body;
use super::error::{LlmError, answered};
use super::options::LlmOptions;
use super::sse::Events;
use super::tokens::{TokenUsage, told};

/// An answer that comes in pieces.
///
/// A policy covers a stream up to its beginning: its first attempts, its wait for a turn, its timeout. From there on it
/// is its reader's: a stream that breaks off is not tried again, and takes no place among the calls under way. By
/// [`LlmOptions::stream_method`](super::LlmOptions::stream_method) the report tells how it ended. Where the policy is
/// to cover all of it, use [`ChatRequest::streamed`](super::ChatRequest::streamed).
#[derive(Debug)]
pub struct ChatStream {
    body: Option<Body>,
    events: Events,
    pieces: VecDeque<Piece>,
    answer: ChatAnswer,
    options: Arc<LlmOptions>,
    at_end: Option<AtEnd>,
}

/// Is told once how a stream ends.
struct AtEnd(Box<dyn FnOnce(Result<&ChatAnswer, &ServiceError>) + Send>);

impl fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtEnd")
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// Of its text.
    Text(String),
    /// Of the model's reasoning.
    Reasoning(String),
    /// Of a tool's call.
    ToolCall {
        /// Which of the answer's calls this belongs to: 0 for the first.
        index: usize,
        /// The tool's name, in the first piece of its call.
        name: Option<String>,
        /// What goes on with its arguments.
        arguments: String,
    },
}

impl ChatStream {
    pub(super) fn new(body: Body, options: Arc<LlmOptions>, requested: &str) -> Self {
        let answer = ChatAnswer { requested: requested.to_owned(), ..ChatAnswer::default() };
        Self { body: Some(body), events: Events::default(), pieces: VecDeque::new(), answer, options, at_end: None }
    }

    /// Has this told how the stream ends: with the whole answer, or an error. Not if it is dropped before its end.
    pub(super) fn at_end(mut self, told: impl FnOnce(Result<&ChatAnswer, &ServiceError>) + Send + 'static) -> Self {
        self.at_end = Some(AtEnd(Box::new(told)));
        self
    }

    /// An answer that was not sent in pieces after all.
    pub(super) fn whole(mut answer: ChatAnswer, options: Arc<LlmOptions>) -> Self {
        let pieces = Some(answer.text.clone()).filter(|text| !text.is_empty()).map(Piece::Text).into_iter();
        let calls = answer.tool_calls.iter().enumerate().map(|(index, call)| Piece::ToolCall {
            index,
            name: Some(call.name.clone()),
            arguments: call.arguments.clone(),
        });
        let pieces = pieces.chain(calls).collect();
        answer.finish.get_or_insert(Finish::Stop);
        told("chat", &answer.requested, &answer.model, answer.usage);
        Self { body: None, events: Events::default(), pieces, answer, options, at_end: None }
    }

    /// The next piece; `None` once the answer is whole. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// A [`ServiceError`] with an [`LlmError`]: the stream broke off, was cut or malformed, or the provider sent an
    /// error. There is nothing more then.
    pub async fn next(&mut self) -> Option<Result<Piece, ServiceError>> {
        let next = self.advance().await.transpose();
        let ended = match &next {
            Some(Ok(_)) => return next,
            Some(Err(error)) => {
                self.body = None;
                self.pieces.clear();
                // It is not whole, whatever came.
                self.answer.finish = None;
                Err(error)
            }
            None => Ok(&self.answer),
        };
        self.at_end.take().into_iter().for_each(|told| (told.0)(ended));
        next
    }

    /// Waits for the rest, and gives the answer as a whole.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn answer(mut self) -> Result<ChatAnswer, ServiceError> {
        while let Some(piece) = self.next().await {
            piece?;
        }
        match self.answer.finish {
            Some(_) => Ok(self.answer),
            None => Err(cut()),
        }
    }

    /// What has come so far. [`finish`](ChatAnswer::finish) and [`usage`](ChatAnswer::usage) come last.
    pub fn so_far(&self) -> &ChatAnswer {
        &self.answer
    }

    async fn advance(&mut self) -> Result<Option<Piece>, ServiceError> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            if let Some(event) = self.events.next() {
                if event.trim_ascii() == b"[DONE]" {
                    return self.end();
                }
                self.take_in(&event)?;
            } else {
                match body.more().await? {
                    Some(bytes) => self.events.push(&bytes),
                    None => return self.end(),
                }
            }
        }
    }

    /// The stream is over.
    fn end(&mut self) -> Result<Option<Piece>, ServiceError> {
        self.body = None;
        if self.answer.finish.is_none() {
            return Err(cut());
        }
        told("chat", &self.answer.requested, &self.answer.model, self.answer.usage);
        Ok(None)
    }

    fn take_in(&mut self, event: &[u8]) -> Result<(), ServiceError> {
        let event: Value = serde_json::from_slice(event)
            .map_err(|error| LlmError::malformed(format!("an event of the stream is no JSON: {error}")))?;
        if let Some(error) = answered(&event, |text| self.options.without_key(text)) {
            return Err(error);
        }
        let answer = &mut self.answer;
        for (name, field) in [("model", &mut answer.model), ("id", &mut answer.id)] {
            if field.is_empty() {
                *field = text(&event, name);
            }
        }
        answer.usage = TokenUsage::of(&event).or(answer.usage);
        let Some(choice) = event.get("choices").and_then(|choices| choices.get(0)) else { return Ok(()) };
        if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
            self.take_delta(delta);
        }
        let answer = &mut self.answer;
        answer.finish = choice.get("finish_reason").and_then(Finish::of).or_else(|| take(&mut answer.finish));
        Ok(())
    }

    fn take_delta(&mut self, delta: &Value) {
        let answer = &mut self.answer;
        let text = delta.get("content").map(text_of).filter(|text| !text.is_empty());
        if let Some(text) = text {
            answer.text.push_str(&text);
            self.pieces.push_back(Piece::Text(text));
        }
        if let Some(reasoning) = reasoning(delta) {
            answer.reasoning.get_or_insert_default().push_str(&reasoning);
            self.pieces.push_back(Piece::Reasoning(reasoning));
        }
        if let Some(refusal) = said(delta, "refusal") {
            answer.refusal.get_or_insert_default().push_str(&refusal);
        }
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.take_call(call);
        }
    }

    /// Takes a piece of a tool's call. One without an index begins a call if it has an id or a name, else goes on.
    fn take_call(&mut self, piece: &Value) {
        let calls = &mut self.answer.tool_calls;
        let function = piece.get("function").unwrap_or(&Value::Null);
        let (id, name) = (said(piece, "id"), said(function, "name"));
        let begins = id.is_some() || name.is_some();
        let told = piece.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        // One beyond the next would leave holes: it is the next.
        let index = match told {
            Some(index) => index.min(calls.len()),
            None if begins => calls.len(),
            None => calls.len().saturating_sub(1),
        };
        if index == calls.len() {
            calls.push(Default::default());
        }
        let call = &mut calls[index];
        let arguments = arguments(function).unwrap_or_default();
        id.into_iter().for_each(|id| call.id = id);
        name.iter().for_each(|name| call.name.clone_from(name));
        call.arguments.push_str(&arguments);
        self.pieces.push_back(Piece::ToolCall { index, name, arguments });
    }
}

fn cut() -> ServiceError {
    ServiceError::new(sage::Verdict::Passing(None), LlmError::Cut)
}
