//! The example of a web server around a job, as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Posts an order, and returns the status line of the answer.
fn post(address: &str, order: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let length = order.len();
    write!(
        stream,
        "POST /orders HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{order}"
    )
    .expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn what_a_server_has_accepted_is_worked_on_before_it_ends() {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().and_then(Path::parent).expect("it lies in a folder of the profile");
    let mut server = Command::new(folder.join("examples/axum"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the examples are compiled with the tests");
    let mut printed = BufReader::new(server.stdout.take().expect("its output is a pipe"));
    let mut address = String::new();
    printed.read_line(&mut address).expect("it prints its address");
    let address = address.trim().trim_start_matches("http://");

    for order in ["two pears", "a plum"] {
        assert_eq!(post(address, order), "HTTP/1.1 202 Accepted");
    }
    let id = Pid::from_raw(i32::try_from(server.id()).expect("process ids are small"));
    kill(id, Signal::SIGTERM).expect("it is there");
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("it prints text");
    assert!(server.wait().expect("it is our child").success());
    assert_eq!(rest, "TWO PEARS\nA PLUM\n2 orders\n");
}
