//! [`PolicyService`], and its [`Method`]s: what a service with a policy is called through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::answer::{self, Answer, Many, One};
use super::batch::{Batch, Batching, Queue};
use super::call::Way;
use super::calling::Calling;
use super::keep::Keep;
use super::layers::Layers;
use super::settings::CallPolicy;
use super::shelves::Shelf;
use super::state::{PolicyReport, PolicyState};
use super::store::StoreError;
use super::tally::Tally;
use crate::BoxError;
use crate::service::call_error::CallError;
use crate::service::handle::ServiceHandle;
use crate::service::state::ServiceState;
use crate::service::{Dependency, ServiceId};
use crate::sync::Arc;

/// A service that is registered with a [`Policy`](crate::Policy). It is called through its methods, which all share the
/// policy: no call goes past it.
///
/// ```
/// use std::time::Duration;
/// use sage::{BoxError, Environment, Policy, Retry, Service};
///
/// struct Model;
///
/// impl Service for Model {}
///
/// impl Model {
///     async fn chat(&self, question: &str) -> Result<String, BoxError> {
///         Ok(question.to_uppercase())
///     }
/// }
///
/// let env = Environment::local("chat");
/// let policy = Policy::new().timeout(Duration::from_secs(20)).retry(Retry::up_to(4));
/// let model = env.register_service("model", || Model).policy(policy).build();
/// let chat = model.method("chat", |model, question: String| async move { model.chat(&question).await }).build();
/// let answers = env
///     .from_iter(["why?", "how?"])
///     .try_map_async(2, sage::Order::Ordered, move |question| {
///         let chat = chat.clone();
///         async move { chat.call(str::to_owned(question)).await }
///     })
///     .collect();
/// env.run()?;
/// assert_eq!(answers.take(), ["WHY?", "HOW?"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PolicyService<S> {
    handle: ServiceHandle<S>,
    state: Arc<PolicyState>,
}

impl<S> Clone for PolicyService<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), state: self.state.clone() }
    }
}

impl<S> fmt::Debug for PolicyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyService").field("service", &self.handle).finish_non_exhaustive()
    }
}

impl<S> From<&PolicyService<S>> for Dependency {
    fn from(service: &PolicyService<S>) -> Self {
        Self::from(&service.handle)
    }
}

