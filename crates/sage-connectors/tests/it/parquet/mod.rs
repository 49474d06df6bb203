//! Files of Parquet.

mod columns;
mod reading;
mod round_trip;
mod writing;

use std::fs::File;
use std::path::Path;

use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use sage::{Environment, Sink};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Passage {
    id: u64,
    text: Option<String>,
}

fn passage(id: u64) -> Passage {
    Passage { id, text: (!id.is_multiple_of(3)).then(|| format!("passage {id}")) }
}

fn write<K: Sink<In: Clone>>(records: Vec<K::In>, sink: impl Fn() -> K + Send + 'static) {
    let env = Environment::local("write");
    env.from_iter(records).sink_to(move |_| sink());
    env.run().unwrap();
}

fn metadata(path: &Path) -> ParquetMetaData {
    SerializedFileReader::new(File::open(path).unwrap()).unwrap().metadata().clone()
}

fn group_rows(path: &Path) -> Vec<i64> {
    metadata(path).row_groups().iter().map(|group| group.num_rows()).collect()
}
