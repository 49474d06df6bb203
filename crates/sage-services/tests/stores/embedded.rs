//! The embedded store: the suite, against a model, and with a job.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sage::{BoxError, Environment, testing::Census};
use sage_services::store::{Embedded, Hit, Record, Schema, Search, StoreError, VectorStore, field};
use sage_services::wait;

use crate::conformance::{Numbers, conforms};

#[test]
fn a_store_in_a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let before = Census::take();
    conforms(&|schema| {
        let path = folder.path().join("stores").join(schema.name());
        VectorStore::new(schema, Embedded::at(path))
    });
    before.expect_growth(&[]);
}

pub(crate) fn schema() -> Schema {
    Schema::new("kept", 3).with_text_search()
}

pub(crate) fn opened(path: &Path) -> VectorStore {
    let store = VectorStore::new(schema(), Embedded::at(path)).unwrap();
    wait(store.open()).unwrap();
    store
}

fn close(store: VectorStore) {
    wait(store.close()).unwrap();
}

#[derive(Debug, Clone)]
enum Change {
    Upsert(Vec<(u8, u8)>),
    Delete(Vec<u8>),
    DeleteWhere(u8),
    Compact,
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => prop::collection::btree_map(0_u8..20, any::<u8>(), 0..8)
            .prop_map(|records| Change::Upsert(records.into_iter().collect())),
        2 => prop::collection::vec(0_u8..20, 0..5).prop_map(Change::Delete),
        1 => any::<u8>().prop_map(Change::DeleteWhere),
        1 => Just(Change::Compact),
        1 => Just(Change::Reopen),
    ]
}

fn record(id: u8, content: u8) -> Record {
    let vector = Numbers::new(u64::from(content) + 1).vector(3);
    Record::new(format!("{id:02}"), vector).text(format!("word{} common", content % 7)).with("n", i64::from(content))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_any_changes_it_holds_what_a_map_would(changes in prop::collection::vec(change(), 0..30)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let embedded = |path: &Path| {
            let embedded = Embedded::at(path);
            let store = VectorStore::new(schema(), embedded.clone()).unwrap();
            wait(store.open()).unwrap();
            (embedded, store)
        };
        let (mut inner, mut store) = embedded(&path);
        let mut model = BTreeMap::new();
        for change in changes {
            match change {
                Change::Upsert(records) => {
                    wait(store.upsert(records.iter().map(|&(id, content)| record(id, content)).collect())).unwrap();
                    model.extend(records);
                }
                Change::Delete(ids) => {
                    let names: Vec<String> = ids.iter().map(|id| format!("{id:02}")).collect();
                    let there = ids.iter().filter(|id| model.remove(id).is_some()).count();
                    prop_assert_eq!(wait(store.delete(&names)).unwrap(), there);
                }
                Change::DeleteWhere(least) => {
                    let before = model.len();
                    model.retain(|_, content| *content < least);
                    let deleted = wait(store.delete_where(field("n").at_least(i64::from(least)))).unwrap();
                    prop_assert_eq!(deleted, before - model.len());
                }
                Change::Compact => inner.compact().unwrap(),
                Change::Reopen => {
                    wait(store.close()).unwrap();
                    (inner, store) = embedded(&path);
                }
            }
            prop_assert_eq!(wait(store.count()).unwrap(), model.len());
        }
        let ids: Vec<String> = model.keys().map(|id| format!("{id:02}")).collect();
        for (found, (&id, &content)) in wait(store.get(&ids)).unwrap().into_iter().zip(&model) {
            let (found, expected) = (found.unwrap(), record(id, content));
            prop_assert_eq!((found.text, found.metadata), (expected.text, expected.metadata));
        }
        let having = model.values().filter(|content| **content % 7 == 3).count();
        prop_assert_eq!(wait(store.search(Search::text("word3", 100))).unwrap().len(), having);
    }
}

