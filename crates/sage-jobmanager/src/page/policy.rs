//! What the policies of a job's services have done. `page.js` has the same figures, to show them as they change.

use maud::{Markup, html};
use sage::{KeptFigures, PolicyReport, ServiceReport};

use super::words::{brief, count};

/// A figure of a policy: its name in the script, its name for readers, and its value. `None` if the policy has nothing
/// to say about it.
type Figure = (&'static str, &'static str, fn(&PolicyReport) -> Option<String>);

const FIGURES: [Figure; 20] = [
    ("inside", "In flight", |it| it.concurrency.as_ref().map(|it| format!("{} of {}", it.in_flight, it.limit))),
    ("waiting", "Waiting", |it| {
        let waiting = [it.concurrency.as_ref().map(|it| it.waiting), it.rate.as_ref().map(|it| it.waiting)];
        waiting.into_iter().flatten().reduce(|one, other| one + other).map(|waiting| count(waiting as u64))
    }),
    ("p50", "Median", |it| it.p50.map(brief)),
    ("p99", "99th percentile", |it| it.p99.map(brief)),
    ("calls", "Calls", |it| Some(count(it.calls))),
    ("attempts", "Attempts", |it| Some(count(it.attempts))),
    ("retries", "Retries", |it| some(it.retries.scheduled)),
    ("late", "Timed out", |it| some(it.timed_out)),
    ("refused", "Refused", |it| some(it.refused)),
    ("failed", "Failed", |it| some(it.failed)),
    ("breaker", "Breaker", |it| it.breaker.as_ref().map(|it| it.state.to_string())),
    ("batches", "Batches", |it| {
        some(it.batches).map(|batches| format!("{batches} of {:.1}", it.batched as f64 / it.batches as f64))
    }),
    ("kept", "Kept answers", |it| {
        let hits = |it: &KeptFigures| it.cache.memory_hits + it.cache.disk_hits + it.flight.shared;
        some(it.kept.iter().map(hits).sum::<u64>() + it.journal.as_ref().map_or(0, |it| it.hits))
    }),
    ("cost", "Cost", |it| it.rate.as_ref().and_then(|it| some(it.cost))),
    ("tokens", "Tokens", |it| {
        let of = |what: &str| sum(it, &format!("gen_ai.usage.{what}_tokens")) as u64;
        let (read, written) = (of("input"), of("output"));
        some(read + written).map(|_| format!("{} in, {} out", count(read), count(written)))
    }),
    ("spent", "Spent", |it| {
        let limited = it.rate.as_ref().map_or(0.0, |it| it.spent_billionths as f64 / 1e9);
        let spent = limited.max(sum(it, "cost"));
        (spent > 0.0).then(|| format!("{spent:.4}"))
    }),
    ("outages", "Outages", |it| some(it.outages)),
    ("held", "Held calls", |it| some(it.held)),
    ("again", "Made again", |it| some(it.made_again)),
    ("error", "Last error", |it| it.last_error.clone()),
];

/// What the answers of all kinds have added up to.
fn sum(policy: &PolicyReport, name: &str) -> f64 {
    policy.tallies.iter().filter_map(|kind| kind.sums.get(name)).sum()
}

fn some(number: u64) -> Option<String> {
    (number > 0).then(|| count(number))
}

/// The policy of a service. Without figures it is hidden, and so is a figure without a value: the script shows them
/// when there are.
pub(super) fn policy(service: &str, figures: Option<&ServiceReport>) -> Markup {
    let policy = figures.and_then(|figures| figures.policy.as_ref());
    html! {
        section.policy data-policy=(service) hidden[policy.is_none()] {
            h3 { "Policy of " (service) }
            dl { @for (part, name, value) in FIGURES {
                @let value = policy.and_then(value);
                div hidden[value.is_none()] { dt { (name) } dd data-part=(part) { (value.unwrap_or_default()) } }
            } }
        }
    }
}
