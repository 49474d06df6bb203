//! The dispatcher against a scripted backend: any services, tasks, failures and commands, in any order of events.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::event_queue;
use crate::backend::fake::{Act, Did, FakeBackend, Happened, Scripted, ServiceScript, TaskScript};
use crate::chain::{Signal, Stop, TaskContext};
use crate::clock::Clock;
use crate::control::{JobControl, WorksFor};
use crate::graph::wiring::Counters;
use crate::graph::{Graph, GraphChain, GraphService, GraphTask, JobGraph, Placement};
use crate::job::figures::Figures;
use crate::job::supervisor::GRACE;
use crate::service::{
    Blocking, Hook, HookContext, HookTimeouts, PauseJob, Registry, Service, ServiceBuilder, ServiceState, Typed,
};
use crate::task::{Stepped, Task};

struct Nothing;
impl Service for Nothing {}

struct NoTask;
impl Task for NoTask {
    fn open(&mut self, _cx: &mut TaskContext) -> Result<(), Stop> {
        unreachable!("the fake backend runs no task")
    }
    fn step(&mut self, _cx: &mut TaskContext) -> Result<Stepped, Stop> {
        unreachable!("the fake backend runs no task")
    }
    fn wait(&mut self, _cx: &mut TaskContext) {}
    fn publish(&mut self, _cx: &TaskContext) {}
    fn signal(&mut self, _signal: Signal, _cx: &mut TaskContext) -> Result<(), Stop> {
        Ok(())
    }
    fn close(&mut self, _cx: &mut TaskContext) {}
    fn is_source(&self) -> bool {
        true
    }
}

const DEADLINES: Deadlines = Deadlines {
    setup: Duration::from_millis(60),
    drain: Duration::from_millis(30),
    cancel: Duration::from_millis(10),
    stop: Duration::from_millis(12),
    cleanup: Duration::from_millis(14),
};

/// One scripted job.
#[derive(Debug, Clone)]
struct Script {
    services: Vec<ServiceScript>,
    tasks: Vec<TaskScript>,
    commands: Vec<(Duration, Command)>,
    limit: Option<Duration>,
}

struct Ran {
    report: JobReport,
    log: Vec<(Duration, Result<Did, Happened>)>,
}

fn one_operator(number: usize) -> GraphChain {
    GraphChain { number, operators: Vec::new(), parallelism: 1 }
}

fn one_task(chain: usize) -> GraphTask {
    GraphTask { name: format!("t{}", chain - 1), chain, replica: 0, placement: Placement::ThisProcess }
}

fn run(script: &Script) -> Ran {
    let registry = Registry::new();
    let Deadlines { setup, stop, cleanup, .. } = DEADLINES;
    let timeouts = HookTimeouts { setup, stop, cleanup, grace: Duration::ZERO };
    for (index, service) in script.services.iter().enumerate() {
        let constructor = Arc::new(|_: &HookContext| Ok(Nothing));
        let mut builder = ServiceBuilder::new(registry.clone(), format!("s{index}"), timeouts, move |cell| {
            Box::new(Typed::new(constructor, Box::new(Blocking), cell))
        });
        for other in &service.after {
            builder = builder.after(format!("s{other}").as_str());
        }
        builder.build();
    }
    let tasks = script.tasks.iter().map(|_| TaskRecord::new(Box::new(NoTask), Arc::default())).collect();
    let services = registry.all();
    let graph = Arc::new(JobGraph {
        environment: "test".to_owned(),
        chains: (1..=script.tasks.len()).map(one_operator).collect(),
        tasks: (1..=script.tasks.len()).map(one_task).collect(),
        services: services
            .iter()
            .map(|entry| GraphService { name: entry.name.clone(), after: Vec::new(), pipeline: None })
            .collect(),
        edges: Vec::new(),
    });
    let figures = Arc::new(Figures::new(graph, &Graph::default(), Counters::default(), services.clone(), Vec::new()));
    let (events, _queue) = event_queue();
    let job = WorksFor::new_job();
    let runtime = Arc::new(JobRuntime::default());
    let control = Arc::new(JobControl::new(Clock::system()));
    let pause: PauseJob = Arc::new(|_| {});
    registry.begin(&services, Vec::new(), &control, &pause, runtime.clone(), None);
    let shared = Arc::new(JobShared::new("id".to_owned(), events, figures, registry, job, None));
    let fake = FakeBackend::new(script.services.clone(), script.tasks.clone(), script.commands.clone());
    let log = fake.log.clone();
    let files = SessionLog::default();
    let mut dispatcher = Dispatcher::new(Box::new(fake), DEADLINES, script.limit, tasks, runtime, shared, files);
    let report = dispatcher.run();
    let log = log.lock().unwrap().clone();
    Ran { report, log }
}

