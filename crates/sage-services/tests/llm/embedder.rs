//! A provider's vectors, by the interface of every embedder.

use std::error::Error;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use sage::testing::Census;
use sage::{Batching, Environment, Order, Policy, Retry, ServiceError, Verdict};
use sage_services::llm::{LlmError, LlmOptions};
use sage_services::{EmbedError, Embedder, LlmEmbedder, TextKind, embed_method};
use serde_json::json;

use crate::llmock::{Llmock, free_port};

fn options(served: &Llmock) -> LlmOptions {
    LlmOptions::new("text-embedding-3-small").base_url(served.base_url()).embed_at_most(10, 300_000)
}

fn verdict(error: &EmbedError) -> Verdict {
    error.source().unwrap().downcast_ref::<ServiceError>().unwrap().verdict()
}

#[test]
fn an_embedder_gives_vectors_of_length_one_and_zeros_for_nothing() {
    let served = Llmock::serve(&[]);
    let census = Census::take();
    let embedder = LlmEmbedder::new(options(&served), 1536);
    assert_eq!(embedder.id().to_string(), "text-embedding-3-small (1536 dimensions)");
    assert_eq!(embedder.embed_passages(&["", " \n"]).unwrap(), [[0.0; 1536], [0.0; 1536]]);
    assert!(embedder.embed_queries(&[]).unwrap().is_empty());
    assert!(served.requests().is_empty());

    let texts: Vec<String> = (0..25).map(|number| format!("text {number}")).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.insert(3, "");
    let vectors = embedder.embed_passages(&texts).unwrap();
    assert_eq!((vectors.len(), served.requests().len()), (26, 3));
    assert_eq!(vectors[3], [0.0; 1536]);
    for vector in vectors.iter().filter(|vector| **vector != [0.0; 1536]) {
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    thread::scope(|scope| {
        let embed = || assert_eq!(embedder.embed_queries(&texts[2..9]).unwrap(), vectors[2..9]);
        let threads = [(); 4].map(|()| scope.spawn(embed));
        // The scope waits for the work alone, and not until its threads are gone.
        for thread in threads {
            thread.join().unwrap();
        }
    });
    drop(embedder);
    census.expect_growth(&[]);
}

#[test]
fn a_vector_of_another_length_than_was_said_is_refused_by_the_models_name() {
    let served = Llmock::serve(&[]);
    let error = LlmEmbedder::new(options(&served), 384).embed_passages(&["a"]).unwrap_err();
    assert_eq!(error.to_string(), "text-embedding-3-small (384 dimensions) has made a vector of 1536 dimensions");
}

#[test]
fn an_error_says_what_it_means_to_a_policy() {
    let nobody = LlmOptions::new("m").base_url(format!("http://{}:{}/v1", Ipv4Addr::LOCALHOST, free_port()));
    let embedder = LlmEmbedder::new(nobody, 8);
    let error = embedder.embed_passages(&["a"]).unwrap_err();
    assert_eq!((error.to_string(), verdict(&error)), ("m has made no vectors".to_owned(), Verdict::Outage));
    assert!(matches!(LlmError::of(&error), Some(LlmError::Unreachable(_))));
    let served = Llmock::serve(&[]);
    served.plays(json!([{"type": "fail", "status": 429, "retry_after": 0.5}]));
    let error = LlmEmbedder::new(options(&served), 1536).embed_passages(&["a"]).unwrap_err();
    assert_eq!(verdict(&error), Verdict::Throttled(Some(Duration::from_millis(500))));
}

#[test]
fn a_policy_tries_again_and_batches() {
    let served = Llmock::serve(&[]);
    served.plays(json!([{"type": "fail", "status": 503, "retry_after": 0.2}]));
    let env = Environment::local("embedded");
    let options = options(&served);
    let embedder = env
        .register_service("embedder", move || LlmEmbedder::new(options.clone(), 1536))
        .policy(Policy::new().retry(Retry::up_to(3)))
        .build();
    let embed = embed_method(&embedder, TextKind::Passage, Batching::of(10)).build();
    let embedded = env
        .from_iter((0..40).map(|number| format!("a text with number {number}")))
        .try_map_async(40, Order::Ordered, move |text| {
            let embed = embed.clone();
            async move { embed.call(text).await }
        })
        .collect();
    env.run().unwrap();
    assert_eq!(embedded.take().len(), 40);
    assert!(served.requests().len() <= 16, "{} requests for 40 texts", served.requests().len());
}
