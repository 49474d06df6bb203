//! Clauses 24 and 25: nothing grows, and nothing is paid for what is not used.

use std::fs;
use std::time::{Duration, Instant};

use sage::testing::Census;
use sage::{Environment, JobState, SignalPolicy};

use super::{add_held_pipeline, await_status, cancelled, running};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, Probe, Probed};

/// The memory this process has allocated, in bytes. Two kinds of pages are not counted: those of its program file,
/// which come and go as code is run for the first time, and those the allocator keeps of what was freed. It keeps some
/// for each of up to eight arenas a core, and how many arenas are in use depends on which threads allocate at once: 900
/// runs beside a busy machine left up to 4 MB free in them.
fn allocated_bytes() -> u64 {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free pages of the heap back to the system, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 and later have it");
    let kibibytes: u64 = anonymous.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes << 10
}

/// One job of everything: an exchange, a service, a log that is not asked for.
fn run_one_job(nth: u64) {
    let env = Environment::local("one of many");
    let journal = Journal::new();
    let db = Probe::new("db", &journal).register(&env).build();
    let fails = nth % 7 == 3;
    env.from_iter(0..10_u64)
        .try_map(move |n| db.call(Probed::touch).map(|()| n))
        .rebalance(2)
        .try_sink(move |n| if fails && n == 5 { Err("broke") } else { Ok(()) });
    if nth % 5 == 4 {
        drop(env.submit().expect("nothing is wrong with the declaration"));
    } else {
        assert_eq!(env.run().is_err(), fails);
    }
    assert_eq!(journal.count("db constructor"), journal.count("db drop"));
}

#[test]
fn contract_24_ten_thousand_jobs_in_one_process_leave_nothing() {
    leak_free(|watch| {
        std::panic::set_hook(Box::new(|_| {}));
        (0..500).for_each(run_one_job);
        watch.expect_left(&[]);
        let (before, allocated) = (Census::take(), allocated_bytes());
        (0..9500).for_each(run_one_job);
        watch.expect_left(&[]);
        let after = Census::take();
        assert_eq!(after.thread_count(), before.thread_count());
        assert_eq!(after.descriptor_count(), before.descriptor_count());
        let grown = allocated_bytes().saturating_sub(allocated);
        assert!(grown < 4 << 20, "{grown} bytes in 9500 jobs");
        drop(std::panic::take_hook());
    });
}

#[test]
fn contract_24_a_thousand_runs_of_one_environment_leave_nothing() {
    leak_free(|watch| {
        let env = Environment::local("again");
        let journal = Journal::new();
        let count = journal.clone();
        Probe::new("db", &Journal::new()).register(&env).build();
        env.from_collection((0..100_u64).collect())
            .key_by(|n| n % 3)
            .count()
            .parallelism(2)
            .sink(move |_| count.note("sum"));
        (0..100).for_each(|_| drop(env.run().unwrap()));
        watch.expect_left(&[]);
        let allocated = allocated_bytes();
        (0..900).for_each(|_| drop(env.run().unwrap()));
        assert_eq!(journal.count("sum"), 3000);
        let grown = allocated_bytes().saturating_sub(allocated);
        assert!(grown < 4 << 20, "{grown} bytes in 900 runs");
    });
}

#[test]
fn contract_24_memory_does_not_grow_with_the_number_of_records() {
    leak_free(|_| {
        let growth_over = |records: u64| {
            // Lanes grow to their limit when one thread is slower than another: at most 4 lanes of 8 blocks of 32 KiB
            // here.
            let env = Environment::local("flat").queue_blocks(8);
            let journal = Journal::new();
            let noted = journal.clone();
            let at = [records / 10, records - 1];
            env.from_iter(0..records).on_another_thread().map(|n| n).parallelism(2).on_another_thread().sink(
                move |n| {
                    if at.contains(&n) {
                        noted.note(allocated_bytes());
                    }
                },
            );
            env.run().unwrap();
            let allocated: Vec<u64> = journal.events().iter().map(|bytes| bytes.parse().unwrap()).collect();
            allocated[1].saturating_sub(allocated[0])
        };
        let grown = growth_over(3_000_000);
        assert!(grown < 2 << 20, "{grown} bytes from a tenth of the records to the last");
    });
}

#[test]
fn contract_25_a_job_without_services_has_no_thread_but_its_tasks() {
    leak_free(|watch| {
        let env = Environment::local("bare").signals(SignalPolicy::Off);
        let gate = Gate::new();
        add_held_pipeline(&env, &gate);
        std::thread::scope(|scope| {
            let watcher = std::thread::Builder::new().name("watcher".to_owned()).spawn_scoped(scope, || {
                gate.await_arrivals(1);
                watch.expect_left(&["watcher", "collection-1"]);
                gate.open();
            });
            env.run().unwrap();
            watcher.unwrap().join().unwrap();
        });
    });
}

#[test]
fn contract_25_the_end_comes_within_milliseconds_of_the_last_record() {
    leak_free(|_| {
        let mut took: Vec<Duration> = (0..21)
            .map(|_| {
                let env = Environment::local("prompt");
                let journal = Journal::new();
                for name in ["a", "b", "c"] {
                    Probe::new(name, &journal).register(&env).build();
                }
                let last = std::sync::Arc::new(std::sync::Mutex::new(None));
                let at = last.clone();
                env.from_iter(0..1000).rebalance(2).sink(move |_| *at.lock().unwrap() = Some(Instant::now()));
                env.run().unwrap();
                let last = last.lock().unwrap().unwrap();
                last.elapsed()
            })
            .collect();
        took.sort();
        // The median, as other processes share this machine.
        assert!(took[10] < Duration::from_millis(20), "{took:?}");
    });
}

#[test]
fn contract_25_a_job_waits_for_records_without_using_the_processor() {
    leak_free(|_| {
        let env = Environment::local("idle");
        let (gate, journal) = (Gate::new(), Journal::new());
        let held = gate.clone();
        Probe::new("db", &journal).register(&env).build();
        env.from_iter(0..2)
            .inspect(move |n| {
                if *n == 1 {
                    held.pass()
                }
            })
            .on_another_thread()
            .map(|n| n)
            .parallelism(2)
            .sink(|_| {});
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let before = processor_time();
        assert!(job.wait_timeout(Duration::from_millis(300)).is_none());
        let used = processor_time() - before;
        gate.open();
        job.wait().unwrap();
        assert!(used < Duration::from_millis(30), "{used:?} in 300 ms of waiting");
    });
}

#[test]
fn contract_25_a_paused_job_uses_no_processor() {
    leak_free(|_| {
        let env = Environment::local("paused");
        super::add_endless_pipeline(&env);
        let job = running(&env);
        job.pause();
        await_status(&job, JobState::Paused);
        // What is in flight is processed first.
        assert!(job.wait_timeout(Duration::from_millis(100)).is_none());
        let before = processor_time();
        assert!(job.wait_timeout(Duration::from_millis(200)).is_none());
        let used = processor_time() - before;
        cancelled(&job);
        assert!(used < Duration::from_millis(20), "{used:?} in 200 ms of pause");
    });
}

/// The processor time this process has used.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(read, 0, "the process has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
