//! Real signals to real processes. Each test runs itself again as a child (this binary, this test, a variable that names
//! the part to play), sends it signals, and looks at what it printed and how it ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sage::{
    BoxError, CloseContext, Environment, FinishContext, HookContext, JobHandle, JobState, Next, Service, SignalPolicy,
    Sink, Source, SourceContext,
};

const ROLE: &str = "SAGE_SIGNALS_ROLE";
const PATIENCE: Duration = Duration::from_secs(30);

/// The part this process plays, if it is a child.
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

// ---- the child's side

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent reads");
}

#[expect(clippy::disallowed_methods, reason = "the child is a program of its own, and its exit code is the subject")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

struct Announced;

impl Service for Announced {
    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        say(&format!("cleaned: {}", cx.reason().expect("a cleanup has a reason")));
        Ok(())
    }
}

/// Says that it is running, then waits until it is told to end.
struct Patient {
    said: bool,
}

impl Source for Patient {
    type Item = u32;
    fn next(&mut self, cx: &SourceContext) -> Result<Next<u32>, BoxError> {
        if !std::mem::replace(&mut self.said, true) {
            return Ok(Next::Record(1));
        }
        cx.wait(Duration::from_secs(3600));
        Ok(Next::Idle)
    }
}

fn patient(policy: SignalPolicy) -> Environment {
    let env = Environment::local("patient").signals(policy);
    let service = env.register_service("announced", || Announced).build();
    let stream = env.from_source(|_| Patient { said: false });
    stream.try_sink(move |_| service.call(|_| say("running")));
    env
}

/// A record that never ends: a drain cannot finish it, a cancel can.
fn endless(policy: SignalPolicy) -> Environment {
    let env = Environment::local("endless").signals(policy);
    let service = env.register_service("announced", || Announced).build();
    let numbers = env.from_collection(vec![()]).flat_map(|()| 0_u64..);
    numbers.try_sink(move |n| match n {
        0 => service.call(|_| say("running")),
        _ => Ok(()),
    });
    env
}

/// A record whose processing never returns.
fn hung(policy: SignalPolicy) -> Environment {
    let env = Environment::local("hung").signals(policy);
    env.from_collection(vec![()]).sink(|()| {
        say("running");
        loop {
            std::thread::park();
        }
    });
    env
}

/// Waits for the job, telling when it begins to drain, and exits as a program should.
fn wait_telling(job: &JobHandle) -> ! {
    let mut draining = false;
    loop {
        if job.status() == JobState::Draining && !std::mem::replace(&mut draining, true) {
            say("draining");
        }
        let Some(result) = job.wait_timeout(Duration::from_millis(2)) else { continue };
        let report = match &result {
            Ok(report) => report,
            Err(error) => error.report().expect("the job was started"),
        };
        say(&format!("{} {:?} by {}", report.outcome, report.cleanliness, report.reason));
        exit(report.signal().map_or(0, |signal| 128 + signal));
    }
}

extern "C" fn host_handler(_signal: libc::c_int) {
    let line = b"host\n";
    // SAFETY: `write` may be called in a signal handler, and the buffer is static.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

fn disposition(signal: libc::c_int) -> libc::sighandler_t {
    // SAFETY: reads a disposition into a zeroed, thus valid, `sigaction`.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut old);
        old.sa_sigaction
    }
}

fn set_disposition(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: the handler is a function of the right kind, or one of the constants.
    unsafe { libc::signal(signal, handler) };
}

