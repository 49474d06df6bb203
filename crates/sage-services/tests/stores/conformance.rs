//! What every kind of store does alike.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sage_services::store::{
    Filter, MAX_ID_BYTES, MAX_TEXT_BYTES, Metric, Record, Schema, Search, StoreError, Value, VectorStore, field,
};
use sage_services::wait;

/// Makes stores that are not open yet, all of them in one place.
pub(crate) type Make<'a> = &'a dyn Fn(Schema) -> Result<VectorStore, StoreError>;

type Case = (&'static str, fn(Make<'_>));

/// What every kind of store does alike.
const CASES: &[Case] = &[
    ("an empty collection has nothing", an_empty_collection_has_nothing),
    ("what was written is read at once", what_was_written_is_read_at_once),
    ("values come back as they were", values_come_back_as_they_were),
    ("records are replaced and deleted, and counted truly", records_are_replaced_and_deleted),
    ("metrics score as they say", metrics_score_as_they_say),
    ("a search agrees with sorting everything", a_search_agrees_with_sorting_everything),
    ("filters mean what they say", filters_mean_what_they_say),
    ("any filter means what it says", any_filter_means_what_it_says),
    ("a filter that few meet gives all of them", a_filter_that_few_meet_gives_all_of_them),
    ("a filter that nothing meets gives nothing", a_filter_that_nothing_meets_gives_nothing),
    ("equal scores come in the order of their ids", equal_scores_come_in_the_order_of_their_ids),
    ("what cannot be right is refused before anything is sent", bad_input_is_refused),
    ("a collection is taken up again, and another one refused", a_collection_is_taken_up_again),
    ("a collection that must exist is not made", a_collection_that_must_exist_is_not_made),
    ("writes of four threads are all there", writes_of_four_threads_are_all_there),
    ("a new collection is read while it is first written to", a_new_collection_is_read_while_it_is_written_to),
    ("a store that is closed says so", a_store_that_is_closed_says_so),
    ("odd names and texts are kept", odd_names_and_texts_are_kept),
];

/// Runs all cases, and fails with the names of those that failed.
pub(crate) fn conforms(make: Make<'_>) {
    let failed: Vec<&str> = CASES
        .iter()
        .filter(|(name, case)| {
            eprintln!("- {name}");
            catch_unwind(AssertUnwindSafe(|| case(make))).is_err()
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "of {} cases these failed: {failed:#?}", CASES.len());
}

/// A name that no other collection has.
pub(crate) fn schema(dimensions: usize) -> Schema {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    Schema::new(name, dimensions)
}

pub(crate) fn opened(make: Make<'_>, schema: Schema) -> VectorStore {
    let store = make(schema).unwrap();
    wait(store.open()).unwrap();
    store
}

fn close(store: VectorStore) {
    wait(store.close()).unwrap();
}

/// Numbers that look random, and are the same each time.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// −1 to 1.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| self.next()).collect()
    }

    /// 0 to below `many`.
    fn pick(&mut self, many: usize) -> usize {
        (((self.next() + 1.0) / 2.0 * many as f32) as usize).min(many - 1)
    }

    /// One of few, which are near to each other.
    fn value(&mut self) -> Value {
        let date = |micros| Value::Date(format!("1970-01-01T00:00:00.00000{micros}Z").parse().unwrap());
        match self.pick(16) {
            number @ 0..4 => Value::from(number as i64 - 1),
            number @ 4..7 => Value::from(number as f64 / 2.0 - 2.5),
            7 => Value::from(1.0),
            8 => Value::from([1e300, -1e300, 9_007_199_254_740_993.0][self.pick(3)]),
            9 => Value::from([(1_i64 << 53) + 1, i64::MAX, -(1 << 60)][self.pick(3)]),
            10 => Value::from(self.pick(2) == 0),
            11 => date(self.pick(3)),
            12 => Value::from(""),
            _ => Value::from(["x", "xy", "Y%_"][self.pick(3)]),
        }
    }

    fn filter(&mut self, depth: usize) -> Filter {
        let name = ["a", "b"][self.pick(2)];
        match self.pick(if depth == 0 { 8 } else { 13 }) {
            0 | 1 => field(name).equal(self.value()),
            2 => field(name).less(self.value()),
            3 => field(name).at_most(self.value()),
            4 => field(name).greater(self.value()),
            5 => field(name).at_least(self.value()),
            6 => field(name).is_in((0..self.pick(4)).map(|_| self.value()).collect::<Vec<_>>()),
            7 => field(name).contains(self.value()),
            8 | 9 => self.filter(depth - 1).and(self.filter(depth - 1)),
            10 => self.filter(depth - 1).or(self.filter(depth - 1)),
            _ => self.filter(depth - 1).not(),
        }
    }
}