fn good(takes: u64) -> Scripted {
    Scripted { act: Act::Good, takes: Duration::from_millis(takes) }
}

fn service(after: Vec<usize>) -> ServiceScript {
    ServiceScript { after, start: good(1), stop: good(1), cleanup: good(1), calls_inside: 0 }
}

fn task(takes: u64) -> TaskScript {
    TaskScript { alone: good(takes), on_drain: good(1), on_cancel: good(1) }
}

fn hangs() -> Scripted {
    Scripted { act: Act::Hangs, takes: Duration::ZERO }
}

fn fails(takes: u64) -> Scripted {
    Scripted { act: Act::Fails, takes: Duration::from_millis(takes) }
}

impl Ran {
    fn position(&self, entry: &Result<Did, Happened>) -> Option<usize> {
        self.log.iter().position(|(_, other)| other == entry)
    }

    fn count(&self, test: impl Fn(&Did) -> bool) -> usize {
        self.log.iter().filter_map(|(_, entry)| entry.as_ref().ok()).filter(|did| test(did)).count()
    }

    fn state(&self, service: usize) -> ServiceState {
        self.report.services[service].state
    }
}

#[test]
fn contract_03_a_good_job_succeeds_and_is_clean() {
    let script = Script {
        services: vec![service(vec![]), service(vec![0])],
        tasks: vec![task(5)],
        commands: vec![],
        limit: None,
    };
    let ran = run(&script);
    assert!(ran.report.is_success(), "{}", ran.report);
    assert_eq!(ran.report.reason, StopReason::EndOfInput);
}

#[test]
fn parity_a_job_may_take_longer_than_300_seconds() {
    let script = Script {
        services: vec![service(vec![])],
        tasks: vec![task(24 * 60 * 60 * 1000)],
        commands: vec![],
        limit: None,
    };
    let ran = run(&script);
    assert_eq!((ran.report.outcome, ran.report.cleanliness), (Outcome::Succeeded, Cleanliness::Clean));
}

#[test]
fn contract_04_a_task_that_never_comes_back_is_abandoned_by_its_deadline() {
    let stuck = TaskScript { alone: hangs(), on_drain: hangs(), on_cancel: hangs() };
    let commands = vec![(Duration::from_millis(7), Command::Drain(StopReason::Drain))];
    let script = Script { services: vec![service(vec![])], tasks: vec![stuck], commands, limit: None };
    let ran = run(&script);
    assert_eq!(ran.report.outcome, Outcome::TimedOut);
    assert_eq!(ran.report.left.len(), 1);
    assert_eq!(ran.state(0), ServiceState::Cleaned);
    // Start, run, drain, cancel, stop, cleanup.
    assert_eq!(ran.report.elapsed, Duration::from_millis(7 + 30 + 10 + 2));
}

#[test]
fn contract_14_each_hung_hook_is_abandoned_and_its_cleanup_still_asked_for() {
    for (start, stop, cleanup) in [(true, false, false), (false, true, false), (false, false, true)] {
        let mut one = service(vec![]);
        if start {
            one.start = hangs();
        }
        if stop {
            one.stop = hangs();
        }
        if cleanup {
            one.cleanup = hangs();
        }
        let services = vec![one, service(vec![0])];
        let ran = run(&Script { services, tasks: vec![task(1)], commands: vec![], limit: None });
        assert_eq!(ran.state(0), ServiceState::Abandoned);
        assert_eq!(ran.report.cleanliness, Cleanliness::Unclean);
        let expected = if start { ServiceState::Registered } else { ServiceState::Cleaned };
        assert_eq!(ran.state(1), expected);
        let asked = ran.count(|did| matches!(did, Did::Cleanup(0, _)));
        assert_eq!(asked, usize::from(start || stop), "a stuck hook before it does not cost the cleanup");
    }
}