impl<S: Send + Sync + 'static> PolicyService<S> {
    pub(crate) fn new(handle: ServiceHandle<S>, state: Arc<PolicyState>) -> Self {
        Self { handle, state }
    }

    /// Returns the name under which the service is registered.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// What hosts in another language tell the engine of the service by. Calls through it go past the policy.
    #[doc(hidden)]
    pub fn unpoliced(&self) -> &ServiceHandle<S> {
        &self.handle
    }

    pub(crate) fn id(&self) -> ServiceId {
        self.handle.id()
    }

    /// Returns the service's state.
    pub fn state(&self) -> ServiceState {
        self.handle.state()
    }

    /// What the policy has done in the run so far.
    pub fn report(&self) -> PolicyReport {
        self.state.report()
    }

    /// Holds attempts back until [`release`](Self::release), as the service is begun anew: the process behind it, say.
    /// The deadline of a call goes on meanwhile; the timeout of an attempt begins after it. A call that the service was
    /// at may fail by [`Verdict::Again`](crate::Verdict::Again), so that it is made again.
    pub fn hold(&self) {
        self.state.restart.begins();
    }

    /// Lets attempts go on that [`hold`](Self::hold) held back.
    pub fn release(&self) {
        self.state.restart.ends();
    }

    /// Declares a method: a kind of request, and the function that has the service answer one. The function gets the
    /// service, by a reference that the future may keep.
    pub fn method<Q, R, E, F>(
        &self,
        name: impl Into<String>,
        answer: impl Fn(Calling<S>, Q) -> F + Send + Sync + 'static,
    ) -> MethodBuilder<Q, R>
    where
        Q: Send + 'static,
        R: Send + 'static,
        E: Into<BoxError> + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.declare(name.into(), Answer::One(Box::new(One { service: self.handle.clone(), answer })))
    }

    /// As [`method`](Self::method), for a function that blocks. It runs on the thread of a caller that may block and
    /// set no time; else on a thread of the job's runtime that may.
    pub fn blocking_method<Q, R, E>(
        &self,
        name: impl Into<String>,
        answer: impl Fn(&S, Q) -> Result<R, E> + Send + Sync + 'static,
    ) -> MethodBuilder<Q, R>
    where
        Q: Send + 'static,
        R: Send + 'static,
        E: Into<BoxError>,
    {
        self.declare(name.into(), Answer::Blocking(answer::blocking(self.handle.clone(), answer)))
    }

    /// As [`method`](Self::method), for a function that answers requests together: those of all callers, put together
    /// as `batching` says. It gives as many answers as it gets requests, in their order. A request that is at fault
    /// alone has an error among the answers. An error instead of answers is that of every request; if it is
    /// [`Verdict::Bad`](crate::Verdict::Bad), the batch is cut in halves, until it is known which request is at fault.
    /// A batch that is not answered in time is not sent again.
    pub fn batch_method<Q, R, E, F>(
        &self,
        name: impl Into<String>,
        batching: Batching,
        answer: impl Fn(Calling<S>, Batch<Q>) -> F + Send + Sync + 'static,
    ) -> MethodBuilder<Q, R>
    where
        Q: Send + Sync + 'static,
        R: Send + 'static,
        E: Into<BoxError> + 'static,
        F: Future<Output = Result<Vec<Result<R, BoxError>>, E>> + Send + 'static,
    {
        let answer = answer::many(self.handle.clone(), answer);
        let timeout = self.state.policy.call.timeout;
        self.state.declare(batching.mistake());
        self.declare(name.into(), Answer::Many(Arc::new(Many { queue: Queue::new(batching), answer, timeout })))
    }

    pub(super) fn handle(&self) -> &ServiceHandle<S> {
        &self.handle
    }

    pub(super) fn state_of_calls(&self) -> &Arc<PolicyState> {
        &self.state
    }

    pub(super) fn declare<Q, R>(&self, name: String, answer: Answer<Q, R>) -> MethodBuilder<Q, R> {
        let service = self.handle.name().to_owned();
        let handle = Box::new(self.handle.clone());
        let call = self.state.policy.call.clone();
        MethodBuilder {
            declared: Declared {
                service,
                name,
                state: self.state.clone(),
                handle,
                answer,
                cost: None,
                price: None,
                usage: None,
                tally: None,
                fallbacks: Vec::new(),
                keep: None,
            },
            call,
        }
    }
}

/// The answer to come of a call whose answers are kept.
pub(super) type Answering<'a, R> = Pin<Box<dyn Future<Output = Result<R, Box<CallError>>> + Send + 'a>>;

/// The layer, for a method whose answers can be kept.
pub(super) trait Keeps<Q, R>: Send + Sync {
    fn answer<'a>(&'a self, method: &'a Method<Q, R>, way: Way<'a>, request: Q) -> Answering<'a, R>;
    fn shelf(&self, declared: &Declared<Q, R>, layers: &Layers) -> Result<Arc<dyn Shelf>, StoreError>;
}

/// The handle of a service, without its type.
pub(super) trait Handle: Send + Sync {
    /// For answers that are made on another thread than the caller's.
    fn note_caller(&self) -> Result<(), CallError>;
    /// Whether the call is a part of another that the service answers.
    fn is_within(&self) -> bool;
    fn state(&self) -> ServiceState;
    /// How many calls the service is answering.
    fn inside(&self) -> u64;
}

impl<S: Send + Sync + 'static> Handle for ServiceHandle<S> {
    fn note_caller(&self) -> Result<(), CallError> {
        self.note_caller()
    }

    fn is_within(&self) -> bool {
        self.is_within()
    }

    fn state(&self) -> ServiceState {
        self.state()
    }

    fn inside(&self) -> u64 {
        self.inside()
    }
}

