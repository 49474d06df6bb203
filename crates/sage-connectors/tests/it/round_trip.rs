//! What a sink has written, a source reads as it was.

use proptest::prelude::*;
use sage::{Environment, Sink, Source};
use sage_connectors::{CsvSink, CsvSource, JsonlSink, JsonlSource, TextSink, TextSource};
use serde::{Deserialize, Serialize};

use crate::{folder, gzip, input_error, put, read, zstd};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    id: i64,
    text: String,
    flag: bool,
    /// Not empty: CSV has one way to write an empty text and none.
    note: Option<String>,
    ratio: f32,
}

/// Texts with what the formats treat specially.
fn text() -> impl Strategy<Value = String> {
    let special = &["\"", "\"\"", ",", ";", "\t", "\n", "\r", "\r\n", "\\", " ", "\u{0}", "\u{FEFF}"][..];
    let piece = prop_oneof![
        3 => "[a-zäß☃]{0,6}",
        1 => prop::sample::select(special).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn record() -> impl Strategy<Value = Record> {
    let note = prop::option::of(text().prop_filter("not empty", |text| !text.is_empty()));
    let fields = (any::<i64>(), text(), any::<bool>(), note, -1000_i16..1000);
    fields.prop_map(|(id, text, flag, note, ratio)| Record { id, text, flag, note, ratio: f32::from(ratio) / 8.0 })
}

/// Writes records with one and reads them with the other.
fn through<K, S>(
    records: Vec<K::In>,
    sink: impl Fn() -> K + Send + 'static,
    source: impl Fn() -> S + Send + 'static,
) -> Vec<S::Item>
where
    K: Sink<In: Clone>,
    S: Source,
{
    let env = Environment::local("write");
    env.from_iter(records).sink_to(move |_| sink());
    env.run().unwrap();
    read(source)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn json_lines(records in prop::collection::vec(record(), 0..40), packed: bool) {
        let dir = folder();
        let path = dir.path().join(if packed { "a.jsonl.gz" } else { "a.jsonl" });
        let into = path.clone();
        let back = through(
            records.clone(),
            move || JsonlSink::new(into.clone()),
            move || JsonlSource::<Record>::new(path.clone()),
        );
        prop_assert_eq!(back, records);
    }

    #[test]
    fn csv(
        records in prop::collection::vec(record(), 0..40),
        packed: bool,
        headers: bool,
        delimiter in prop::sample::select(&b",;\t|"[..]),
    ) {
        let dir = folder();
        let path = dir.path().join(if packed { "a.csv.gz" } else { "a.csv" });
        let into = path.clone();
        let back = through(
            records.clone(),
            move || CsvSink::new(into.clone()).headers(headers).delimiter(delimiter),
            move || CsvSource::<Record>::new(path.clone()).headers(headers).delimiter(delimiter),
        );
        prop_assert_eq!(back, records);
    }

    /// Any bytes at all: a lenient source gives every line, or fails with an error of its own; it never panics.
    #[test]
    fn csv_of_any_bytes(bytes in prop::collection::vec(prop::sample::select(&b"a1,\"\n\r\xFF "[..]), 0..200)) {
        let dir = folder();
        let path = dir.path().join("a.csv");
        std::fs::write(&path, &bytes).unwrap();
        let records = read(move || CsvSource::<Vec<String>>::new(path.clone()).headers(false).lenient());
        let bad: usize = records.iter().filter_map(|record| record.as_ref().err()).map(|bad| bad.text.len()).sum();
        prop_assert!(bad <= 3 * bytes.len());
    }

    /// A packed file with a wrong byte, or cut off, is read as far as it goes and then fails; nothing panics.
    #[test]
    fn damaged_files(
        text in "[a-f\\n]{0,3000}",
        zst: bool,
        damage in prop::option::of((any::<prop::sample::Index>(), 1_u8..)),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = folder();
        let mut packed = if zst { zstd(&text) } else { gzip(&text) };
        if let Some((place, change)) = damage {
            let place = place.index(packed.len());
            packed[place] ^= change;
        }
        if let Some(length) = cut {
            packed.truncate(length.index(packed.len()));
        }
        let path = put(&dir, if zst { "a.zst" } else { "a.gz" }, packed);
        let env = Environment::local("damaged");
        let lines = env.from_source(move |_| TextSource::new(path.clone())).collect();
        match env.run() {
            Ok(_) => prop_assert!(damage.is_some() || cut.is_none()),
            Err(error) => {
                prop_assert!(damage.is_some() || cut.is_some(), "{}", error);
                input_error(error.report().unwrap().first_cause.as_ref().unwrap());
            }
        }
        if damage.is_none() {
            let lines: Vec<_> = lines.take().into_iter().map(|line| line.text).collect();
            let expected: Vec<_> = text.lines().take(lines.len()).collect();
            prop_assert_eq!(lines, expected);
        }
    }

    #[test]
    fn lines_of_text(lines in prop::collection::vec("[^\r\n\u{FEFF}]{0,12}", 0..40), packed: bool) {
        let dir = folder();
        let path = dir.path().join(if packed { "a.txt.gz" } else { "a.txt" });
        let into = path.clone();
        let back = through(
            lines.clone(),
            move || TextSink::new(into.clone()),
            move || TextSource::new(path.clone()),
        );
        prop_assert!(back.iter().map(|line| line.text.as_str()).eq(lines.iter().map(String::as_str)));
    }
}
