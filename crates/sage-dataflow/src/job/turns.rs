//! The order of services: one starts once all services it uses are ready, and stops once no service uses it any more.
//!
//! Each service and each use between two is looked at once, however many there are. Knows nothing of states and hooks:
//! the dispatcher tells it each event.

use std::collections::VecDeque;

/// The services of a job, by number.
#[derive(Debug, Default)]
pub(super) struct Turns {
    uses: Vec<Vec<usize>>,
    users: Vec<Vec<usize>>,
    /// How many services hold each one back: from starting those it uses, later from stopping those that use it.
    held_by: Vec<usize>,
    /// Whose turn it is.
    due: VecDeque<usize>,
    /// Which ones have not come to their end; empty before the job stops.
    live: Vec<bool>,
    live_count: usize,
    /// How many of the uses that were observed are known here.
    observed: usize,
}

impl Turns {
    /// For starting: those that use no other come first.
    pub(super) fn new(uses: Vec<Vec<usize>>) -> Self {
        let mut users = vec![Vec::new(); uses.len()];
        for (user, used) in uses.iter().enumerate().flat_map(|(user, uses)| uses.iter().map(move |used| (user, *used)))
        {
            users[used].push(user);
        }
        let held_by: Vec<usize> = uses.iter().map(Vec::len).collect();
        let due = (0..uses.len()).filter(|&service| held_by[service] == 0).collect();
        Self { uses, users, held_by, due, ..Self::default() }
    }

    /// The next whose turn it is; it comes once, unless it is said to be due again.
    pub(super) fn next(&mut self) -> Option<usize> {
        while let Some(service) = self.due.pop_front() {
            if self.held_by[service] == 0 {
                return Some(service);
            }
        }
        None
    }

    /// It may be this one's turn, as far as it is itself concerned.
    pub(super) fn is_due(&mut self, service: usize) {
        self.due.push_back(service);
    }

    /// A service is ready: those that use it wait for one less.
    pub(super) fn is_ready(&mut self, service: usize) {
        if self.live.is_empty() {
            Self::release(&mut self.held_by, &mut self.due, &self.users[service]);
        }
    }

    /// From here on the turns are those of stopping. `live` says which services have something to stop.
    pub(super) fn stop(&mut self, live: Vec<bool>) {
        self.live_count = live.iter().filter(|live| **live).count();
        let live_users = |users: &Vec<usize>| users.iter().filter(|user| live[**user]).count();
        self.held_by = self.users.iter().map(live_users).collect();
        self.due = (0..live.len()).filter(|&service| live[service]).collect();
        self.live = live;
    }

    /// How many of the observed uses it was told.
    pub(super) fn observed(&self) -> usize {
        self.observed
    }

    /// Further uses were observed: pairs of user and used.
    pub(super) fn observe(&mut self, uses: Vec<(usize, usize)>) {
        self.observed += uses.len();
        for (user, used) in uses {
            self.uses[user].push(used);
            self.users[used].push(user);
            if self.live.get(user).is_some_and(|live| *live) {
                self.held_by[used] += 1;
            }
        }
    }

    /// A service has come to its end: it holds none of those it uses back any more.
    pub(super) fn is_over(&mut self, service: usize) {
        if std::mem::take(&mut self.live[service]) {
            self.live_count -= 1;
            Self::release(&mut self.held_by, &mut self.due, &self.uses[service]);
        }
    }

    /// Whether all have come to their end.
    pub(super) fn are_over(&self) -> bool {
        self.live_count == 0
    }

    fn release(held_by: &mut [usize], due: &mut VecDeque<usize>, services: &[usize]) {
        for &service in services {
            held_by[service] -= 1;
            if held_by[service] == 0 {
                due.push_back(service);
            }
        }
    }
}