// ---- the parent's side

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(test: &str, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test has a binary"));
        // With one test thread, as on one processor, the test's name would be printed before what it says.
        command
            .args(["--exact", test, "--nocapture", "--test-threads=2"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let default_signals = || {
            for signal in [libc::SIGINT, libc::SIGTERM] {
                // SAFETY: restores a default; may be called between fork and exec.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            Ok(())
        };
        // What started this test may ignore signals, as a shell does for what it runs in the background.
        // SAFETY: the closure neither allocates nor locks.
        unsafe { command.pre_exec(default_signals) };
        let mut child = command.spawn().expect("the test can run itself");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped"));
        Self { child, lines }
    }

    /// Reads on to the line `expected`.
    fn await_line(&mut self, expected: &str) {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            let read = self.lines.read_line(&mut seen).expect("its output can be read");
            assert!(read > 0, "the child ended without `{expected}`, after:\n{seen}");
            if seen[start..].trim_end() == expected {
                return;
            }
        }
    }

    /// Sends a signal and waits until the child has taken it, so that the next is not merged with it.
    fn signal(&self, signal: libc::c_int) {
        let pid = self.child.id();
        // SAFETY: signals a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0);
        let bit = 1_u64 << (signal - 1);
        let deadline = Instant::now() + PATIENCE;
        let pending = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            // One that the signal ended takes no more, and has it pending until it is waited for.
            let ended = field("State:").is_none_or(|state| state.starts_with('Z'));
            let mask = field("ShdPnd:").filter(|_| !ended);
            mask.is_some_and(|mask| u64::from_str_radix(mask, 16).expect("a mask") & bit != 0)
        };
        while pending() {
            assert!(Instant::now() < deadline, "the child does not take its signals");
            std::thread::yield_now();
        }
    }

    /// The rest of the output, and how the child ended.
    fn end(mut self) -> (String, ExitStatus) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("its output can be read");
        (rest, self.child.wait().expect("it can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails where the child has ended already, as it should have.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ends_with_code(process: Process, code: i32, lines: &[&str]) {
    let (rest, status) = process.end();
    for line in lines {
        assert!(rest.lines().any(|other| other == *line), "no line `{line}` in:\n{rest}");
    }
    assert_eq!(status.code(), Some(code), "{status}; it printed:\n{rest}");
}

#[test]
fn contract_18_one_signal_drains_and_cleans() {
    const NAME: &str = "signals::contract_18_one_signal_drains_and_cleans";
    if role().is_some() {
        wait_telling(&patient(SignalPolicy::Drain).submit().expect("it can be submitted"));
    }
    for (signal, name, code) in [(libc::SIGINT, "SIGINT", 130), (libc::SIGTERM, "SIGTERM", 143)] {
        let mut process = Process::start(NAME, "child");
        process.await_line("running");
        process.signal(signal);
        let (cleaned, outcome) = (format!("cleaned: {name}"), format!("cancelled Clean by {name}"));
        ends_with_code(process, code, &[&cleaned, &outcome]);
    }
}

/// Tells what becomes of what it has written.
struct Telling;

impl Sink for Telling {
    type In = u32;
    fn write(&mut self, _record: u32) -> Result<(), BoxError> {
        say("running");
        Ok(())
    }
    fn finish(&mut self, _cx: &FinishContext) -> Result<(), BoxError> {
        say("made final");
        Ok(())
    }
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        say(&format!("closed: {}", cx.reason()));
        Ok(())
    }
}

#[test]
fn contract_18_a_sink_makes_nothing_final_in_a_job_drained_by_a_signal() {
    const NAME: &str = "signals::contract_18_a_sink_makes_nothing_final_in_a_job_drained_by_a_signal";
    if role().is_some() {
        let env = Environment::local("told");
        env.from_source(|_| Patient { said: false }).sink_to(|_| Telling);
        wait_telling(&env.submit().expect("it can be submitted"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGINT);
    let (rest, status) = process.end();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains("closed: SIGINT") && !rest.contains("made final"), "{rest}");
}

#[test]
fn contract_18_it_works_when_the_job_is_submitted_off_the_main_thread() {
    const NAME: &str = "signals::contract_18_it_works_when_the_job_is_submitted_off_the_main_thread";
    if role().is_some() {
        let job = std::thread::spawn(|| patient(SignalPolicy::Drain).run());
        let error = job.join().expect("no panic").expect_err("a signal ends it");
        let report = error.report().expect("it was started");
        exit(128 + report.signal().expect("a signal ended it"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGINT);
    ends_with_code(process, 130, &["cleaned: SIGINT"]);
}

#[test]
fn contract_18_a_deferred_signal_takes_its_default_effect_when_all_is_cleaned() {
    const NAME: &str = "signals::contract_18_a_deferred_signal_takes_its_default_effect_when_all_is_cleaned";
    if role().is_some() {
        let _job = patient(SignalPolicy::Defer).submit().expect("it can be submitted");
        loop {
            std::thread::park();
        }
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGTERM);
    let (rest, status) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGTERM), "{status}; it printed:\n{rest}");
    assert!(rest.contains("cleaned: SIGTERM"), "{rest}");
}

#[test]
fn contract_18_the_second_signal_cancels_what_cannot_be_drained() {
    const NAME: &str = "signals::contract_18_the_second_signal_cancels_what_cannot_be_drained";
    if role().is_some() {
        wait_telling(&endless(SignalPolicy::Drain).submit().expect("it can be submitted"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGINT);
    process.await_line("draining");
    process.signal(libc::SIGTERM);
    ends_with_code(process, 130, &["cleaned: SIGINT", "cancelled Clean by SIGINT"]);
}

#[test]
fn contract_18_the_third_signal_ends_a_binary_that_asked_for_it() {
    const NAME: &str = "signals::contract_18_the_third_signal_ends_a_binary_that_asked_for_it";
    if role().is_some() {
        wait_telling(&hung(SignalPolicy::Exit).submit().expect("it can be submitted"));
    }
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut process = Process::start(NAME, "child");
        process.await_line("running");
        (0..3).for_each(|_| process.signal(signal));
        ends_with_code(process, code, &[]);
    }
}

#[test]
fn contract_18_the_third_signal_is_raised_again_in_a_host_program() {
    const NAME: &str = "signals::contract_18_the_third_signal_is_raised_again_in_a_host_program";
    if role().is_some() {
        wait_telling(&hung(SignalPolicy::Drain).submit().expect("it can be submitted"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    (0..3).for_each(|_| process.signal(libc::SIGINT));
    let (rest, status) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGINT), "{status}; it printed:\n{rest}");
}

#[test]
fn contract_18_the_hosts_own_handler_is_called_and_put_back() {
    const NAME: &str = "signals::contract_18_the_hosts_own_handler_is_called_and_put_back";
    if role().is_some() {
        let ours = host_handler as *const () as libc::sighandler_t;
        set_disposition(libc::SIGINT, ours);
        let error = patient(SignalPolicy::Drain).run().expect_err("a signal ends it");
        let signal = error.report().and_then(sage::JobReport::signal).expect("a signal ended it");
        assert_eq!(disposition(libc::SIGINT), ours, "the host's handler was not put back");
        assert_eq!(disposition(libc::SIGTERM), libc::SIG_DFL, "the default was not put back");
        say("restored");
        exit(128 + signal);
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGINT);
    ends_with_code(process, 130, &["host", "cleaned: SIGINT", "restored"]);
}

#[test]
fn contract_18_an_ignored_signal_stays_ignored() {
    const NAME: &str = "signals::contract_18_an_ignored_signal_stays_ignored";
    if role().is_some() {
        set_disposition(libc::SIGINT, libc::SIG_IGN);
        let env = Environment::local("reader");
        let lines = env.from_generator(|| {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line)?;
            Ok::<_, std::io::Error>((read > 0).then_some(line))
        });
        lines.sink(|line| say(&format!("read {}", line.trim())));
        let report = env.run().expect("the signal is ignored");
        say(&report.outcome.to_string());
        exit(0);
    }
    let mut process = Process::start(NAME, "child");
    let mut input = process.child.stdin.take().expect("its input is piped");
    writeln!(input, "one").expect("it reads");
    process.await_line("read one");
    process.signal(libc::SIGINT);
    writeln!(input, "two").expect("it reads");
    process.await_line("read two");
    drop(input);
    ends_with_code(process, 0, &["succeeded"]);
}

#[test]
fn a_job_that_leaves_signals_alone_changes_nothing() {
    const NAME: &str = "signals::a_job_that_leaves_signals_alone_changes_nothing";
    if role().is_some() {
        wait_telling(&patient(SignalPolicy::Off).submit().expect("it can be submitted"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGTERM);
    let (_, status) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}
