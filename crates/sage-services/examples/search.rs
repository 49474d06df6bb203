//! Finds the passages of a folder of documents that are closest to a question.
//!
//! `cargo run -p sage-services --example search -- docs 'In which order do services stop?'`

use std::env::args;
use std::error::Error;
use std::path::Path;

use sage::Environment;
use sage_services::{Chunker, Format, LexicalEmbedder, Passage, VectorStore, documents, read_document};

/// How many passages are shown.
const SHOWN: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(folder), Some(question)) = (args().nth(1), args().nth(2)) else {
        return Err("say where the documents are, and ask a question".into());
    };
    let mut passages = Vec::new();
    for path in documents(Path::new(&folder), &["md".into(), "txt".into()]) {
        let path = path?;
        let (name, text) = (path.display().to_string(), read_document(&path)?.text);
        passages.extend(Chunker::default().chunks(name.as_str(), Format::of(&name), &text));
    }

    let env = Environment::local("search");
    let embedder = env.register_service("embedder", LexicalEmbedder::default).build();
    let store = env
        .register_service("store", || VectorStore::<Passage>::new(LexicalEmbedder::DEFAULT_DIMENSIONS))
        .after(&embedder)
        .build();
    let (asked, searched) = (embedder.clone(), store.clone());
    env.from_iter(passages)
        .try_map(move |passage| {
            let vector = embedder.call(|embedder| embedder.embed_passage(&passage.text_with_heading()))?;
            store.try_call(|store| store.upsert(passage.id(), &vector, passage))
        })
        .count()
        // The one record of `count` comes when all passages are stored.
        .try_map(move |_stored| {
            let vector = asked.call(|embedder| embedder.embed_query(&question))?;
            searched.try_call(|store| store.search(&vector, SHOWN))
        })
        .sink(|hits| {
            for hit in hits {
                println!("{:.2}  {}:{}\n{}\n", hit.score, hit.payload.path, hit.payload.first_line, hit.payload.text);
            }
        });
    env.run()?;
    Ok(())
}