#[test]
fn contract_10_stops_that_meet_coalesce() {
    let at = |millis| Duration::from_millis(millis);
    let commands = vec![
        (at(3), Command::Cancel(StopReason::Cancel)),
        (at(3), Command::Cancel(StopReason::Cancel)),
        (at(3), Command::Drain(StopReason::Drain)),
        (at(4), Command::Cancel(StopReason::Cancel)),
    ];
    let ran = run(&Script { services: vec![service(vec![])], tasks: vec![task(900)], commands, limit: None });
    assert_eq!(ran.report.outcome, Outcome::Cancelled);
    assert_eq!(ran.count(|did| matches!(did, Did::Told(_))), 1);
    assert!(ran.report.attached.is_empty());
}

#[test]
fn contract_02_the_first_failure_is_primary_and_the_others_are_attached() {
    let mut bad = service(vec![]);
    bad.cleanup = fails(1);
    let tasks = vec![
        TaskScript { alone: fails(5), on_drain: good(1), on_cancel: good(1) },
        TaskScript { alone: hangs(), on_drain: good(1), on_cancel: fails(2) },
    ];
    let ran = run(&Script { services: vec![bad], tasks, commands: vec![], limit: None });
    assert_eq!(ran.report.outcome, Outcome::Failed);
    assert_eq!(ran.report.first_cause.as_ref().map(|cause| cause.kind), Some(CauseKind::Error));
    assert_eq!(ran.report.attached.len(), 2);
    assert_eq!(ran.state(0), ServiceState::CleanupFailed);
}

#[test]
fn a_user_drain_succeeds_and_a_signal_cancels_cleanly() {
    let with = |reason| {
        let commands = vec![(Duration::from_millis(3), Command::Drain(reason))];
        run(&Script { services: vec![service(vec![])], tasks: vec![task(900)], commands, limit: None }).report
    };
    assert_eq!(with(StopReason::Drain).outcome, Outcome::Succeeded);
    let signalled = with(StopReason::Signal(libc::SIGINT));
    assert_eq!((signalled.outcome, signalled.cleanliness), (Outcome::Cancelled, Cleanliness::Clean));
    assert_eq!(signalled.signal(), Some(libc::SIGINT));
}

fn scripted() -> impl Strategy<Value = Scripted> {
    let act = prop_oneof![6 => Just(Act::Good), 1 => Just(Act::Fails), 1 => Just(Act::Panics), 1 => Just(Act::Hangs)];
    (act, 0_u64..80).prop_map(|(act, takes)| Scripted { act, takes: Duration::from_millis(takes) })
}

fn quick() -> impl Strategy<Value = Scripted> {
    prop_oneof![4 => (0_u64..5).prop_map(good), 1 => scripted()]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Drain(StopReason::Drain)),
        Just(Command::Drain(StopReason::Signal(libc::SIGINT))),
        Just(Command::Cancel(StopReason::Signal(libc::SIGTERM))),
        Just(Command::Cancel(StopReason::Cancel)),
        Just(Command::Pause),
        Just(Command::Resume),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let one = (any::<[bool; 4]>(), quick(), quick(), quick(), prop_oneof![9 => Just(0_u64), 1 => 1_u64..3]);
    let services = prop::collection::vec(one, 0..5).prop_map(|services| {
        let script = |(index, (after, start, stop, cleanup, calls_inside)): (usize, ([bool; 4], _, _, _, _))| {
            let after = (0..index).filter(|&other| after[other]).collect();
            ServiceScript { after, start, stop, cleanup, calls_inside }
        };
        services.into_iter().enumerate().map(script).collect()
    });
    let task = (scripted(), quick(), quick());
    let task = task.prop_map(|(alone, on_drain, on_cancel)| TaskScript { alone, on_drain, on_cancel });
    let commands = prop::collection::vec(((0_u64..120).prop_map(Duration::from_millis), command()), 0..4);
    let limit = prop::option::of((1_u64..150).prop_map(Duration::from_millis));
    (services, prop::collection::vec(task, 1..4), commands, limit).prop_map(|(services, tasks, mut commands, limit)| {
        // Something must end a task that hangs by itself.
        commands.push((Duration::from_millis(200), Command::Cancel(StopReason::Cancel)));
        Script { services, tasks, commands, limit }
    })
}

