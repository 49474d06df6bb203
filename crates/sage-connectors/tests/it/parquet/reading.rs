//! Files that are not what they should be, and columns that are chosen.

use std::fs;
use std::io;
use std::path::PathBuf;

use proptest::prelude::*;
use sage::Environment;
use sage_connectors::{InputError, ParquetSink, ParquetSource};
use serde::{Deserialize, Serialize};

use super::{Passage, passage, write};
use crate::{failure, folder, input_error, pattern, put, read, read_and_fail};

/// Writes passages of these numbers into the folder.
fn passages(dir: &tempfile::TempDir, name: &str, numbers: std::ops::Range<u64>) -> PathBuf {
    let path = dir.path().join(name);
    let into = path.clone();
    write(numbers.map(passage).collect(), move || ParquetSink::new(into.clone()).group_rows(1_500));
    path
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let dir = folder();
    for name in ["b", "c", "a"] {
        passages(&dir, &format!("{name}.parquet"), 0..(name.as_bytes()[0] - b'a').into());
    }
    let from = pattern(&dir, "*.parquet");
    assert_eq!(read(move || ParquetSource::<Passage>::new(from.as_str())), [0, 0, 1].map(passage));
}

#[test]
fn a_record_takes_the_columns_it_has_fields_for() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Text {
        text: Option<String>,
    }
    let dir = folder();
    let path = passages(&dir, "a.parquet", 0..5_000);
    let texts: Vec<_> = (0..5_000).map(|id| Text { text: passage(id).text }).collect();
    let from = path.clone();
    assert_eq!(read(move || ParquetSource::<Text>::new(from.clone())), texts);
    let from = path.clone();
    assert_eq!(read(move || ParquetSource::<Text>::new(from.clone()).columns(["text"])), texts);

    let from = path.clone();
    let batches = read(move || ParquetSource::batches(from.clone()).columns(["text"]));
    assert!(batches.iter().all(|batch| batch.num_columns() == 1));
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 5_000);

    let (_, cause) = read_and_fail(move || ParquetSource::<Text>::new(path.clone()).columns(["text", "words"]));
    assert!(matches!(input_error(&cause), InputError::Table { row: 1, .. }), "{cause}");
    assert!(cause.message.contains(r#"no column `words`; it has ["id", "text"]"#), "{cause}");
}

#[test]
fn a_row_that_is_not_a_record_fails_the_job_with_its_place_after_those_before_it() {
    #[derive(Debug, Deserialize)]
    struct Full {
        text: String,
    }
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let into = path.clone();
    let late = |id| Passage { id, text: (id != 2_999).then(String::new) };
    write((0..5_000).map(late).collect(), move || ParquetSink::new(into.clone()));
    let (records, cause) = read_and_fail(move || ParquetSource::<Full>::new(path.clone()));
    assert!(records.len() == 2_999 && records.iter().all(|full| full.text.is_empty()));
    assert!(matches!(input_error(&cause), InputError::Row { row: 3_000, .. }), "{cause}");
    assert!(cause.message.contains("a.parquet: row 3000 is not a record: "), "{cause}");
    assert!(cause.message.contains("text"), "{cause}");
}

#[test]
fn a_type_that_the_columns_are_not_fails_at_the_first_row() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Other {
        id: String,
    }
    let dir = folder();
    let path = passages(&dir, "a.parquet", 0..10);
    let (records, cause) = read_and_fail(move || ParquetSource::<Other>::new(path.clone()));
    assert!(records.is_empty());
    assert!(matches!(input_error(&cause), InputError::Row { row: 1, .. }), "{cause}");
}

#[test]
fn what_is_no_parquet_is_named() {
    let dir = folder();
    for text in ["", "no parquet", "no parquet, although it is longer and ends so: PAR1"] {
        let path = put(&dir, "bad.parquet", text);
        let (_, cause) = read_and_fail(move || ParquetSource::<Passage>::new(path.clone()));
        assert!(matches!(input_error(&cause), InputError::Table { .. }), "{cause}");
        assert!(cause.message.contains("bad.parquet: cannot be read as Parquet"), "{cause}");
    }
    let place = dir.path().to_owned();
    let env = Environment::local("open").inline();
    env.from_source(move |_| ParquetSource::<Passage>::new(place.clone())).sink(|_| {});
    let cause = failure(&env);
    let InputError::Open { source, .. } = input_error(&cause) else { panic!("{cause}") };
    assert_eq!(source.kind(), io::ErrorKind::IsADirectory);
    let (_, cause) = read_and_fail(|| ParquetSource::<Passage>::new("a").batch_rows(0));
    assert!(matches!(input_error(&cause), InputError::Option { option: "batch_rows", .. }), "{cause}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A file with a wrong byte, or cut off, is read as far as it goes and then fails; nothing panics.
    #[test]
    fn damaged_files(place: prop::sample::Index, change in 1_u8.., cut: bool) {
        let dir = folder();
        let path = passages(&dir, "a.parquet", 0..2_000);
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] ^= change }
        fs::write(&path, bytes).unwrap();
        let env = Environment::local("damaged");
        let records = env.from_source(move |_| ParquetSource::<Passage>::new(path.clone())).collect();
        if let Err(error) = env.run() {
            input_error(error.report().unwrap().first_cause.as_ref().unwrap());
        } else {
            prop_assert!(!cut);
        }
        prop_assert!(records.take().len() <= 2_000);
    }
}
