//! The index of documents: what it stores, finds, deletes and ends, by itself and as a service of a job.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sage::{BoxError, Environment, HookContext, Service};
use sage_services::store::{Embedded, StoreError};
use sage_services::{
    Chunker, DocumentIndex, EmbedError, Embedder, EmbedderId, IndexError, LexicalEmbedder, documents, wait,
};

const STOPS: &str = "# Stops\n\nTasks stop first. Services stop in the reverse order of their start.\n";
const TEA: &str = "# Tea\n\nGreen tea is brewed at eighty degrees.\n";

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn opened(file: &Path) -> DocumentIndex {
    let index = DocumentIndex::new(Embedded::at(file)).unwrap();
    wait(index.store().open()).unwrap();
    index
}

#[test]
fn a_second_run_embeds_what_changed_and_sweeps_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (stops, tea) = (write(folder.path(), "stops.md", STOPS), write(folder.path(), "tea.md", TEA));
    let file = folder.path().join("docs.sage");
    let index = opened(&file);
    assert_eq!((wait(index.add(&stops)).unwrap(), wait(index.add(&tea)).unwrap()), (1, 1));
    assert_eq!(wait(index.sweep()).unwrap(), 0);
    wait(index.store().close()).unwrap();

    let index = opened(&file);
    write(folder.path(), "tea.md", &format!("{TEA}\n# Coffee\n\nIt is brewed hotter.\n"));
    assert_eq!((wait(index.add(&stops)).unwrap(), wait(index.add(&tea)).unwrap()), (0, 1));
    // What was counted in the first run is counted again, so that a question knows the words.
    let answer = wait(index.answer("In which order do services stop?")).unwrap().unwrap();
    assert_eq!(answer.to_string(), format!("Services stop in the reverse order of their start.\n  {stops}:3"));
    wait(index.store().close()).unwrap();

    let index = opened(&file);
    fs::remove_file(&tea).unwrap();
    assert_eq!(wait(index.add(&stops)).unwrap(), 0);
    assert!(matches!(wait(index.add(&tea)), Err(IndexError::Document(_))));
    assert_eq!(wait(index.sweep()).unwrap(), 0, "a document that cannot be read is not gone");
    wait(index.store().close()).unwrap();

    let index = opened(&file);
    assert_eq!(wait(index.sweep()).unwrap(), 0, "where nothing was added, nothing is gone");
    assert_eq!(wait(index.add(&stops)).unwrap(), 0);
    assert_eq!(wait(index.sweep()).unwrap(), 2);
    assert_eq!(wait(index.store().count()).unwrap(), 1);
    assert_eq!(wait(index.search("tea", 5)).unwrap(), [], "no passage has the word");
    assert!(matches!(wait(index.search("services", 0)), Err(IndexError::Store(StoreError::NoResultsAsked))));
}

/// Counts what becomes of it; its vectors are those of the lexical embedder.
struct Watched {
    words: LexicalEmbedder,
    id: EmbedderId,
    began: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Service for Watched {
    fn setup(&self, _: &HookContext) -> Result<(), BoxError> {
        self.began.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn cleanup(&self, _: &HookContext) -> Result<(), BoxError> {
        self.ended.fetch_add(1, Ordering::Relaxed);
        Err("the model does not end".into())
    }
}

impl Embedder for Watched {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.words.embed(text)).collect())
    }
}

#[test]
fn contract_9_a_job_ends_the_embedder_and_the_store_once_though_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "stops.md", STOPS);
    let file = folder.path().join("docs.sage");
    let (began, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let made = {
        let (file, began, ended) = (file.clone(), Arc::clone(&began), Arc::clone(&ended));
        move || {
            let words = LexicalEmbedder::default();
            let id = EmbedderId::new("watched", words.dimensions());
            let watched = Watched { words, id, began: Arc::clone(&began), ended: Arc::clone(&ended) };
            let index = DocumentIndex::with_embedder(Embedded::at(&file), watched).unwrap();
            index.chunker(Chunker::new(20, 60, 0))
        }
    };
    let env = Environment::local("index");
    let index = env.register_async_service("index", made).build();
    let asked = index.clone();
    let answers = env
        .from_iter(documents(folder.path(), &["md".into()]))
        .try_map(move |path| index.try_call_blocking(async |index| index.add(path?).await))
        .count()
        .try_map(move |_| asked.try_call_blocking(async |index| index.answer("What stops first?").await))
        .collect();
    let error = env.run().unwrap_err();
    assert!(format!("{error:#}{error:?}").contains("the model does not end"), "{error:?}");
    assert!(answers.take()[0].as_ref().unwrap().text.starts_with("Tasks stop first."));
    assert_eq!((began.load(Ordering::Relaxed), ended.load(Ordering::Relaxed)), (1, 1));
    // The store was closed nevertheless: its lock is free, and what was stored is there under the model's name.
    let other = DocumentIndex::new(Embedded::at(&file)).unwrap();
    let refused = wait(other.store().open()).unwrap_err();
    assert!(refused.to_string().contains("watched"), "{refused}");
}
