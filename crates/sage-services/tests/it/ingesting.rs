//! Ingest: what is embedded, kept and deleted when documents change.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use sage_services::store::{Embedded, Schema, Search, VectorStore, field};
use sage_services::{Chunker, Embedder, EmbedderId, Format, Ingest, LexicalEmbedder, Passage, wait};

/// Its passages' vectors do not depend on what it has counted.
static EMBEDDER: LazyLock<LexicalEmbedder> = LazyLock::new(LexicalEmbedder::default);

fn store() -> VectorStore {
    let store = VectorStore::new(Schema::made_by("guide", EMBEDDER.id()), Embedded::in_memory()).unwrap();
    wait(store.open()).unwrap();
    store
}

type Documents = BTreeMap<String, String>;

fn passages(path: &str, text: &str) -> Vec<Passage> {
    Chunker::new(20, 40, 0).chunks(path, Format::Markdown, text)
}

/// Ingests documents one by one, and returns how many passages were embedded, and how many deleted.
fn ingest(store: &VectorStore, documents: &Documents, id: &EmbedderId) -> (usize, usize) {
    let ingest = Ingest::new(id);
    let mut embedded = 0;
    for (path, text) in documents {
        let plan = wait(ingest.plan(store, vec![passages(path, text)])).unwrap();
        let texts = plan.texts();
        embedded += texts.len();
        let vectors = EMBEDDER.embed_passages(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        wait(store.upsert(plan.into_records(vectors))).unwrap();
    }
    (embedded, wait(ingest.sweep(store)).unwrap())
}

fn id() -> EmbedderId {
    EMBEDDER.id().clone()
}

/// Every passage of the documents as it is, and nothing else.
fn assert_holds(store: &VectorStore, documents: &Documents) {
    let expected: Vec<Passage> = documents.iter().flat_map(|(path, text)| passages(path, text)).collect();
    assert_eq!(wait(store.count()).unwrap(), expected.len());
    let ids: Vec<String> = expected.iter().map(Passage::id).collect();
    for (passage, found) in expected.iter().zip(wait(store.get(&ids)).unwrap()) {
        let found = found.unwrap();
        let own = passage.record(EMBEDDER.embed_passage(&passage.text_with_heading()));
        assert_eq!(found.text, own.text);
        own.metadata.iter().for_each(|(name, value)| assert_eq!(found.metadata.get(name), Some(value), "{name}"));
        let distance: f32 = found.vector.iter().zip(&own.vector).map(|(x, y)| (x - y).abs()).sum();
        assert!(distance < 1e-3, "the vector is that of another text: {found:?}");
    }
}

fn documents(all: &[(&str, &str)]) -> Documents {
    all.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn of_two_documents_that_are_the_same_one_is_swept_when_it_is_gone() {
    let store = store();
    assert_eq!(
        ingest(&store, &documents(&[("new.md", "Services stop."), ("old.md", "Services stop.")]), &id()),
        (2, 0)
    );
    let left = documents(&[("new.md", "Services stop.")]);
    assert_eq!(ingest(&store, &left, &id()), (0, 1));
    assert_holds(&store, &left);
}

#[test]
fn a_second_run_embeds_only_what_changed() {
    let store = store();
    let mut guide = documents(&[
        ("a.md", "# One\n\nServices stop last.\n\n# Two\n\nTasks stop first."),
        ("b.md", "# Three\n\nSinks write records."),
    ]);
    assert_eq!(ingest(&store, &guide, &id()), (3, 0));
    assert_eq!(ingest(&store, &guide, &id()), (0, 0));
    guide.insert("a.md".to_owned(), "# One\n\nServices stop last.\n\n# Two\n\nTasks stop before them.".to_owned());
    assert_eq!(ingest(&store, &guide, &id()), (1, 0));
    assert_holds(&store, &guide);
    // Of what only moved, the place is told anew.
    guide.insert("b.md".to_owned(), "\n\n\n# Three\n\nSinks write records.".to_owned());
    assert_eq!(ingest(&store, &guide, &id()), (0, 0));
    assert_holds(&store, &guide);
}

#[test]
fn what_is_gone_is_deleted() {
    let store = store();
    let mut guide = documents(&[("a.md", "# One\n\nFirst.\n\n# Two\n\nSecond."), ("b.md", "# Three\n\nThird.")]);
    ingest(&store, &guide, &id());
    guide.insert("a.md".to_owned(), "# One\n\nFirst.".to_owned());
    guide.remove("b.md");
    assert_eq!(ingest(&store, &guide, &id()), (0, 2));
    assert_holds(&store, &guide);
    assert_eq!(ingest(&store, &Documents::new(), &id()), (0, 1));
}

#[test]
fn another_embedder_embeds_everything() {
    let store = store();
    let guide = documents(&[("a.md", "# One\n\nFirst."), ("b.md", "# Two\n\nSecond.")]);
    assert_eq!(ingest(&store, &guide, &id()), (2, 0));
    assert_eq!(ingest(&store, &guide, &id().with_weights("ab")), (2, 0));
}

#[test]
fn a_document_that_cannot_be_read_is_kept() {
    let store = store();
    let mut guide = documents(&[("a.md", "# One\n\nFirst."), ("b.md", "# Two\n\nSecond.")]);
    ingest(&store, &guide, &id());
    let run = Ingest::new(id());
    wait(run.plan(&store, vec![passages("a.md", &guide["a.md"])])).unwrap();
    run.keep("b.md");
    // Sweeping again deletes no more than before.
    assert_eq!([wait(run.sweep(&store)).unwrap(), wait(run.sweep(&store)).unwrap()], [0, 0]);
    assert_holds(&store, &guide);
    // It can be read after all.
    wait(run.plan(&store, vec![passages("b.md", "# Other")])).unwrap();
    assert_eq!(wait(run.sweep(&store)).unwrap(), 1);
    guide.remove("b.md");
    assert_holds(&store, &guide);
}

#[test]
fn records_that_are_no_passages_stay() {
    let store = store();
    let own = sage_services::store::Record::new("own", EMBEDDER.embed("a note")).with("note", true);
    wait(store.upsert(vec![own])).unwrap();
    ingest(&store, &documents(&[("a.md", "# One\n\nFirst.")]), &id());
    assert_eq!(ingest(&store, &Documents::new(), &id()), (0, 1));
    assert_eq!(wait(store.count_where(field("note").equal(true))).unwrap(), 1);
}

#[test]
fn of_two_documents_with_one_path_the_later_counts() {
    let store = store();
    let run = Ingest::new(id());
    let both = ["# One\n\nFirst.\n\n# Two\n\nSecond.", "# Two\n\nSecond."];
    let plan = wait(run.plan(&store, both.map(|text| passages("a.md", text)).to_vec())).unwrap();
    let vectors = plan.texts().iter().map(|text| EMBEDDER.embed_passage(text)).collect();
    wait(store.upsert(plan.into_records(vectors))).unwrap();
    assert_eq!(wait(run.sweep(&store)).unwrap(), 0);
    assert_holds(&store, &documents(&[("a.md", both[1])]));
}

#[test]
fn many_documents_are_swept_in_parts() {
    let store = store();
    let mut guide: Documents = (0..700).map(|n| (format!("{n:04}.md"), format!("Note number {n}."))).collect();
    assert_eq!(ingest(&store, &guide, &id()), (700, 0));
    for gone in ["0000.md", "0249.md", "0250.md", "0251.md", "0499.md", "0500.md", "0699.md"] {
        guide.remove(gone);
    }
    assert_eq!(ingest(&store, &guide, &id()), (0, 7));
    assert_holds(&store, &guide);
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    let store = store();
    let old = documents(&[("a.md", "# One\n\nFirst.\n\n# Two\n\nSecond."), ("b.md", "# Three\n\nThird.")]);
    ingest(&store, &old, &id());
    let new = documents(&[("a.md", "# New\n\nNew.\n\n# Two\n\nSecond."), ("c.md", "# Four\n\nFourth.")]);
    // It stored some, and was killed before it swept.
    let run = Ingest::new(id());
    let plan = wait(run.plan(&store, vec![passages("a.md", &new["a.md"])])).unwrap();
    let vectors = plan.texts().iter().map(|text| EMBEDDER.embed_passage(text)).collect();
    wait(store.upsert(plan.into_records(vectors))).unwrap();
    // What is not gone yet can still be found.
    let query = EMBEDDER.embed("Third");
    assert_eq!(wait(store.search(Search::vector(query, 1))).unwrap()[0].text, "# Three\n\nThird.");
    assert_eq!(ingest(&store, &new, &id()), (1, 1));
    assert_holds(&store, &new);
}

fn documents_of_letters() -> impl Strategy<Value = Documents> {
    prop::collection::btree_map("[a-c]\\.md", "(# [xy]\n\n([p-r]{4,9}\\. ?){1,6}\n\n){1,3}", 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn after_any_changes_the_store_holds_what_the_documents_say(
        runs in prop::collection::vec(documents_of_letters(), 1..5),
    ) {
        let store = store();
        for documents in &runs {
            ingest(&store, documents, &id());
            assert_holds(&store, documents);
            prop_assert_eq!(ingest(&store, documents, &id()), (0, 0));
        }
    }
}
