//! What was written is read as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sage_connectors::arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use sage_connectors::{ParquetCompression, ParquetSink, ParquetSource};
use serde::{Deserialize, Serialize};

use super::{group_rows, write};
use crate::{folder, read};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Kind {
    Question,
    Answer,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    text: String,
    scores: Vec<Option<f64>>,
}

/// Everything that has columns by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Document {
    id: u64,
    small: i8,
    flag: bool,
    letter: char,
    text: String,
    note: Option<String>,
    number: Option<u16>,
    kind: Kind,
    other_kind: Option<Kind>,
    vector: Vec<f32>,
    parts: Vec<Part>,
    nested: Vec<Vec<i32>>,
    best: Option<Part>,
    labels: BTreeMap<String, i64>,
    pair: (String, u32),
    at: SystemTime,
    took: Duration,
    nothing: (),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&[Kind::Question, Kind::Answer][..])
}

fn part() -> impl Strategy<Value = Part> {
    let score = prop::option::of((-1000_i16..1000).prop_map(|score| f64::from(score) / 8.0));
    ("\\PC{0,8}", prop::collection::vec(score, 0..4)).prop_map(|(text, scores)| Part { text, scores })
}

fn document() -> impl Strategy<Value = Document> {
    let plain = (any::<u64>(), any::<i8>(), any::<bool>(), any::<char>(), any::<String>());
    let optional = (prop::option::of(any::<String>()), any::<Option<u16>>(), kind(), prop::option::of(kind()));
    let nested = (
        prop::collection::vec((-1000_i16..1000).prop_map(f32::from), 0..5),
        prop::collection::vec(part(), 0..4),
        prop::collection::vec(prop::collection::vec(any::<i32>(), 0..4), 0..4),
        prop::option::of(part()),
        prop::collection::btree_map("[a-c]{0,2}", any::<i64>(), 0..4),
        any::<(String, u32)>(),
    );
    let times = (0..1_u64 << 40, 0..1_000_000_000_u32, any::<(u32, u16)>());
    (plain, optional, nested, times).prop_map(|(plain, optional, nested, times)| {
        let ((id, small, flag, letter, text), (note, number, kind, other_kind)) = (plain, optional);
        let (vector, parts, nested, best, labels, pair) = nested;
        let at = SystemTime::UNIX_EPOCH + Duration::new(times.0, times.1);
        let took = Duration::new(times.2.0.into(), times.2.1.into());
        Document {
            id,
            small,
            flag,
            letter,
            text,
            note,
            number,
            kind,
            other_kind,
            vector,
            parts,
            nested,
            best,
            labels,
            pair,
            at,
            took,
            nothing: (),
        }
    })
}

fn compression() -> impl Strategy<Value = ParquetCompression> {
    use ParquetCompression::{Gzip, None, Snappy, Zstd};
    prop::sample::select(&[None, Snappy, Gzip, Zstd][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records(
        documents in prop::collection::vec(document(), 0..40),
        compression in compression(),
        rows in 1_usize..50,
        batch_rows in 1_usize..50,
    ) {
        let dir = folder();
        let path = dir.path().join("a.parquet");
        let into = path.clone();
        write(documents.clone(), move || {
            ParquetSink::new(into.clone()).compression(compression).group_rows(rows)
        });
        prop_assert!(group_rows(&path).into_iter().all(|group| group as usize <= rows));
        let back = read(move || ParquetSource::<Document>::new(path.clone()).batch_rows(batch_rows));
        prop_assert_eq!(back, documents);
    }

    #[test]
    fn batches(
        sizes in prop::collection::vec(0_usize..40, 0..8),
        compression in compression(),
        rows in 1_usize..50,
        batch_rows in 1_usize..50,
    ) {
        let dir = folder();
        let path = dir.path().join("a.parquet");
        let mut next = 0;
        let batches: Vec<_> = sizes.iter().map(|&rows| {
            next += rows as i64;
            batch(next - rows as i64..next)
        }).collect();
        let (into, schema) = (path.clone(), batch(0..0).schema());
        write(batches, move || {
            ParquetSink::batches(into.clone(), schema.clone()).compression(compression).group_rows(rows)
        });
        let back = read(move || ParquetSource::batches(path.clone()).batch_rows(batch_rows));
        prop_assert!(back.iter().all(|batch| (1..=batch_rows).contains(&batch.num_rows())));
        let whole = back.iter().fold(Vec::new(), |mut whole, batch| {
            let numbers = batch["number"].as_any().downcast_ref::<Int64Array>().unwrap();
            let texts = batch["text"].as_any().downcast_ref::<StringArray>().unwrap();
            whole.extend(numbers.iter().zip(texts.iter().map(|text| text.map(str::to_owned))));
            whole
        });
        let expected: Vec<_> = (0..next).map(|n| (Some(n), (n % 3 > 0).then(|| n.to_string()))).collect();
        prop_assert_eq!(whole, expected);
    }
}

fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
    let texts: StringArray = numbers.clone().map(|n| (n % 3 > 0).then(|| n.to_string())).collect();
    let columns: [(_, ArrayRef, _); 2] =
        [("number", Arc::new(Int64Array::from_iter_values(numbers)), false), ("text", Arc::new(texts), true)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}
