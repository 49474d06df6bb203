//! A file is whole, or not there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};

use sage::{BoxError, Environment, ErrorPolicy, JobHandle, Outcome, StopReason};
use sage_connectors::arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use sage_connectors::{OutputError, ParquetCompression, ParquetSink, ParquetSource};
use serde::Serialize;

use super::columns::{columns, given};
use super::{Passage, group_rows, metadata, passage, write};
use crate::child::alone;
use crate::{failed, failure, folder, names, output_error, pattern, put, read};

#[test]
fn row_groups_end_at_so_many_rows_or_bytes() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let records: Vec<_> = (0..100_000).map(passage).collect();
    let into = path.clone();
    write(records.clone(), move || ParquetSink::new(into.clone()));
    assert_eq!(group_rows(&path), [65_536, 34_464]);
    let into = path.clone();
    write(records.clone(), move || ParquetSink::new(into.clone()).group_rows(40_000));
    assert_eq!(group_rows(&path), [40_000, 40_000, 20_000]);

    // Large texts that do not repeat, so that they cannot be packed.
    let noise = |seed: u64| -> String {
        let mut state = seed;
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            char::from(b'!' + (state >> 40) as u8 % 90)
        };
        (0..100_000).map(letter).collect()
    };
    let large: Vec<_> = (0..60).map(|id| Passage { id, text: Some(noise(id)) }).collect();
    let into = path.clone();
    write(large.clone(), move || {
        ParquetSink::new(into.clone()).group_bytes(1 << 20).compression(ParquetCompression::None)
    });
    let about = metadata(&path);
    assert!((5..=12).contains(&about.num_row_groups()), "{:?}", group_rows(&path));
    assert!(about.row_groups().iter().all(|group| group.compressed_size() < 2 << 20));
    assert_eq!(read(move || ParquetSource::<Passage>::new(path.clone())), large);
}

#[test]
fn columns_are_packed_as_told() {
    let dir = folder();
    let packed = |compression: Option<ParquetCompression>| {
        let path = dir.path().join("a.parquet");
        let into = path.clone();
        write((0..10_000).map(passage).collect(), move || {
            let sink = ParquetSink::new(into.clone());
            compression.into_iter().fold(sink, ParquetSink::compression)
        });
        format!("{:?}", metadata(&path).row_group(0).column(0).compression_codec())
    };
    assert_eq!(packed(None), "SNAPPY");
    assert_eq!(packed(Some(ParquetCompression::None)), "UNCOMPRESSED");
    assert_eq!(packed(Some(ParquetCompression::Gzip)), "GZIP");
    assert_eq!(packed(Some(ParquetCompression::Zstd)), "ZSTD");
}

#[test]
fn each_replica_writes_a_part_with_the_same_columns() {
    let dir = folder();
    let path = dir.path().join("out.parquet");
    let env = Environment::local("parts");
    // One of the replicas gets no record.
    env.from_iter([passage(0)]).sink_to(move |_| ParquetSink::new(path.clone())).parallelism(2);
    env.run().unwrap();
    let parts = ["out.part-00000-of-00002.parquet", "out.part-00001-of-00002.parquet"];
    assert_eq!(names(&dir), parts);
    assert_eq!(columns(&dir.path().join(parts[0])), columns(&dir.path().join(parts[1])));
    let from = pattern(&dir, "out.part-*-of-00002.parquet");
    assert_eq!(read(move || ParquetSource::<Passage>::new(from.as_str())), [passage(0)]);
}

