//! Who is next: a bounded queue in which namespaces take turns (card §6.5, §19).
//!
//! Pure: no tasks, no clock. Every operation costs a constant time on average, however many wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How much may run at once and wait at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Everything that runs.
    pub(super) total: usize,
    /// What runs in one namespace.
    pub(super) per_namespace: usize,
    /// What waits.
    pub(super) waiting: usize,
}

impl Limits {
    /// Suspects of all namespaces together, and of one namespace: half of the slots.
    fn suspects(self) -> usize {
        (self.total / 2).max(1)
    }

    fn suspects_per_namespace(self) -> usize {
        (self.per_namespace / 2).max(1)
    }

    /// So many slots serve suspects first, or they would never come back while everybody else is busy.
    fn suspects_first(self) -> usize {
        (self.total / 8).max(1)
    }
}

/// A slot that was handed out; give it back with [`FairQueue::done`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    namespace: Arc<str>,
    suspect: bool,
}

impl Ticket {
    /// It is one of the slots of suspects.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }
}

/// Two queues per namespace (good and suspect) and two circles of namespaces.
pub(super) struct FairQueue<T> {
    limits: Limits,
    lanes: HashMap<Arc<str>, Lane<T>>,
    circles: [VecDeque<Arc<str>>; 2],
    waiting: usize,
    active: usize,
    active_suspects: usize,
}

struct Lane<T> {
    /// Good and suspect jobs, in the order of arrival.
    jobs: [VecDeque<T>; 2],
    /// Whether the namespace stands in the circle of that kind.
    in_circle: [bool; 2],
    active: usize,
    active_suspects: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            jobs: [VecDeque::new(), VecDeque::new()],
            in_circle: [false; 2],
            active: 0,
            active_suspects: 0,
        }
    }
}

impl<T> Lane<T> {
    fn may_start(&self, suspect: bool, limits: Limits) -> bool {
        !self.queue(suspect).is_empty()
            && self.active < limits.per_namespace
            && (!suspect || self.active_suspects < limits.suspects_per_namespace())
    }

    fn queue(&self, suspect: bool) -> &VecDeque<T> {
        let [good, suspects] = &self.jobs;
        if suspect { suspects } else { good }
    }

    fn queue_mut(&mut self, suspect: bool) -> &mut VecDeque<T> {
        let [good, suspects] = &mut self.jobs;
        if suspect { suspects } else { good }
    }

    fn flag(&mut self, suspect: bool) -> &mut bool {
        let [good, suspects] = &mut self.in_circle;
        if suspect { suspects } else { good }
    }

