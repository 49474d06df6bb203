//! The vector store: what it refuses, replaces and frees, and against a model: any sequence of changes, then a search,
//! compared with sorting everything.

use std::sync::Arc;

use proptest::prelude::*;
use sage_services::{Hit, Record, StoreError, VectorStore};

#[derive(Debug, Clone)]
enum Change {
    Upsert(u8, Vec<f32>),
    Delete(u8),
}

const DIMENSIONS: usize = 19;

/// Few distinct coordinates, so that equal scores are common.
fn vector() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop::sample::select(&[-1.0_f32, 0.0, 1.0, 2.5][..]), DIMENSIONS)
        .prop_filter("a direction", |vector| vector.iter().any(|&x| x != 0.0))
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (0_u8..30, vector()).prop_map(|(id, vector)| Change::Upsert(id, vector)),
        1 => (0_u8..30).prop_map(Change::Delete),
    ];
    prop::collection::vec(change, 0..80)
}

proptest! {
    #[test]
    fn search_agrees_with_sorting_everything(changes in changes(), query in vector(), k in 1_usize..12) {
        let store = VectorStore::new(DIMENSIONS);
        let mut reference = std::collections::BTreeMap::new();
        for change in changes {
            match change {
                Change::Upsert(id, vector) => {
                    let replaced = store.upsert(format!("{id:02}"), &vector, id).unwrap();
                    prop_assert_eq!(replaced, reference.insert(id, vector).is_some());
                }
                Change::Delete(id) => {
                    prop_assert_eq!(store.delete(&format!("{id:02}")).is_some(), reference.remove(&id).is_some());
                }
            }
        }
        let length = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let mut expected: Vec<(f64, u8)> = reference
            .iter()
            .map(|(&id, vector)| {
                let dot: f64 = vector.iter().zip(&query).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                (dot / length(vector) / length(&query), id)
            })
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));

        let hits = store.search(&query, k).unwrap();
        prop_assert_eq!(store.len(), reference.len());
        prop_assert_eq!(hits.len(), k.min(reference.len()));
        for (hit, (score, _)) in hits.iter().zip(&expected) {
            // The reference sums in another order: rounding may swap neighbours, so scores are what is compared.
            prop_assert!((f64::from(hit.score) - score).abs() < 1e-5, "{} is not {score}", hit.score);
            let of_the_id = expected.iter().find(|(_, id)| *id == hit.payload).unwrap().0;
            prop_assert!((f64::from(hit.score) - of_the_id).abs() < 1e-5);
        }
        for pair in hits.windows(2) {
            prop_assert!(pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].id < pair[1].id));
        }
    }
}

fn ids<P>(hits: &[Hit<P>]) -> Vec<&str> {
    hits.iter().map(|hit| &*hit.id).collect()
}

#[test]
fn equal_scores_come_in_the_order_of_their_ids() {
    let store = VectorStore::new(2);
    for id in ["c", "a", "b", "d"] {
        store.upsert(id, &[3.0, 0.0], ()).unwrap();
    }
    assert_eq!(ids(&store.search(&[1.0, 0.0], 3).unwrap()), ["a", "b", "c"]);
}

#[test]
fn an_equal_id_is_replaced() {
    let store = VectorStore::new(2);
    assert!(!store.upsert("a", &[1.0, 0.0], 1).unwrap());
    assert!(store.upsert("a", &[0.0, 1.0], 2).unwrap());
    assert_eq!((store.len(), store.get("a"), store.get("b")), (1, Some(2), None));
    assert_eq!(store.search(&[0.0, 5.0], 9).unwrap()[0].score, 1.0);
}

#[test]
fn unusable_vectors_are_refused() {
    let store = VectorStore::new(2);
    assert_eq!(store.upsert("a", &[1.0], ()), Err(StoreError::DimensionMismatch { expected: 2, found: 1 }));
    assert_eq!(store.upsert("a", &[0.0, f32::NAN], ()), Err(StoreError::NotFinite { index: 1 }));
    assert_eq!(store.upsert("a", &[f32::INFINITY, 0.0], ()), Err(StoreError::NotFinite { index: 0 }));
    assert_eq!(store.upsert("a", &[0.0, -0.0], ()), Err(StoreError::ZeroVector));
    assert_eq!(store.search(&[0.0, 0.0], 1), Err(StoreError::ZeroVector));
    assert_eq!(store.search(&[1.0, 0.0], 0), Err(StoreError::NoResultsAsked));
    assert_eq!(store.upsert_batch([record("a", &[1.0, 2.0]), record("b", &[0.0; 2])]), Err(StoreError::ZeroVector));
    assert!(store.is_empty());
    assert_eq!(store.upsert("huge", &[f32::MAX, f32::MAX], ()), Ok(false));
}

fn record(id: &str, vector: &[f32]) -> Record<()> {
    Record { id: id.into(), vector: vector.to_vec(), payload: () }
}

#[test]
fn a_full_store_still_replaces() {
    let store = VectorStore::new(1).with_max_records(2);
    store.upsert_batch([record("a", &[1.0]), record("a", &[2.0]), record("b", &[1.0])]).unwrap();
    let full = StoreError::Full { max_records: 2 };
    assert_eq!(store.upsert("c", &[1.0], ()), Err(full.clone()));
    assert_eq!(store.upsert_batch([record("b", &[1.0]), record("c", &[1.0])]), Err(full));
    assert_eq!(store.upsert("a", &[1.0], ()), Ok(true));
}

#[test]
fn clearing_drops_the_payloads() {
    let store = VectorStore::new(1);
    let payload = Arc::new(());
    store.upsert("a", &[1.0], Arc::clone(&payload)).unwrap();
    store.clear();
    assert_eq!((store.len(), Arc::strong_count(&payload)), (0, 1));
}

#[test]
fn a_job_releases_the_records_when_it_ends() {
    let env = sage::Environment::local("store");
    let store = env.register_service("store", || VectorStore::new(1)).build();
    let payload = Arc::new(());
    let mine = Arc::clone(&payload);
    env.from_collection(vec!["a", "b"])
        .try_sink(move |id| store.try_call(|store| store.upsert(id, &[1.0], Arc::clone(&mine)).map(drop)));
    let report = env.run().unwrap();
    assert_eq!((report.services[0].state, report.services[0].calls), (sage::ServiceState::Cleaned, 2));
    drop(env);
    assert_eq!(Arc::strong_count(&payload), 1);
}

#[test]
fn searches_run_beside_changes() {
    let store = VectorStore::new(8);
    std::thread::scope(|scope| {
        for writer in 0..2_u32 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..500 {
                    store.upsert(format!("{writer}-{i}"), &[1.0 + i as f32; 8], i).unwrap();
                    if i % 3 == 0 {
                        assert_eq!(store.delete(&format!("{writer}-{i}")), Some(i));
                    }
                }
            });
        }
        for _ in 0..200 {
            let hits = store.search(&[1.0; 8], 5).unwrap();
            assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    });
    assert_eq!(store.len(), 2 * (500 - 167));
}
