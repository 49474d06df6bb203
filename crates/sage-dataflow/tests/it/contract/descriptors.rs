//! Clauses 3 and 10 for a source that waits for a descriptor: it is woken by every kind of stop, and by what comes; and
//! what it waits with is closed when the job is over.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sage::{BoxError, Environment, Next, Source, SourceContext};

use super::ended;
use crate::leaks::leak_free;
use crate::probes::Gate;

/// Nobody waits for so long.
const HOUR: Duration = Duration::from_secs(3600);

/// Gives the bytes that come, and tells before it waits.
struct Bytes {
    from: UnixStream,
    waits: Gate,
    /// How often it was asked.
    asked: Arc<AtomicU64>,
}

impl Source for Bytes {
    type Item = u8;

    fn next(&mut self, cx: &SourceContext) -> Result<Next<u8>, BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // It can be written to at once, unless the job is paused or ended just then: by now that may be over.
        if !cx.wait_writable(self.from.as_fd(), HOUR)? {
            return Ok(Next::Idle);
        }
        self.waits.open();
        if !cx.wait_readable(self.from.as_fd(), HOUR)? {
            return Ok(Next::Idle);
        }
        let mut byte = [0];
        Ok(if self.from.read(&mut byte)? == 0 { Next::End } else { Next::Record(byte[0]) })
    }
}

/// The other end of such a source, what opens before it waits, and how often it was asked.
fn bytes() -> (Bytes, UnixStream, Gate, Arc<AtomicU64>) {
    let (from, to) = UnixStream::pair().expect("there are descriptors to be had");
    let (waits, asked) = (Gate::new(), Arc::new(AtomicU64::new(0)));
    (Bytes { from, waits: waits.clone(), asked: asked.clone() }, to, waits, asked)
}

fn once(source: Bytes) -> impl Fn(usize) -> Bytes + Send + Sync + 'static {
    let source = std::sync::Mutex::new(Some(source));
    move |_replica| source.lock().expect("nobody panics").take().expect("the job runs once")
}

#[test]
fn contract_03_a_source_that_waits_for_a_descriptor_is_woken_by_every_kind_of_stop() {
    leak_free(|_| {
        for stop in ["drain", "cancel", "pause"] {
            let (source, _to, waits, asked) = bytes();
            let env = Environment::local("waits");
            env.from_source(once(source)).sink(|_| {});
            let job = env.submit().unwrap();
            waits.pass();
            match stop {
                "drain" => job.drain(),
                "cancel" => job.cancel(),
                _ => {
                    job.pause();
                    job.resume();
                    job.drain();
                }
            }
            assert_eq!(ended(job).is_ok(), stop != "cancel");
            let asked = asked.load(Ordering::Relaxed);
            assert!(asked <= 3, "asked {asked} times, and nothing came");
        }
    });
}

#[test]
fn contract_03_what_comes_to_a_descriptor_ends_the_wait_and_so_does_its_other_end() {
    leak_free(|_| {
        let (source, mut to, waits, _) = bytes();
        let env = Environment::local("comes");
        let (seen, sees) = (Gate::new(), Arc::new(AtomicU64::new(0)));
        let (tell, sum) = (seen.clone(), sees.clone());
        env.from_source(once(source)).sink(move |byte| {
            sum.fetch_add(u64::from(byte), Ordering::Relaxed);
            tell.open();
        });
        let job = env.submit().unwrap();
        waits.pass();
        to.write_all(&[7]).unwrap();
        seen.pass();
        job.pause();
        job.resume();
        to.write_all(&[8]).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
        assert!(ended(job).is_ok());
        assert_eq!(sees.load(Ordering::Relaxed), 15);
    });
}

#[test]
fn contract_03_a_source_that_waits_for_a_descriptor_ends_when_nobody_wants_more() {
    leak_free(|_| {
        let (source, mut to, _, _) = bytes();
        let env = Environment::local("enough");
        let first = env.from_source(once(source)).on_another_thread().take(1).collect();
        let job = env.submit().unwrap();
        to.write_all(&[7]).unwrap();
        assert!(ended(job).is_ok());
        assert_eq!(first.take(), [7]);
    });
}
