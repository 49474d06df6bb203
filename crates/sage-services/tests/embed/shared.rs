//! Threads that share an embedder, and batches through the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sage::{Batching, Environment, Order, Policy, Service};
use sage_services::{EmbedError, Embedder, EmbedderId, StaticEmbedder, TextKind, embed_method};

use super::files::{case, write_case};

fn many_texts() -> Vec<String> {
    let words = ["tea", "is", "hot", "services", "stop", "last", "in", "order", "xylophone"];
    let word = |number: usize, position: usize| words[(number * 31 + position * 17) % words.len()];
    let text = |number: usize| (0..number % 7).map(|position| word(number, position)).collect::<Vec<_>>().join(" ");
    (0..1_000).map(text).collect()
}

fn one_by_one(embedder: &dyn Embedder, texts: &[&str]) -> Vec<Vec<f32>> {
    texts.iter().flat_map(|text| embedder.embed_passages(&[text]).unwrap()).collect()
}

#[test]
fn four_threads_share_an_embedder_and_get_equal_vectors() {
    let folder = write_case(&case("wordllama"));
    let texts = many_texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let expected = one_by_one(&StaticEmbedder::open(folder.path()).unwrap(), &texts);
    for threads in [1, 2, 5] {
        let embedder = StaticEmbedder::open(folder.path()).unwrap().with_threads(threads);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(embedder.embed_passages(&texts).unwrap(), expected);
                    }
                });
            }
        });
    }
}

/// Counts how often it is asked for queries.
struct Counted {
    inner: StaticEmbedder,
    asked: Arc<AtomicUsize>,
}

impl Service for Counted {}

impl Embedder for Counted {
    fn id(&self) -> &EmbedderId {
        self.inner.id()
    }

    fn embed_passages(&self, _: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        unreachable!("only queries are asked for")
    }

    fn embed_queries(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.inner.embed_queries(texts)
    }
}

#[test]
fn an_embedder_is_batched_through_the_engine() {
    let folder = write_case(&case("normalised"));
    let texts = many_texts();
    let embedder = StaticEmbedder::open(folder.path()).unwrap();
    let expected = one_by_one(&embedder, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let env = Environment::local("batched");
    let (path, asked) = (folder.path().to_owned(), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    let open = move || {
        let inner = StaticEmbedder::open(&path).unwrap();
        Box::new(Counted { inner, asked: counter.clone() }) as Box<dyn Embedder>
    };
    let service = env.register_service("embedder", open).policy(Policy::new()).build();
    let embed = embed_method(&service, TextKind::Query, Batching::of(64)).build();
    let embedded = env
        .from_collection(texts)
        .try_map_async(128, Order::Ordered, move |text| {
            let embed = embed.clone();
            async move { embed.call(text).await }
        })
        .collect();
    env.run().unwrap();
    assert_eq!(embedded.take(), expected);
    let asked = asked.load(Ordering::Relaxed);
    assert!((16..=100).contains(&asked), "asked {asked} times for 1,000 texts");
}
