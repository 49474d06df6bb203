//! Sinks in several replicas.

use sage::Environment;
use sage_connectors::{CsvSink, CsvSource, JsonlSink, JsonlSource, OutputError};
use serde::{Deserialize, Serialize};

use crate::{failure, folder, names, output_error, pattern, read};

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Numbered {
    number: u32,
}

#[test]
fn each_replica_writes_a_part() {
    let dir = folder();
    let (json, csv) = (dir.path().join("out.jsonl.gz"), dir.path().join("out.csv"));
    let env = Environment::local("parts");
    env.from_iter(0..1000_u32).sink_to(move |_| JsonlSink::new(json.clone())).parallelism(2);
    env.from_iter(0..1000).map(|number| Numbered { number }).sink_to(move |_| CsvSink::new(csv.clone())).parallelism(3);
    env.run().unwrap();
    let expected = [
        "out.part-00000-of-00002.jsonl.gz",
        "out.part-00000-of-00003.csv",
        "out.part-00001-of-00002.jsonl.gz",
        "out.part-00001-of-00003.csv",
        "out.part-00002-of-00003.csv",
    ];
    assert_eq!(names(&dir), expected);
    let parts = pattern(&dir, "out.part-*-of-00002.jsonl.gz");
    let mut numbers = read(move || JsonlSource::<u32>::new(parts.as_str()));
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..1000));
    let parts = pattern(&dir, "out.part-*-of-00003.csv");
    let mut records = read(move || CsvSource::<Numbered>::new(parts.as_str()));
    records.sort();
    assert!(records.into_iter().map(|record| record.number).eq(0..1000));
}

#[test]
fn a_device_is_not_shared() {
    let env = Environment::local("shared");
    env.from_iter(0..10).sink_to(|_| JsonlSink::new("/dev/null")).parallelism(2);
    let cause = failure(&env);
    assert!(matches!(output_error(&cause), OutputError::Shared { parallelism: 2, .. }), "{cause}");
}
