//! Milvus: the suite against a real server, Milvus Lite, and what is its own.

use std::path::Path;
use std::process::Command;

use sage::testing::Census;
use sage_services::store::{Milvus, Record, Schema, Search, StoreError, VectorStore};
use sage_services::wait;

use crate::conformance::{Numbers, conforms, opened};
use crate::faults::Kind;
use crate::server::{Server, python};

fn command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(python(".venv-milvus"));
    let port = port.to_string();
    command.args(["-m", "milvus_lite", "server", "--host", "127.0.0.1", "--port", &port, "--data-dir"]).arg(folder);
    command
}

pub(crate) const KIND: Kind = Kind {
    command,
    store: |schema, port, patience| {
        let driver = Milvus::at(format!("http://127.0.0.1:{port}")).request_timeout(patience);
        VectorStore::new(schema, driver).unwrap()
    },
};

fn milvus(server: &Server) -> Milvus {
    Milvus::at(format!("http://127.0.0.1:{}", server.port()))
}

#[test]
fn milvus_conforms() {
    let server = Server::start(command);
    let before = Census::take();
    conforms(&|schema| VectorStore::new(schema, milvus(&server)));
    before.expect_growth(&[]);
}

/// Makes a collection by another way than the driver's.
const OTHERS: &str = "
import sys
from pymilvus import MilvusClient
MilvusClient(uri=sys.argv[1]).create_collection('python', dimension=2)
";

#[test]
fn a_collection_with_other_fields_is_refused() {
    let server = Server::start(command);
    let address = format!("http://127.0.0.1:{}", server.port());
    let made = Command::new(python(".venv-milvus")).args(["-c", OTHERS, &address]).status().unwrap();
    assert!(made.success());
    let store = VectorStore::new(Schema::new("python", 2), milvus(&server)).unwrap();
    let error = wait(store.open()).unwrap_err();
    assert!(matches!(&error, StoreError::OtherCollection { what: "fields", .. }), "{error}");
    assert!(error.to_string().contains("id, vector, text, metadata"), "{error}");
    wait(store.close()).unwrap();
}

#[test]
fn a_batch_above_the_limit_is_sent_in_pieces_and_a_record_above_it_refused() {
    const RECORDS: usize = 5_500;
    let server = Server::start(command);
    let store = opened(&|schema| VectorStore::new(schema, milvus(&server)), Schema::new("large", 8));
    let mut numbers = Numbers::new(5);
    let record = |number| Record::new(format!("{number:04}"), numbers.vector(8)).with("n", number as i64);
    let records: Vec<Record> = (0..RECORDS).map(record).collect();
    for (what, large) in [
        ("text", Record::new("large", vec![1.0; 8]).text("x".repeat(65_536))),
        ("metadata", Record::new("large", vec![1.0; 8]).with("x", "x".repeat(40_000))),
    ] {
        let error = wait(store.upsert(records[..9].iter().cloned().chain([large]).collect())).unwrap_err();
        assert!(matches!(&error, StoreError::BadRecord { id, why } if id == "large" && why.contains(what)), "{error}");
    }
    assert_eq!(wait(store.count()).unwrap(), 0);
    let longest = Record::new("longest", vec![1.0; 8]).text("x".repeat(65_535));
    wait(store.upsert(records.iter().cloned().chain([longest]).collect())).unwrap();
    assert_eq!(wait(store.count()).unwrap(), RECORDS + 1);
    wait(store.persist()).unwrap();
    let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
    assert!(wait(store.get(&ids)).unwrap().iter().zip(&records).all(|(found, record)| found.as_ref() == Some(record)));
    let found = wait(store.search(Search::vector(records[7].vector.clone(), 30))).unwrap();
    assert_eq!((found.len(), &found[0].id), (30, &records[7].id));
    assert_eq!(wait(store.delete(&ids[100..])).unwrap(), RECORDS - 100);
    assert_eq!(wait(store.count()).unwrap(), 101);
    wait(store.close()).unwrap();
}