fn ids(store: &VectorStore, search: Search) -> Vec<String> {
    wait(store.search(search)).unwrap().into_iter().map(|hit| hit.id).collect()
}

fn an_empty_collection_has_nothing(make: Make<'_>) {
    let store = opened(make, schema(3));
    assert_eq!(wait(store.count()).unwrap(), 0);
    assert_eq!(wait(store.search(Search::vector(vec![1.0, 0.0, 0.0], 5))).unwrap(), []);
    assert_eq!(wait(store.get(&["a"])).unwrap(), [None]);
    assert_eq!(wait(store.delete(&["a"])).unwrap(), 0);
    assert_eq!(wait(store.delete_where(field("a").equal(1))).unwrap(), 0);
    wait(store.upsert(Vec::new())).unwrap();
    wait(store.persist()).unwrap();
    close(store);
}

fn what_was_written_is_read_at_once(make: Make<'_>) {
    let store = opened(make, schema(2));
    for number in 0..20 {
        let id = format!("{number:02}");
        let vector = vec![number as f32 + 1.0, 1.0];
        wait(store.upsert(vec![Record::new(&*id, vector.clone()).with("n", number)])).unwrap();
        assert_eq!(wait(store.count()).unwrap(), number as usize + 1);
        assert_eq!(ids(&store, Search::vector(vector, 1)), [&*id]);
        assert_eq!(wait(store.count_where(field("n").equal(number))).unwrap(), 1);
        assert!(wait(store.get(&[id])).unwrap()[0].is_some());
    }
    close(store);
}

fn values_come_back_as_they_were(make: Make<'_>) {
    let store = opened(make, schema(4));
    let date = |text: &str| Value::Date(text.parse().unwrap());
    let record = Record::new("all", vec![0.5, -0.25, 4.0, 1e-3])
        .text("Line one\nline \"two\" \\ — 三")
        .with("string", "it's \"quoted\" \\ {a} %")
        .with("empty", "")
        .with("integer", i64::MAX)
        .with("least", i64::MIN)
        .with("float", 0.1)
        .with("whole", 3.0)
        .with("yes", true)
        .with("no", false)
        .with("date", date("2026-11-26T12:34:56.789012Z"))
        .with("before", date("1899-12-31T23:59:59.000001Z"))
        .with("tags", vec!["a", "b", "a"])
        .with("numbers", vec![1, 2])
        .with("floats", vec![1.5, 2.0])
        .with("dates", vec![date("2026-01-01T00:00:00Z")])
        .with("truths", vec![true, false])
        .with("nothing", Vec::<i64>::new());
    let bare = Record::new("bare", vec![1.0, 0.0, 0.0, 0.0]);
    wait(store.upsert(vec![record.clone(), bare.clone()])).unwrap();
    let found = wait(store.get(&["bare", "all", "none", "all"])).unwrap();
    assert_same(found[0].as_ref().unwrap(), &bare);
    assert_same(found[1].as_ref().unwrap(), &record);
    assert!(found[2].is_none() && found[3] == found[1]);
    let hits = wait(store.search(Search::vector(record.vector.clone(), 2))).unwrap();
    assert_eq!((&hits[0].id, &hits[0].text, &hits[0].metadata), (&record.id, &record.text, &record.metadata));
    assert_eq!((&hits[1].id, &hits[1].text, &hits[1].metadata), (&bare.id, &bare.text, &bare.metadata));
    close(store);
}

/// Vectors may be kept as directions and lengths.
pub(crate) fn assert_same(found: &Record, expected: &Record) {
    assert_eq!((&found.id, &found.text, &found.metadata), (&expected.id, &expected.text, &expected.metadata));
    let pairs = found.vector.iter().zip(&expected.vector);
    assert!(found.vector.len() == expected.vector.len(), "{found:?}");
    pairs.for_each(|(x, y)| assert!((x - y).abs() <= 1e-6 * y.abs().max(1.0), "{found:?}, not {expected:?}"));
}

