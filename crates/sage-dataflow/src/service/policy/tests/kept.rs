//! The layer of cache and journal: which calls are made, and which are answered by what is kept.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::super::cache::{Cache, DiskCache};
use super::super::journal::{Journal, OpenJournal, Outgoing};
use super::super::kept::{Asked, Kept, NotKept, Whose};
use super::super::key::Codec;
use super::super::store::StoreError;
use super::super::time::tests::ManualTime;
use crate::BoxError;

struct Text;

impl Codec<String> for Text {
    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
        if value == "no form" {
            return Err("it has none".into());
        }
        into.extend(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

/// A method whose calls are counted.
struct Model {
    kept: Kept<String, &'static str>,
    time: ManualTime,
    made: Cell<u32>,
}

type Answer = Result<String, NotKept<&'static str>>;

impl Model {
    fn new(cache: &Cache, journal: Option<Arc<OpenJournal>>) -> Self {
        Self::of_version("1", cache, journal)
    }

    fn of_version(version: &str, cache: &Cache, journal: Option<Arc<OpenJournal>>) -> Self {
        let whose = Whose { service: "llm", version, method: "chat" };
        let disk = DiskCache::open(cache).unwrap().map(Arc::new);
        let kept = Kept::new(&whose, Arc::new(Text), cache, disk, journal).unwrap();
        Self { kept, time: ManualTime::new(), made: Cell::new(0) }
    }

    async fn call(&self, question: &str, tag: Option<&str>, answer: Result<&str, &'static str>) -> Answer {
        let asked = Asked { arguments: question.as_bytes().to_vec(), sample: 0, tag, until: None };
        let call = |place: Option<Arc<Outgoing>>| async move {
            self.made.set(self.made.get() + 1);
            if let Some(place) = place {
                place.begins().unwrap();
            }
            answer.map(str::to_owned)
        };
        self.kept.answer(&self.time, asked, call, |_| false).await
    }

    /// The answer of a call that ends at once, and whether it was made.
    fn ask(&self, question: &str, answer: Result<&str, &'static str>) -> (Answer, bool) {
        let before = self.made.get();
        let Poll::Ready(got) = poll_once(pin!(self.call(question, Some("Ada"), answer))) else { panic!("it waits") };
        (got, self.made.get() > before)
    }

    fn asks(&self, question: &str) -> (String, bool) {
        let (answer, was_made) = self.ask(question, Ok("yes"));
        (answer.unwrap(), was_made)
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn each_answer_is_had_once_from_memory_from_disk_and_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Cache::new().disk(folder.path().join("c"), 1 << 20);
    let run = Journal::run(folder.path().join("run"));
    let in_memory = Cache::new().memory(10, 1 << 20);
    let ways: [(&Cache, Option<&Journal>); 4] =
        [(&in_memory, None), (&disk, None), (&Cache::new(), Some(&run)), (&disk, Some(&run))];
    for (at, (cache, journal)) in ways.into_iter().enumerate() {
        let question = format!("why {at}?");
        let model = Model::new(cache, journal.map(|journal| journal.open().unwrap()));
        assert_eq!(model.asks(&question), ("yes".to_owned(), true));
        assert_eq!(model.asks(&question), ("yes".to_owned(), false));
        let (error, _) = model.ask("other", Err("no"));
        assert!(matches!(error, Err(NotKept::Call("no"))));
        assert!(model.ask("other", Err("no")).1, "errors are not kept");
        drop(model);
        let again = Model::new(cache, journal.map(|journal| journal.open().unwrap()));
        assert_eq!(again.asks(&question).1, at == 0, "way {at}");
        drop(again);
        let other = Model::of_version("2", cache, journal.map(|journal| journal.open().unwrap()));
        assert!(other.asks(&question).1, "another version is another answer");
    }
}

/// What a run has got from the cache it has handed on: it must not need the cache again.
#[test]
fn an_answer_from_the_cache_is_in_the_journal_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Cache::new().disk(folder.path().join("c"), 1 << 20);
    let run = Journal::run(folder.path().join("run"));
    assert!(Model::new(&disk, None).asks("why?").1);
    assert!(!Model::new(&disk, Some(run.open().unwrap())).asks("why?").1);
    std::fs::remove_dir_all(folder.path().join("c")).unwrap();
    let journal = run.open().unwrap();
    assert!(!Model::new(&disk, Some(journal.clone())).asks("why?").1);
    assert!(journal.figures().begun_not_ended.is_empty(), "no call went out");
}

#[test]
fn what_is_erased_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new().memory(10, 1 << 20).disk(folder.path().join("c"), 1 << 20);
    let model = Model::new(&cache, Some(Journal::run(folder.path().join("run")).open().unwrap()));
    assert!(model.asks("why?").1);
    assert_eq!(model.kept.erase("Grace").unwrap(), 0);
    assert!(!model.asks("why?").1);
    assert_eq!(model.kept.erase("Ada").unwrap(), 1);
    assert!(model.asks("why?").1);
}

#[test]
fn an_answer_without_a_form_is_no_answer_of_a_journal_and_not_cached() {
    let folder = tempfile::tempdir().unwrap();
    let cached = Model::new(&Cache::new().memory(10, 1 << 20), None);
    for _ in 0..2 {
        let (answer, was_made) = cached.ask("why?", Ok("no form"));
        assert_eq!((answer.unwrap().as_str(), was_made), ("no form", true));
    }
    let journal = Journal::run(folder.path()).open().unwrap();
    let journaled = Model::new(&Cache::new(), Some(journal));
    let (answer, _) = journaled.ask("why?", Ok("no form"));
    let Err(NotKept::Store(error)) = answer else { panic!("it was handed on: {answer:?}") };
    assert!(matches!(*error, StoreError::Codec { .. }));
}

#[test]
fn callers_that_ask_the_same_at_the_same_time_share_one_call() {
    let model = Model::new(&Cache::new().memory(10, 1 << 20), None);
    let gate = Cell::new(false);
    let asked = || Asked { arguments: b"why?".to_vec(), sample: 0, tag: None, until: None };
    let slow = model.kept.answer(
        &model.time,
        asked(),
        |_| poll_fn(|_| if gate.get() { Poll::Ready(Ok("yes".to_owned())) } else { Poll::Pending }),
        |_| true,
    );
    let (mut slow, mut follower) = (pin!(slow), pin!(model.call("why?", None, Ok("again"))));
    assert!(poll_once(slow.as_mut()).is_pending());
    assert!(poll_once(follower.as_mut()).is_pending());
    gate.set(true);
    assert!(matches!(poll_once(slow.as_mut()), Poll::Ready(Ok(answer)) if answer == "yes"));
    assert!(matches!(poll_once(follower.as_mut()), Poll::Ready(Ok(answer)) if answer == "yes"));
    assert_eq!((model.made.get(), model.kept.figures().1.shared), (0, 1));
}
