//! The ranks of pages by the links between them: rounds over the states of keys. Run it with
//! `cargo run -p sage-dataflow --example pagerank`.

use sage::{Collected, Environment, RunError};

/// What is known of a page: the pages it links to, and its rank.
type Page = (Vec<&'static str>, f64);

/// The rank of each page after so many rounds. Each page hands its rank on, in equal parts, by its links.
pub(crate) fn ranks(
    env: &Environment,
    links: Vec<(&'static str, &'static str)>,
    rounds: u64,
) -> Collected<(&'static str, f64)> {
    env.from_collection(links)
        .key_by(|link| link.0)
        .iterate(
            rounds,
            (Vec::new(), 1.0),
            |(links, _): &mut Page, link| links.push(link.1),
            |(links, rank), parts: Vec<f64>, round| {
                if round.number() > 0 {
                    *rank = 0.15 + 0.85 * parts.iter().sum::<f64>();
                }
                links.iter().for_each(|to| round.send(to, *rank / links.len() as f64));
            },
        )
        .map(|(page, (_, rank))| (page, rank))
        .collect()
}

fn main() -> Result<(), RunError> {
    let env = Environment::local("pagerank");
    let links = [("home", "docs"), ("home", "blog"), ("docs", "home"), ("blog", "docs"), ("blog", "home")];
    let ranks = ranks(&env, links.to_vec(), 30);
    env.run()?;
    let mut ranks = ranks.take();
    ranks.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranks.iter().for_each(|(page, rank)| println!("{rank:.3}  {page}"));
    Ok(())
}
