//! Real signals to real processes. Each test runs itself again as a child (this binary, this test, a variable that
//! names the part to play), sends it signals, and looks at what it printed and how it ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sage::{
    BoxError, CloseContext, Deadlines, Environment, FinishContext, HookContext, JobHandle, JobState, Next, OnSignal,
    OutOfOrder, Service, SignalPolicy, SignalWatch, Sink, Source, SourceContext, Timed, Timestamp, Tumbling, Windowed,
};

const ROLE: &str = "SAGE_SIGNALS_ROLE";
const PATIENCE: Duration = Duration::from_secs(30);

/// The part this process plays, if it is a child.
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

// ---- the child's side

/// Takes no lock, which a thread that is not in a forked process may have held.
fn say(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: the buffer is there for as long as the call takes.
    let written = unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
    assert_eq!(usize::try_from(written).ok(), Some(line.len()), "the parent reads");
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

/// Deadlines that pass in no test: what ends a job is something else.
fn never() -> Deadlines {
    let hours = Duration::from_secs(48 * 3600);
    Deadlines { drain: hours, cancel: hours, ..Deadlines::default() }
}

/// A record that never ends: a drain cannot finish it, a cancel can.
fn endless(policy: SignalPolicy) -> Environment {
    let env = Environment::local("endless").signals(policy).deadlines(never());
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
    let env = Environment::local("hung").signals(policy).deadlines(never());
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
            // The test fails, and does not hang, where a signal has not the effect that it waits for.
            // SAFETY: as above; the alarm outlives `exec`.
            unsafe { libc::alarm(60) };
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
#[derive(Clone)]
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

#[test]
fn contract_18_under_finish_the_first_signal_makes_all_final_and_is_a_success() {
    const NAME: &str = "signals::contract_18_under_finish_the_first_signal_makes_all_final_and_is_a_success";
    if role().is_some() {
        let env = Environment::local("told").signals(SignalPolicy::Finish).deadlines(never());
        env.from_source(|_| Patient { said: false }).sink_to(|_| Telling);
        wait_telling(&env.submit().expect("it can be submitted"));
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut process = Process::start(NAME, "child");
        process.await_line("running");
        process.signal(signal);
        let lines = ["made final", "closed: drain requested", "succeeded Clean by drain requested"];
        ends_with_code(process, 0, &lines);
    }
}

#[test]
fn contract_18_under_finish_the_second_signal_cancels() {
    const NAME: &str = "signals::contract_18_under_finish_the_second_signal_cancels";
    if role().is_some() {
        wait_telling(&endless(SignalPolicy::Finish).submit().expect("it can be submitted"));
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGTERM);
    process.await_line("draining");
    process.signal(libc::SIGTERM);
    ends_with_code(process, 143, &["cancelled Clean by SIGTERM"]);
}

/// Installs a handler that interrupts what its thread waits in.
fn interrupt_by(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeroes is a valid `sigaction`, and the handler is a function of the right kind.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as *const () as libc::sighandler_t;
        libc::sigaction(signal, &new, std::ptr::null_mut());
    }
}

#[test]
fn contract_29_what_interrupts_the_hosts_first_thread_is_put_back() {
    const NAME: &str = "signals::contract_29_what_interrupts_the_hosts_first_thread_is_put_back";
    if role().is_some() {
        interrupt_by(libc::SIGINT, host_handler);
        let job = patient(SignalPolicy::Drain).submit().expect("it can be submitted");
        drop(job.wait());
        while disposition(libc::SIGURG) != libc::SIG_DFL {
            std::thread::yield_now();
        }
        say("put back");
        exit(0);
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("running");
    process.signal(libc::SIGINT);
    ends_with_code(process, 0, &["host", "put back"]);
}

#[test]
fn contract_29_a_signal_after_another_thread_has_begun_to_exit_does_no_harm() {
    const NAME: &str = "signals::contract_29_a_signal_after_another_thread_has_begun_to_exit_does_no_harm";
    static TAKEN: AtomicBool = AtomicBool::new(false);
    extern "C" fn note(_signal: libc::c_int) {
        TAKEN.store(true, Ordering::SeqCst);
    }
    // Runs when the standard library has freed what it keeps for the first thread, such as a stack for signals.
    extern "C" fn interrupt_the_first_thread() {
        // SAFETY: sends a signal to the first thread of this process, whose number is the process's.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGINT) };
        while !TAKEN.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        say("taken");
    }
    if role().is_some() {
        interrupt_by(libc::SIGINT, note);
        // SAFETY: registers a function of the right kind.
        unsafe { libc::atexit(interrupt_the_first_thread) };
        let _job = patient(SignalPolicy::Drain).submit().expect("it can be submitted");
        exit(0);
    }
    ends_with_code(Process::start(NAME, "child"), 0, &["taken"]);
}

#[test]
fn contract_29_a_handler_that_the_host_puts_back_too_late_does_what_was_done_before() {
    const NAME: &str = "signals::contract_29_a_handler_that_the_host_puts_back_too_late_does_what_was_done_before";
    if role().is_some() {
        let job = patient(SignalPolicy::Drain).submit().expect("it can be submitted");
        let found = disposition(libc::SIGTERM);
        set_disposition(libc::SIGTERM, host_handler as *const () as libc::sighandler_t);
        job.drain();
        job.wait().expect("it was drained");
        set_disposition(libc::SIGTERM, found);
        say("put back");
        loop {
            std::thread::park();
        }
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("put back");
    process.signal(libc::SIGTERM);
    let (rest, status) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGTERM), "{status}; it printed:\n{rest}");
}

/// How a process is forked: as libraries do it, or without those being told that a library wants to know of it.
#[derive(Clone, Copy)]
enum Fork {
    Called,
    Bare,
}

/// Runs `act` in a forked process, which it has to end.
fn fork(how: Fork, act: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls what a process with one thread may, and ends without running what was left to the parent.
    let child = unsafe {
        match how {
            Fork::Called => libc::fork(),
            Fork::Bare => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t,
        }
    };
    if child == 0 {
        act();
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    child
}

fn wait_for(child: libc::pid_t) -> ExitStatus {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    ExitStatus::from_raw(status)
}

fn send(child: libc::pid_t, signal: libc::c_int) {
    // SAFETY: signals a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child, signal) }, 0);
}

fn pause_for_ever() {
    // SAFETY: asks for a number or waits for a signal. A parent that fails leaves nobody behind.
    unsafe {
        libc::alarm(60);
        loop {
            libc::pause();
        }
    }
}

#[test]
fn contract_29_a_signal_ends_a_forked_process_as_if_there_were_no_job() {
    const NAME: &str = "signals::contract_29_a_signal_ends_a_forked_process_as_if_there_were_no_job";
    if role().is_some() {
        extern "C" fn leave(_signal: libc::c_int) {
            // SAFETY: may be called in a handler of signals.
            unsafe { libc::_exit(7) };
        }
        interrupt_by(libc::SIGINT, leave);
        let env = Environment::local("forks");
        env.from_iter([Fork::Called, Fork::Bare]).sink(|how| {
            let child = fork(how, pause_for_ever);
            send(child, libc::SIGTERM);
            say(&format!("ended by {:?}", wait_for(child).signal()));
            // One that has a handler of the host's.
            let child = fork(how, pause_for_ever);
            send(child, libc::SIGINT);
            say(&format!("left with {:?}", wait_for(child).code()));
        });
        say(&env.run().expect("no signal was sent to this process").outcome.to_string());
        exit(0);
    }
    let (rest, status) = Process::start(NAME, "child").end();
    assert_eq!(status.code(), Some(0), "{rest}");
    let count = |line: &str| rest.lines().filter(|other| *other == line).count();
    let counts = ["ended by Some(15)", "left with Some(7)", "succeeded"].map(count);
    assert_eq!(counts, [2, 2, 1], "{rest}");
}

#[test]
fn contract_29_a_forked_process_finds_the_dispositions_of_before_and_runs_jobs_of_its_own() {
    const NAME: &str =
        "signals::contract_29_a_forked_process_finds_the_dispositions_of_before_and_runs_jobs_of_its_own";
    if role().is_some() {
        let env = patient(SignalPolicy::Drain);
        let job = env.submit().expect("it can be submitted");
        let child = fork(Fork::Called, || {
            let found = [libc::SIGINT, libc::SIGTERM].map(disposition);
            assert!(matches!(job.wait(), Err(sage::RunError::Forked)));
            // It has a listener of its own, which the signal reaches.
            let own = Environment::local("own");
            own.from_source(|_| Patient { said: false }).sink(|_| say("child runs"));
            let ended = own.run().expect_err("a signal ends it");
            say(&format!("{} {}", found == [libc::SIG_DFL; 2], ended.report().expect("it ran").reason));
        });
        let ended = wait_for(child);
        say(&format!("child {ended}"));
        job.drain();
        say(&job.wait().expect("no signal was sent to this process").outcome.to_string());
        exit(0);
    }
    let mut process = Process::start(NAME, "child");
    process.await_line("child runs");
    // Listed by the thread that forked it.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.child.id())).expect("it runs");
    let children = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: String = children.collect();
    let child = children.trim().parse().expect("it has one child");
    send(child, libc::SIGTERM);
    ends_with_code(process, 0, &["true SIGTERM", "child exit status: 0", "succeeded"]);
}

extern "C" fn note(_signal: libc::c_int) {
    NOTED.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
}

static NOTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

#[test]
fn contract_29_a_watched_signal_ends_a_wait_whichever_thread_takes_it() {
    const NAME: &str = "signals::contract_29_a_watched_signal_ends_a_wait_whichever_thread_takes_it";
    if role().is_some() {
        interrupt_by(libc::SIGUSR1, note);
        let before = disposition(libc::SIGUSR1);
        let env = Environment::local("watched").deadlines(never());
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let mut rounds = 0..1000;
        let numbers = env.from_generator(move || {
            let Some(round) = rounds.next() else { return Ok(None) };
            // SAFETY: sends a signal to the calling thread.
            unsafe { libc::raise(libc::SIGUSR1) };
            told.recv().map(|()| Some(round))
        });
        numbers.sink(|_| {});
        let job = env.submit().expect("it can be submitted");
        for round in 1..=1000 {
            let watch = SignalWatch::new([libc::SIGUSR1, libc::SIGUSR2]);
            while NOTED.load(std::sync::atomic::Ordering::SeqCst) < round {
                assert!(job.wait_watching(&watch, None).is_none(), "it waits for this thread");
            }
            drop(watch);
            tell.send(()).expect("the job runs");
        }
        job.wait().expect("no other signal was sent");
        say(&format!("{}", disposition(libc::SIGUSR1) == before && disposition(libc::SIGUSR2) == libc::SIG_DFL));
        exit(0);
    }
    ends_with_code(Process::start(NAME, "child"), 0, &["true"]);
}

/// Counts the records of a second, which is open when the signal comes, in windows that say what becomes of them then.
fn minute(on_signal: OnSignal, policy: SignalPolicy) -> Environment {
    let env = Environment::local("minute").signals(policy);
    let order = OutOfOrder::by(Duration::ZERO);
    let records = env.from_source(|_| Patient { said: false }).inspect(|_| say("running"));
    let [timed, by_clock] = records.tee();
    let told = |kind: &'static str| {
        move |count: Timed<Windowed<u32, u64>>| {
            let Windowed { value, partial, .. } = count.value;
            say(&format!("{kind}: {value}{}", if partial { ", partial" } else { "" }));
        }
    };
    let keyed = timed.with_timestamps(|_| Timestamp::from_millis(500), order).key_by(|record| record.value);
    keyed.window(Tumbling::of(Duration::from_secs(1))).on_signal(on_signal).count().named("tumbling").sink(told("a"));
    let windows = by_clock.key_by(|record| *record).window_by_clock(Tumbling::of(Duration::from_secs(3600 * 24 * 365)));
    windows.on_signal(on_signal).count().named("clocked").sink(told("b"));
    env
}

#[test]
fn contract_18_windows_that_a_signal_cut_are_dropped_and_counted_or_marked_as_partial() {
    const NAME: &str = "signals::contract_18_windows_that_a_signal_cut_are_dropped_and_counted_or_marked_as_partial";
    if let Some(role) = role() {
        let env = match &*role {
            "drop" => minute(OnSignal::Drop, SignalPolicy::Drain),
            "emit" => minute(OnSignal::Emit, SignalPolicy::Drain),
            _ => minute(OnSignal::Drop, SignalPolicy::Finish),
        };
        let report = match env.run() {
            Ok(report) => report,
            Err(error) => error.report().expect("the job was started").clone(),
        };
        for name in ["tumbling", "clocked"] {
            let operator = report.operator(name).expect("it is in the report");
            say(&format!("{name} dropped {}", operator.dropped_windows));
        }
        say(&report.to_string());
        exit(0);
    }
    let ended = |role| {
        let mut process = Process::start(NAME, role);
        process.await_line("running");
        process.signal(libc::SIGINT);
        let (rest, status) = process.end();
        assert_eq!(status.code(), Some(0), "{rest}");
        rest
    };
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    let dropped = ended("drop");
    assert!(has(&dropped, "tumbling dropped 1") && has(&dropped, "clocked dropped 1"), "{dropped}");
    assert!(!has(&dropped, "a: 1") && !dropped.contains("partial"), "{dropped}");
    assert!(dropped.contains("1 open window dropped"), "{dropped}");
    let emitted = ended("emit");
    assert!(has(&emitted, "a: 1, partial") && has(&emitted, "b: 1, partial"), "{emitted}");
    assert!(has(&emitted, "tumbling dropped 0"), "{emitted}");
    let finished = ended("finish");
    assert!(has(&finished, "a: 1") && has(&finished, "b: 1") && has(&finished, "clocked dropped 0"), "{finished}");
}
