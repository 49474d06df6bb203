//! The tasks of a job, as its dispatcher leads them: started together, awaited, and given up where they do not come
//! back.

use std::any::Any;

use super::cause::{Cause, CauseKind, Leftover, Origin};
use super::changes::Noted;
use super::dispatcher::Dispatcher;
use super::plan::{TaskRecord, TaskStage};
use super::serving::Serving;
use super::state::{JobState, TaskState};
use crate::backend::{TaskId, TaskPlan, Unit, UnitId};
use crate::chain::{During, Failure, LeftBehind};
use crate::graph::GraphTask;
use crate::task::{Ending, TaskOutcome};

impl Dispatcher {
    /// Sets which pipelines are services.
    pub(super) fn serve(&mut self, serving: Serving) {
        self.serving = serving;
    }

    /// A task has ended, or a drain has begun: tells the pipelines that are to end.
    pub(super) fn settle_serving(&mut self, ended: Option<usize>) {
        ended.into_iter().for_each(|task| self.serving.task_ended(task));
        let registry = self.shared.registry();
        while let Some(next) = self.serving.next(self.winding_down.is_some(), |user, used| registry.depends(user, used))
        {
            next.ends();
        }
    }

    pub(super) fn start_tasks(&mut self) {
        self.advance(JobState::Running);
        self.settle_pauses();
        self.serving.open();
        for index in 0..self.tasks.len() {
            let (name, TaskRecord { cursor, stage }) = (self.task(index).name.clone(), &mut self.tasks[index]);
            let TaskStage::Waiting(body) = std::mem::replace(stage, TaskStage::Running) else {
                unreachable!("tasks are started once");
            };
            let service = self.serving.service_of(index);
            let plan = TaskPlan { id: TaskId(index), name, body, cursor: cursor.clone(), service };
            if let Err(error) = self.backend.spawn(Unit::Task(plan)) {
                self.tasks[index].stage = TaskStage::Ended(TaskOutcome::never_ran());
                self.note_task(index, TaskState::Created);
                let message = format!("no thread could be started for task `{}`: {error}", self.task(index).name);
                self.fail(Cause::new(Origin::Job, CauseKind::Spawn, message));
                return;
            }
            self.note_task(index, TaskState::Created);
        }
    }

    fn task(&self, index: usize) -> &GraphTask {
        &self.figures.graph().tasks[index]
    }

    /// A task, as what is left and as where a cause arose.
    pub(super) fn origin_of(&self, task: TaskId) -> (String, Origin) {
        let GraphTask { name, replica, .. } = self.task(task.0);
        (format!("task `{name}`"), Origin::Task { name: name.clone(), replica: *replica })
    }

    /// A task has come to another stage of its life; returns that before.
    fn task_becomes(&mut self, index: usize, stage: TaskStage) -> TaskStage {
        let before = std::mem::replace(&mut self.tasks[index].stage, stage);
        self.note_task(index, before.state());
        before
    }

    fn note_task(&self, index: usize, before: TaskState) {
        self.shared.changes().note(Noted::Task(index, before, self.tasks[index].stage.state()));
    }

    /// Whether a task runs. They have all been started, and none is again, so that those that have ended are looked at
    /// once.
    pub(super) fn is_any_running(&mut self) -> bool {
        while self.tasks.get(self.ended_tasks).is_some_and(|task| !task.is_running()) {
            self.ended_tasks += 1;
        }
        self.ended_tasks < self.tasks.len()
    }

    pub(super) fn on_task_ended(&mut self, task: TaskId, outcome: TaskOutcome) {
        if !self.tasks[task.0].is_running() {
            if !outcome.failures.is_empty() {
                self.strays.push(Box::new(outcome));
            }
            return;
        }
        let (failures, complete) = (outcome.failures.clone(), outcome.ending == Ending::Finished);
        self.notes.extend(outcome.notes.iter().cloned());
        self.task_becomes(task.0, TaskStage::Ended(outcome));
        let figures = self.figures.clone();
        let name = &figures.graph().tasks[task.0].name;
        self.trace(|| tracing::debug!(task = name, complete, "task ended"));
        self.log.dispatcher(format_args!("task {name} ended"));
        for failure in failures {
            if let Some(left) = failure.left_behind() {
                self.left_behind(task, &failure, left);
                continue;
            }
            let cause = self.cause_of(task, &failure);
            if failure.during == During::Close {
                self.left.push(Leftover { what: format!("task `{name}`"), why: cause.to_string() });
            }
            self.fail(cause);
        }
        self.settle_serving(Some(task.0));
    }