/// What was declared of a method.
pub(super) struct Declared<Q, R> {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) state: Arc<PolicyState>,
    pub(super) handle: Box<dyn Handle>,
    pub(super) answer: Answer<Q, R>,
    pub(super) cost: Option<Box<dyn Fn(&Q) -> u64 + Send + Sync>>,
    pub(super) price: Option<Box<dyn Fn(&Q) -> f64 + Send + Sync>>,
    pub(super) usage: Option<Box<dyn Fn(&R) -> Option<Usage> + Send + Sync>>,
    pub(super) tally: Option<Box<dyn Fn(&R) -> Tally + Send + Sync>>,
    pub(super) fallbacks: Vec<Method<Q, R>>,
    pub(super) keep: Option<Box<dyn Keeps<Q, R>>>,
}

impl<Q, R> Declared<Q, R> {
    /// What a request costs.
    pub(super) fn cost(&self, request: &Q) -> u64 {
        self.cost.as_ref().map_or(1, |cost| cost(request))
    }
}

/// What a call did cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// In the unit of the method's cost, such as tokens.
    pub cost: u64,
    /// What was spent on it.
    pub spent: f64,
}

/// A method to be declared.
#[must_use = "a method is declared by `build()`"]
pub struct MethodBuilder<Q, R> {
    declared: Declared<Q, R>,
    call: CallPolicy,
}

impl<Q, R> fmt::Debug for MethodBuilder<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Declared { service, name, .. } = &self.declared;
        f.debug_struct("MethodBuilder").field("service", service).field("name", name).finish_non_exhaustive()
    }
}

impl<Q, R> MethodBuilder<Q, R> {
    /// Says what a request costs, such as its tokens: what [rates of cost](crate::Rate::cost) and batches count. So
    /// much is taken before each attempt. It comes back when the service says that it has too much to do, or when to
    /// come again, or is not there. Default: 1.
    pub fn cost(mut self, cost: impl Fn(&Q) -> u64 + Send + Sync + 'static) -> Self {
        self.declared.cost = Some(Box::new(cost));
        self
    }

    /// Says what is spent on a request, as far as that is known before: what [spends](crate::Spend) count. Default: 0.
    pub fn price(mut self, price: impl Fn(&Q) -> f64 + Send + Sync + 'static) -> Self {
        self.declared.price = Some(Box::new(price));
        self
    }

    /// Reads from an answer what the call did cost. What was taken above that comes back; what it cost above that
    /// delays the next calls. Default, and for an answer of which it says `None`: it cost what was taken before.
    pub fn usage<U: Into<Option<Usage>>>(mut self, usage: impl Fn(&R) -> U + Send + Sync + 'static) -> Self {
        self.declared.usage = Some(Box::new(move |answer| usage(answer).into()));
        self
    }

