//! [`LlmEmbedder`]: vectors that a provider makes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sage::{AsyncService, BoxError, HookContext, Service};

use super::embedder::{EmbedError, Embedder};
use super::id::EmbedderId;
use super::to_length_one;
use crate::llm::{Llm, LlmOptions};
use crate::wait;
use crate::worker::Worker;

/// Embeds text by a model of a provider that speaks OpenAI's protocol.
///
/// Texts go to the provider in requests of the size that it [allows](LlmOptions::embed_at_most). A text without a
/// letter, digit or sign gets a vector of zeros, and is not sent: providers refuse it, and the others of its request
/// with it. Nobody here sees the weights, so the [id](Embedder::id) has the model's name alone.
///
/// It sends each request once. With a [policy](sage::Policy), to which its errors say what they mean, and
/// [`embed_method`](crate::embed_method), it is tried again and limited; [`LlmOptions::embed_method`] also knows what
/// that costs.
///
/// ```no_run
/// use sage_services::llm::LlmOptions;
/// use sage_services::{Embedder, LlmEmbedder};
///
/// let options = LlmOptions::new("text-embedding-3-small").key_from_env("OPENAI_API_KEY")?;
/// let embedder = LlmEmbedder::new(options, 1536);
/// let vectors = embedder.embed_passages(&["Services stop in reverse order."])?;
/// assert_eq!(vectors[0].len(), 1536);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LlmEmbedder {
    id: EmbedderId,
    llm: Arc<Llm>,
    /// Speaks to the provider. It is started when it is first needed.
    worker: Mutex<Option<Arc<Worker>>>,
}

impl LlmEmbedder {
    /// An embedder by a model whose vectors have `dimensions` coordinates. It connects when it is called.
    pub fn new(options: LlmOptions, dimensions: usize) -> Self {
        let id = EmbedderId::new(options.model(), dimensions);
        Self { id, llm: Arc::new(Llm::new(options)), worker: Mutex::new(None) }
    }

    /// Does some work of the client, and waits for it.
    fn work<T, F>(&self, work: impl FnOnce(Arc<Llm>) -> F) -> Result<T, BoxError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let worker = {
            let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
            match &*worker {
                Some(worker) => worker.clone(),
                None => worker.insert(Arc::new(Worker::start("sage-embedder")?)).clone(),
            }
        };
        wait(worker.read(work(self.llm.clone()))).map_err(|_| "the embedder was cleaned up meanwhile".into())
    }
}

impl Service for LlmEmbedder {
    /// Whether the provider can be reached. It is asked for its models, which costs nothing.
    fn health(&self) -> Result<(), BoxError> {
        self.work(|llm| async move { llm.health().await })?
    }

    fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            wait(worker.end());
        }
        Ok(())
    }
}

impl Embedder for LlmEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let is_asked_for = |text: &&str| !text.trim().is_empty();
        let asked: Vec<String> = texts.iter().copied().filter(is_asked_for).map(str::to_owned).collect();
        let failed = |error| EmbedError::failed(&self.id, error);
        let embedded = if asked.is_empty() {
            Vec::new()
        } else {
            let embedded = self.work(|llm| async move { llm.embed(&asked).await }).map_err(failed)?;
            embedded.map_err(|error| failed(error.into()))?
        };
        let mut embedded = embedded.into_iter();
        let vector = |text: &&str| {
            if !is_asked_for(text) {
                return Ok(vec![0.0; self.id.dimensions()]);
            }
            let mut vector = embedded.next().expect("there is one for each text that was asked for").vector;
            if vector.len() != self.id.dimensions() {
                return Err(EmbedError::DimensionMismatch { id: self.id.clone(), found: vector.len() });
            }
            to_length_one(&mut vector);
            Ok(vector)
        };
        texts.iter().map(vector).collect()
    }
}

impl fmt::Debug for LlmEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmEmbedder").field("id", &self.id).field("llm", &self.llm).finish_non_exhaustive()
    }
}
