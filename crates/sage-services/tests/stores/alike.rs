//! The same documents in all stores: the same passages are found.

use std::path::Path;

use sage_services::store::{Embedded, Hit, Record, Schema, Search, VectorStore, field};
use sage_services::{Chunker, Embedder, Format, LexicalEmbedder, documents, read_document, wait};

use crate::server::Server;

/// Scores as near as this may stand in any order: stores add up in another one.
const TIE: f32 = 1e-5;
const QUESTIONS: &[&str] = &[
    "In which order do services start and stop?",
    "What happens on the first SIGINT?",
    "What does clean mean?",
    "How is a window of event time closed?",
    "What is a dead letter?",
    "Which records are sent to which replica?",
    "How do I write lines of JSON to a file?",
    "When is a circuit breaker open?",
    "What is left behind when a cleanup hangs?",
    "How does a job go on where another one was ended?",
];

#[test]
fn all_stores_find_the_same_passages_of_the_documents() {
    let (chroma, milvus) = (Server::start(crate::chroma::KIND.command), Server::start(crate::milvus::KIND.command));
    let embedder = LexicalEmbedder::default();
    let records = passages(&embedder);
    let schema = Schema::made_by("documents", embedder.id());
    let patience = std::time::Duration::from_secs(60);
    let stores = [
        VectorStore::new(schema.clone(), Embedded::in_memory()).unwrap(),
        (crate::chroma::KIND.store)(schema.clone(), chroma.port(), patience),
        (crate::milvus::KIND.store)(schema, milvus.port(), patience),
    ];
    for store in &stores {
        wait(store.open()).unwrap();
        wait(store.upsert(records.clone())).unwrap();
    }
    for question in QUESTIONS {
        let vector = embedder.embed_query(question);
        for path in [None, Some("guide.md")] {
            let mut search = Search::vector(vector.clone(), 10);
            if let Some(path) = path {
                search = search.filter(field("path").equal(path).and(field("first_line").greater(100)));
            }
            let [embedded, others @ ..] = stores.each_ref().map(|store| wait(store.search(search.clone())).unwrap());
            assert_eq!(embedded.len(), 10, "{question}");
            for (store, found) in stores[1..].iter().zip(others) {
                assert_alike(&embedded, &found, &format!("{question}, by {}", store.kind()));
            }
        }
    }
    stores.iter().for_each(|store| wait(store.close()).unwrap());
}

fn passages(embedder: &LexicalEmbedder) -> Vec<Record> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut records = Vec::new();
    for path in documents(&folder, &["md".to_owned()]) {
        let path = path.unwrap();
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let passages = Chunker::default().chunks(name, Format::Markdown, &read_document(&path).unwrap().text);
        records.extend(passages.iter().filter_map(|passage| {
            let vector = embedder.embed_passage(&passage.text_with_heading());
            vector.iter().any(|x| *x != 0.0).then(|| passage.record(vector))
        }));
    }
    assert!(records.len() > 400, "{} passages", records.len());
    records
}

/// The same ids and scores in the same order, but for ties.
fn assert_alike(expected: &[Hit], found: &[Hit], what: &str) {
    assert_eq!(expected.len(), found.len(), "{what}");
    for (at, (one, other)) in expected.iter().zip(found).enumerate() {
        assert!((one.score - other.score).abs() < TIE, "{what}: place {at}: {one:?}, not {other:?}");
        if one.id != other.id {
            let is_tied = |hit: &Hit| (hit.score - one.score).abs() < TIE;
            let last = expected[expected.len() - 1].score;
            let may_stand = found.iter().any(|hit| hit.id == one.id && is_tied(hit)) || (one.score - last).abs() < TIE;
            assert!(may_stand, "{what}: place {at}: {}, not {}", other.id, one.id);
        }
        assert!(
            one.id != other.id || (&one.text, &one.metadata) == (&other.text, &other.metadata),
            "{what}: {other:?}"
        );
    }
}
