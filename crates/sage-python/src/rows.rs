//! The rows of a report: one for each step of the program. Operators that the engine runs for a step, and steps that
//! the package adds to it, belong to the step's row.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use pyo3::intern;
use pyo3::prelude::*;
use sage::{CauseKind, Environment, FunctionReport, JobReport, OperatorReport, Origin, Outcome, WorkerReport};

use crate::metrics::Worked;
use crate::spec::Seconds;
use crate::steps::Step;

/// How a step is told of: see `python/sage/_plan.py`.
#[derive(FromPyObject)]
pub(crate) struct Told {
    /// What errors call it, where not by its own name.
    name: String,
    /// The position of the step whose row it is in.
    row: usize,
    /// Whether records of the row do not go through it, or as many as through the rest.
    is_aside: bool,
    /// Its functions, each with whether it gives one record for each; those of the package have no names.
    functions: Vec<(Option<String>, bool)>,
    /// The sink that it ends in.
    sink: Option<String>,
}

/// How the operators of the engine are told of.
#[derive(Default)]
pub(crate) struct Rows {
    steps: Vec<(String, Told, Worked)>,
    /// The step that an operator belongs to, by its name.
    of: HashMap<String, usize>,
    /// How many operators were declared.
    declared: usize,
    /// Whether something may cut off what functions do.
    pub(crate) cuts_off: bool,
    /// In Python: how many results of each step were `None` and so no records; see `python/sage/_nones.py`.
    pub(crate) nones: Option<Py<PyAny>>,
    /// In Python: how often functions were made anew; see `python/sage/_restarts.py`.
    pub(crate) restarts: Option<Py<PyAny>>,
    /// In Python: the list of what workers have told at their end; see `python/sage/_remote.py`.
    pub(crate) workers: Option<Py<PyAny>>,
    /// In Python: the list of what else the report is to note.
    pub(crate) notes: Option<Py<PyAny>>,
}

/// What a worker has told at its end.
#[derive(FromPyObject)]
struct Worker {
    operator: String,
    replica: usize,
    pid: u32,
    node: String,
    guard: String,
    cpu: Seconds,
    peak_bytes: u64,
    end: String,
}

impl Worker {
    fn report(self) -> WorkerReport {
        let Self { operator, replica, pid, node, guard, cpu, peak_bytes, end } = self;
        WorkerReport { operator, replica, pid, node, guard, cpu: cpu.0, peak_bytes, end }
    }
}

/// How many results of each step were `None` and so no records, by its name.
type Nones = HashMap<String, u64>;

/// How often the functions of each step were made anew, how many records' changes of their states were lost, and how
/// often they were called again as they were; by its name.
type Restarts = HashMap<String, (u64, u64, u64)>;

impl Rows {
    pub(crate) fn new(steps: &[Step]) -> Self {
        let of = steps.iter().enumerate().map(|(number, step)| (step.name.clone(), number)).collect();
        Self { of, ..Self::default() }
    }

    /// Notes a step, and what was declared for it.
    pub(crate) fn add(&mut self, env: &Environment, step: Step) {
        let new = env.operators_from(self.declared);
        self.declared += new.len();
        for name in new {
            self.of.entry(name).or_insert(self.steps.len());
        }
        self.steps.push((step.name, step.told, step.worked));
    }

    /// The step of an operator, and whether records of the row come to it before or behind that of the row's own step,
    /// which is equal; `None` aside.
    fn place(&self, operator: &str) -> Option<(usize, Option<Ordering>)> {
        let number = *self.of.get(operator)?;
        let (name, told, _) = &self.steps[number];
        let place = if operator == name {
            Some(number.cmp(&told.row)).filter(|_| !told.is_aside)
        } else {
            (operator == functions_of(name)).then_some(Ordering::Greater)
        };
        Some((number, place))
    }

    /// The program's step that an operator belongs to; the operator itself, where it belongs to none.
    pub(crate) fn step_of(&self, operator: &str) -> String {
        let number = self.of.get(operator).map(|number| self.steps[*number].1.row);
        number.map_or_else(|| operator.to_owned(), |number| self.steps[number].0.clone())
    }