#[test]
fn a_search_by_words_scores_as_bm25_does() {
    let texts = [
        "drain the job",
        "the job drains until its deadline, and a drain becomes a cancel of the job",
        "services stop last",
        "",
        "a deadline",
    ];
    let store = opened_in_memory();
    let record = |(n, text): (usize, &&str)| Record::new(n.to_string(), vec![1.0, 0.0, 0.0]).text(*text);
    wait(store.upsert(texts.iter().enumerate().map(record).collect())).unwrap();
    // A text that was replaced counts no more, and neither does one that was deleted.
    for text in ["drain drain", "services"] {
        wait(store.upsert(vec![Record::new("9", vec![1.0, 0.0, 0.0]).text(text)])).unwrap();
    }
    wait(store.delete(&["9"])).unwrap();
    let hits = wait(store.search(Search::text("When does a drain meet its deadline?", 10))).unwrap();
    // Terms without stop words and endings, by hand: how often "drain" and "deadline" are there, and how many there
    // are.
    let counted = [(1, 0, 2), (2, 1, 8), (0, 0, 3), (0, 0, 0), (0, 1, 1)];
    let mean = counted.iter().map(|text| text.2 as f32).sum::<f32>() / 5.0;
    // Two texts have each of them.
    let rarity = (1.0 + (5.0 - 2.0 + 0.5) / (2.0 + 0.5_f32)).ln();
    let score = |times: u32, words: u32| {
        let times = times as f32;
        rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * words as f32 / mean))
    };
    let mut expected: Vec<(String, f32)> = (0..5)
        .map(|n| (n.to_string(), score(counted[n].0, counted[n].2 as u32) + score(counted[n].1, counted[n].2 as u32)))
        .filter(|(_, score)| *score > 0.0)
        .collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(hits.len(), 3);
    for (hit, (id, score)) in hits.iter().zip(&expected) {
        assert!(hit.id == *id && (hit.score - score).abs() < 1e-4, "{hits:?}, not {expected:?}");
    }
}

fn opened_in_memory() -> VectorStore {
    let store = VectorStore::new(schema(), Embedded::in_memory()).unwrap();
    wait(store.open()).unwrap();
    store
}

#[test]
fn both_orders_are_joined_by_their_weights() {
    let store = opened_in_memory();
    wait(store.upsert(vec![
        Record::new("vector", vec![1.0, 0.0, 0.0]).text("nothing of it").with("n", 1),
        Record::new("both", vec![0.9, 0.1, 0.0]).text("the drain of a job").with("n", 2),
        Record::new("words", vec![0.0, 0.0, 1.0]).text("drain, drain").with("n", 3),
    ]))
    .unwrap();
    let search = |vectors, words| {
        let search = Search::hybrid(vec![1.0, 0.0, 0.0], "drain", 3).weights(vectors, words);
        wait(store.search(search)).unwrap().into_iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>()
    };
    let named = |hits: &[(String, f32)]| hits.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>().join(" ");
    // Second in both, it beats those that are first in one: 2 / 62 > 1 / 61, and "words" is third by its vector.
    let even = search(1.0, 1.0);
    assert!(even[0].0 == "words" || even[0].0 == "both", "{even:?}");
    let both = even.iter().find(|(id, _)| id == "both").unwrap().1;
    assert!((both - 2.0 / 62.0).abs() < 1e-6, "{even:?}");
    assert_eq!(named(&search(1.0, 0.0)), "vector both words");
    assert!(named(&search(0.0, 1.0)).starts_with("words both"));
    let filtered = Search::hybrid(vec![1.0, 0.0, 0.0], "drain", 3).filter(field("n").at_most(2));
    assert_eq!(wait(store.search(filtered)).unwrap().len(), 2);
}

#[test]
fn a_file_is_locked_while_it_is_open_and_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let first = opened(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = VectorStore::new(schema(), Embedded::at(&path)).unwrap();
    let error = wait(second.open()).unwrap_err();
    assert!(matches!(&error, StoreError::Locked { path: locked } if *locked == path), "{error}");
    close(first);
    wait(second.open()).unwrap();
    close(second);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left but the file");
}

