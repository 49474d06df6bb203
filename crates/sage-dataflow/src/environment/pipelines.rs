//! [`PipelineBuilder`]: declares a pipeline that is a service.

use std::fmt;
use std::sync::Arc;

use super::Environment;
use crate::graph::ServingSource;
use crate::service::{
    AT_ONCE, Blocking, Dependency, HookContext, Method, Pipeline, Policy, Served, ServiceBuilder, Typed,
};
use crate::source::RequestSources;
use crate::stream::{Requests, Stream};

impl Environment {
    /// Registers a pipeline as a service: a call becomes a record, and what the pipeline makes of it is the answer.
    /// Operators, other services and the program call it through the [`Method`] that [`build`](PipelineBuilder::build)
    /// returns.
    ///
    /// `pipeline` gets the stream of the calls, as records that carry their callers, and ends it with
    /// [`answer`](Stream::answer). A record that is dropped on the way, as by a filter or an error policy, gives its
    /// caller an [`Unanswered`](crate::Unanswered) at once.
    ///
    /// At the end of all other input, and on a drain, the pipeline ends after all tasks that could call it, and every
    /// call that was let in is answered. If there are no other tasks, only the program can call it: it then ends by a
    /// drain. Of several such pipelines, one that another one uses ends after that one; where none is known to use the
    /// other, the one registered last ends first. A call of a pipeline that would wait for itself, directly or through
    /// other services, is a [`CallError::ReachesItself`](crate::CallError::ReachesItself) at once.
    ///
    /// ```
    /// use sage::{Environment, Policy};
    ///
    /// let env = Environment::local("questions");
    /// let shout = env
    ///     .register_pipeline("shout", |requests| {
    ///         requests.map(|asked| asked.map(|text: &str| text.to_uppercase())).answer()
    ///     })
    ///     .build();
    /// let answers = env.from_iter(["why?", "how?"]).try_map(move |text| shout.call_blocking(text)).collect();
    /// env.run()?;
    /// assert_eq!(answers.take(), ["WHY?", "HOW?"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_pipeline<Q, R, F, O>(&self, name: impl Into<String>, pipeline: F) -> PipelineBuilder<'_, Q, R, F>
    where
        Q: Send + 'static,
        R: Send + 'static,
        F: FnOnce(Requests<Q, R>) -> O,
    {
        let types = std::marker::PhantomData;
        let (name, after, policy) = (name.into(), Vec::new(), Policy::new());
        PipelineBuilder { env: self, name, after, policy, at_once: AT_ONCE, pipeline, types }
    }
}

/// A pipeline to be registered as a service: sets its policy and limits.
#[must_use = "a pipeline is registered by `build()`"]
pub struct PipelineBuilder<'a, Q, R, F> {
    env: &'a Environment,
    name: String,
    after: Vec<Dependency>,
    policy: Policy,
    at_once: usize,
    pipeline: F,
    types: std::marker::PhantomData<fn(Q) -> R>,
}

impl<Q, R, F> fmt::Debug for PipelineBuilder<'_, Q, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("name", &self.name)
            .field("at_once", &self.at_once)
            .finish_non_exhaustive()
    }
}

impl<Q, R, F, O> PipelineBuilder<'_, Q, R, F>
where
    Q: Send + 'static,
    R: Send + 'static,
    F: FnOnce(Requests<Q, R>) -> O,
{
    /// Gives the pipeline a policy for its calls. Default: one that asks for nothing.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// As [`ServiceBuilder::after`](crate::ServiceBuilder::after): the pipeline uses another service.
    pub fn after(mut self, dependency: impl Into<Dependency>) -> Self {
        self.after.push(dependency.into());
        self
    }

    /// Sets how many calls may be records at once, 1 at least. Further calls wait for their turn, in their order; one
    /// whose caller leaves meanwhile, as at a timeout, never becomes a record. Default: 1,024.
    ///
    /// A step that waits for more records than that, such as a [`batch`](Stream::batch), does not get them.
    pub fn at_once(mut self, calls: usize) -> Self {
        self.at_once = calls;
        self
    }

    /// Registers the pipeline. A name used twice, of a service or of an operator, and settings that cannot be, are
    /// errors when the environment is submitted. So is a task that belongs to two such pipelines, and
    /// [`inline`](Environment::inline): it has no thread that could wait for an answer.
    pub fn build(self) -> Method<Q, R> {
        let Self { env, name, after, policy, at_once, pipeline, .. } = self;
        let served = Served::new(at_once);
        let value = served.clone();
        let constructor = Arc::new(move |_cx: &HookContext| Ok(Pipeline(value.clone())));
        let service = ServiceBuilder::new(env.registry.clone(), name.clone(), env.hook_timeouts(), move |cell| {
            Box::new(Typed::new(constructor, Box::new(Blocking), cell))
        });
        let service = after.into_iter().fold(service, ServiceBuilder::after).answered_by(served.clone());
        let service = service.policy(policy).build();
        let stream: Stream<_> = Stream::source(&env.graph, "requests", RequestSources(served.clone())).named(name);
        env.graph.with(|graph| {
            let node = stream.node();
            if at_once == 0 {
                graph.add_mistake(node, "no call can ever be a record with `at_once(0)`; 1 is the least".to_owned());
            }
            graph.serving.push(ServingSource { node, service: Some(service.id()), pipeline: served });
        });
        pipeline(stream);
        service.pipeline_method().build()
    }
}
