//! The vector store against a model: any sequence of changes, then a search, compared with sorting everything.

use proptest::prelude::*;
use sage_services::VectorStore;

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
