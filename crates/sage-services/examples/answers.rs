//! The README's program: answers a question from the documents in the folder `docs`.

use sage::{BoxError, Environment};
use sage_services::store::{Embedded, Schema, Search, VectorStore};
use sage_services::{Chunker, DocumentError, Embedder, Extractor, LexicalEmbedder};
use sage_services::{Passage, documents, read_document, rerank};

fn main() -> Result<(), BoxError> {
    let env = Environment::local("rag");
    let embedder = env.register_service("embedder", LexicalEmbedder::default).build();
    let schema = Schema::made_by("docs", LexicalEmbedder::default().id());
    let made = VectorStore::constructor(schema, || Embedded::at("docs.sage"))?;
    let store = env.register_async_service("store", made).build();
    let (asked, searched) = (embedder.clone(), store.clone());
    env.from_iter(documents("docs".as_ref(), &["md".into()]))
        .try_map(|path| {
            let path = path?;
            let name = path.to_string_lossy();
            let document = read_document(&path)?;
            Ok::<_, DocumentError>(Chunker::default().chunk_document(&*name, &document))
        })
        .flat_map(|passages| passages)
        .try_map(move |passage: Passage| {
            let vector = embedder.call(|e| e.embed_passage(&passage.text_with_heading()))?;
            store.try_call_blocking(async move |s| s.upsert(vec![passage.record(vector)]).await)
        })
        .count()
        .try_map(move |_stored| {
            let question = "What stops first?";
            let search = Search::vector(asked.call(|e| e.embed_query(question))?, 50);
            let hits = searched.try_call_blocking(async move |s| s.search(search).await)?;
            asked.call(|e| Extractor::default().answer(e, question, &rerank(e, question, hits, 5)))
        })
        .sink(|answer| {
            if let Some(answer) = answer {
                println!("{} ({}:{})", answer.text, answer.path, answer.first_line);
            }
        });
    env.run()?;
    Ok(())
}
