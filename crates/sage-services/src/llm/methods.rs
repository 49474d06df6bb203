//! The methods of an [`Llm`] with a policy, with what they cost: [`LlmOptions::chat_method`],
//! [`LlmOptions::stream_method`], [`LlmOptions::embed_method`]; and [`Json`], by which answers are kept.

use std::marker::PhantomData;
use std::sync::Arc;

use sage::{Batch, Batching, BoxError, Calling, Codec, Keep, MethodBuilder, PolicyService, ServiceError, Tally, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::ChatAnswer;
use super::client::Llm;
use super::embeddings::Embedding;
use super::options::LlmOptions;
use super::request::ChatRequest;
use super::stream::ChatStream;
use super::tokens::TokenUsage;
use crate::tokens::estimated_tokens;

impl LlmOptions {
    /// Declares a method by which the model is asked. Its cost is in tokens, for [`Rate::cost`](sage::Rate::cost), and
    /// its price in dollars, for [`Spend`](sage::Spend): what a request is likely to take is reserved before, and what
    /// it did take is settled after. What was taken and spent is in the report, by model, with OpenTelemetry's names:
    /// [`PolicyReport::tallies`](sage::PolicyReport::tallies). A call with a journal has an idempotency key.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use sage::{Environment, Policy, Rate, Retry, Spend};
    /// use sage_services::llm::{ChatRequest, Llm, LlmOptions};
    ///
    /// let options = LlmOptions::new("gpt-4o-mini").key_from_env("OPENAI_API_KEY")?;
    /// let env = Environment::local("asked");
    /// let policy = Policy::new()
    ///     .timeout(Duration::from_secs(60))
    ///     .retry(Retry::up_to(4))
    ///     .rate(Rate::cost(200_000, Duration::from_secs(60)))
    ///     .spend(Spend::at_most(5.0, Duration::from_secs(86_400)));
    /// let service = options.clone();
    /// let llm = env.register_async_service("llm", move || Llm::new(service.clone())).policy(policy).build();
    /// let chat = options.chat_method(&llm).build();
    /// let answers = env
    ///     .from_iter(["Why is the sky blue?", "Why is grass green?"])
    ///     .try_map(move |question| chat.call_blocking(ChatRequest::ask(question).max_tokens(200)))
    ///     .collect();
    /// env.run()?;
    /// answers.take().iter().for_each(|answer| println!("{}", answer.text));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn chat_method(&self, llm: &PolicyService<Llm>) -> MethodBuilder<ChatRequest, ChatAnswer> {
        let chat = |llm: Calling<Llm>, request: ChatRequest| async move {
            let key = llm.idempotency_key();
            llm.chat_once(&request, key.as_deref()).await
        };
        self.warn_of_no_price();
        let [before, after, told] = [(); 3].map(|()| self.clone());
        llm.method("chat", chat)
            .cost(|request: &ChatRequest| request.estimated_tokens())
            .price(move |request: &ChatRequest| before.likely_spent(request))
            .usage(move |answer: &ChatAnswer| {
                let usage = usage_of(answer);
                Usage { cost: usage.total(), spent: after.spent(&answer.requested, &usage) }
            })
            .tally(move |answer: &ChatAnswer| told.tally("chat", &answer.requested, &usage_of(answer)))
    }

    /// Declares a method by which the model is asked for an answer in pieces. The policy covers it up to its beginning:
    /// see [`ChatStream`]. What it is likely to take is what counts for rates and spends. What it did take is in the
    /// report once it has been read to its end; one that breaks off before is there as a call that failed, and as the
    /// last error. One that its reader drops is not.
    pub fn stream_method(&self, llm: &PolicyService<Llm>) -> MethodBuilder<ChatRequest, ChatStream> {
        let (service, [told, before]) = (Arc::new(llm.clone()), [(); 2].map(|()| self.clone()));
        let stream = move |llm: Calling<Llm>, request: ChatRequest| {
            let (service, told) = (service.clone(), told.clone());
            async move {
                let stream = llm.stream(&request).await?;
                Ok::<_, ServiceError>(stream.at_end(move |ended| match ended {
                    Ok(answer) => service.tally(told.tally("chat", &answer.requested, &usage_of(answer))),
                    Err(error) => service.broke_off(error),
                }))
            }
        };
        self.warn_of_no_price();
        llm.method("stream", stream)
            .cost(|request: &ChatRequest| request.estimated_tokens())
            .price(move |request: &ChatRequest| before.likely_spent(request))
    }

    /// Declares a method by which texts are made into vectors. Those of all callers are put together as `batching`
    /// says, and asked for in requests that the provider takes. Cost and price are as those of
    /// [`chat_method`](Self::chat_method).
    pub fn embed_method(&self, llm: &PolicyService<Llm>, batching: Batching) -> MethodBuilder<String, Embedding> {
        let embed = |llm: Calling<Llm>, texts: Batch<String>| async move {
            let embeddings = llm.embed(&texts).await?;
            Ok::<_, BoxError>(embeddings.into_iter().map(Ok).collect())
        };
        self.warn_of_no_price();
        let [before, after, told] = [(); 3].map(|()| self.clone());
        llm.batch_method("embed", batching, embed)
            .cost(|text: &String| estimated_tokens(text))
            .price(move |text: &String| before.spent(&before.model, &TokenUsage::new(estimated_tokens(text), 0)))
            .usage(move |embedding: &Embedding| {
                let usage = TokenUsage::new(embedding.tokens, 0);
                Usage { cost: usage.total(), spent: after.spent(&after.model, &usage) }
            })
            .tally(move |embedding: &Embedding| {
                told.tally("embeddings", &told.model, &TokenUsage::new(embedding.tokens, 0))
            })
    }

    /// Which answers are the same: those to requests of which all that is sent is equal. Say where they are kept, by
    /// [`Keep::cache`] or [`Keep::journal`].
    pub fn keep_chat(&self) -> Keep<ChatRequest, ChatAnswer> {
        let model = self.model.clone();
        Keep::new(move |request: &ChatRequest| request.canonical(&model), Json::new())
    }

    /// A limit of what may be spent would limit nothing.
    fn warn_of_no_price(&self) {
        if !self.prices.is_empty() && self.prices.of(&self.model).is_none() {
            tracing::warn!(model = self.model, "its price is not known, so nothing is counted as spent on it");
        }
    }

    /// What a request is likely to cost.
    fn likely_spent(&self, request: &ChatRequest) -> f64 {
        let usage = TokenUsage::new(request.estimated_input(), request.estimated_output());
        self.spent(request.model.as_deref().unwrap_or(&self.model), &usage)
    }

    /// What a call of a model costs; nothing, if its price is not known.
    fn spent(&self, model: &str, usage: &TokenUsage) -> f64 {
        self.prices.of(model).map_or(0.0, |price| price.spent(usage))
    }

    /// What an answer adds to the report, by OpenTelemetry's names. It has none for a cost.
    fn tally(&self, operation: &str, model: &str, usage: &TokenUsage) -> Tally {
        Tally::new()
            .of("gen_ai.operation.name", operation)
            .of("gen_ai.request.model", model)
            .add("gen_ai.usage.input_tokens", usage.input as f64)
            .add("gen_ai.usage.cache_read.input_tokens", usage.cached_input as f64)
            .add("gen_ai.usage.output_tokens", usage.output as f64)
            .add("cost", self.spent(model, usage))
    }
}

/// What an answer took of tokens; what it is likely to have taken, if its provider does not say.
fn usage_of(answer: &ChatAnswer) -> TokenUsage {
    answer.usage.unwrap_or_else(|| TokenUsage::new(0, estimated_tokens(&answer.text)))
}

/// Makes JSON of values, and values of JSON, where answers are kept.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// Of values of this type.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json<T> {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(into, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
