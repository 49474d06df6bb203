//! Which columns records have.

use std::collections::HashMap;
use std::path::Path;

use sage_connectors::arrow_schema::{DataType, Field, Schema, TimeUnit};
use sage_connectors::{OutputError, ParquetSink, ParquetSource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::writing::refused;
use super::{Passage, metadata, write};
use crate::{folder, output_error, read};

#[test]
fn a_stream_without_records_makes_a_file_with_the_columns() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let into = path.clone();
    write(Vec::<Passage>::new(), move || ParquetSink::new(into.clone()));
    assert_eq!(metadata(&path).file_metadata().num_rows(), 0);
    assert_eq!(columns(&path), ["id: UINT_64 not null", "text: STRING"]);
    assert!(read(move || ParquetSource::<Passage>::new(path.clone())).is_empty());
}

/// The names of the columns and their types in the file.
pub(crate) fn columns(path: &Path) -> Vec<String> {
    let about = metadata(path);
    let columns = about.file_metadata().schema_descr().columns().iter().map(|column| {
        let kind = match column.logical_type_ref() {
            Some(::parquet::basic::LogicalType::String) => "STRING".to_owned(),
            Some(_) => column.converted_type().to_string(),
            None => column.physical_type().to_string(),
        };
        let never_null = if column.max_def_level() == 0 { " not null" } else { "" };
        format!("{}: {kind}{never_null}", column.path().string())
    });
    columns.collect()
}

fn no_columns<T: Serialize + DeserializeOwned + Send + 'static>(told: &[&str]) {
    let cause = refused(|dir| ParquetSink::<T>::new(dir.join("a.parquet")));
    assert!(matches!(output_error(&cause), OutputError::Columns { .. }), "{cause}");
    assert!(cause.message.contains("a.parquet: the records cannot be columns of Parquet"), "{cause}");
    for word in told {
        assert!(cause.message.contains(word), "{word}: {cause}");
    }
}

#[test]
fn types_without_columns_are_refused_with_the_field_and_the_way_out() {
    #[derive(Serialize, Deserialize)]
    enum Shape {
        Circle(f64),
        Point,
    }
    #[derive(Serialize, Deserialize)]
    struct Drawing {
        shapes: Vec<Shape>,
    }
    #[derive(Serialize, Deserialize)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
    }
    #[derive(Serialize, Deserialize)]
    struct Nothing {}
    #[derive(Serialize, Deserialize)]
    struct Loose {
        id: u32,
        rest: serde_json::Value,
    }
    no_columns::<Drawing>(&["`shapes.", "enum with data"]);
    no_columns::<Tree>(&["columns of `children.", "cannot be told", "recursive types", "ParquetSink::with_schema"]);
    no_columns::<Nothing>(&["there is no column"]);
    no_columns::<Loose>(&["the columns of `rest` cannot be told", "ParquetSink::with_schema"]);
    no_columns::<HashMap<String, u32>>(&["the columns cannot be told", "ParquetSink::with_schema"]);
    no_columns::<u32>(&["the columns cannot be told", "ParquetSink::with_schema"]);
}

pub(crate) fn given() -> Schema {
    let at = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
    Schema::new(vec![
        Field::new("page", DataType::Utf8, false),
        Field::new("at", at(TimeUnit::Millisecond, None), false),
        Field::new("written", at(TimeUnit::Microsecond, Some("UTC")), true),
        Field::new("unknown", DataType::Int32, true),
    ])
}

#[test]
fn tuples_have_columns_by_number_and_maps_those_that_are_given() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let pairs = [(1_u32, Some("a".to_owned())), (2, None)];
    let into = path.clone();
    write(pairs.to_vec(), move || ParquetSink::new(into.clone()));
    assert_eq!(columns(&path), ["0: UINT_32 not null", "1: STRING"]);
    let from = path.clone();
    assert_eq!(read(move || ParquetSource::<(u32, Option<String>)>::new(from.clone())), pairs);

    let rows = [HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]), HashMap::from([("b".to_owned(), 3)])];
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]);
    let into = path.clone();
    write(rows.to_vec(), move || ParquetSink::with_schema(into.clone(), schema.clone()));
    assert_eq!(columns(&path), ["a: INT64", "b: INT64"]);
    let back = read(move || ParquetSource::<HashMap<String, Option<i64>>>::new(path.clone()));
    assert_eq!(back[0], HashMap::from([("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))]));
    assert_eq!(back[1], HashMap::from([("a".to_owned(), None), ("b".to_owned(), Some(3))]));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Visit {
    page: String,
    at: i64,
    written: Option<String>,
    #[serde(default)]
    elsewhere: u8,
}

fn visit(page: &str, at: i64, written: Option<&str>) -> Visit {
    Visit { page: page.to_owned(), at, written: written.map(str::to_owned), elsewhere: 0 }
}

#[test]
fn columns_that_are_given_take_the_fields_of_their_names_and_times_are_numbers_or_texts() {
    let dir = folder();
    let path = dir.path().join("a.parquet");
    let into = path.clone();
    let visits = [visit("/", 1_790_000_000_000, Some("2026-09-21T14:13:20.5Z")), visit("/a", -1, None)];
    let with = visits.clone().map(|visit| Visit { elsewhere: 7, ..visit });
    write(with.to_vec(), move || ParquetSink::with_schema(into.clone(), given()));
    let kinds =
        ["page: STRING not null", "at: TIMESTAMP_MILLIS not null", "written: TIMESTAMP_MICROS", "unknown: INT32"];
    assert_eq!(columns(&path), kinds);
    let mut back = read(move || ParquetSource::<Visit>::new(path.clone()));
    let written = back[0].written.take();
    assert!(written.as_ref().is_some_and(|time| time.starts_with("2026-09-21T14:13:20.5")), "{written:?}");
    back[0].written = visits[0].written.clone();
    assert_eq!(back, visits);
}
