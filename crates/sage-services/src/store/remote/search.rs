//! Searches that give exactly the records they should, whatever the server's index leaves out and its conditions cannot
//! say.

use std::cmp::Ordering;

use super::driver::Collection;
use crate::store::error::StoreError;
use crate::store::filter::Filter;
use crate::store::record::{Hit, MAX_RESULTS, Record, Search};
use crate::store::schema::Metric;

/// How many more than wanted are asked for, so that those with equal scores at the end can be put in order.
const SPARE: usize = 8;
/// How many times as many are asked for when they were too few.
const MORE: usize = 8;
/// How many times the server's index is asked, before all records are compared here.
const TIMES: usize = 3;
/// How many records are read at once to be compared here.
const AT_ONCE: usize = 500;

pub(super) async fn search<C: Collection>(collection: &C, search: &Search) -> Result<Vec<Hit>, StoreError> {
    let (k, filter) = (search.k, search.filter.as_ref());
    let vector = search.vector.as_deref().expect("a search without a vector is one of texts, which was refused");
    let mut asked = (k + SPARE).min(MAX_RESULTS);
    for _ in 0..TIMES {
        let mut hits = collection.nearest(vector, asked, filter).await?;
        let is_all = hits.len() < asked;
        let worst = hits.iter().map(|hit| hit.score).fold(f32::INFINITY, f32::min);
        // A server may have been asked for a wider condition than the filter.
        hits.retain(|hit| filter.is_none_or(|filter| filter.is_met_by(&hit.metadata)));
        hits.sort_by(best_first);
        let is_enough = hits.get(k - 1).is_some_and(|last| is_all || last.score > worst);
        if is_enough || (is_all && hits.len() == how_many(collection, filter).await?) {
            hits.truncate(k);
            return Ok(hits);
        }
        if is_all || asked == MAX_RESULTS {
            break;
        }
        asked = (asked * MORE).min(MAX_RESULTS);
    }
    compare_all(collection, vector, k, filter).await
}

/// How many records meet the filter.
pub(super) async fn how_many<C: Collection>(collection: &C, filter: Option<&Filter>) -> Result<usize, StoreError> {
    match filter {
        None => collection.count().await,
        Some(_) => Ok(collection.matching(filter).await?.len()),
    }
}

async fn compare_all<C: Collection>(
    collection: &C,
    vector: &[f32],
    k: usize,
    filter: Option<&Filter>,
) -> Result<Vec<Hit>, StoreError> {
    let ids = collection.matching(filter).await?;
    tracing::debug!(records = ids.len(), "a search compares all records, as the server's index gave too few");
    let mut best = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let records = collection.get(ids).await?;
        best.extend(records.into_iter().map(|record| scored(collection.metric(), vector, record)));
        best.sort_by(best_first);
        best.truncate(k);
    }
    Ok(best)
}

fn best_first(a: &Hit, b: &Hit) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id))
}

/// A record with its score, computed here.
pub(in crate::store) fn scored(metric: Metric, query: &[f32], record: Record) -> Hit {
    Hit { score: score(metric, query, &record.vector), id: record.id, text: record.text, metadata: record.metadata }
}

fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let sum = |of: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(&x, &y)| of(x.into(), y.into())).sum::<f64>();
    let product = sum(&|x, y| x * y);
    let score = match metric {
        Metric::Cosine => {
            let lengths = sum(&|x, _| x * x).sqrt() * sum(&|_, y| y * y).sqrt();
            (product / lengths).clamp(-1.0, 1.0)
        }
        Metric::InnerProduct => product,
        Metric::Euclidean => -sum(&|x, y| (x - y) * (x - y)).sqrt(),
    };
    score as f32
}
