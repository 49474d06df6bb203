//! Checks the declared dependencies of services before any is started, and lists them by number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::entry::ServiceEntry;
use crate::submit_error::SubmitError;

/// Checks that names are unique, policies can be, dependencies exist, and nothing waits for itself.
pub(crate) fn check(services: &[Arc<ServiceEntry>]) -> Result<(), SubmitError> {
    let mut names = HashSet::new();
    for entry in services {
        if !names.insert(entry.name.as_str()) {
            return Err(SubmitError::DuplicateService { name: entry.name.clone() });
        }
        if let Some(message) = entry.policy.as_ref().and_then(|policy| policy.mistake()) {
            return Err(SubmitError::ServicePolicy { service: entry.name.clone(), message });
        }
    }
    for entry in services {
        if let Some(dependency) = entry.after.iter().find(|name| !names.contains(name.as_str())) {
            let (service, dependency) = (entry.name.clone(), dependency.clone());
            return Err(SubmitError::UnknownDependency { service, dependency });
        }
    }
    match cycle(&declared(services)) {
        None => Ok(()),
        Some(cycle) => {
            let cycle = cycle.into_iter().map(|index| services[index].name.clone()).collect();
            Err(SubmitError::DependencyCycle { cycle })
        }
    }
}

/// For each service, those it was declared to come after, each once.
pub(crate) fn declared(services: &[Arc<ServiceEntry>]) -> Vec<Vec<usize>> {
    let numbers: HashMap<_, _> = services.iter().enumerate().map(|(number, entry)| (&entry.name, number)).collect();
    let uses = |entry: &Arc<ServiceEntry>| {
        let mut uses: Vec<usize> = entry.after.iter().filter_map(|name| numbers.get(name).copied()).collect();
        uses.sort_unstable();
        uses.dedup();
        uses
    };
    services.iter().map(uses).collect()
}

/// A cycle, if there is one: each after the next, the first again at the end. Without recursion, as a chain may be
/// long.
fn cycle(uses: &[Vec<usize>]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        OnPath,
        Done,
    }
    let mut seen = vec![Seen::No; uses.len()];
    for root in 0..uses.len() {
        if seen[root] != Seen::No {
            continue;
        }
        // The way to where the walk is, and how many of each one's dependencies were looked at.
        let mut path = vec![(root, 0)];
        seen[root] = Seen::OnPath;
        while let Some((at, looked)) = path.last_mut() {
            let Some(&next) = uses[*at].get(*looked) else {
                seen[*at] = Seen::Done;
                path.pop();
                continue;
            };
            *looked += 1;
            match seen[next] {
                Seen::Done => {}
                Seen::No => {
                    seen[next] = Seen::OnPath;
                    path.push((next, 0));
                }
                Seen::OnPath => {
                    let way = path.iter().map(|(at, _)| *at).skip_while(|at| *at != next);
                    return Some(way.chain([next]).collect());
                }
            }
        }
    }
    None
}
