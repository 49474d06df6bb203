//! The meeting of a job's thread with its waiters under shuttle: everyone gets the one result, after the thread ended.

#![expect(dead_code, reason = "the engine's file is compiled whole; a model uses a part of it")]

mod sync {
    pub(crate) use std::sync::PoisonError;

    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod thread {
    use shuttle::thread::JoinHandle;

    #[derive(Debug)]
    pub(crate) struct OwnThread(pub(crate) JoinHandle<()>);

    impl OwnThread {
        pub(crate) fn join(self) {
            drop(self.0.join());
        }
    }
}

#[path = "../../../src/job/rendezvous.rs"]
mod engine;

use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::Rendezvous;
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicBool;
use shuttle::thread as shuttle_thread;

/// Sets a flag as the very last thing its thread does.
struct Ended(Arc<AtomicBool>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn contract_10_concurrent_waits_get_the_same_result_once_the_job_has_ended() {
    shuttle::check_random(
        || {
            let meeting = Arc::new(Rendezvous::new());
            let ended = Arc::new(AtomicBool::new(false));
            let runner = {
                let (meeting, ended) = (meeting.clone(), Ended(ended.clone()));
                shuttle_thread::spawn(move || {
                    let _ended = ended;
                    meeting.finish(7);
                })
            };
            meeting.set_runner(thread::OwnThread(runner));
            let waiters: Vec<_> = (0..3)
                .map(|nth| {
                    let (meeting, ended) = (meeting.clone(), ended.clone());
                    shuttle_thread::spawn(move || {
                        let result = match nth {
                            0 => meeting.wait_timeout(Duration::from_secs(3600)),
                            _ => meeting.wait(),
                        };
                        assert!(ended.load(Ordering::SeqCst), "a waiter returned before the job's thread had ended");
                        result
                    })
                })
                .collect();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Some(7));
            }
        },
        2000,
    );
}

#[test]
fn a_job_thread_that_dies_without_a_result_strands_nobody() {
    shuttle::check_random(
        || {
            let meeting = Arc::new(Rendezvous::<u32>::new());
            meeting.set_runner(thread::OwnThread(shuttle_thread::spawn(|| {})));
            let other = {
                let meeting = meeting.clone();
                shuttle_thread::spawn(move || meeting.wait())
            };
            assert_eq!(meeting.wait(), None);
            assert_eq!(other.join().unwrap(), None);
        },
        500,
    );
}