    /// Reads from an answer what it adds to the figures of the service, which the report sums up:
    /// [`PolicyReport::tallies`]. Each answer that the service gives counts, and none that was kept.
    ///
    /// ```
    /// use sage::{BoxError, Environment, Policy, Service, Tally};
    ///
    /// struct Model;
    ///
    /// impl Service for Model {}
    ///
    /// let env = Environment::local("tallied");
    /// let model = env.register_service("model", || Model).policy(Policy::new()).build();
    /// let chat = model
    ///     .method("chat", |_model, question: &str| async move { Ok::<_, BoxError>(question.to_uppercase()) })
    ///     .tally(|answer| Tally::new().of("model", "small").add("words", answer.split(' ').count() as f64))
    ///     .build();
    /// env.from_iter(["why?", "how come?"]).try_map(move |question| chat.call_blocking(question)).collect();
    /// let report = env.run()?;
    /// assert_eq!(report.services[0].policy.as_ref().unwrap().tallies[0].sums["words"], 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tally(mut self, tally: impl Fn(&R) -> Tally + Send + Sync + 'static) -> Self {
        self.declared.tally = Some(Box::new(tally));
        self
    }

    /// Keeps answers: in a cache, or in the journal of the run. See [`Keep`].
    ///
    /// ```
    /// use sage::{BoxError, Cache, Codec, Environment, Keep, Policy, Service};
    ///
    /// struct Text;
    ///
    /// impl Codec<String> for Text {
    ///     fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
    ///         into.extend_from_slice(value.as_bytes());
    ///         Ok(())
    ///     }
    ///     fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
    ///         Ok(std::str::from_utf8(bytes)?.to_owned())
    ///     }
    /// }
    ///
    /// struct Model;
    ///
    /// impl Service for Model {}
    ///
    /// let env = Environment::local("kept");
    /// let model = env.register_service("model", || Model).policy(Policy::new().version("small-1")).build();
    /// let keep = Keep::new(|question: &String| Some(question.as_bytes().to_vec()), Text);
    /// let chat = model
    ///     .method("chat", |_model, question: String| async move { Ok::<_, BoxError>(question.to_uppercase()) })
    ///     .keep(keep.cache(Cache::new().memory(1_000, 1 << 20)))
    ///     .build();
    /// let asked = ["why?", "how?", "why?"].map(str::to_owned);
    /// let answers = env.from_iter(asked).try_map(move |question| chat.call_blocking(question)).collect();
    /// let report = env.run()?;
    /// assert_eq!(answers.take(), ["WHY?", "HOW?", "WHY?"]);
    /// let policy = report.services[0].policy.as_ref().unwrap();
    /// assert_eq!((policy.attempts, policy.kept[0].cache.memory_hits), (2, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep(mut self, keep: Keep<Q, R>) -> Self
    where
        Q: Clone + Send + Sync + 'static,
        R: Clone + Send + Sync + 'static,
    {
        let policy = &self.declared.state.policy;
        self.declared.state.declare(keep.mistake(policy.version.as_deref(), policy.journal.as_ref()));
        self.declared.keep = Some(Box::new(keep));
        self
    }

    /// A call that fails here, or that the policy lets not through, is made there: to another model, or another store.
    /// With several, each in turn. A request that is at fault itself ([`Verdict::Bad`](crate::Verdict::Bad)) is not.
    pub fn fallback(mut self, other: &Method<Q, R>) -> Self {
        self.declared.fallbacks.push(other.clone());
        self
    }

    /// Declares the method.
    pub fn build(self) -> Method<Q, R> {
        if self.declared.keep.is_some() {
            self.declared.state.declare_keeping(&self.declared.name);
        }
        Method { declared: Arc::new(self.declared), call: Arc::new(self.call) }
    }
}

/// A method of a service with a policy: what operators call. Cloneable; clones share the policy.
pub struct Method<Q, R> {
    pub(super) declared: Arc<Declared<Q, R>>,
    pub(super) call: Arc<CallPolicy>,
}

impl<Q, R> Clone for Method<Q, R> {
    fn clone(&self) -> Self {
        Self { declared: self.declared.clone(), call: self.call.clone() }
    }
}

impl<Q, R> fmt::Debug for Method<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Declared { service, name, .. } = &*self.declared;
        let mut shown = f.debug_struct("Method");
        shown.field("service", service).field("name", name).field("call", &self.call).finish_non_exhaustive()
    }
}

impl<Q, R> Method<Q, R> {
    /// The same method with other settings for the calls through this handle. What callers share, such as limits, stays
    /// shared.
    pub fn with_policy(&self, change: impl FnOnce(&mut CallPolicy)) -> Self {
        let mut call = (*self.call).clone();
        change(&mut call);
        Self { declared: self.declared.clone(), call: Arc::new(call) }
    }

    /// How many requests wait for their batch to fill: 0 for a method without batches.
    pub fn waiting(&self) -> usize {
        match &self.declared.answer {
            Answer::Many(many) => many.queue.waiting(),
            _ => 0,
        }
    }
}