    fn is_idle(&self) -> bool {
        self.active == 0 && self.jobs.iter().all(VecDeque::is_empty)
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            circles: [VecDeque::new(), VecDeque::new()],
            waiting: 0,
            active: 0,
            active_suspects: 0,
        }
    }

    /// Jobs that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Jobs that run.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Queues a job; gives it back when too many wait.
    pub(super) fn push(&mut self, namespace: &Arc<str>, suspect: bool, job: T) -> Result<(), T> {
        if self.waiting >= self.limits.waiting {
            return Err(job);
        }
        self.waiting += 1;
        self.lanes.entry(namespace.clone()).or_default().queue_mut(suspect).push_back(job);
        self.enter_circles(namespace);
        Ok(())
    }

    /// The next job that may start, with its slot.
    pub(super) fn pop(&mut self) -> Option<(Ticket, T)> {
        if self.active >= self.limits.total {
            return None;
        }
        if self.active_suspects < self.limits.suspects_first()
            && let Some(next) = self.pop_kind(true)
        {
            return Some(next);
        }
        if let Some(next) = self.pop_kind(false) {
            return Some(next);
        }
        if self.active_suspects < self.limits.suspects() { self.pop_kind(true) } else { None }
    }

    /// A good job waits for nothing but this slot.
    pub(super) fn is_wanted(&self, ticket: &Ticket) -> bool {
        let own = self.lanes.get(&ticket.namespace);
        let namespace_is_full =
            own.is_some_and(|lane| !lane.queue(false).is_empty() && lane.active >= self.limits.per_namespace);
        let [good, _] = &self.circles;
        let all_is_full = self.active >= self.limits.total
            && good
                .iter()
                .any(|name| self.lanes.get(name).is_some_and(|lane| lane.may_start(false, self.limits)));
        namespace_is_full || all_is_full
    }

    /// Gives a slot back.
    pub(super) fn done(&mut self, ticket: &Ticket) {
        self.active = self.active.saturating_sub(1);
        self.active_suspects = self.active_suspects.saturating_sub(usize::from(ticket.suspect));
        if let Some(lane) = self.lanes.get_mut(&ticket.namespace) {
            lane.active = lane.active.saturating_sub(1);
            lane.active_suspects = lane.active_suspects.saturating_sub(usize::from(ticket.suspect));
            if lane.is_idle() {
                self.lanes.remove(&ticket.namespace);
            } else {
                self.enter_circles(&ticket.namespace);
            }
        }
    }

    fn pop_kind(&mut self, suspect: bool) -> Option<(Ticket, T)> {
        // A namespace that may not start anything leaves the circle; `push` and `done` bring it back.
        while let Some(namespace) = self.circle(suspect).pop_front() {
            let limits = self.limits;
            let Some(lane) = self.lanes.get_mut(&namespace) else { continue };
            *lane.flag(suspect) = false;
            if !lane.may_start(suspect, limits) {
                continue;
            }
            let Some(job) = lane.queue_mut(suspect).pop_front() else { continue };
            lane.active += 1;
            lane.active_suspects += usize::from(suspect);
            self.active += 1;
            self.active_suspects += usize::from(suspect);
            self.waiting = self.waiting.saturating_sub(1);
            self.enter_circles(&namespace);
            return Some((Ticket { namespace, suspect }, job));
        }
        None
    }

    fn enter_circles(&mut self, namespace: &Arc<str>) {
        let limits = self.limits;
        for suspect in [false, true] {
            let Some(lane) = self.lanes.get_mut(namespace) else { return };
            if lane.may_start(suspect, limits) && !*lane.flag(suspect) {
                *lane.flag(suspect) = true;
                self.circle(suspect).push_back(namespace.clone());
            }
        }
    }

    fn circle(&mut self, suspect: bool) -> &mut VecDeque<Arc<str>> {
        let [good, suspects] = &mut self.circles;
        if suspect { suspects } else { good }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { total: 8, per_namespace: 4, waiting: 1000 };

    fn filled(jobs: impl IntoIterator<Item = (&'static str, bool, u32)>) -> FairQueue<u32> {
        let mut queue = FairQueue::new(LIMITS);
        for (namespace, suspect, job) in jobs {
            queue.push(&namespace.into(), suspect, job).expect("room");
        }
        queue
    }

    fn start_all(queue: &mut FairQueue<u32>) -> Vec<(Ticket, u32)> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    fn jobs(started: &[(Ticket, u32)]) -> Vec<u32> {
        started.iter().map(|(_, job)| *job).collect()
    }

    #[test]
    fn namespaces_take_turns() {
        let many = (0..100).map(|job| ("big", false, job));
        let mut queue = filled(many.chain([("small", false, 900), ("tiny", false, 901)]));
        assert_eq!(jobs(&start_all(&mut queue)), [0, 900, 901, 1, 2, 3], "four of the big one, no more");
        assert_eq!((queue.active(), queue.waiting()), (6, 96));
    }

    #[test]
    fn a_free_slot_goes_to_the_namespace_that_was_full() {
        let mut queue = filled((0..6).map(|job| ("big", false, job)));
        let started = start_all(&mut queue);
        assert_eq!(jobs(&started), [0, 1, 2, 3]);
        assert!(queue.pop().is_none());
        queue.done(&started[2].0);
        assert_eq!(jobs(&start_all(&mut queue)), [4]);
    }

    #[test]
    fn the_total_is_bounded() {
        let names = ["a", "b", "c", "d", "e"];
        let mut queue = filled((0..20).map(|job| (names[job as usize % 5], false, job)));
        assert_eq!(start_all(&mut queue).len(), 8);
        assert!(queue.pop().is_none());
    }

    #[test]
    fn suspects_take_half_of_a_namespace_and_half_of_all() {
        let mut queue = filled((0..10).map(|job| ("a", true, job)));
        assert_eq!(start_all(&mut queue).len(), 2);
        let names = ["a", "b", "c", "d"];
        let mut queue = filled((0..40).map(|job| (names[job as usize % 4], true, job)));
        let started = start_all(&mut queue);
        assert_eq!(started.len(), 4);
        queue.push(&"z".into(), false, 99).expect("room");
        assert_eq!(jobs(&start_all(&mut queue)), [99], "a good one finds a slot at once");
    }

    #[test]
    fn suspects_come_back_while_all_others_are_busy() {
        let names = ["a", "b", "c"];
        let good = (0..60).map(|job| (names[job as usize % 3], false, job));
        let mut queue = filled(good.chain([("d", true, 100), ("d", true, 101)]));
        let started = start_all(&mut queue);
        assert_eq!(jobs(&started).iter().filter(|job| **job >= 100).count(), 1, "an eighth of the slots");
    }

    #[test]
    fn both_limits_that_one_slot_frees_are_seen() {
        // All suspect slots of the process are taken: two each by a and b; c waits, and so does a.
        let jobs_of = [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4), ("c", 5)];
        let mut queue = filled(jobs_of.map(|(namespace, job)| (namespace, true, job)));
        let started = start_all(&mut queue);
        assert_eq!(started.len(), 4);
        for (ticket, _) in &started {
            queue.done(ticket);
        }
        assert_eq!(start_all(&mut queue).len(), 2, "nothing is forgotten");
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_slot_is_wanted_when_a_good_job_waits_for_it() {
        let mut queue = filled((0..4).map(|job| ("a", false, job)));
        let started = start_all(&mut queue);
        let ticket = &started[0].0;
        assert!(!queue.is_wanted(ticket), "nobody waits");
        queue.push(&"b".into(), false, 10).expect("room");
        assert!(!queue.is_wanted(ticket), "it need not wait");
        let others = start_all(&mut queue);
        queue.push(&"a".into(), true, 11).expect("room");
        assert!(!queue.is_wanted(ticket), "a suspect has to wait");
        queue.push(&"a".into(), false, 12).expect("room");
        assert!(queue.is_wanted(ticket) && !queue.is_wanted(&others[0].0), "the namespace is full");

        let mut queue = filled((0..8).map(|job| (["a", "b"][job as usize % 2], false, job)));
        let started = start_all(&mut queue);
        assert_eq!(queue.active(), LIMITS.total);
        queue.push(&"c".into(), false, 20).expect("room");
        assert!(started.iter().all(|(ticket, _)| queue.is_wanted(ticket)), "all slots are taken");
    }

    #[test]
    fn a_full_queue_gives_the_job_back() {
        let mut queue = FairQueue::new(Limits { waiting: 1, ..LIMITS });
        assert_eq!(queue.push(&"a".into(), false, 1), Ok(()));
        assert_eq!(queue.push(&"a".into(), false, 2), Err(2));
        let (ticket, _) = queue.pop().expect("a job");
        assert_eq!(queue.push(&"a".into(), false, 3), Ok(()));
        queue.done(&ticket);
        assert_eq!(queue.pop().map(|(_, job)| job), Some(3));
    }

    #[test]
    fn idle_namespaces_are_forgotten() {
        let mut queue = filled((0..3).map(|job| ("a", job == 1, job)));
        let started = start_all(&mut queue);
        for (ticket, _) in &started {
            queue.done(ticket);
        }
        assert!(queue.lanes.is_empty() && queue.circles.iter().all(VecDeque::is_empty));
        assert_eq!((queue.active, queue.active_suspects, queue.waiting), (0, 0, 0));
    }

    /// Whatever comes and ends in whatever order: no limit is passed, nothing that may start waits, nothing is lost.
    #[test]
    fn limits_hold_in_any_order() {
        let names = ["a", "b", "c", "d", "e", "f"];
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut queue = FairQueue::new(LIMITS);
            let (mut pushed, mut ended, mut running) = (0, 0, Vec::new());
            for _ in 0..2000 {
                if random.bool() {
                    let namespace = names[random.usize(..names.len())];
                    pushed += u32::from(queue.push(&namespace.into(), random.bool(), 0).is_ok());
                } else if !running.is_empty() {
                    let (ticket, _): (Ticket, u32) = running.swap_remove(random.usize(..running.len()));
                    queue.done(&ticket);
                    ended += 1;
                }
                running.extend(start_all(&mut queue));
                assert!(running.len() <= LIMITS.total && running.len() == queue.active());
                let suspects = running.iter().filter(|(ticket, _)| ticket.suspect).count();
                assert!(suspects <= LIMITS.suspects());
                for name in names {
                    let here = running.iter().filter(|(ticket, _)| &*ticket.namespace == name);
                    assert!(here.clone().count() <= LIMITS.per_namespace);
                    assert!(
                        here.filter(|(ticket, _)| ticket.suspect).count() <= LIMITS.suspects_per_namespace()
                    );
                }
            }
            while let Some((ticket, _)) = running.pop() {
                queue.done(&ticket);
                ended += 1;
                running.extend(start_all(&mut queue));
            }
            assert_eq!((ended, queue.waiting(), queue.active()), (pushed, 0, 0));
        }
    }
}
