//! A client of language models that speak OpenAI's protocol: OpenAI itself, most other providers, and servers of one's
//! own. Behind the feature `llm`.
//!
//! [`Llm`] asks for answers ([`chat`](Llm::chat)), for answers in pieces ([`stream`](Llm::stream)) and for vectors
//! ([`embed`](Llm::embed)); a [`ChatRequest`] may offer tools and ask for an answer by a JSON schema. It sends each
//! request once. Registered with a [policy](sage::Policy), it is tried again, limited, paid for and journaled as that
//! says: [`LlmOptions::chat_method`] has an example. What an error means to a policy:
//!
//! | the provider | verdict |
//! |---|---|
//! | refuses connections, or cannot be found | [`Outage`](sage::Verdict::Outage) |
//! | breaks off, cuts a stream, sends no JSON | [`Passing`](sage::Verdict::Passing) |
//! | 408, 409, 500 and above | `Passing`, with the delay it asks for, 120 seconds at most |
//! | 429, 529 | [`Throttled`](sage::Verdict::Throttled), with that delay |
//! | 401, 402, 403, 407, `insufficient_quota` | [`Denied`](sage::Verdict::Denied) |
//! | other statuses, an answer that is too large | [`Bad`](sage::Verdict::Bad) |
//!
//! The header `x-should-retry` comes before the status, and `retry-after-ms` before `retry-after`.
//!
//! Answers are read tolerantly: a field that is missing or unknown is no error. The key is in no log, error or `Debug`.
//! Calls are logged at the level of debugging, by the names that OpenTelemetry has for them: `gen_ai.request.model`,
//! `gen_ai.usage.input_tokens` and so on.
//!
//! This module knows nothing of what a policy does.

mod answer;
mod body;
mod client;
mod embeddings;
mod error;
mod methods;
mod options;
mod prices;
mod request;
mod sse;
mod stream;
mod tokens;

pub use crate::tokens::estimated_tokens;
pub use answer::{ChatAnswer, Finish, ToolCall};
pub use client::Llm;
pub use embeddings::Embedding;
pub use error::LlmError;
pub use methods::Json;
pub use options::LlmOptions;
pub use prices::{Price, Prices, PricesError};
pub use request::{ChatRequest, Message, Tool};
pub use stream::{ChatStream, Piece};
pub use tokens::TokenUsage;
