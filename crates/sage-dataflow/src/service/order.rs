//! What is wrong with the declared dependencies of services, said before any is started.

use std::collections::HashSet;
use std::sync::Arc;

use super::ServiceEntry;
use crate::environment::SubmitError;

/// Checks that names are unique, dependencies exist, and nothing waits for itself.
pub(crate) fn check(services: &[Arc<ServiceEntry>]) -> Result<(), SubmitError> {
    let mut names = HashSet::new();
    for entry in services {
        if !names.insert(entry.name.as_str()) {
            return Err(SubmitError::DuplicateService { name: entry.name.clone() });
        }
    }
    for entry in services {
        if let Some(dependency) = entry.after.iter().find(|name| !names.contains(name.as_str())) {
            let (service, dependency) = (entry.name.clone(), dependency.clone());
            return Err(SubmitError::UnknownDependency { service, dependency });
        }
    }
    let mut done = HashSet::new();
    for entry in services {
        visit(services, &entry.name, &mut Vec::new(), &mut done)?;
    }
    Ok(())
}

/// Walks the dependencies of `name` depth first; `path` leads to it.
fn visit(
    services: &[Arc<ServiceEntry>],
    name: &str,
    path: &mut Vec<String>,
    done: &mut HashSet<String>,
) -> Result<(), SubmitError> {
    if done.contains(name) {
        return Ok(());
    }
    if let Some(start) = path.iter().position(|other| other == name) {
        let mut cycle = path.split_off(start);
        cycle.push(name.to_owned());
        return Err(SubmitError::DependencyCycle { cycle });
    }
    path.push(name.to_owned());
    for entry in services.iter().filter(|entry| entry.name == name) {
        for dependency in &entry.after {
            visit(services, dependency, path, done)?;
        }
    }
    path.pop();
    done.insert(name.to_owned());
    Ok(())
}
