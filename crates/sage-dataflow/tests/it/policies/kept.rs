//! Answers that are kept: in a cache, and in the journal of a run.

use std::future::ready;
use std::path::Path;

use sage::{BoxError, Cache, CallError, Codec, Environment, Journal, Keep, Method, Order, Policy, Retry, SubmitError};

use super::{Asked, plain};
use crate::leaks::leak_free;

struct Text;

impl Codec<String> for Text {
    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

/// Numbers below 100 have a canonical form.
fn keep() -> Keep<u32, String> {
    Keep::new(|n: &u32| (*n < 100).then(|| n.to_le_bytes().to_vec()), Text)
}

/// A method that tells what it is asked and by which idempotency key.
fn method(
    env: &Environment,
    policy: Policy,
    keep: Keep<u32, String>,
    asked: &Asked<(u32, Option<String>)>,
) -> Method<u32, String> {
    let tell = asked.teller();
    let name = plain(env, policy).method("name", move |calling, n: u32| {
        tell((n, calling.idempotency_key()));
        ready(if n == 13 { Err("unlucky") } else { Ok(format!("answer {n}")) })
    });
    name.keep(keep).build()
}

fn answers(env: &Environment, numbers: Vec<u32>, method: Method<u32, String>) -> Vec<Result<String, String>> {
    let ended =
        env.from_iter(numbers).map(move |n| method.call_blocking(n).map_err(|error| error.to_string())).collect();
    env.run().expect("each call ends");
    ended.take()
}

#[test]
fn equal_calls_are_answered_from_memory_but_for_errors_samples_and_arguments_without_a_form() {
    leak_free(|_| {
        let env = Environment::local("memory");
        let asked = Asked::new();
        let keep = keep().cache(Cache::new().memory(100, 1 << 20));
        let method = method(&env, Policy::new().version("1"), keep, &asked);
        let other = method.with_policy(|call| {
            call.sample(1);
        });
        let ended = env.from_iter([1, 1, 13, 13, 200, 200, 1]).map(move |n| (method.call_blocking(n).is_ok(), n));
        let ended = ended.map(move |(is_ok, n)| (is_ok, other.call_blocking(n).is_ok())).collect();
        let report = env.run().unwrap();
        assert_eq!(ended.take().len(), 7);
        let numbers: Vec<u32> = asked.rest().into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [1, 1, 13, 13, 13, 13, 200, 200, 200, 200]);
        let policy = report.services[0].policy.as_ref().unwrap();
        assert_eq!((policy.calls, policy.kept[0].cache.memory_hits), (14, 4));
        // Nothing is left of the cache for another run of the same environment.
    });
}

#[test]
fn equal_calls_that_are_made_at_the_same_time_share_one() {
    let env = Environment::local("shared");
    let (asked, gate) = (Asked::new(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (tell, opened) = (asked.teller(), gate.clone());
    let name = plain(&env, Policy::new().version("1")).method("name", move |_, n: u32| {
        tell(n);
        let opened = opened.clone();
        async move {
            opened.notified().await;
            Ok::<_, BoxError>(n.to_string())
        }
    });
    let name = name.keep(keep()).build();
    let ended = env.from_iter([5; 20]).try_map_async(20, Order::Ordered, move |n| {
        let name = name.clone();
        async move { name.call(n).await }
    });
    let ended = ended.collect();
    let job = env.submit().unwrap();
    assert_eq!(asked.next(), 5);
    while job.metrics().services[0].policy.as_ref().unwrap().calls < 20 {
        std::thread::yield_now();
    }
    gate.notify_one();
    job.wait().unwrap();
    assert_eq!(ended.take(), vec!["5"; 20]);
    assert!(asked.rest().is_empty());
}

fn journaled(
    folder: &Path,
    version: &str,
    numbers: Vec<u32>,
) -> (Vec<Result<String, String>>, Vec<(u32, Option<String>)>) {
    let env = Environment::local("journal");
    let asked = Asked::new();
    let policy = Policy::new().version(version).journal(Journal::run(folder)).retry(Retry::up_to(1));
    let method = method(&env, policy, keep().journal(), &asked);
    let ended = answers(&env, numbers, method);
    (ended, asked.rest())
}

#[test]
fn a_run_that_is_started_again_makes_no_call_a_second_time() {
    leak_free(|_| {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs/monday");
        let (first, asked) = journaled(&run, "1", vec![1, 2, 13, 200, 1]);
        assert_eq!(asked.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 13, 200]);
        let keys: Vec<_> = asked.iter().map(|(_, key)| key.clone()).collect();
        assert!(keys[0].as_ref().is_some_and(|key| key.len() == 32) && keys[0] != keys[1] && keys[3].is_none());
        // Errors are made again, with the same key, and so is what has no form.
        let (again, asked) = journaled(&run, "1", vec![1, 2, 13, 200, 3]);
        assert_eq!(again[..4], first[..4]);
        assert_eq!(asked[..2], [(13, keys[2].clone()), (200, None)]);
        assert_eq!(asked[2].0, 3);
        // Another version of the service has answers of its own.
        assert_eq!(journaled(&run, "2", vec![1]).1.len(), 1);
    });
}

#[test]
fn what_is_erased_by_its_tag_is_asked_again_and_its_bytes_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::local("erased");
    let asked = Asked::new();
    let policy = Policy::new().version("1").journal(Journal::run(folder.path()));
    let keep = keep().journal().cache(Cache::new().memory(10, 1 << 20));
    let keep = keep.tag(|n| Some(format!("user {}", n % 2)));
    let method = method(&env, policy, keep, &asked);
    let ended = env.from_iter([1, 2, 3, 0, 1, 2]).try_map(move |n| match n {
        0 => method.erase("user 1").map(|erased| erased.to_string()),
        n => method.call_blocking(n),
    });
    let ended = ended.collect();
    env.run().unwrap();
    assert_eq!(ended.take(), ["answer 1", "answer 2", "answer 3", "2", "answer 1", "answer 2"]);
    assert_eq!(asked.rest().len(), 4);
    let left = std::fs::read(folder.path().join("journal")).unwrap();
    assert!(!left.windows(8).any(|bytes| bytes == b"answer 3"));
    assert!(left.windows(8).any(|bytes| bytes == b"answer 2"));
}

