//! The measures of retrieval and answers, against examples worked by hand and against what holds for any input.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use sage_services::evaluate::{exact_match, ndcg_at, precision_at, recall_at, reciprocal_rank, rouge_l, token_f1};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 5e-4
}

#[test]
fn an_order_worked_by_hand() {
    let (found, relevant) = (["a", "b", "c", "d"], HashSet::from(["b", "d", "x"]));
    let at = |k| (recall_at(&found, &relevant, k), precision_at(&found, &relevant, k));
    assert_eq!((at(0), at(1), at(2)), ((0.0, 0.0), (0.0, 0.0), (1.0 / 3.0, 0.5)));
    assert_eq!((at(4), at(10)), ((2.0 / 3.0, 0.5), (2.0 / 3.0, 0.2)));
    assert_eq!(reciprocal_rank(&found, &relevant), 0.5);
    assert_eq!(reciprocal_rank(&["a"], &relevant), 0.0);
    // (1 / log2 3 + 1 / log2 5) / (1 + 1 / log2 3 + 1 / log2 4) = (0.6309 + 0.4307) / 2.1309
    let gains: HashMap<_, _> = relevant.iter().map(|&id| (id, 1.0)).collect();
    assert!(close(ndcg_at(&found, &gains, 4), 0.4982));
    assert_eq!(ndcg_at(&["b", "x", "d"], &gains, 3), 1.0);
}

#[test]
fn graded_gains_worked_by_hand() {
    // Gains 3, 2, 3, 0, 1, 2 in the order found: 3 + 1.2619 + 1.5 + 0 + 0.3869 + 0.7124 = 6.8611.
    // The best order is 3, 3, 3, 2, 2, 2: 3 + 1.8928 + 1.5 + 0.8614 + 0.7737 + 0.7124 = 8.7403.
    let gains = HashMap::from([(1, 3.0), (2, 2.0), (3, 3.0), (4, 0.0), (5, 1.0), (6, 2.0), (7, 3.0), (8, 2.0)]);
    assert!(close(ndcg_at(&[1, 2, 3, 4, 5, 6], &gains, 6), 6.8611 / 8.7403));
}

#[test]
fn an_id_found_again_counts_once() {
    let relevant = HashSet::from([1, 2]);
    assert_eq!(recall_at(&[1, 1], &relevant, 2), 0.5);
    assert_eq!(precision_at(&[1, 1], &relevant, 2), 0.5);
    let gains = HashMap::from([(1, 1.0), (2, 1.0)]);
    assert_eq!(ndcg_at(&[1, 1], &gains, 2), ndcg_at(&[1, 9], &gains, 2));
}

#[test]
fn where_nothing_is_relevant_nothing_is_gained() {
    let (none, no_gains) = (HashSet::<u8>::new(), HashMap::<u8, f64>::new());
    assert_eq!(
        (recall_at(&[1], &none, 1), precision_at(&[1], &none, 1), reciprocal_rank(&[1], &none)),
        (0.0, 0.0, 0.0)
    );
    assert_eq!((ndcg_at(&[1], &no_gains, 1), ndcg_at(&[1], &HashMap::from([(1, 0.0)]), 1)), (0.0, 0.0));
}

#[test]
#[should_panic(expected = "a gain is a number from 0")]
fn a_negative_gain_is_refused() {
    ndcg_at(&[1], &HashMap::from([(1, -1.0)]), 1);
}

#[test]
fn answers_worked_by_hand() {
    assert_eq!(exact_match("The reverse order.", "reverse  ORDER"), 1.0);
    assert_eq!(exact_match("reverse order", "order reverse"), 0.0);
    // Words: "services stop last" and "services services stop"; 2 are shared of 3 and 3.
    assert!(close(token_f1("The services stop last.", "Services, services stop"), 2.0 / 3.0));
    assert_eq!((token_f1("the", ""), token_f1("the", "word"), token_f1("a b", "b a")), (1.0, 0.0, 1.0));
    // Lin's example: "police killed the gunman" against "police kill the gunman" and "the gunman kill police".
    assert_eq!(rouge_l("police kill the gunman", "police killed the gunman"), 0.75);
    assert_eq!(rouge_l("the gunman kill police", "police killed the gunman"), 0.5);
    assert_eq!((rouge_l("", "!"), rouge_l("word", "")), (1.0, 0.0));
}

fn longest_by_trying(a: &[&str], b: &[&str]) -> usize {
    match (a, b) {
        ([x, a @ ..], [y, b @ ..]) if x == y => 1 + longest_by_trying(a, b),
        ([_, rest_a @ ..], [_, rest_b @ ..]) => longest_by_trying(rest_a, b).max(longest_by_trying(a, rest_b)),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn measures_of_orders_keep_their_bounds(
        found in prop::collection::vec(0_u8..20, 0..15),
        relevant in prop::collection::hash_set(0_u8..20, 0..8),
        k in 0_usize..20,
    ) {
        let gains: HashMap<u8, f64> = relevant.iter().map(|&id| (id, f64::from(id % 4))).collect();
        let recall = recall_at(&found, &relevant, k);
        let precision = precision_at(&found, &relevant, k);
        let all = [recall, precision, ndcg_at(&found, &gains, k), reciprocal_rank(&found, &relevant)];
        prop_assert!(all.iter().all(|value| (0.0..=1.0).contains(value)), "{all:?}");
        prop_assert!(recall_at(&found, &relevant, k + 1) >= recall);
        // The order among the first k does not matter to the share of them.
        let mut reversed = found.clone();
        reversed[..k.min(found.len())].reverse();
        prop_assert_eq!(recall_at(&reversed, &relevant, k), recall);
        prop_assert_eq!(precision_at(&reversed, &relevant, k), precision);
        // No order gains more than that of the gains.
        let mut best: Vec<u8> = relevant.iter().copied().collect();
        best.sort_by(|a, b| gains[b].total_cmp(&gains[a]));
        prop_assert!(ndcg_at(&best, &gains, k) >= ndcg_at(&found, &gains, k));
    }

    #[test]
    fn measures_of_answers_are_symmetric_and_bounded(
        a in prop::collection::vec("[xyz]", 0..8), b in prop::collection::vec("[xyz]", 0..8),
    ) {
        let (first, second) = (a.join(" "), b.join(", "));
        for measure in [token_f1, rouge_l, exact_match] {
            let value = measure(&first, &second);
            prop_assert!((0.0..=1.0).contains(&value));
            prop_assert_eq!(value, measure(&second, &first));
            prop_assert_eq!(measure(&first, &first), 1.0);
        }
        prop_assert!(rouge_l(&first, &second) <= token_f1(&first, &second));
        let (a, b): (Vec<&str>, Vec<&str>) = (a.iter().map(|w| &**w).collect(), b.iter().map(|w| &**w).collect());
        if !(a.is_empty() && b.is_empty()) {
            let expected = 2.0 * longest_by_trying(&a, &b) as f64 / (a.len() + b.len()) as f64;
            prop_assert_eq!(rouge_l(&first, &second), expected);
        }
    }
}