#[test]
fn nothing_is_left_of_what_was_deleted_once_the_file_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let embedded = Embedded::at(&path);
    let store = VectorStore::new(schema(), embedded.clone()).unwrap();
    wait(store.open()).unwrap();
    let record = |id: &str, text: &str| Record::new(id, vec![1.0, 0.0, 0.0]).text(text);
    wait(store.upsert(vec![record("a", "a secret of mine"), record("b", "known to all")])).unwrap();
    wait(store.delete(&["a"])).unwrap();
    let holds = |text: &str| fs::read(&path).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds("secret") && holds("known"));
    embedded.compact().unwrap();
    assert!(!holds("secret") && holds("known"));
    assert!(wait(store.search(Search::text("secret", 1))).unwrap().is_empty());
    close(store);
    assert_eq!(wait(opened(&path).count()).unwrap(), 1);
}

#[test]
fn a_file_does_not_grow_with_records_that_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = opened(&path);
    for round in 0..100 {
        wait(store.upsert((0..50).map(|id| record(id, round)).collect())).unwrap();
    }
    let written = fs::metadata(&path).unwrap().len();
    assert!(written < 1_200 * 60, "{written} bytes for 50 records; 5,000 were written");
    close(store);
    let again = opened(&path);
    assert_eq!(wait(again.count()).unwrap(), 50);
    assert_eq!(wait(again.count_where(field("n").equal(99))).unwrap(), 50);
}

#[test]
fn a_snapshot_is_a_store_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    let embedded = Embedded::at(&path);
    let store = VectorStore::new(schema(), embedded.clone()).unwrap();
    assert!(matches!(embedded.snapshot(&copy), Err(StoreError::Closed)));
    wait(store.open()).unwrap();
    wait(store.upsert((0..20).map(|id| record(id, id)).collect())).unwrap();
    embedded.snapshot(&copy).unwrap();
    assert!(matches!(embedded.snapshot(&copy), Err(StoreError::File { done: "written", .. })));
    wait(store.delete(&["01"])).unwrap();
    let other = opened(&copy);
    assert_eq!((wait(store.count()).unwrap(), wait(other.count()).unwrap()), (19, 20));
    let search = || Search::hybrid(vec![0.1, 0.2, 0.3], "word3", 5).filter(field("n").greater(1));
    let found = |store: &VectorStore| -> Vec<Hit> { wait(store.search(search())).unwrap() };
    assert_eq!(found(&store).len(), 5);
    assert_eq!(found(&other).len(), 5);
}

#[test]
fn no_more_records_are_taken_than_was_said() {
    let store = VectorStore::new(schema(), Embedded::in_memory().max_records(2)).unwrap();
    wait(store.open()).unwrap();
    wait(store.upsert(vec![record(1, 1), record(2, 2)])).unwrap();
    let error = wait(store.upsert(vec![record(2, 3), record(3, 3)])).unwrap_err();
    assert!(matches!(error, StoreError::Full { max_records: 2 }));
    wait(store.upsert(vec![record(2, 3)])).unwrap();
    assert_eq!(wait(store.count()).unwrap(), 2);
}

#[test]
fn contract_6_a_job_closes_the_store_before_it_returns() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store");
    let index = |path: PathBuf| {
        let env = Environment::local("indexed");
        let made = VectorStore::constructor(schema(), move || Embedded::at(&path))?;
        let store = env.register_async_service("store", made).build();
        let found = env
            .from_iter(0..20_u8)
            .try_map(move |id| {
                let own = Search::vector(record(id, id).vector, 1);
                store.try_call_blocking(async move |store| {
                    store.upsert(vec![record(id, id)]).await?;
                    store.search(own).await
                })
            })
            .map(|mut hits| hits.remove(0).id)
            .collect();
        env.run()?;
        Ok::<_, BoxError>(found.take())
    };
    // What hears signals stays once a job has run: the engine's thread, and a pair of sockets of the async runtime.
    index(folder.path().join("first"))?;
    let before = Census::take();
    let found = index(path.clone())?;
    before.expect_growth(&[]);
    let expected: Vec<String> = (0..20).map(|id| format!("{id:02}")).collect();
    assert_eq!(found, expected);
    let again = opened(&path);
    assert_eq!(wait(again.count())?, 20);
    Ok(())
}