#[test]
fn a_journal_that_another_process_uses_fails_its_calls_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("journal"), b"not ours").unwrap();
    let env = Environment::local("foreign");
    let policy = Policy::new().version("1").journal(Journal::run(folder.path()));
    let method = method(&env, policy, keep().journal(), &Asked::new());
    env.from_iter([1]).try_sink(move |n| match method.call_blocking(n) {
        Err(CallError::Store { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    env.run().unwrap();
}

#[test]
fn what_is_kept_needs_a_version_and_a_journal_that_is_there() {
    for (policy, keep, told) in [
        (Policy::new(), keep(), "answers are kept only for a declared version: say `Policy::version`"),
        (
            Policy::new().version("1"),
            keep().journal(),
            "a method keeps its answers in a journal: say `Policy::journal`",
        ),
        (Policy::new().version("1"), keep().cache(Cache::new().memory(0, 1)), "a cache in memory of size zero"),
    ] {
        let env = Environment::local("mistaken");
        method(&env, policy, keep, &Asked::new());
        env.from_iter([1]).sink(|_| {});
        let SubmitError::ServicePolicy { message, .. } = env.submit().expect_err("it cannot be") else {
            panic!("another error");
        };
        assert_eq!(message, told);
    }
}

#[test]
fn two_methods_of_one_name_whose_answers_are_kept_are_refused() {
    let keep = || keep().cache(Cache::new().memory(100, 1 << 20));
    let env = Environment::local("twice");
    let service = plain(&env, Policy::new().version("1"));
    let method = |name: &str| service.method(name, |_, n: u32| ready(Ok::<_, BoxError>(n.to_string())));
    // Answers that are not kept need no name of their own.
    let (_kept, _plain, _other) =
        (method("name").keep(keep()).build(), method("name").build(), method("other").build());
    let answers = env.from_iter([1]).collect();
    env.run().unwrap();
    assert_eq!(answers.take(), [1]);
    let _second = method("name").keep(keep()).build();
    let SubmitError::ServicePolicy { message, .. } = env.submit().expect_err("it cannot be") else {
        panic!("another error");
    };
    assert_eq!(message, "another method `name` of this service keeps its answers; declare it once, and clone it");
}

struct Number;

impl Codec<u32> for Number {
    fn encode(&self, value: &u32, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, BoxError> {
        Ok(u32::from_le_bytes(bytes.try_into()?))
    }
}

#[test]
fn a_second_method_of_one_name_that_is_declared_too_late_fails_its_calls() {
    leak_free(|_| {
        let env = Environment::local("late");
        let service = plain(&env, Policy::new().version("1"));
        let memory = || Cache::new().memory(100, 1 << 20);
        let first = service.method("name", |_, n: u32| ready(Ok::<_, BoxError>(n.to_string())));
        let first = first.keep(keep().cache(memory())).build();
        let answers = env.from_iter([1]).map(move |n| {
            let second = service.method("name", |_, n: u32| ready(Ok::<_, BoxError>(n)));
            let keep = Keep::new(|n: &u32| Some(n.to_le_bytes().to_vec()), Number);
            let second = second.keep(keep.cache(memory())).build();
            (first.call_blocking(n).map_err(|error| error.to_string()), second.call_blocking(n).is_err())
        });
        let answers = answers.collect();
        env.run().unwrap();
        assert_eq!(answers.take(), [(Ok("1".to_owned()), true)]);
    });
}