fn records_are_replaced_and_deleted(make: Make<'_>) {
    let store = opened(make, schema(2));
    let record = |id: &str, x: f32| Record::new(id, vec![x, 1.0]).text(format!("{id} {x}")).with("x", x);
    wait(store.upsert(["a", "b", "c", "d"].map(|id| record(id, 0.0)).into())).unwrap();
    // The old values are gone as a whole.
    wait(store.upsert(vec![Record::new("b", vec![9.0, 0.0]).text("new").with("y", 1)])).unwrap();
    assert_eq!(wait(store.count()).unwrap(), 4);
    let b = wait(store.get(&["b"])).unwrap().remove(0).unwrap();
    assert_eq!((&*b.text, b.metadata.len(), b.vector), ("new", 1, vec![9.0, 0.0]));
    assert_eq!(wait(store.count_where(field("x").equal(0.0))).unwrap(), 3);
    assert_eq!(ids(&store, Search::vector(vec![1.0, 0.0], 1)), ["b"]);

    assert_eq!(wait(store.delete(&["a", "unknown", "a"])).unwrap(), 1);
    assert_eq!(wait(store.delete(&["a"])).unwrap(), 0);
    assert_eq!(wait(store.count()).unwrap(), 3);
    assert_eq!(wait(store.delete_where(field("x").at_least(0.0).and(field("x").less(1.0)))).unwrap(), 2);
    assert_eq!(ids(&store, Search::vector(vec![1.0, 0.0], 9)), ["b"]);
    wait(store.upsert(vec![record("a", 5.0)])).unwrap();
    assert_eq!(wait(store.count()).unwrap(), 2);
    close(store);
}

fn metrics_score_as_they_say(make: Make<'_>) {
    let records = || vec![Record::new("near", vec![2.0, 0.1]), Record::new("far", vec![8.0, 6.0])];
    let scores = |metric| {
        let store = opened(make, schema(2).metric(metric));
        wait(store.upsert(records())).unwrap();
        let hits = wait(store.search(Search::vector(vec![2.0, 0.0], 2))).unwrap();
        close(store);
        hits.into_iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>()
    };
    let expected = [
        (Metric::Cosine, [("near", 0.998_752_3), ("far", 0.8)]),
        (Metric::InnerProduct, [("far", 16.0), ("near", 4.0)]),
        (Metric::Euclidean, [("near", -0.1), ("far", -8.485_281)]),
    ];
    for (metric, expected) in expected {
        let found = scores(metric);
        assert_eq!(found.len(), 2);
        for ((id, score), (expected_id, expected_score)) in found.iter().zip(expected) {
            assert!(
                id == expected_id && (score - expected_score).abs() < 1e-4,
                "{metric}: {found:?}, not {expected:?}"
            );
        }
    }
}

fn a_search_agrees_with_sorting_everything(make: Make<'_>) {
    const RECORDS: usize = 300;
    let dimensions = 16;
    let mut numbers = Numbers::new(7);
    let store = opened(make, schema(dimensions));
    let vectors: BTreeMap<String, Vec<f32>> =
        (0..RECORDS).map(|number| (format!("{number:03}"), numbers.vector(dimensions))).collect();
    let record = |(number, (id, vector)): (usize, (&String, &Vec<f32>))| {
        Record::new(&**id, vector.clone()).with("number", number as i64)
    };
    wait(store.upsert(vectors.iter().enumerate().map(record).collect())).unwrap();
    let length = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for (k, least) in [(1, 0), (10, 0), (25, 150), (RECORDS, 0), (RECORDS + 5, 290)] {
        let query = numbers.vector(dimensions);
        let mut expected: Vec<(f64, &String)> = vectors
            .iter()
            .enumerate()
            .filter(|(number, _)| *number >= least)
            .map(|(_, (id, vector))| {
                let dot: f64 = vector.iter().zip(&query).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                (dot / length(vector) / length(&query), id)
            })
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0));
        expected.truncate(k);
        let search = Search::vector(query, k).filter(field("number").at_least(least as i64));
        let hits = wait(store.search(search)).unwrap();
        assert_eq!(hits.len(), expected.len(), "k = {k}");
        for (hit, (score, id)) in hits.iter().zip(&expected) {
            assert!(
                &hit.id == *id && (f64::from(hit.score) - score).abs() < 1e-4,
                "k = {k}: {hit:?}, not {id} {score}"
            );
        }
    }
    let least = wait(store.search(Search::vector(numbers.vector(dimensions), RECORDS).min_score(0.1))).unwrap();
    assert!(!least.is_empty() && least.len() < RECORDS && least.iter().all(|hit| hit.score >= 0.1));
    close(store);
}

