//! Operators whose work goes on outside of their task, and replicas that are held up.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use sage::{BoxError, CloseContext, Emit, Environment, Fault, OpenContext, Operator};

use crate::leaks::leak_free;
use crate::probes::{Gate, sorted};

/// Has another thread double numbers: the operator does not wait for it between two batches.
#[derive(Default)]
struct Doubled {
    /// How many numbers the other thread keeps before it answers the first of them.
    kept: usize,
    other: Option<(UnixStream, JoinHandle<()>)>,
    under_way: usize,
}

impl Doubled {
    fn keeping(kept: usize) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Emits what is there, or waits for all of it.
    fn take(&mut self, all: bool, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        let Some((socket, _)) = &mut self.other else { return Ok(()) };
        socket.set_nonblocking(!all).map_err(|error| Fault::Error(error.into()))?;
        while self.under_way > 0 {
            let mut bytes = [0; 8];
            match socket.read_exact(&mut bytes) {
                Ok(()) => self.under_way -= 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Fault::Error(error.into())),
            }
            out.emit(u64::from_ne_bytes(bytes))?;
        }
        Ok(())
    }
}

impl Operator for Doubled {
    type In = u64;
    type Out = u64;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), Fault> {
        let (here, mut there) = UnixStream::pair().map_err(|error| Fault::Error(error.into()))?;
        let kept = self.kept;
        let thread = std::thread::spawn(move || {
            let mut waiting = Vec::new();
            let mut bytes = [0; 8];
            while there.read_exact(&mut bytes).is_ok() {
                waiting.push(u64::from_ne_bytes(bytes));
                if waiting.len() > kept {
                    let _ = there.write_all(&(waiting.remove(0) * 2).to_ne_bytes());
                }
            }
        });
        self.other = Some((here, thread));
        Ok(())
    }

    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        if self.under_way == 100 {
            self.take(true, out)?;
        }
        let Some((socket, _)) = &mut self.other else { return Ok(()) };
        socket.set_nonblocking(false).map_err(|error| Fault::Error(error.into()))?;
        socket.write_all(&record.to_ne_bytes()).map_err(|error| Fault::Error(error.into()))?;
        self.under_way += 1;
        Ok(())
    }

    fn flush(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.take(true, out)
    }

    fn progress(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.take(false, out)
    }

    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        self.other.as_ref().filter(|_| self.under_way > 0).map(|(socket, _)| socket.as_fd())
    }

    fn finish(&mut self, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.take(self.kept == 0, out)
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let Some((socket, thread)) = self.other.take() else { return Ok(()) };
        drop(socket);
        thread.join().map_err(|_| "the other thread has panicked".into())
    }
}

#[test]
fn results_of_work_beside_a_task_come_in_order_wherever_the_operator_stands() {
    leak_free(|_| {
        let expected = (0..5000).map(|n| n * 2).collect::<Vec<_>>();
        for inline in [false, true] {
            let env = Environment::local("beside");
            let env = if inline { env.inline() } else { env };
            let numbers = || env.from_iter(0..5000_u64);
            let fused = numbers().operator(Doubled::default).collect();
            let apart = numbers().on_another_thread().operator(Doubled::default).collect();
            let twice =
                numbers().on_another_thread().operator(Doubled::default).operator(Doubled::default).map(|n| n / 2);
            let twice = twice.collect();
            let behind = numbers().map_async(4, sage::Order::Ordered, std::future::ready).operator(Doubled::default);
            let behind = behind.collect();
            env.run().unwrap();
            for (name, out) in [("fused", fused), ("apart", apart), ("twice", twice), ("behind", behind)] {
                assert_eq!(out.take(), expected, "{name}, inline: {inline}");
            }
        }
    });
}

/// The source waits for the result of its first record.
#[test]
fn a_result_of_work_beside_a_task_is_emitted_while_no_record_comes() {
    leak_free(|_| {
        let env = Environment::local("beside");
        let came = Gate::new();
        let (wait, tell) = (came.clone(), came);
        let numbers = env.from_iter((0..2_u64).inspect(move |n| {
            if *n == 1 {
                wait.pass();
            }
        }));
        let out = numbers.on_another_thread().operator(Doubled::default).inspect(move |_| tell.open()).collect();
        env.run().unwrap();
        assert_eq!(out.take(), [0, 2]);
    });
}

/// The other side answers the first record when the second one has come: the task takes it meanwhile.
#[test]
fn a_task_takes_records_while_work_goes_on_beside_it() {
    leak_free(|_| {
        let env = Environment::local("beside");
        let (gate, came) = (Gate::new(), channel());
        let held = gate.clone();
        let numbers = env.from_iter((0..3_u64).inspect(move |n| {
            if *n == 2 {
                held.pass();
            }
        }));
        let tell = came.0;
        let out = numbers.on_another_thread().operator(|| Doubled::keeping(1)).inspect(move |n| {
            let _ = tell.send(*n);
        });
        let out = out.collect();
        let job = env.submit().unwrap();
        assert_eq!(came.1.recv(), Ok(0));
        job.pause();
        gate.open();
        job.resume();
        // The last one is kept until its operator is closed.
        assert!(job.wait().is_ok());
        assert!(out.take().starts_with(&[0]));
    });
}

#[test]
fn a_cancel_ends_the_wait_for_work_beside_a_task() {
    leak_free(|_| {
        let env = Environment::local("beside");
        let gate = Gate::new();
        let held = gate.clone();
        let numbers = env.from_iter((0..2_u64).inspect(move |n| {
            if *n == 1 {
                held.pass();
            }
        }));
        numbers.on_another_thread().operator(|| Doubled::keeping(1)).collect();
        let job = env.submit().unwrap();
        gate.await_arrivals(1);
        job.cancel();
        gate.open();
        assert!(job.wait().is_err());
    });
}

/// Of two replicas one is held up by its first record.
#[test]
fn a_replica_that_is_held_up_holds_up_no_other() {
    leak_free(|_| {
        let env = Environment::local("passed over");
        let gate = Gate::new();
        let (held, open) = (gate.clone(), gate);
        let out = env
            .from_iter(0..10_000_u64)
            .rebalance(2)
            .inspect(move |n| match n {
                0 => held.pass(),
                9_999 => open.open(),
                _ => {}
            })
            .collect();
        env.run().unwrap();
        assert_eq!(sorted(out.take()), (0..10_000).collect::<Vec<_>>());
    });
}