/// A job of passages that fails, one way or another, at number 50,000.
fn failing(at: fn() -> Result<(), BoxError>) {
    let dir = folder();
    let path = put(&dir, "a.parquet", "old");
    let into = path.clone();
    let env = Environment::local("fail");
    env.from_iter(0..100_000)
        .try_map(move |id| if id == 50_000 { at().map(|()| passage(id)) } else { Ok(passage(id)) })
        .sink_to(move |_| ParquetSink::new(into.clone()).group_rows(1_000));
    let report = failed(&env);
    assert_eq!(report.attached.len(), 0, "{report}");
    assert_eq!(names(&dir), ["a.parquet"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "old");
}

#[test]
fn a_failure_or_a_panic_leaves_the_old_file_and_no_other() {
    failing(|| Err("no".into()));
    failing(|| panic!("no"));
}

/// A job without an end, given back when the first record is on its way.
fn endless(path: PathBuf) -> (Environment, JobHandle) {
    let (sender, first) = mpsc::channel();
    let env = Environment::local("endless");
    env.from_factory(|_| 0_u64..)
        .map(passage)
        .inspect(move |passage| {
            if passage.id == 0 {
                sender.send(()).unwrap();
            }
        })
        .sink_to(move |_| ParquetSink::new(path.clone()).group_rows(10_000))
        .named("file");
    let job = env.submit().unwrap();
    first.recv().unwrap();
    (env, job)
}

#[test]
fn a_cancel_leaves_the_old_file_and_no_other() {
    let dir = folder();
    let path = put(&dir, "out.parquet", "old");
    let (_env, job) = endless(path.clone());
    job.cancel();
    let error = job.wait().unwrap_err();
    let report = error.report().unwrap();
    assert_eq!((report.outcome, report.left.len()), (Outcome::Cancelled, 0));
    assert_eq!(names(&dir), ["out.parquet"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "old");
}

#[test]
fn a_drain_leaves_a_complete_file() {
    let dir = folder();
    let path = dir.path().join("out.parquet");
    let (_env, job) = endless(path.clone());
    job.drain();
    let report = job.wait().unwrap();
    assert_eq!(names(&dir), ["out.parquet"]);
    let written = read(move || ParquetSource::<Passage>::new(path.clone()));
    assert!(written.iter().cloned().eq((0..written.len() as u64).map(passage)));
    assert_eq!(written.len() as u64, report.operator("file").unwrap().records_in);
}

#[test]
fn a_signal_leaves_what_was_written_under_another_name_and_it_can_be_read() {
    alone("parquet::writing::a_signal_leaves_what_was_written_under_another_name_and_it_can_be_read", "", |dir| {
        let path = dir.join("out.parquet");
        fs::write(&path, "old").unwrap();
        let (_env, job) = endless(path.clone());
        let me = std::process::id().to_string();
        assert!(Command::new("sh").args(["-c", "kill -INT $0", &me]).status().unwrap().success());
        let error = job.wait().unwrap_err();
        let report = error.report().unwrap();
        assert_eq!((&report.reason, report.left.len()), (&StopReason::Signal(2), 0));
        let partial = dir.join("out.parquet.partial");
        assert_eq!(names(&dir), ["out.parquet", "out.parquet.partial"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(report.notes.len(), 1, "{report}");
        let written = read(move || ParquetSource::<Passage>::new(partial.clone()));
        assert!(!written.is_empty() && written.iter().cloned().eq((0..written.len() as u64).map(passage)));
        assert_eq!(written.len() as u64, report.operator("file").unwrap().records_in);
    });
}

#[test]
fn a_disk_that_is_full_leaves_nothing() {
    alone("parquet::writing::a_disk_that_is_full_leaves_nothing", "trap '' XFSZ; ulimit -f 8;", |dir| {
        let path = dir.join("a.parquet");
        // Enough to fail while records are written, and so little that it fails at the end.
        for records in [200_000, 2_000] {
            let into = path.clone();
            let env = Environment::local("full");
            env.from_iter(0..records).map(passage).sink_to(move |_| {
                ParquetSink::new(into.clone()).group_rows(10_000).compression(ParquetCompression::None)
            });
            let cause = failure(&env);
            let OutputError::Write { path: told, source } = output_error(&cause) else { panic!("{cause}") };
            assert_eq!((told, source.kind()), (&path, io::ErrorKind::FileTooLarge));
            assert!(names(&dir).is_empty());
        }
    });
}

#[test]
fn a_device_that_is_full_fails_and_one_that_is_not_is_written_in_place() {
    let into = |target: &'static str| {
        let env = Environment::local("device");
        env.from_iter((0..10).map(passage)).sink_to(move |_| ParquetSink::new(target));
        env
    };
    into("/dev/null").run().unwrap();
    let cause = failure(&into("/dev/full"));
    let OutputError::Write { source, .. } = output_error(&cause) else { panic!("{cause}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
}

/// Why a sink does not open.
pub(crate) fn refused<T>(sink: impl Fn(&Path) -> ParquetSink<T> + Send + 'static) -> sage::Cause
where
    T: Send + 'static,
{
    let dir = folder();
    let path = dir.path().to_owned();
    let env = Environment::local("refused").inline();
    env.from_iter(Vec::<u8>::new()).map(|_| -> T { panic!("a record") }).sink_to(move |_| sink(&path));
    let cause = failure(&env);
    assert!(names(&dir).is_empty());
    assert!(cause.place().to_string().ends_with("while opening"), "{cause}");
    cause
}

#[test]
fn a_target_or_an_option_that_cannot_be_is_refused_before_the_first_record() {
    let cause = refused(|dir| ParquetSink::<Passage>::new(dir.join("missing/a.parquet")));
    assert!(matches!(output_error(&cause), OutputError::Create { .. }), "{cause}");
    assert!(cause.message.contains("missing/a.parquet"), "{cause}");
    let cause = refused(|dir| ParquetSink::<Passage>::new(dir));
    assert!(matches!(output_error(&cause), OutputError::Folder { .. }), "{cause}");
    let cause = refused(|dir| ParquetSink::<Passage>::new(dir.join("a.parquet.gz")));
    assert!(matches!(output_error(&cause), OutputError::Option { option: "path", .. }), "{cause}");
    let cause = refused(|dir| ParquetSink::<Passage>::new(dir.join("a")).group_rows(0));
    assert!(matches!(output_error(&cause), OutputError::Option { option: "group_rows", .. }), "{cause}");
    let cause = refused(|dir| ParquetSink::<Passage>::new(dir.join("a")).group_bytes(0));
    assert!(matches!(output_error(&cause), OutputError::Option { option: "group_bytes", .. }), "{cause}");
}

/// Optional for the engine, and not for the file.
#[derive(Debug, Clone, Serialize)]
struct Gap {
    page: Option<String>,
    at: i64,
}

fn gaps(every: u64) -> impl Iterator<Item = Gap> + Send {
    (1..5_000_u64).map(move |n| Gap { page: (n % every > 0).then(|| n.to_string()), at: n as i64 })
}

#[test]
fn a_record_that_does_not_fit_fails_the_job_with_its_number_and_leaves_the_old_file() {
    let dir = folder();
    let path = put(&dir, "a.parquet", "old");
    let into = path.clone();
    let env = Environment::local("gap");
    env.from_factory(|_| gaps(3_000)).sink_to(move |_| ParquetSink::with_schema(into.clone(), given()).group_rows(100));
    let cause = failure(&env);
    assert!(matches!(output_error(&cause), OutputError::Record { .. }), "{cause}");
    for word in ["a.parquet: ", "record 3000: ", "page"] {
        assert!(cause.message.contains(word), "{word}: {cause}");
    }
    assert_eq!(names(&dir), ["a.parquet"]);
    assert_eq!(fs::read_to_string(path).unwrap(), "old");
}

#[test]
fn records_that_an_error_policy_lets_pass_do_not_make_a_file_with_a_gap() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let into = path.clone();
    let env = Environment::local("gap");
    env.from_factory(|_| gaps(10))
        .sink_to(move |_| ParquetSink::with_schema(into.clone(), given()))
        .named("file")
        .on_error(ErrorPolicy::skip());
    let report = failed(&env);
    let cause = report.first_cause.as_ref().unwrap();
    assert!(matches!(output_error(cause), OutputError::Incomplete { path: told } if *told == path));
    // The first that did not fit was number 10, and those behind it were not taken.
    assert_eq!(report.operator("file").unwrap().failed, 4_999 - 9);
    assert!(names(&dir).is_empty());
}

#[test]
fn a_batch_with_other_columns_fails_the_job_with_its_number() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let long = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let short = RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]).unwrap();
    let schema = long.schema();
    let env = Environment::local("batches");
    env.from_iter([long, short]).sink_to(move |_| ParquetSink::batches(path.clone(), schema.clone()));
    let cause = failure(&env);
    assert!(matches!(output_error(&cause), OutputError::Record { .. }), "{cause}");
    assert!(cause.message.contains("batch 2: its columns are"), "{cause}");
    assert!(names(&dir).is_empty());
}

#[test]
fn a_private_file_is_its_owners_alone_and_permissions_stay() {
    let dir = folder();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = dir.path().join("a.parquet");
    let into = path.clone();
    write(vec![passage(1)], move || ParquetSink::new(into.clone()).private());
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let into = path.clone();
    write(vec![passage(1)], move || ParquetSink::new(into.clone()).private());
    assert_eq!(mode(&path), 0o640);
}
