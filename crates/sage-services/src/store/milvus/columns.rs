//! Records as Milvus takes and gives them: column by column.

use serde_json::{Map, Value as Json};

use super::messages::{Column, FLOAT_VECTOR, Floats, JSON, Jsons, Scalars, Texts, VARCHAR, Vectors};
use super::{ID, METADATA, TEXT, VECTOR};
use crate::store::error::StoreError;
use crate::store::record::Record;
use crate::store::remote::{as_kept, kept};

/// The most bytes of a text, and of metadata.
pub(super) const LARGEST_VALUE: usize = 65_535;

/// A record that is to be sent.
pub(super) struct Row {
    record: Record,
    metadata: Vec<u8>,
}

impl Row {
    /// Fails for a record that is larger than Milvus takes.
    pub(super) fn new(record: Record) -> Result<Self, StoreError> {
        let metadata = Json::Object(kept(&record.metadata)).to_string().into_bytes();
        for (what, bytes) in [("text", record.text.len()), ("metadata", metadata.len())] {
            if bytes > LARGEST_VALUE {
                let why = format!("its {what} takes {bytes} bytes; Milvus takes {LARGEST_VALUE}");
                return Err(StoreError::BadRecord { id: record.id, why });
            }
        }
        Ok(Self { record, metadata })
    }

    pub(super) fn bytes(&self) -> usize {
        self.record.id.len() + 4 * self.record.vector.len() + self.record.text.len() + self.metadata.len()
    }
}

/// The columns of a batch, whose records have vectors of these dimensions.
pub(super) fn columns(rows: Vec<Row>, dimensions: usize) -> Vec<Column> {
    let mut vectors = Vec::with_capacity(rows.len() * dimensions);
    let (mut ids, mut texts, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        ids.push(row.record.id);
        vectors.extend_from_slice(&row.record.vector);
        texts.push(row.record.text);
        metadata.push(row.metadata);
    }
    let column = |name: &str, data_type| Column { data_type, field_name: name.to_owned(), ..Column::default() };
    let text = |name, data| Column {
        scalars: Some(Scalars { texts: Some(Texts { data }), ..Scalars::default() }),
        ..column(name, VARCHAR)
    };
    let vectors = Vectors { dim: dimensions as i64, floats: Some(Floats { data: vectors }) };
    let metadata = Scalars { json: Some(Jsons { data: metadata }), ..Scalars::default() };
    vec![
        text(ID, ids),
        Column { vectors: Some(vectors), ..column(VECTOR, FLOAT_VECTOR) },
        text(TEXT, texts),
        Column { scalars: Some(metadata), ..column(METADATA, JSON) },
    ]
}

/// What an answer has of records.
#[derive(Default)]
pub(super) struct Found {
    pub(super) ids: Vec<String>,
    dimensions: usize,
    vectors: Vec<f32>,
    texts: Vec<String>,
    metadata: Vec<Vec<u8>>,
}

impl Found {
    pub(super) fn of(columns: Vec<Column>) -> Self {
        let mut found = Self::default();
        for column in columns {
            let scalars = column.scalars.unwrap_or_default();
            let texts = scalars.texts.unwrap_or_default().data;
            match &*column.field_name {
                ID => found.ids = texts,
                TEXT => found.texts = texts,
                METADATA => found.metadata = scalars.json.unwrap_or_default().data,
                VECTOR => {
                    let vectors = column.vectors.unwrap_or_default();
                    found.dimensions = usize::try_from(vectors.dim).unwrap_or_default();
                    found.vectors = vectors.floats.unwrap_or_default().data;
                }
                _ => {}
            }
        }
        found
    }

    /// Those of a search come apart from the other fields.
    pub(super) fn with_ids(self, ids: Vec<String>) -> Self {
        Self { ids, ..self }
    }

    pub(super) fn records(self) -> Vec<Record> {
        let mut vectors = self.vectors.chunks_exact(self.dimensions.max(1));
        let (mut texts, mut metadata) = (self.texts.into_iter(), self.metadata.into_iter());
        let kept = |bytes: Vec<u8>| serde_json::from_slice::<Map<String, Json>>(&bytes).ok();
        let record = |id| Record {
            id,
            vector: vectors.next().unwrap_or_default().to_vec(),
            text: texts.next().unwrap_or_default(),
            metadata: metadata.next().and_then(kept).and_then(|kept| as_kept(&kept)).unwrap_or_default(),
        };
        self.ids.into_iter().map(record).collect()
    }
}