/// Records by which filters are told apart, and filters.
fn filtered() -> (Vec<Record>, Vec<Filter>) {
    let date = |text: &str| Value::Date(text.parse().unwrap());
    let record = |id: &str| Record::new(id, vec![1.0, id.len() as f32]);
    let records = vec![
        record("a").with("n", 1).with("s", "en").with("tags", vec!["x", "y"]).with("day", date("2026-01-01T00:00:00Z")),
        record("b").with("n", 2).with("s", "de").with("tags", vec!["y"]).with("day", date("2026-06-01T12:00:00Z")),
        record("c").with("n", 2.5).with("s", "EN").with("ok", true).with("numbers", vec![1, 2]),
        record("d").with("n", -3).with("s", "100% \"it's\"_\\").with("ok", false).with("numbers", vec![2, 3]),
        record("e").with("n", 1.0).with("tags", Vec::<String>::new()),
        record("f").with("s", "1").with("n", "1"),
        record("g"),
        record("h").with("n", (1_i64 << 53) + 1).with("s", "").with("day", date("1969-12-31T23:59:59.999999Z")),
    ];
    let filters = vec![
        field("n").equal(1),
        field("n").equal(1.0),
        field("n").equal("1"),
        field("n").equal((1_i64 << 53) + 1),
        field("n").less(2),
        field("n").at_most(2),
        field("n").greater(1.5),
        field("n").at_least(2.5),
        field("n").greater(-5).and(field("n").less(2)),
        field("s").equal("en"),
        field("s").equal("100% \"it's\"_\\"),
        field("s").equal(""),
        field("s").greater("e"),
        field("s").at_most("1"),
        field("s").contains("e"),
        field("s").contains("%"),
        field("s").contains("_"),
        field("s").contains("\\"),
        field("s").contains("\"it's\""),
        field("ok").equal(true),
        field("ok").equal(false),
        field("ok").equal(1),
        field("day").at_least(date("2026-01-01T00:00:00Z")),
        field("day").less(date("1970-01-01T00:00:00Z")),
        field("day").equal(date("2026-06-01T12:00:00Z")),
        field("tags").contains("y"),
        field("tags").contains("x"),
        field("tags").contains("z"),
        field("tags").equal(vec!["x", "y"]),
        field("numbers").contains(2),
        field("numbers").contains(2.0),
        field("numbers").contains(3),
        field("n").is_in([1, 2]),
        field("s").is_in(["en", "de", "fr"]),
        field("s").is_in(Vec::<&str>::new()),
        field("missing").equal(1),
        field("missing").less(1),
        Filter::And(vec![]),
        Filter::Or(vec![]),
        field("s").equal("en").or(field("ok").equal(true)),
        field("s").equal("en").or(field("n").equal(2)).and(field("tags").contains("y")),
    ];
    let inverse: Vec<Filter> = filters.iter().cloned().map(Filter::not).collect();
    let both = field("n").less(2).and(field("s").equal("en").not()).not();
    (records, filters.into_iter().chain(inverse).chain([both]).collect())
}

