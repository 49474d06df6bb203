//! [`Llm`]: the client, and its way to the provider.
//!
//! Invariants:
//!  1. A request is sent once. Whether it is sent again is the policy's to say, by the [`Verdict`] of the error.
//!  2. The key goes to the provider's address and nowhere else: redirections are not followed.

use std::sync::{Arc, OnceLock};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response};
use sage::{AsyncService, BoxError, HookContext, ServiceError, Verdict};
use serde_json::{Value, json};

use super::answer::{ChatAnswer, text};
use super::body::Body;
use super::embeddings::{Embedding, requests, shares, vectors};
use super::error::{LlmError, answered, refused, unsent};
use super::options::LlmOptions;
use super::request::ChatRequest;
use super::stream::ChatStream;
use super::tokens::{TokenUsage, told};
use crate::connection::{self, Key, connecting};

/// A client of language models that speak OpenAI's protocol. It sends each request once: timeouts, retries and limits
/// are the [policy](sage::Policy)'s, to which its errors say what they mean.
///
/// ```no_run
/// use sage_services::llm::{ChatRequest, Llm, LlmOptions};
///
/// # async fn asks() -> Result<(), Box<dyn std::error::Error>> {
/// let llm = Llm::new(LlmOptions::new("gpt-4o-mini").key_from_env("OPENAI_API_KEY")?);
/// let answer = llm.chat(&ChatRequest::ask("Why is the sky blue?")).await?;
/// println!("{} ({:?} tokens)", answer.text, answer.usage.map(|usage| usage.total()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Llm {
    options: Arc<LlmOptions>,
    client: OnceLock<Client>,
}

impl AsyncService for Llm {
    async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        Ok(self.client().map(|_| ())?)
    }

    /// Whether the provider can be reached. It is asked for its models, which costs nothing.
    async fn health(&self) -> Result<(), BoxError> {
        let asked = self.authorised(self.client()?.get(self.url("models")))?;
        match asked.send().await {
            Ok(response) if response.status().is_server_error() => Err(self.refusal(response).await.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(unsent(error).into()),
        }
    }
}

impl Llm {
    /// A client with these options. It connects when it is called.
    pub fn new(options: LlmOptions) -> Self {
        Self { options: Arc::new(options), client: OnceLock::new() }
    }

    /// Asks a model. An answer that is [streamed](ChatRequest::streamed) is put together.
    ///
    /// # Errors
    /// A [`ServiceError`] with an [`LlmError`].
    pub async fn chat(&self, request: &ChatRequest) -> Result<ChatAnswer, ServiceError> {
        self.chat_once(request, None).await
    }

    /// As [`chat`](Self::chat), with a key by which the provider knows a request that it has had before, if it heeds
    /// such keys: see [`Calling::idempotency_key`](sage::Calling::idempotency_key).
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub async fn chat_once(&self, request: &ChatRequest, key: Option<&str>) -> Result<ChatAnswer, ServiceError> {
        if request.streamed {
            return self.open(request, key).await?.answer().await;
        }
        let body = request.body(&self.options.model, false);
        let answer = ChatAnswer::of(&self.ask("chat/completions", &body, key).await?, self.requested(request))?;
        told("chat", &answer.requested, &answer.model, answer.usage);
        Ok(answer)
    }

    /// Asks a model, and gives its answer in pieces, as they come. See [`ChatStream`] for what a policy covers of it.
    ///
    /// # Errors
    /// A [`ServiceError`] with an [`LlmError`], if there is no stream.
    pub async fn stream(&self, request: &ChatRequest) -> Result<ChatStream, ServiceError> {
        self.open(request, None).await
    }

    /// Makes vectors of texts, in their order: by several requests, one after the other, if there are
    /// [more](LlmOptions::embed_at_most) than one may have.
    ///
    /// # Errors
    /// A [`ServiceError`] with an [`LlmError`], if one of the requests has no answer.
    pub async fn embed(&self, texts: &[String]) -> Result<Vec<Embedding>, ServiceError> {
        let LlmOptions { model, most_inputs, most_tokens, .. } = &*self.options;
        let mut embeddings = Vec::with_capacity(texts.len());
        for range in requests(texts, *most_inputs, *most_tokens) {
            let texts = &texts[range];
            let answer = self.ask("embeddings", &json!({"model": model, "input": texts}), None).await?;
            let (vectors, usage) = (vectors(&answer, texts.len())?, TokenUsage::of(&answer));
            let answered = text(&answer, "model");
            told("embeddings", model, &answered, usage);
            let tokens = usage.map(|usage| usage.input);
            let shared = vectors.into_iter().zip(shares(texts, tokens));
            embeddings.extend(shared.map(|(vector, tokens)| Embedding { vector, tokens, model: answered.clone() }));
        }
        Ok(embeddings)
    }

    async fn open(&self, request: &ChatRequest, key: Option<&str>) -> Result<ChatStream, ServiceError> {
        let body = request.body(&self.options.model, true);
        let response = self.sent("chat/completions", &body, key).await?;
        let is_json =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let (body, requested) = (Body::new(response, &self.options)?, self.requested(request));
        if is_json {
            // Some servers do not stream. An error is told as such.
            let answer = ChatAnswer::of(&self.parsed(&body.all().await?)?, requested)?;
            return Ok(ChatStream::whole(answer, self.options.clone()));
        }
        Ok(ChatStream::new(body, self.options.clone(), requested))
    }

    fn requested<'a>(&'a self, request: &'a ChatRequest) -> &'a str {
        request.model.as_deref().unwrap_or(&self.options.model)
    }

    /// Sends a request, and reads its answer.
    async fn ask(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Value, ServiceError> {
        let response = self.sent(path, body, key).await?;
        self.parsed(&Body::new(response, &self.options)?.all().await?)
    }

    fn parsed(&self, body: &[u8]) -> Result<Value, ServiceError> {
        let answer = serde_json::from_slice(body).map_err(|error| LlmError::malformed(error.to_string()))?;
        match answered(&answer, |text| self.options.without_key(text)) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    /// Sends a request. The answer has begun, and is no refusal.
    async fn sent(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Response, ServiceError> {
        let mut request = self.authorised(self.client()?.post(self.url(path)))?;
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request =
            request.header(CONTENT_TYPE, "application/json").header(ACCEPT, "application/json, text/event-stream");
        let response = request.body(body.to_string()).send().await.map_err(unsent)?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// What a provider's error says, as far as it can be read.
    async fn refusal(&self, response: Response) -> ServiceError {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        refused(status, &headers, &self.options.without_key(&connection::told(response).await))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.options.base_url.0.trim_end_matches('/'))
    }

    fn authorised(&self, request: RequestBuilder) -> Result<RequestBuilder, ServiceError> {
        let Some(Key(key)) = &self.options.key else { return Ok(request) };
        let mut value =
            HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| wrong_options("the key is none"))?;
        value.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, value))
    }

    fn client(&self) -> Result<&Client, ServiceError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = connecting(&self.options.base_url, self.options.connect_timeout)
            .and_then(|client| Ok(client.read_timeout(self.options.read_timeout).build()?))
            .map_err(wrong_options)?;
        Ok(self.client.get_or_init(|| client))
    }
}

fn wrong_options(error: impl Into<BoxError>) -> ServiceError {
    ServiceError::new(Verdict::Bad, LlmError::Options(error.into()))
}
