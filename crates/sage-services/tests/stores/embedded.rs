//! The embedded store: the suite, its file, and what is left of it when things go wrong.

use sage_services::store::{Embedded, VectorStore};

use crate::conformance::conforms;

#[test]
fn a_store_in_a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&|schema| {
        let path = folder.path().join("stores").join(schema.name());
        VectorStore::new(schema, Embedded::at(path))
    });
}