fn filters_mean_what_they_say(make: Make<'_>) {
    let store = opened(make, schema(2));
    let (records, filters) = filtered();
    wait(store.upsert(records.clone())).unwrap();
    let mut wrong = Vec::new();
    for filter in filters {
        let met = records.iter().filter(|record| filter.is_met_by(&record.metadata));
        let mut expected: Vec<&str> = met.map(|record| &*record.id).collect();
        expected.sort_unstable();
        let found = wait(store.search(Search::vector(vec![1.0, 1.0], 20).filter(filter.clone())));
        let count = wait(store.count_where(filter.clone()));
        let ids = found.map(|hits| {
            let mut ids: Vec<String> = hits.into_iter().map(|hit| hit.id).collect();
            ids.sort_unstable();
            ids
        });
        if !matches!((&ids, &count), (Ok(ids), Ok(count)) if *ids == expected && *count == expected.len()) {
            wrong.push(format!("{filter:?}: {ids:?}, {count:?}; expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(wait(store.delete_where(field("tags").contains("y").not())).unwrap(), 6);
    assert_eq!(wait(store.count()).unwrap(), 2);
    close(store);
}

/// Filters put together at random, over records whose values are of all types under the same names.
fn any_filter_means_what_it_says(make: Make<'_>) {
    let store = opened(make, schema(2));
    let mut numbers = Numbers::new(11);
    let record = |number: i32, numbers: &mut Numbers| {
        let record = Record::new(format!("{number:02}"), vec![1.0, number as f32]);
        ["a", "b"].into_iter().fold(record, |record, name| match numbers.pick(5) {
            0 => record,
            1 => record.with(name, Value::List(vec![numbers.value(); numbers.pick(3)])),
            _ => record.with(name, numbers.value()),
        })
    };
    let mut records: Vec<Record> = (0..60).map(|number| record(number, &mut numbers)).collect();
    wait(store.upsert(records.clone())).unwrap();
    // A value that is replaced by one of another type leaves nothing of it.
    records[..30].iter_mut().for_each(|kept| kept.metadata = record(0, &mut numbers).metadata);
    wait(store.upsert(records[..30].to_vec())).unwrap();
    let mut wrong = Vec::new();
    for _ in 0..200 {
        let filter = numbers.filter(3);
        let met = records.iter().filter(|record| filter.is_met_by(&record.metadata));
        let expected: Vec<&str> = met.map(|record| &*record.id).collect();
        let found = wait(store.search(Search::vector(vec![1.0, 1.0], 60).filter(filter.clone())));
        let ids = found.map(|hits| {
            let mut ids: Vec<String> = hits.into_iter().map(|hit| hit.id).collect();
            ids.sort_unstable();
            ids
        });
        let count = wait(store.count_where(filter.clone()));
        if !matches!((&ids, &count), (Ok(ids), Ok(count)) if *ids == expected && *count == expected.len()) {
            wrong.push(format!("{filter:?}: {ids:?}, {count:?}; expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    close(store);
}

fn a_filter_that_few_meet_gives_all_of_them(make: Make<'_>) {
    let mut numbers = Numbers::new(3);
    let store = opened(make, schema(8));
    // Those that meet it are the farthest from the query.
    let record = |number: i64, numbers: &mut Numbers| {
        let mut vector = numbers.vector(8);
        vector[0] = if number % 100 == 0 { -9.0 } else { 9.0 };
        Record::new(format!("{number:04}"), vector).with("hundred", number % 100 == 0)
    };
    let records = (0..1_200).map(|number| record(number, &mut numbers)).collect();
    wait(store.upsert(records)).unwrap();
    let mut query = vec![0.1; 8];
    query[0] = 9.0;
    for (k, expected) in [(10, 10), (50, 12)] {
        let search = Search::vector(query.clone(), k).filter(field("hundred").equal(true));
        assert_eq!(ids(&store, search).len(), expected);
    }
    close(store);
}

fn a_filter_that_nothing_meets_gives_nothing(make: Make<'_>) {
    let store = opened(make, schema(2));
    wait(store.upsert(vec![Record::new("a", vec![1.0, 0.0]).with("n", 1)])).unwrap();
    let nothing = || field("n").greater(5);
    assert_eq!(wait(store.search(Search::vector(vec![1.0, 0.0], 3).filter(nothing()))).unwrap(), []);
    assert_eq!(wait(store.count_where(nothing())).unwrap(), 0);
    assert_eq!(wait(store.delete_where(nothing())).unwrap(), 0);
    assert_eq!(wait(store.count()).unwrap(), 1);
    close(store);
}

fn equal_scores_come_in_the_order_of_their_ids(make: Make<'_>) {
    let store = opened(make, schema(2));
    let records = ["d", "b", "a", "c", "e"].map(|id| Record::new(id, vec![1.0, 1.0]));
    wait(store.upsert(records.into())).unwrap();
    assert_eq!(ids(&store, Search::vector(vec![1.0, 1.0], 3)), ["a", "b", "c"]);
    assert_eq!(ids(&store, Search::vector(vec![1.0, 1.0], 9)), ["a", "b", "c", "d", "e"]);
    // Many more than are asked for, and the first of them written last.
    let record = |number: u32| Record::new(format!("m{number:03}"), vec![-1.0, 1.0]);
    for numbers in [100..200, 0..100] {
        wait(store.upsert(numbers.map(record).collect())).unwrap();
    }
    let search = || Search::vector(vec![-1.0, 1.0], 4);
    assert_eq!(ids(&store, search()), ["m000", "m001", "m002", "m003"]);
    assert_eq!(ids(&store, search().filter(field("n").equal(1).not())), ["m000", "m001", "m002", "m003"]);
    close(store);
}

fn bad_input_is_refused(make: Make<'_>) {
    let store = opened(make, schema(2).embedder("lexical-1"));
    let good = || Record::new("good", vec![1.0, 0.0]);
    let bad: Vec<(Record, fn(&StoreError) -> bool)> = vec![
        (Record::new("a", vec![1.0]), |error| matches!(error, StoreError::DimensionMismatch { .. })),
        (Record::new("a", vec![1.0; 3]), |error| error.to_string().contains("lexical-1")),
        (Record::new("a", vec![f32::NAN, 1.0]), |error| matches!(error, StoreError::NotFinite { index: 0, .. })),
        (Record::new("a", vec![1.0, f32::INFINITY]), |error| matches!(error, StoreError::NotFinite { index: 1, .. })),
        (Record::new("a", vec![0.0, -0.0]), |error| matches!(error, StoreError::ZeroVector { .. })),
        (Record::new("", vec![1.0, 0.0]), |error| matches!(error, StoreError::BadRecord { .. })),
        (Record::new("x".repeat(MAX_ID_BYTES + 1), vec![1.0, 0.0]), |error| {
            matches!(error, StoreError::BadRecord { .. })
        }),
        (good().text("x".repeat(MAX_TEXT_BYTES + 1)), |error| matches!(error, StoreError::BadRecord { .. })),
        (good().with("a b", 1), |error| matches!(error, StoreError::BadRecord { .. })),
        (good().with("sage_x", 1), |error| matches!(error, StoreError::BadRecord { .. })),
        (good().with("x", f64::NAN), |error| matches!(error, StoreError::BadRecord { .. })),
        (good().with("x", Value::List(vec![1.into(), "a".into()])), |error| {
            matches!(error, StoreError::BadRecord { .. })
        }),
        (good(), |error| matches!(error, StoreError::DuplicateId { .. })),
    ];
    for (record, is_expected) in bad {
        let error = wait(store.upsert(vec![good(), record])).unwrap_err();
        assert!(is_expected(&error), "{error}");
    }
    let searches: Vec<(Search, fn(&StoreError) -> bool)> = vec![
        (Search::vector(vec![1.0, 0.0], 0), |error| matches!(error, StoreError::NoResultsAsked)),
        (Search::vector(vec![1.0, 0.0], 1 << 20), |error| matches!(error, StoreError::BadSearch { .. })),
        (Search::vector(vec![1.0], 1), |error| matches!(error, StoreError::DimensionMismatch { .. })),
        (Search::vector(vec![0.0, 0.0], 1), |error| matches!(error, StoreError::ZeroVector { .. })),
        (Search::vector(vec![f32::NAN, 0.0], 1), |error| matches!(error, StoreError::NotFinite { .. })),
        (Search::text("words", 1), |error| matches!(error, StoreError::BadSearch { .. })),
        (Search::vector(vec![1.0, 0.0], 1).filter(field("a b").equal(1)), |error| {
            matches!(error, StoreError::BadFilter { .. })
        }),
    ];
    for (search, is_expected) in searches {
        let error = wait(store.search(search)).unwrap_err();
        assert!(is_expected(&error), "{error}");
    }
    assert!(matches!(wait(store.get(&[""])).unwrap_err(), StoreError::BadRecord { .. }));
    assert_eq!(wait(store.count()).unwrap(), 0, "nothing of a batch that is refused is stored");
    close(store);
    for name in ["", "ab", "1abc", "with space", "a-b-c", "abc_", "ünicode", &"x".repeat(256)] {
        assert!(matches!(make(Schema::new(name, 2)), Err(StoreError::BadName { .. })), "{name}");
    }
    assert!(matches!(make(Schema::new("abc", 0)), Err(StoreError::BadDimensions { .. })));
}

fn a_collection_is_taken_up_again(make: Make<'_>) {
    let schema = schema(2).embedder("lexical-1");
    let store = opened(make, schema.clone());
    wait(store.upsert(vec![Record::new("a", vec![1.0, 0.0]).text("kept").with("n", 1)])).unwrap();
    wait(store.persist()).unwrap();
    close(store);
    let refused = |other: Schema, says: &str| {
        let store = make(other).unwrap();
        let error = wait(store.open()).unwrap_err();
        assert!(matches!(error, StoreError::OtherCollection { .. }) && error.to_string().contains(says), "{error}");
        wait(store.close()).unwrap();
    };
    refused(Schema::new(schema.name(), 3).embedder("lexical-1"), "lexical-1");
    refused(Schema::new(schema.name(), 2).embedder("minilm"), "lexical-1");
    refused(schema.clone().metric(Metric::Euclidean), "cosine");
    let again = opened(make, schema.must_exist());
    assert_eq!(wait(again.get(&["a"])).unwrap()[0].as_ref().unwrap().text, "kept");
    assert_eq!(ids(&again, Search::vector(vec![1.0, 0.0], 1).filter(field("n").equal(1))), ["a"]);
    close(again);
}

fn a_collection_that_must_exist_is_not_made(make: Make<'_>) {
    let schema = schema(2);
    for _ in 0..2 {
        let store = make(schema.clone().must_exist()).unwrap();
        let error = wait(store.open()).unwrap_err();
        assert!(matches!(&error, StoreError::UnknownCollection { name, .. } if name == schema.name()), "{error}");
        wait(store.close()).unwrap();
    }
}

fn writes_of_four_threads_are_all_there(make: Make<'_>) {
    let store = opened(make, schema(4));
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                let mut numbers = Numbers::new(thread + 1);
                for batch in 0..10 {
                    let record = |number| Record::new(format!("{thread}-{batch}-{number}"), numbers.vector(4));
                    wait(store.upsert((0..10).map(record).collect())).unwrap();
                    // Its own writes are seen by each thread.
                    let id = format!("{thread}-{batch}-0");
                    assert!(wait(store.get(&[&*id])).unwrap()[0].is_some());
                    if batch % 2 == 0 {
                        assert_eq!(wait(store.delete(&[&*id])).unwrap(), 1);
                    }
                }
            });
        }
    });
    assert_eq!(wait(store.count()).unwrap(), 4 * (100 - 5));
    close(store);
}

fn a_new_collection_is_read_while_it_is_written_to(make: Make<'_>) {
    for _ in 0..5 {
        let store = opened(make, schema(64));
        thread::scope(|scope| {
            let (writes, reads) = (&store, &store);
            scope.spawn(move || {
                let mut numbers = Numbers::new(1);
                for batch in 0..6 {
                    let record = |number| Record::new(format!("{batch}-{number:03}"), numbers.vector(64)).text("text");
                    wait(writes.upsert((0..100).map(record).collect())).unwrap();
                }
            });
            scope.spawn(move || {
                for batch in 0..6 {
                    let ids: Vec<String> = (0..100).map(|number| format!("{batch}-{number:03}")).collect();
                    wait(reads.get(&ids)).unwrap();
                    wait(reads.search(Search::vector(vec![1.0; 64], 3))).unwrap();
                }
            });
        });
        assert_eq!(wait(store.count()).unwrap(), 600);
        close(store);
    }
}

fn a_store_that_is_closed_says_so(make: Make<'_>) {
    let store = make(schema(2)).unwrap();
    assert!(wait(store.count()).unwrap_err().to_string().contains("not open yet"));
    wait(store.open()).unwrap();
    wait(store.open()).unwrap();
    wait(store.close()).unwrap();
    wait(store.close()).unwrap();
    assert!(wait(store.count()).unwrap_err().to_string().contains("closed"));
    assert!(wait(store.open()).unwrap_err().to_string().contains("closed"));
}

fn odd_names_and_texts_are_kept(make: Make<'_>) {
    let store = opened(make, schema(2));
    let odd = ["with space", "a\"b'c\\d", "日本語", "%_*", "new\nline", "$x", &"x".repeat(MAX_ID_BYTES)];
    let record = |id: &&str| Record::new(*id, vec![1.0, 0.0]).text(*id).with("a.b:c-d_é", *id).with("order", *id);
    wait(store.upsert(odd.iter().map(record).collect())).unwrap();
    for id in odd {
        assert_eq!(wait(store.get(&[id])).unwrap()[0].as_ref().unwrap().text, id);
        assert_eq!(wait(store.count_where(field("a.b:c-d_é").equal(id))).unwrap(), 1, "{id:?}");
    }
    assert_eq!(wait(store.delete(&odd)).unwrap(), odd.len());
    close(store);
}
