//! [`embed_method`]: the texts of all callers go to an embedder together.

use sage::{Batch, Batching, BoxError, Calling, MethodBuilder, PolicyService};

use super::embedder::Embedder;

/// What a text is for an [`Embedder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// A text that is to be found.
    Passage,
    /// A text for which passages are to be found.
    Query,
}

/// Declares a method by which an embedder turns a text into a vector. The texts of all callers are put together as
/// `batching` says, and go to the embedder on a thread of the job's runtime that may block.
///
/// ```
/// use sage::{Batching, Environment, Order, Policy};
/// use sage_services::{Embedder, LexicalEmbedder, TextKind, embed_method};
///
/// let env = Environment::local("embedded");
/// let embedder = env.register_service("embedder", LexicalEmbedder::default).policy(Policy::new()).build();
/// let embed = embed_method(&embedder, TextKind::Passage, Batching::of(64)).build();
/// let texts = ["Services stop in reverse order.", "Tea is hot."].map(str::to_owned).to_vec();
/// let vectors = env
///     .from_collection(texts)
///     .try_map_async(8, Order::Ordered, move |text| {
///         let embed = embed.clone();
///         async move { embed.call(text).await }
///     })
///     .collect();
/// env.run()?;
/// assert_eq!(vectors.take().len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn embed_method<E: Embedder>(
    embedder: &PolicyService<E>,
    kind: TextKind,
    batching: Batching,
) -> MethodBuilder<String, Vec<f32>> {
    let name = match kind {
        TextKind::Passage => "embed_passages",
        TextKind::Query => "embed_queries",
    };
    let embed = move |embedder: Calling<E>, texts: Batch<String>| async move {
        let embedded = tokio::task::spawn_blocking(move || {
            embedder.on_this_thread(|embedder| {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                match kind {
                    TextKind::Passage => embedder.embed_passages(&texts),
                    TextKind::Query => embedder.embed_queries(&texts),
                }
            })
        });
        Ok::<_, BoxError>(embedded.await??.into_iter().map(Ok).collect())
    };
    embedder.batch_method(name, batching, embed)
}