/// By when the contract has the job ended: the run, which the last command ends, and the sum of the phases' deadlines.
fn latest_end(script: &Script) -> Duration {
    let phases = DEADLINES.setup * script.services.len().max(1) as u32
        + DEADLINES.drain
        + DEADLINES.cancel
        + (DEADLINES.stop + GRACE + DEADLINES.cleanup) * script.services.len() as u32;
    Duration::from_millis(200) + phases
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_job_keeps_the_contract(script in script()) {
        let ran = run(&script);
        let report = &ran.report;
        let attempted = |service: usize| ran.position(&Ok(Did::StartService(service)));
        let stopped = |service: usize| ran.log.iter().position(|(_, entry)| {
            matches!(entry, Ok(Did::Shutdown(id, _) | Did::Cleanup(id, _)) if *id == service)
        });

        // Clause 4: it ends in time.
        prop_assert!(report.elapsed <= latest_end(&script), "{:?} > {:?}", report.elapsed, latest_end(&script));

        for (id, service) in script.services.iter().enumerate() {
            // Clauses 1 and 9: attempted once and ended once, or never touched.
            prop_assert!(ran.count(|did| *did == Did::StartService(id)) <= 1);
            prop_assert!(ran.count(|did| matches!(did, Did::Shutdown(other, _) if *other == id)) <= 1);
            prop_assert!(ran.count(|did| matches!(did, Did::Cleanup(other, _) if *other == id)) <= 1);
            match attempted(id) {
                None => {
                    prop_assert_eq!(ran.state(id), ServiceState::Registered);
                    prop_assert!(stopped(id).is_none(), "cleaned without having been attempted");
                }
                Some(_) => {
                    prop_assert!(ran.state(id).is_terminal(), "service {} is {}", id, ran.state(id));
                    prop_assert!(stopped(id).is_some(), "attempted and never cleaned");
                }
            }
            for &dependency in &service.after {
                // Clause 6: started after what it depends on is ready, cleaned before that stops.
                if let Some(start) = attempted(id) {
                    let ready = ran.position(&Err(Happened::Started(dependency, true)));
                    prop_assert!(ready.is_some_and(|ready| ready < start));
                    let cleaned = ran.position(&Err(Happened::Cleaned(id)));
                    if let (Some(stop), Some(cleaned)) = (stopped(dependency), cleaned) {
                        let late = ran.state(id) == ServiceState::Abandoned;
                        prop_assert!(cleaned < stop || late, "stopped under its user");
                    }
                }
            }
        }

        let first_stop = (0..script.services.len()).filter_map(stopped).min();
        for task in 0..script.tasks.len() {
            if let Some(start) = ran.position(&Ok(Did::StartTask(task))) {
                // No task before every service is ready, none after one is stopping (clauses 7 and 11).
                for id in 0..script.services.len() {
                    let ready = ran.position(&Err(Happened::Started(id, true)));
                    prop_assert!(ready.is_some_and(|ready| ready < start));
                }
                prop_assert!(first_stop.is_none_or(|stop| start < stop));
                let ended = ran.position(&Err(Happened::TaskEnded(task)));
                let left = report.left.iter().any(|left| left.what == format!("task `t{task}`"));
                let in_time = ended.is_some_and(|ended| first_stop.is_none_or(|stop| ended < stop));
                prop_assert!(in_time || left || first_stop.is_none(), "a service stopped while task {} ran", task);
            }
        }

        // Clause 3 and the two axes: clean exactly when nothing is left, a cause exactly when it did not succeed.
        prop_assert_eq!(report.cleanliness == Cleanliness::Clean, report.left.is_empty());
        let services_left = report.services.iter().filter(|service| {
            !matches!(service.state, ServiceState::Cleaned | ServiceState::Registered)
        });
        for service in services_left {
            let what = format!("service `{}`", service.name);
            prop_assert!(report.left.iter().any(|left| left.what == what), "{} is not named as left", what);
        }
        if report.outcome != Outcome::Succeeded {
            prop_assert!(report.first_cause.is_some());
        }
        if report.cleanliness == Cleanliness::Unclean {
            prop_assert!(report.first_cause.is_some(), "left behind without a cause");
        }

        // The first thing that decides the outcome decides it; what goes wrong in `stop` and `cleanup` does not.
        let causes = report.first_cause.iter().chain(&report.attached);
        let decided = causes.filter_map(|cause| match (cause.kind, &cause.origin) {
            (CauseKind::Stopped, _) => Some(Outcome::Cancelled),
            (CauseKind::Timeout, Origin::Job) => Some(Outcome::TimedOut),
            (_, Origin::Service { hook: Hook::Stop | Hook::Cleanup | Hook::Drop, .. }) => None,
            _ => Some(Outcome::Failed),
        });
        prop_assert_eq!(report.outcome, decided.clone().next().unwrap_or(Outcome::Succeeded));
    }
}