    /// What the functions of an operator have worked on.
    pub(crate) fn worked(&self, operator: &str) -> Option<&Worked> {
        let (name, _, worked) = &self.steps[*self.of.get(operator)?];
        (name == operator).then_some(worked)
    }

    /// Whether the functions of an operator give one record for each.
    pub(crate) fn is_one_to_one(&self, operator: &str) -> bool {
        let told = self.of.get(operator).map(|number| &self.steps[*number].1);
        told.is_some_and(|told| told.functions.iter().all(|(_, is_one_to_one)| *is_one_to_one))
    }

    /// The results that were no records, and what the report is to say of them.
    fn nones(&self, py: Python<'_>) -> (Nones, Vec<String>) {
        let told = self.nones.as_ref().map(|nones| nones.call_method0(py, intern!(py, "told")));
        // They are counts only, for which a job that is over is not to fail.
        told.and_then(|told| told.ok()?.extract(py).ok()).unwrap_or_default()
    }

    fn restarts(&self, py: Python<'_>) -> Restarts {
        let told = self.restarts.as_ref().map(|restarts| restarts.call_method0(py, intern!(py, "told")));
        // As above.
        told.and_then(|told| told.ok()?.extract(py).ok()).unwrap_or_default()
    }

    /// Has a report tell of the program's steps.
    pub(crate) fn tell(&self, py: Python<'_>, report: &mut JobReport) {
        let is_whole = report.outcome == Outcome::Succeeded && !self.cuts_off;
        let (nones, notes) = self.nones(py);
        let restarts = self.restarts(py);
        report.notes.extend(notes);
        let notes = self.notes.as_ref().map(|notes| notes.extract::<Vec<String>>(py));
        report.notes.extend(notes.and_then(Result::ok).unwrap_or_default());
        // As above.
        let workers = self.workers.as_ref().map(|workers| workers.extract::<Vec<Worker>>(py));
        report.workers = workers.and_then(Result::ok).unwrap_or_default().into_iter().map(Worker::report).collect();
        report.workers.sort_by(|one, other| (&one.operator, one.replica).cmp(&(&other.operator, other.replica)));
        report.operators = self.rows(std::mem::take(&mut report.operators), &nones, &restarts, is_whole);
        for cause in report.first_cause.iter_mut().chain(&mut report.attached) {
            if let Origin::Operator { name, .. } | Origin::Task { name, .. } = &mut cause.origin
                && let Some(number) = self.of.get(name)
            {
                self.steps[*number].1.name.clone_into(name);
                if cause.kind == CauseKind::Timeout {
                    self.retell(&mut cause.message);
                }
            }
        }
        for left in &mut report.left {
            self.retell(&mut left.what);
            self.retell(&mut left.why);
        }
    }

    /// The rows of a job that runs.
    pub(crate) fn live(&self, operators: Vec<OperatorReport>) -> Vec<OperatorReport> {
        self.rows(operators, &Nones::default(), &Restarts::default(), false)
    }

    /// The figures of operators, by rows.
    fn rows(
        &self,
        operators: Vec<OperatorReport>,
        nones: &Nones,
        restarts: &Restarts,
        is_whole: bool,
    ) -> Vec<OperatorReport> {
        let (mut rows, mut parts, mut row_of) = (Vec::new(), Vec::new(), HashMap::new());
        for operator in operators {
            let Some((number, place)) = self.place(&operator.name) else { continue };
            let told = &self.steps[number].1;
            if place == Some(Ordering::Equal) {
                row_of.insert(number, rows.len());
                rows.push(told.row_of(operator, nones, restarts, is_whole));
            } else {
                // Behind a sink nothing comes out.
                let ends = place == Some(Ordering::Greater) && self.steps[told.row].1.sink.is_some();
                parts.push((told.row, place.filter(|_| !ends), operator));
            }
        }
        let mut timed: HashSet<usize> = rows.iter().map(|row| row.chain).collect();
        for (number, place, part) in parts {
            let Some(row) = row_of.get(&number) else { continue };
            fold(&mut rows[*row], place, part, &mut timed);
        }
        rows
    }

