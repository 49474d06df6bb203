//! Services with async hooks and methods, under the same clauses.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sage::{
    AsyncService, BoxError, CallError, CauseKind, Environment, HookContext, Outcome, Service, ServiceHandle,
    ServiceState,
};

use super::{SHORT, add_pipeline, left};
use crate::leaks::leak_free;
use crate::probes::{Gate, Journal, failed};

/// An async service that waits for a timer in every hook, and hangs or fails where the test says.
struct Remote {
    journal: Journal,
    fail_in: &'static str,
    hang_in: &'static str,
}

impl Remote {
    async fn hook(&self, hook: &str) -> Result<(), BoxError> {
        self.journal.note(hook);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.hang_in == hook {
            std::future::pending::<()>().await;
        }
        assert_ne!(self.fail_in, hook, "panics in {hook}");
        self.journal.note(format_args!("{hook} ended"));
        Ok(())
    }

    async fn double(&self, n: u64) -> u64 {
        tokio::time::sleep(Duration::from_micros(100)).await;
        n * 2
    }
}

impl AsyncService for Remote {
    async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("setup").await
    }
    async fn health(&self) -> Result<(), BoxError> {
        self.hook("health").await
    }
    async fn stop(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("stop").await
    }
    async fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        self.hook("cleanup").await
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.journal.note("drop");
    }
}

fn register(
    env: &Environment,
    journal: &Journal,
    fail_in: &'static str,
    hang_in: &'static str,
) -> ServiceHandle<Remote> {
    let journal = journal.clone();
    env.register_async_service("remote", move || Remote { journal: journal.clone(), fail_in, hang_in })
        .setup_timeout(if hang_in == "setup" { SHORT } else { Duration::from_secs(60) })
        .stop_timeout(if hang_in == "stop" { SHORT } else { Duration::from_secs(60) })
        .cleanup_timeout(if hang_in == "cleanup" { SHORT } else { Duration::from_secs(60) })
        .build()
}

#[test]
fn async_hooks_and_calls_run_on_the_jobs_own_runtime_with_timers() {
    leak_free(|_| {
        let env = Environment::local("async");
        let journal = Journal::new();
        let remote = register(&env, &journal, "", "");
        let out = env
            .from_collection((0..20_u64).collect())
            .try_map(move |n| remote.call_blocking(|remote| async move { remote.double(n).await }))
            .parallelism(2)
            .collect();
        for _ in 0..2 {
            let report = env.run().unwrap();
            assert_eq!(crate::probes::sorted(out.take()), (0..20).map(|n| n * 2).collect::<Vec<_>>());
            assert_eq!(report.service("remote").unwrap().calls, 20);
        }
        let run = ["setup", "setup ended", "stop", "stop ended", "cleanup", "cleanup ended", "drop"];
        assert_eq!(journal.events(), [run, run].concat());
    });
}

#[test]
fn a_job_without_async_services_starts_no_runtime() {
    leak_free(|watch| {
        let env = Environment::local("sync").signals(sage::SignalPolicy::Off);
        let gate = Gate::new();
        super::add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        watch.expect_left(&["collection-1", "sage-dispatcher"]);
        gate.open();
        job.wait().unwrap();
    });
}

#[test]
fn contract_08_an_async_call_in_flight_ends_before_cleanup() {
    leak_free(|_| {
        let env = Environment::local("async");
        let (journal, gate) = (Journal::new(), Gate::new());
        let remote = register(&env, &journal, "", "");
        super::add_held_pipeline(&env, &gate);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        runtime.block_on(async {
            let noted = journal.clone();
            let call = remote.call_async(|remote| async move {
                gate.open();
                // The job is over but for this call, which sees the service's stop.
                while remote.journal.count("stop ended") == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                noted.note("call ended");
            });
            call.await.unwrap();
        });
        job.wait().unwrap();
        journal.assert_order(&["stop ended", "call ended", "cleanup", "drop"]);
        assert!(matches!(runtime.block_on(remote.call_async(|_| async {})), Err(CallError::NotServing { .. })));
    });
}

#[test]
fn contract_07a_dropping_the_future_of_an_async_call_ends_the_call() {
    leak_free(|_| {
        let env = Environment::local("async");
        let (journal, gate) = (Journal::new(), Gate::new());
        let remote = register(&env, &journal, "", "");
        super::add_held_pipeline(&env, &gate);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        runtime.block_on(async {
            let hanging = remote.call_async(|_remote| std::future::pending::<()>());
            assert!(tokio::time::timeout(Duration::from_millis(5), hanging).await.is_err());
        });
        gate.open();
        // Had the call stayed inside, stopping would have waited for it for a minute.
        let report = job.wait().unwrap();
        assert!(report.elapsed < Duration::from_secs(30));
        assert_eq!(journal.count("drop"), 1);
    });
}

