//! What has become of a job, its tasks and its services, as the Python package reads it.

use std::time::{SystemTime, UNIX_EPOCH};

use sage::{Changes, JobHandle, Transition};

/// When, in seconds since 1970; `"job"`, `"task"` or `"service"`; its name, which a job has none of here; its state.
pub(crate) type Told = (f64, &'static str, String, String);

/// The tasks and services of a job, and its changes of state.
#[derive(Clone)]
pub(crate) struct History {
    tasks: Vec<String>,
    services: Vec<String>,
    changes: Changes,
}

impl History {
    pub(crate) fn of(handle: &JobHandle) -> Self {
        let graph = handle.graph();
        Self {
            tasks: graph.tasks.iter().map(|task| task.name.clone()).collect(),
            services: graph.services.iter().map(|service| service.name.clone()).collect(),
            changes: handle.changes(),
        }
    }

    /// The first state of each task and service, then every change so far.
    pub(crate) fn told(mut self) -> Vec<Told> {
        let changes: Vec<_> = std::iter::from_fn(|| self.changes.next_timeout(Default::default())).collect();
        let began = seconds(changes.first().map_or_else(SystemTime::now, |first| first.at));
        let tasks = self.tasks.into_iter().map(|name| (began, "task", name, "created".to_owned()));
        let services = self.services.into_iter().map(|name| (began, "service", name, "registered".to_owned()));
        let later = changes.into_iter().filter_map(|change| {
            let at = seconds(change.at);
            Some(match change.transition {
                Transition::Job { to, .. } => (at, "job", String::new(), to.to_string()),
                Transition::Task { name, to, .. } => (at, "task", name, to.to_string()),
                Transition::Service { name, to, .. } => (at, "service", name, to.to_string()),
                _ => return None,
            })
        });
        tasks.chain(services).chain(later).collect()
    }
}

/// In seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
