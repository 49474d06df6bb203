//! The methods of an [`Llm`] with a policy, with what they cost: [`LlmOptions::chat_method`],
//! [`LlmOptions::embed_method`]; and [`Json`], by which answers are kept.

use std::marker::PhantomData;

use sage::{Batch, Batching, BoxError, Calling, Codec, Keep, MethodBuilder, PolicyService, Usage};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::ChatAnswer;
use super::client::Llm;
use super::embeddings::Embedding;
use super::options::LlmOptions;
use super::request::ChatRequest;
use super::tokens::{TokenUsage, estimated_tokens};

impl LlmOptions {
    /// Declares a method by which the model is asked. Its cost is in tokens, for [`Rate::cost`](sage::Rate::cost), and
    /// its price in dollars, for [`Spend`](sage::Spend): what a request is likely to take is reserved before, and what
    /// it did take is settled after. A call with a journal has an idempotency key.
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
        let (before, after) = (self.clone(), self.clone());
        llm.method("chat", chat)
            .cost(|request: &ChatRequest| request.estimated_tokens())
            .price(move |request: &ChatRequest| {
                let usage = TokenUsage::new(request.estimated_input(), request.estimated_output());
                before.spent(request.model.as_deref().unwrap_or(&before.model), &usage)
            })
            .usage(move |answer: &ChatAnswer| {
                let usage = answer.usage.unwrap_or_else(|| TokenUsage::new(0, estimated_tokens(&answer.text)));
                Usage { cost: usage.total(), spent: after.spent(&answer.model, &usage) }
            })
    }

    /// Declares a method by which texts are made into vectors. Those of all callers are put together as `batching`
    /// says, and asked for in requests that the provider takes. Cost and price are as those of
    /// [`chat_method`](Self::chat_method).
    pub fn embed_method(&self, llm: &PolicyService<Llm>, batching: Batching) -> MethodBuilder<String, Embedding> {
        let embed = |llm: Calling<Llm>, texts: Batch<String>| async move {
            let embeddings = llm.embed(&texts).await?;
            Ok::<_, BoxError>(embeddings.into_iter().map(Ok).collect())
        };
        let (before, after) = (self.clone(), self.clone());
        llm.batch_method("embed", batching, embed)
            .cost(|text: &String| estimated_tokens(text))
            .price(move |text: &String| before.spent(&before.model, &TokenUsage::new(estimated_tokens(text), 0)))
            .usage(move |embedding: &Embedding| {
                let usage = TokenUsage::new(embedding.tokens, 0);
                Usage { cost: usage.total(), spent: after.spent(&embedding.model, &usage) }
            })
    }

    /// Which answers are the same: those to requests of which all that is sent is equal. Say where they are kept, by
    /// [`Keep::cache`] or [`Keep::journal`].
    pub fn keep_chat(&self) -> Keep<ChatRequest, ChatAnswer> {
        let model = self.model.clone();
        Keep::new(move |request: &ChatRequest| request.canonical(&model), Json::new())
    }

    /// What a call of a model costs; nothing, if its price is not known. A provider may name a model otherwise in its
    /// answer than it is asked for: then it is the price of the options' model.
    fn spent(&self, model: &str, usage: &TokenUsage) -> f64 {
        let price = self.prices.of(model).or_else(|| self.prices.of(&self.model));
        price.map_or(0.0, |price| price.spent(usage))
    }
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
