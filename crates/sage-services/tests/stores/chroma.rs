//! Chroma: the suite against a real server, and what is its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use sage::testing::Census;
use sage_services::store::{Chroma, Metadata, Metric, Record, Schema, Search, StoreError, Value, VectorStore, field};
use sage_services::wait;
use serde_json::{Value as Json, json};

use crate::conformance::{Numbers, assert_same, conforms, opened};
use crate::faults::Kind;
use crate::server::{Server, python};

/// What the program `chroma` runs, without the packages that it imports before.
const CLI: &str = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])";

fn command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(python(".venv-chroma"));
    command.args(["-c", CLI, "run", "--host", "127.0.0.1", "--port", &port.to_string(), "--path"]).arg(folder);
    command
}

pub(crate) const KIND: Kind = Kind {
    command,
    store: |schema, port, patience| {
        let driver = Chroma::at(format!("http://127.0.0.1:{port}")).request_timeout(patience);
        VectorStore::new(schema, driver).unwrap()
    },
};

fn chroma(server: &Server) -> Chroma {
    Chroma::at(format!("http://127.0.0.1:{}", server.port()))
}

#[test]
fn chroma_conforms() {
    let server = Server::start(command);
    let before = Census::take();
    conforms(&|schema| VectorStore::new(schema, chroma(&server)));
    before.expect_growth(&[]);
}

#[test]
fn a_batch_above_the_limit_is_sent_in_pieces() {
    const RECORDS: usize = 5_461 + 539;
    let server = Server::start(command);
    let store = opened(&|schema| VectorStore::new(schema, chroma(&server)), Schema::new("large", 8));
    let mut numbers = Numbers::new(5);
    let record = |number| Record::new(format!("{number:04}"), numbers.vector(8)).with("n", number as i64);
    let records: Vec<Record> = (0..RECORDS).map(record).collect();
    wait(store.upsert(records.clone())).unwrap();
    assert_eq!(wait(store.count()).unwrap(), RECORDS);
    let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
    for (found, record) in wait(store.get(&ids)).unwrap().iter().zip(&records) {
        assert_same(found.as_ref().unwrap(), record);
    }
    let hits = wait(store.search(Search::vector(records[7].vector.clone(), RECORDS))).unwrap();
    assert_eq!((hits.len(), &hits[0].id), (RECORDS, &records[7].id));
    assert_eq!(wait(store.delete(&ids[100..])).unwrap(), RECORDS - 100);
    assert_eq!(wait(store.count()).unwrap(), 100);
    wait(store.close()).unwrap();
}

#[test]
fn a_batch_of_large_texts_is_sent_in_pieces() {
    let server = Server::start(command);
    let store = opened(&|schema| VectorStore::new(schema, chroma(&server)), Schema::new("texts", 2));
    // As JSON each takes 6 MiB; Chroma takes 40 MiB at once.
    let text = "\u{1}".repeat(1 << 20);
    let record = |number: u32| Record::new(format!("{number}"), vec![1.0, number as f32]).text(&*text);
    wait(store.upsert((0..7).map(record).collect())).unwrap();
    let last = wait(store.get(&["6"])).unwrap().remove(0).unwrap();
    assert!(last.text == text && wait(store.count()).unwrap() == 7);
    wait(store.close()).unwrap();
}

#[test]
fn a_collection_that_something_else_has_made_can_be_used() {
    let server = Server::start(command);
    let made = json!({"name": "python", "configuration": {"hnsw": {"space": "l2"}}});
    let id = post(&server, "collections", &made)["id"].as_str().unwrap().to_owned();
    let records = json!({
        "ids": ["a", "b"], "embeddings": [[1.0, 0.0], [0.0, 1.0]], "documents": ["one", null],
        "metadatas": [{"lang": "en", "year": 2024, "tags": ["x"]}, null],
    });
    post(&server, &format!("collections/{id}/upsert"), &records);

    let make = |schema| VectorStore::new(schema, chroma(&server)).unwrap();
    let other = make(Schema::new("python", 2));
    let error = wait(other.open()).unwrap_err();
    assert!(matches!(error, StoreError::OtherCollection { what: "metric", .. }), "{error}");
    let other = make(Schema::new("python", 3).metric(Metric::Euclidean));
    assert!(wait(other.open()).unwrap_err().to_string().contains("dimensions"));

    let store = make(Schema::new("python", 2).metric(Metric::Euclidean).must_exist());
    wait(store.open()).unwrap();
    let a = wait(store.get(&["a"])).unwrap().remove(0).unwrap();
    let metadata = [("lang", Value::from("en")), ("year", 2024.into()), ("tags", vec!["x"].into())];
    assert_eq!(a.metadata, Metadata::from(metadata.map(|(name, value)| (name.to_owned(), value))));
    for (filter, expected) in [
        (field("lang").contains("n"), 1),
        (field("tags").contains("x"), 1),
        (field("lang").greater("a"), 1),
        (field("year").less(2024).not(), 2),
        (field("lang").equal("de").not(), 2),
    ] {
        assert_eq!(wait(store.count_where(filter.clone())).unwrap(), expected, "{filter:?}");
    }
    wait(store.close()).unwrap();
}

/// Asks a server by hand, so that the driver under test is not its own witness.
fn post(server: &Server, path: &str, body: &Json) -> Json {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    let body = body.to_string();
    let head = format!("POST /api/v2/tenants/default_tenant/databases/default_database/{path} HTTP/1.1");
    let kind = "Host: localhost\r\nContent-Type: application/json\r\nConnection: close";
    write!(stream, "{head}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn a_token_and_a_password_are_not_shown() {
    let driver = Chroma::at("http://me:secret@127.0.0.1:1").token("secret");
    assert!(!format!("{driver:?}").contains("secret"), "{driver:?}");
    let store = VectorStore::new(Schema::new("hidden", 2), driver).unwrap();
    let error = wait(store.open()).unwrap_err();
    assert!(!format!("{error:?}").contains("secret") && error.to_string().contains("127.0.0.1:1"), "{error:?}");
    wait(store.close()).unwrap();
}