#[test]
fn contract_14_an_async_hook_past_its_deadline_is_dropped_and_its_service_abandoned() {
    leak_free(|_| {
        for hang_in in ["setup", "stop", "cleanup"] {
            let env = Environment::local("async");
            let journal = Journal::new();
            register(&env, &journal, "", hang_in);
            add_pipeline(&env);
            let report = failed(env.run());
            assert!(report.elapsed >= SHORT && report.elapsed < Duration::from_secs(30));
            assert_eq!(report.outcome, if hang_in == "setup" { Outcome::Failed } else { Outcome::Succeeded });
            assert_eq!(left(&report), ["service `remote`"], "{hang_in}: {report}");
            assert_eq!(report.service("remote").unwrap().state, ServiceState::Abandoned, "{hang_in}: {report}");
            let cause = report.first_cause.unwrap();
            assert_eq!(cause.kind, CauseKind::Timeout, "{hang_in}: {cause}");
            assert_eq!(cause.place().to_string(), format!("service `remote`, in its {hang_in}"));
            assert_eq!(journal.count("cleanup"), 1, "{hang_in}");
        }
    });
}

#[test]
fn contract_15_a_panic_in_an_async_hook_is_attributed_to_it() {
    leak_free(|_| {
        for fail_in in ["setup", "stop", "cleanup"] {
            let env = Environment::local("async");
            let journal = Journal::new();
            register(&env, &journal, fail_in, "");
            add_pipeline(&env);
            let report = failed(env.run());
            let cause = report.first_cause.unwrap();
            assert_eq!(cause.kind, CauseKind::Panic);
            assert_eq!(cause.place().to_string(), format!("service `remote`, in its {fail_in}"));
            assert_eq!((journal.count("cleanup"), journal.count("drop")), (1, 1));
        }
    });
}

#[test]
fn contract_15_an_async_call_that_panics_fails_its_operator_and_counts_as_an_error() {
    leak_free(|_| {
        let env = Environment::local("async");
        let journal = Journal::new();
        let remote = register(&env, &journal, "call", "");
        env.from_iter([1])
            .try_map(move |_| remote.call_blocking(|remote| async move { remote.hook("call").await }))
            .named("caller")
            .sink(drop);
        let report = failed(env.run());
        let cause = report.first_cause.as_ref().unwrap();
        assert_eq!((cause.kind, cause.place().to_string().as_str()), (CauseKind::Panic, "operator `caller`, record 1"));
        let remote = report.service("remote").unwrap();
        assert_eq!((remote.state, remote.calls, remote.errors), (ServiceState::Cleaned, 1, 1));
    });
}

#[test]
fn contract_07_an_async_use_of_another_service_counts_for_the_stop_order() {
    struct Front(Arc<OnceLock<ServiceHandle<Remote>>>, Journal);
    impl AsyncService for Front {
        async fn setup(&self, _cx: &HookContext) -> Result<(), BoxError> {
            let back = self.0.get().expect("registered below");
            assert_eq!(back.call_async(|back| async move { back.double(2).await }).await?, 4);
            self.1.note("front ready");
            Ok(())
        }
        async fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
            let back = self.0.get().expect("registered below");
            back.call_async(|back| async move { back.double(2).await }).await?;
            self.1.note("front cleaned");
            Ok(())
        }
    }
    leak_free(|_| {
        let env = Environment::local("async");
        let journal = Journal::new();
        let back = Arc::new(OnceLock::new());
        let (used, noted) = (back.clone(), journal.clone());
        env.register_async_service("front", move || Front(used.clone(), noted.clone())).build();
        assert!(back.set(register(&env, &journal, "", "")).is_ok());
        add_pipeline(&env);
        env.run().unwrap();
        journal.assert_order(&["setup ended", "front ready", "front cleaned", "stop", "cleanup", "drop"]);
    });
}

struct Plain;
impl Service for Plain {}

#[test]
fn call_blocking_inside_an_async_runtime_is_a_typed_error() {
    leak_free(|_| {
        let env = Environment::local("nested");
        let journal = Journal::new();
        let remote = register(&env, &journal, "", "");
        let plain = env.register_service("plain", || Plain).build();
        let out = env
            .from_iter([1])
            .map(move |_| {
                let nested = remote.clone();
                let inside = plain.call_blocking(|_plain| async move { nested.call_blocking(|_remote| async {}) });
                inside.unwrap().unwrap_err()
            })
            .collect();
        env.run().unwrap();
        assert!(matches!(out.take().as_slice(), [CallError::Runtime { .. }]));
    });
}

#[test]
fn health_is_asked_of_every_service_that_serves() {
    struct Sick;
    impl Service for Sick {
        fn health(&self) -> Result<(), BoxError> {
            Err("feels bad".into())
        }
    }
    struct Dizzy;
    impl Service for Dizzy {
        fn health(&self) -> Result<(), BoxError> {
            panic!("fell over")
        }
    }
    leak_free(|_| {
        let env = Environment::local("health");
        let (journal, gate) = (Journal::new(), Gate::new());
        register(&env, &journal, "", "");
        env.register_service("sick", || Sick).build();
        env.register_service("dizzy", || Dizzy).build();
        super::add_held_pipeline(&env, &gate);
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        let health = job.health();
        let told: Vec<_> = health.iter().map(|(name, health)| (name.as_str(), health.is_ok())).collect();
        assert_eq!(told, [("remote", true), ("sick", false), ("dizzy", false)]);
        assert!(matches!(&health[1].1, Err(CallError::Failed { service, .. }) if service == "sick"));
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(report.service("remote").unwrap().calls, 0, "a health check is no call");
    });
}
