//! When the sources of pipelines that are services end: after all tasks that could call them.
//!
//! Those are all tasks that are not part of the pipeline. Among pipelines, one that another uses ends after it. A task
//! that has ended is the event at which this is looked at again.

use std::sync::Arc;

use crate::graph::{Graph, Index};
use crate::service::{Serves, ServiceId};

/// The pipelines of a job that are services.
#[derive(Default)]
pub(crate) struct Serving {
    /// In the order in which they were registered.
    pipelines: Vec<ServingPipeline>,
    /// The pipeline that each task is part of.
    of_task: Vec<Option<usize>>,
    /// How many tasks run that are part of none; `None` if there never was one, so that only the program can call.
    others: Option<usize>,
}

struct ServingPipeline {
    service: Option<ServiceId>,
    pipeline: Arc<dyn Serves>,
    /// How many of its tasks have not ended.
    running: usize,
    is_told: bool,
}

impl Serving {
    pub(crate) fn new(graph: &Graph, index: &Index) -> Self {
        if graph.serving.is_empty() {
            return Self::default();
        }
        let chains = index.pipelines(graph);
        let of_chain = |chain: usize| chains.iter().position(|chains| chains.contains(&chain));
        let tasks = graph.chains.iter().enumerate();
        let of_task: Vec<_> =
            tasks.flat_map(|(number, chain)| std::iter::repeat_n(of_chain(number), graph.parallelism(chain))).collect();
        let running = |of: Option<usize>| of_task.iter().filter(|&&task| task == of).count();
        let pipelines = graph.serving.iter().enumerate().map(|(number, serving)| ServingPipeline {
            service: serving.service,
            pipeline: serving.pipeline.clone(),
            running: running(Some(number)),
            is_told: false,
        });
        Self { pipelines: pipelines.collect(), others: Some(running(None)).filter(|&tasks| tasks > 0), of_task }
    }

    /// The services that they are, as far as that is known.
    pub(super) fn services(&self) -> Vec<ServiceId> {
        self.pipelines.iter().filter_map(|serving| serving.service).collect()
    }

    /// The service that a task works for.
    pub(super) fn service_of(&self, task: usize) -> Option<ServiceId> {
        let pipeline = self.of_task.get(task).copied().flatten()?;
        self.pipelines[pipeline].service
    }

    /// The tasks start.
    pub(super) fn open(&self) {
        self.pipelines.iter().for_each(|serving| serving.pipeline.opens());
    }

    pub(super) fn task_ended(&mut self, task: usize) {
        match self.of_task.get(task) {
            Some(&Some(pipeline)) => self.pipelines[pipeline].running -= 1,
            Some(None) => self.others = self.others.map(|tasks| tasks - 1),
            None => {}
        }
    }

    /// The pipeline that is to end next, if the time has come: nobody is left who could call it. `uses` says whether
    /// one service uses another.
    pub(super) fn next(
        &mut self,
        is_draining: bool,
        uses: impl Fn(ServiceId, ServiceId) -> bool,
    ) -> Option<Arc<dyn Serves>> {
        let is_over = self.others.map_or(is_draining, |tasks| tasks == 0);
        if !is_over || self.pipelines.iter().any(|serving| serving.is_told && serving.running > 0) {
            return None;
        }
        let open = || self.pipelines.iter().enumerate().filter(|(_, serving)| !serving.is_told);
        let is_used = |service| open().filter_map(|(_, other)| other.service).any(|other| uses(other, service));
        let (next, _) = open().rfind(|(_, serving)| !serving.service.is_some_and(is_used))?;
        let next = &mut self.pipelines[next];
        next.is_told = true;
        Some(next.pipeline.clone())
    }
}
