//! The programs in `examples/`: one is compared with a direct computation, and all are run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use sage::Environment;

#[path = "../../../examples/pagerank.rs"]
#[expect(dead_code, reason = "its `main` is run as a process")]
mod pagerank;

/// The same, computed directly.
fn ranks_of(links: &[(&'static str, &'static str)], rounds: u64) -> BTreeMap<&'static str, f64> {
    let out = |page| links.iter().filter(|link| link.0 == page).count() as f64;
    let mut ranks: BTreeMap<_, _> = links.iter().flat_map(|link| [(link.0, 1.0), (link.1, 1.0)]).collect();
    for _ in 1..rounds {
        let next = ranks.keys().map(|&page| {
            let parts = links.iter().filter(|link| link.1 == page).map(|link| ranks[link.0] / out(link.0));
            (page, 0.15 + 0.85 * parts.sum::<f64>())
        });
        ranks = next.collect();
    }
    ranks
}

#[test]
fn pagerank_comes_to_what_a_direct_computation_does() {
    let pages = ["a", "b", "c", "d", "e", "f", "g"];
    // No page links to `a`, and `g` links to none.
    let links = (0..6).flat_map(|n| [(pages[n], pages[n % 3 + 1]), (pages[n], pages[(n * n + n) % 6 + 1])]);
    let links: Vec<_> = links.chain([("a", "g")]).collect();
    for rounds in [1, 2, 30] {
        let env = Environment::local("pagerank");
        let found = pagerank::ranks(&env, links.clone(), rounds);
        env.run().unwrap();
        let (found, expected) = (found.take().into_iter().collect::<BTreeMap<_, _>>(), ranks_of(&links, rounds));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (page, rank) in expected {
            assert!((found[page] - rank).abs() < 1e-9, "{page} after {rounds} rounds: {} and {rank}", found[page]);
        }
    }
}

/// An example, which is compiled with the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().and_then(Path::parent).expect("it lies in a folder of the profile");
    Command::new(folder.join("examples").join(name))
}

/// Runs an example, and returns what it prints.
fn run(name: &str) -> String {
    let output = example(name).output().expect("the examples are compiled with the tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("an example prints text")
}

#[test]
fn the_example_of_pagerank_prints_the_pages_by_their_ranks() {
    let printed = run("pagerank");
    let pages: Vec<&str> = printed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(pages, ["home", "docs", "blog"], "{printed}");
}

#[test]
fn the_example_of_webhooks_takes_every_order_and_cleans_up() {
    let printed = run("webhooks");
    assert_eq!(printed.lines().filter(|line| line.ends_with("is reserved")).count(), 18, "{printed}");
    assert_eq!(printed.lines().filter(|line| line.ends_with("failed after 2 attempts")).count(), 2, "{printed}");
    assert!(printed.ends_with("the warehouse is closed\n20 orders\n"), "{printed}");
}

#[test]
fn contract_18_the_example_of_a_container_finishes_at_a_signal_and_succeeds() {
    let mut job =
        example("container").stdout(Stdio::piped()).spawn().expect("the examples are compiled with the tests");
    let mut printed = BufReader::new(job.stdout.take().expect("its output is a pipe"));
    let mut first = String::new();
    printed.read_line(&mut first).unwrap();
    assert_eq!(first, "reading 1\n");
    let id = i32::try_from(job.id()).expect("process ids are small");
    // SAFETY: the call takes numbers only; the process is our child, and is waited for below.
    assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    assert!(job.wait().unwrap().success(), "{rest}");
    let readings = 1 + rest.lines().filter(|line| line.starts_with("reading ")).count();
    assert!(rest.ends_with(&format!("{readings} readings in all\n")), "{rest}");
}
