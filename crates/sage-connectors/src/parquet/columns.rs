//! The columns of records: which ones a type has, and which ones a file can have.
//!
//! Knows nothing of files and jobs.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};

/// How often a type is looked at until all variants of its enums are known: more than any type needs.
const LOOKS_AT_A_TYPE: usize = 10_000;

/// The columns of a type, from what it can be read from.
pub(super) fn columns_of<T: DeserializeOwned>() -> Result<SchemaRef, String> {
    // As pyarrow makes them: its own types for texts and lists, maps whose keys are data, words for enums.
    let options = TracingOptions::default()
        .map_as_struct(false)
        .sequence_as_large_list(false)
        .strings_as_large_utf8(false)
        .bytes_as_large_binary(false)
        .enums_without_data_as_strings(true)
        .allow_null_fields(true)
        .from_type_budget(LOOKS_AT_A_TYPE);
    let fields = Vec::<FieldRef>::from_type::<T>(options).map_err(|error| untold(&error))?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Says why a type does not tell its columns, without the library's advice, which is about its own functions.
fn untold(error: &serde_arrow::Error) -> String {
    let why = error.message().split(" Consider ").next().unwrap_or_default().trim_end_matches('.');
    let text = error.to_string();
    let place = text.split_once("path: \"$.").and_then(|(_, path)| path.split_once('"'));
    let place = place.map_or_else(|| "the columns".to_owned(), |(path, _)| format!("the columns of `{path}`"));
    format!("{place} cannot be told from the type ({why}); give them, see `ParquetSink::with_schema`")
}

/// Checks whether a file can have these columns.
pub(super) fn check(schema: &Schema) -> Result<(), String> {
    if schema.fields().is_empty() {
        return Err("there is no column".to_owned());
    }
    let mut names = HashSet::new();
    for field in schema.fields() {
        if !names.insert(field.name()) {
            return Err(format!("two columns have the name `{}`", field.name()));
        }
        check_field(field, field.name())?;
    }
    Ok(())
}

/// Checks one column, or what is within it.
fn check_field(field: &Field, place: &str) -> Result<(), String> {
    let within = |inner: &Field| check_field(inner, &format!("{place}.{}", inner.name()));
    match field.data_type() {
        DataType::Union(..) => Err(format!("`{place}` is an enum with data, which Parquet has no type for")),
        DataType::Struct(fields) if fields.is_empty() => {
            Err(format!("`{place}` is a struct without fields, which Parquet has no type for"))
        }
        DataType::Struct(fields) => fields.iter().try_for_each(|inner| within(inner)),
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::ListView(inner)
        | DataType::LargeListView(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => within(inner),
        _ => Ok(()),
    }
}

/// What an error says, without the word that it begins with.
pub(super) fn told(error: &serde_arrow::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("Error: ").map(str::to_owned).unwrap_or(text)
}