/// Enough numbers that searches go by an index.
const MANY: usize = 4_200;
const WIDE: usize = 1_000;

fn wide(number: usize) -> Vec<f32> {
    // Near one of forty places.
    let (mut place, mut own) = (Numbers::new(number as u64 % 40 + 1), Numbers::new(number as u64 + 1_000));
    (0..WIDE).map(|_| place.next() + 0.5 * own.next()).collect()
}

/// Fails unless all but one of the ten best of some searches are found, at least.
fn assert_found(store: &VectorStore, vectors: &BTreeMap<String, Vec<f32>>) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let lengths: Vec<f32> = vectors.values().map(|vector| dot(vector, vector).sqrt()).collect();
    let mut found = 0;
    for number in 0..3 {
        let query = wide(900_000 + 77 * number);
        let mut best: Vec<(f32, &String)> = Vec::new();
        for ((id, vector), length) in vectors.iter().zip(&lengths) {
            best.push((dot(vector, &query) / length, id));
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let hits = wait(store.search(Search::vector(query, 10))).unwrap();
        assert_eq!(hits.len(), 10);
        found += hits.iter().filter(|hit| best[..10].iter().any(|(_, id)| **id == hit.id)).count();
    }
    assert!(found >= 29, "{found} of 30");
}

#[test]
fn a_large_store_has_an_index_that_is_kept_and_built_again_when_it_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (path, index) = (folder.path().join("store"), folder.path().join("store.index"));
    let embedded = Embedded::at(&path);
    let open = |embedded: Embedded| {
        let store = VectorStore::new(Schema::new("large", WIDE), embedded).unwrap();
        wait(store.open()).unwrap();
        store
    };
    let store = open(embedded.clone());
    let mut vectors: BTreeMap<String, Vec<f32>> = (0..MANY).map(|n| (format!("{n:05}"), wide(n))).collect();
    let record = |(id, vector): (&String, &Vec<f32>)| Record::new(&**id, vector.clone());
    wait(store.upsert(vectors.iter().map(record).collect())).unwrap();
    assert_found(&store, &vectors);
    // It is kept up with what changes.
    for number in 0..100 {
        vectors.insert(format!("{number:05}"), wide(10_000 + number));
        vectors.insert(format!("{:05}", MANY + number), wide(MANY + number));
    }
    let changed = |id: &str| !("00100".."04200").contains(&id);
    wait(store.upsert(vectors.iter().filter(|(id, _)| changed(id)).map(record).collect())).unwrap();
    let gone: Vec<String> = (200..260).map(|number| format!("{number:05}")).collect();
    assert_eq!(wait(store.delete(&gone)).unwrap(), 60);
    gone.iter().for_each(|id| drop(vectors.remove(id)));
    assert_found(&store, &vectors);
    close(store);

    assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read(&index).unwrap();
    let store = open(Embedded::at(&path));
    assert_found(&store, &vectors);
    close(store);
    assert_eq!(fs::read(&index).unwrap(), kept);

    // Damaged, of another length or of another state, it is not believed.
    let mut damaged = kept.clone();
    damaged[kept.len() / 2] ^= 1;
    for bytes in [&damaged[..], &[&kept[..], b"more"].concat()] {
        fs::write(&index, bytes).unwrap();
        let store = open(Embedded::at(&path));
        assert_found(&store, &vectors);
        close(store);
        assert_ne!(fs::read(&index).unwrap(), bytes);
    }
    // A process that was killed may have left half of one.
    let half = folder.path().join("store.index.new");
    fs::write(&half, &kept[..100]).unwrap();
    let embedded = Embedded::at(&path);
    let store = open(embedded.clone());
    assert!(!half.exists());
    wait(store.delete(&["00300"])).unwrap();
    vectors.remove("00300");
    close(store);
    fs::write(&index, kept).unwrap();
    let store = open(embedded.clone());
    assert_found(&store, &vectors);
    embedded.compact().unwrap();
    assert!(!index.exists(), "codes of what was deleted are gone with it");
    close(store);
}
