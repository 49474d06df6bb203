//! The vectors are those of the reference, for models that are written here.

use sage_services::{Embedder, StaticEmbedder};

use super::files::{assert_close, case, fixture, rows, texts, write_case};

#[test]
fn static_vectors_are_those_of_the_libraries_whose_files_are_read() {
    let all = fixture("static.json");
    let texts = texts(&all);
    for case in all["cases"].as_array().unwrap() {
        println!("{}", case["name"]);
        let folder = write_case(case);
        let embedder = StaticEmbedder::open(folder.path()).unwrap();
        let found = embedder.embed_passages(&texts).unwrap();
        assert_close(&texts, &found, &rows(&case["vectors"]), 1e-6);
        assert_eq!(embedder.embed_queries(&texts).unwrap(), found);
        assert_eq!(embedder.id().dimensions(), 6);
    }
}

#[test]
fn a_static_model_is_known_by_its_files_and_settings() {
    let open = |case| StaticEmbedder::open(write_case(&case).path()).unwrap();
    let id = open(case("normalised")).id().clone();
    id.check(open(case("normalised")).id()).unwrap();
    assert_eq!((id.name(), id.weights().map(str::len)), ("static", Some(64)));
    let mut changed = case("normalised");
    changed["matrix"][3][3] = 0.5.into();
    let mut cased = case("normalised");
    cased["tokenizer"]["normalizer"]["lowercase"] = false.into();
    for other in [changed, cased, case("as it is"), case("four tokens"), case("shared rows")] {
        id.check(open(other).id()).unwrap_err();
    }
    let named = open(case("normalised")).with_name("tiny");
    let refused = named.id().check(open(case("as it is")).with_name("plain").id()).unwrap_err().to_string();
    assert!(refused.contains("tiny (6 dimensions") && refused.contains("plain (6 dimensions"), "{refused}");
}
