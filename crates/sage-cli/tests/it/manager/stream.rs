//! What is told of jobs as it happens.

use sage_api::api::Streamed;
use sage_api::client::Action;
use sage_api::job::State;
use sage_api::message::Happened;

use super::User;

#[test]
fn a_stream_tells_events_in_their_order_the_record_the_output_and_the_end() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let gate = user.folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("it is made");
    let gate_is = format!("wait={}", gate.display());
    let job = daemon.submit(&user.counting(&["records=5", &gate_is]));
    let stream = daemon.client.follow(&job.id, 0, false).expect("it is followed");
    let (mut kinds, mut states, mut last) = (Vec::new(), Vec::new(), None);
    for streamed in stream {
        match streamed.expect("it is an event") {
            Streamed::Record(record) => states.push(record.state),
            Streamed::Happened(event) => {
                kinds.push(match event.what {
                    Happened::Started { .. } => "started",
                    Happened::Begins(_) => "begins",
                    Happened::Changed { .. } => "changed",
                    Happened::Ended { .. } => "ended",
                    Happened::Gone { .. } => "gone",
                    Happened::Told(_) => "told",
                    Happened::Cleaned { .. } => "cleaned",
                });
                if kinds.len() == 4 {
                    std::fs::write(&gate, "go\n").expect("it is read");
                }
            }
            Streamed::Over(record) => last = Some(record),
            Streamed::Output { .. } | Streamed::Figures(_) | Streamed::Deleted { .. } => {}
        }
    }
    let last = last.expect("the end is told");
    assert_eq!((last.state, last.exit_code), (State::Succeeded, Some(0)));
    assert_eq!((kinds[0], kinds[1], kinds[kinds.len() - 1]), ("started", "begins", "ended"));
    assert!(kinds[2..kinds.len() - 1].iter().all(|kind| *kind == "changed"), "{kinds:?}");
    assert_eq!(states.last(), Some(&State::Succeeded), "{states:?}");

    // All of it is in the list, from anywhere in it, and a stream that begins later tells the rest.
    let events = daemon.client.events(&job.id, 0).expect("there are some");
    assert_eq!(events.events.len(), kinds.len());
    assert_eq!(daemon.client.events(&job.id, events.next).expect("there are none").events.len(), 0);
    let later: Vec<_> = daemon.client.follow(&job.id, events.next, false).expect("it is followed").collect();
    let later: Vec<_> = later.into_iter().map(|streamed| streamed.expect("it is an event")).collect();
    assert!(matches!(&later[..], [Streamed::Record(_), Streamed::Over(_)]), "{later:?}");
}

#[test]
fn figures_come_while_somebody_wants_them() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.counting(&["pace=1"]));
    daemon.until_state(&job.id, State::Running);
    let mut seen = Vec::new();
    for streamed in daemon.client.follow(&job.id, 0, true).expect("it is followed") {
        if let Streamed::Figures(figures) = streamed.expect("it is an event") {
            seen.push(figures.jobs[0].figures.metrics.operators[0].records_in);
            match seen.len() {
                4 => drop(daemon.client.tell(&job.id, Action::Cancel).expect("it is told")),
                1..4 => {}
                _ => break,
            }
        }
    }
    assert!(seen.len() >= 4 && seen.is_sorted() && seen[3] > seen[0], "{seen:?}");
}

#[test]
fn the_stream_of_all_jobs_tells_what_is_new_what_changes_and_what_is_deleted() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let stream = daemon.client.follow_all().expect("it is followed");
    let job = daemon.submit(&user.shell("echo here"));
    let mut states = Vec::new();
    for streamed in stream {
        match streamed.expect("it is an event") {
            Streamed::Record(record) => {
                assert_eq!(record.id, job.id);
                states.push(record.state);
                if record.state.is_over() {
                    daemon.client.delete(&job.id, false).expect("it is deleted");
                }
            }
            Streamed::Deleted { id } => {
                assert_eq!(id, job.id);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((states.first(), states.last()), (Some(&State::Starting), Some(&State::Succeeded)), "{states:?}");
}

#[test]
fn output_is_told_and_read_a_piece_at_a_time() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.shell("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done; echo end"));
    let mut told = 0;
    for streamed in daemon.client.follow(&job.id, 0, false).expect("it is followed") {
        if let Streamed::Output { output } = streamed.expect("it is an event") {
            assert!(output > told);
            told = output;
        }
    }
    let all = daemon.client.output(&job.id, 0).expect("there is some");
    assert_eq!((all.from, all.next, all.length), (0, told, told));
    assert!(all.bytes.starts_with(b"line 0\n") && all.bytes.ends_with(b"line 999\nend\n"));
    let last = daemon.client.output(&job.id, -4).expect("there is some");
    assert_eq!((last.from, &last.bytes[..]), (told - 4, &b"end\n"[..]));
    let after = daemon.client.output(&job.id, told.cast_signed()).expect("there is none");
    assert_eq!((after.next, after.bytes.len()), (told, 0));
}