    /// Has the engine's words on what is left speak of steps, where they are of operators.
    fn retell(&self, words: &mut String) {
        for (name, number) in &self.of {
            let told = &self.steps[*number].1.name;
            if name != told && words.contains(&**name) {
                // A task is of the step's name already.
                *words =
                    words.replace(&format!("of `{name}`: "), "").replace(&format!("`{name}`"), &format!("`{told}`"));
            }
        }
    }
}

/// The operator that takes the results of an async step apart, behind the one that has the step's name.
pub(crate) fn functions_of(step: &str) -> String {
    format!("functions of {step}")
}

impl Told {
    fn row_of(&self, mut row: OperatorReport, nones: &Nones, restarts: &Restarts, is_whole: bool) -> OperatorReport {
        let functions = self.functions.iter().filter_map(|(name, _)| name.as_ref()).filter(|name| **name != self.name);
        for (restarted, lost, retried) in functions.chain([&self.name]).filter_map(|name| restarts.get(name)) {
            row.restarts += restarted;
            row.state_lost += lost;
            row.retries += retried;
        }
        if self.sink.is_some() {
            // Whether it is a sink of the engine's or not, nothing comes out of it; it has written them.
            let dropped: u64 = (0..self.functions.len()).map(|index| self.dropped(index, nones)).sum();
            row.records_out = row.records_in.saturating_sub(row.failed + dropped);
        }
        if is_whole {
            row.functions = self.counted(&row, nones);
        }
        row
    }

    /// How many results of one of its functions were no records.
    fn dropped(&self, index: usize, nones: &Nones) -> u64 {
        self.functions[index].0.as_ref().and_then(|name| nones.get(name)).copied().unwrap_or_default()
    }

    /// What each function has taken and given. Nothing is counted between them: so it is known as far as they give one
    /// record for each, or none where that is counted.
    fn counted(&self, row: &OperatorReport, nones: &Nones) -> Vec<FunctionReport> {
        let mut between = vec![Some(row.records_in)];
        for (index, (_, one_to_one)) in self.functions.iter().enumerate() {
            let before = between[index].filter(|_| *one_to_one);
            between.push(before.map(|records| records.saturating_sub(self.dropped(index, nones))));
        }
        if self.sink.is_none() {
            let mut behind = row.records_out;
            for (index, (_, one_to_one)) in self.functions.iter().enumerate().rev() {
                between[index + 1] = between[index + 1].or(Some(behind));
                behind += self.dropped(index, nones);
                if !one_to_one {
                    break;
                }
            }
        }
        let named = self.functions.iter().zip(between.windows(2)).filter_map(|((name, _), counts)| {
            Some(FunctionReport { name: name.clone()?, records_in: counts[0], records_out: counts[1] })
        });
        let functions: Vec<_> = named.collect();
        if functions.len() > 1 { functions } else { Vec::new() }
    }
}

/// Adds a part to a row. Its time, where no row has that of its chain.
fn fold(row: &mut OperatorReport, place: Option<Ordering>, part: OperatorReport, timed: &mut HashSet<usize>) {
    if place == Some(Ordering::Less) {
        row.records_in = part.records_in;
        row.functions.iter_mut().take(1).for_each(|first| first.records_in = Some(part.records_in));
    } else if place == Some(Ordering::Greater) {
        row.records_out = part.records_out;
        row.functions.iter_mut().last().into_iter().for_each(|last| last.records_out = Some(part.records_out));
    }
    row.failed += part.failed;
    row.retries += part.retries;
    row.late += part.late;
    row.dropped_windows += part.dropped_windows;
    row.first_error = row.first_error.take().or(part.first_error);
    if timed.insert(part.chain) {
        row.busy += part.busy;
        row.blocked += part.blocked;
    }
}
