//! Figures of the job manager, in the text format of Prometheus.

use std::fmt::{Display, Write};
use std::fs;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use sage_api::job::State as JobState;

use super::answer::Refused;
use super::{App, MOST_STREAMS};

pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Refused> {
    let (counts, queue) = (app.jobs.counts()?, app.jobs.queue());
    let mut text = String::new();
    family(&mut text, "sage_jobs", "Jobs, by state.", "gauge");
    for state in JobState::ALL {
        let count = counts.get(state.word()).copied().unwrap_or_default();
        sample(&mut text, &format!("sage_jobs{{state=\"{}\"}}", state.word()), count);
    }
    let streams = MOST_STREAMS - app.streams.available_permits();
    let (resident, descriptors) = (resident_bytes(), fs::read_dir("/proc/self/fd").map_or(0, Iterator::count));
    for (name, about, value) in [
        ("sage_queue_limit", "Jobs that may run at once.", queue.limit),
        ("sage_queue_running", "Jobs that have a reaper.", queue.running),
        ("sage_queue_waiting", "Jobs that wait for their turn.", queue.queued),
        ("sage_streams", "Streams of server-sent events that are open.", streams as u64),
        ("process_resident_memory_bytes", "Memory of the job manager's process.", resident),
        ("process_open_fds", "Descriptors of the job manager's process.", descriptors as u64),
    ] {
        family(&mut text, name, about, "gauge");
        sample(&mut text, name, value);
    }
    family(&mut text, "process_start_time_seconds", "When the job manager was started.", "gauge");
    let started = app.started_ms as f64 / 1000.0;
    sample(&mut text, "process_start_time_seconds", started);
    family(&mut text, "sage_build_info", "The version of the job manager.", "gauge");
    sample(&mut text, &format!("sage_build_info{{version=\"{}\"}}", app.address.version), 1);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn family(text: &mut String, name: &str, about: &str, kind: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {about}\n# TYPE {name} {kind}\n");
}

fn sample(text: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(text, "{name} {value}");
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