    /// Something of a task has not ended with it.
    fn left_behind(&mut self, task: TaskId, failure: &Failure, left: &LeftBehind) {
        let message = match failure.operator.and_then(|node| self.figures.operator_name(node)) {
            Some(operator) => format!("of `{operator}`: {left}"),
            None => left.to_string(),
        };
        let (what, origin) = self.origin_of(task);
        self.left.push(Leftover { what, why: message.clone() });
        self.attach(Cause::timeout(origin, message));
    }

    fn cause_of(&self, task: TaskId, failure: &Failure) -> Cause {
        if failure.operator.is_none() && failure.during == During::Drop {
            return Cause::of(self.origin_of(task).1, &failure.what);
        }
        let figures = &self.figures;
        let GraphTask { replica, chain, .. } = *self.task(task.0);
        let (record, phase) = match failure.during {
            // A source fails to read the record after the last one it gave.
            During::Record if failure.operator.is_some_and(|node| figures.is_source(node)) => {
                (Some(failure.record + 1), None)
            }
            During::Record => (Some(failure.record), None),
            During::Open => (None, Some("opening")),
            During::Finish => (None, Some("finishing")),
            During::Close => (None, Some("closing")),
            During::Drop => (None, Some("being dropped")),
        };
        let name = failure.operator.and_then(|node| figures.operator_name(node));
        let origin = Origin::Operator {
            name: name.unwrap_or_else(|| "engine".to_owned()),
            replica,
            parallelism: figures.graph().chains[chain - 1].parallelism,
            record,
            phase: phase.map(str::to_owned),
        };
        Cause::of(origin, &failure.what)
    }

    /// Sees to it that no job succeeds that has lost records: an operator can stop its task without giving a cause.
    pub(super) fn fail_if_incomplete(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let is_incomplete =
            |task: &TaskRecord| matches!(&task.stage, TaskStage::Ended(outcome) if outcome.ending != Ending::Finished);
        let Some(task) = self.tasks.iter().position(is_incomplete) else { return };
        let message = "an operator stopped it before the end of its input, without an error".to_owned();
        self.fail(Cause::new(self.origin_of(TaskId(task)).1, CauseKind::Error, message));
    }

    /// Gives up the tasks that still run, saying where each is.
    pub(super) fn abandon_tasks(&mut self) {
        for index in 0..self.tasks.len() {
            if !self.tasks[index].is_running() {
                continue;
            }
            self.task_becomes(index, TaskStage::Abandoned);
            let (chain, records) = (self.task(index).chain, self.tasks[index].cursor.records());
            let chain = self.figures.graph().chains[chain - 1].way();
            let message = format!(
                "did not come back within {:?} of the cancel, from `{chain}`, in the batch after record {records}; \
                 its thread is left",
                self.deadlines.cancel
            );
            let (what, origin) = self.origin_of(TaskId(index));
            self.left.push(Leftover { what, why: message.clone() });
            let message = self.with_place(message, |backend| backend.where_stuck(UnitId::Task(TaskId(index))));
            self.fail(Cause::timeout(origin, message));
        }
    }

    /// Drops what was built and never started, before the services its functions may hold handles of.
    pub(super) fn drop_waiting_tasks(&mut self) {
        let mut waiting: Vec<Box<dyn Any + Send>> = Vec::new();
        for index in 0..self.tasks.len() {
            if matches!(self.tasks[index].stage, TaskStage::Waiting(_)) {
                waiting.push(Box::new(self.task_becomes(index, TaskStage::Ended(TaskOutcome::never_ran()))));
            }
        }
        self.discard(waiting);
    }
}
