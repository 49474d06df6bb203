//! Who is served, and what is not: every route there is, from the table that the router is made of.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use sage_jobmanager::{Listed, listed};

use super::{Daemon, User, answer, refused};

/// The path of a route, with a job and a name in it.
fn path(route: &Listed) -> String {
    route.path.replace("{job}", "1").replace("{*name}", "x.log")
}

fn request(daemon: &Daemon, route: &Listed, head: &str) -> (u16, String) {
    let (method, path) = (route.method, path(route));
    daemon.raw(&format!("{method} {path} HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: 0\r\n\r\n"))
}

#[test]
fn every_route_wants_credentials_but_those_that_are_open() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let host = format!("Host: {}\r\n", daemon.http);
    let open: Vec<_> = listed().filter(|route| route.is_open).map(|route| (route.method, route.path)).collect();
    assert_eq!(open, [("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/login"), ("POST", "/login")]);
    let token = fs::read_to_string(user.manager().token()).expect("there is one");
    let mut wrong = vec![
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: Bearer {}\r\n", &token[1..]),
        format!("Authorization: Bearer {token}0\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        "Cookie: sage_session=0\r\n".to_owned(),
    ];
    wrong.push(format!("Authorization: Bearer {}\r\n", "0".repeat(64)));
    let mut count = 0;
    for route in listed().filter(|route| !route.is_open) {
        for wrong in &wrong {
            let (status, text) = request(&daemon, &route, &format!("{host}{wrong}"));
            assert_eq!(status, 401, "{} {} {wrong:?}: {text}", route.method, route.path);
            assert!(text.contains("\"code\":\"unauthorized\""), "{text}");
        }
        count += 1;
    }
    assert!(count > 20);
    // What is not there is not told to strangers either.
    for path in ["/", "/api/v1/nothing", "/static/x.js"] {
        let (status, _) = daemon.raw(&format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"));
        assert_eq!(status, 401, "{path}");
    }
    for route in listed().filter(|route| route.is_open && route.method == "GET") {
        assert_eq!(request(&daemon, &route, &host).0, 200, "{}", route.path);
    }
    assert_eq!(daemon.client.health().expect("nothing has ended it").jobs_count, 0);
}

#[test]
fn every_route_refuses_a_foreign_host_and_a_foreign_origin() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let port = daemon.http.rsplit(':').next().expect("there is one").to_owned();
    let token = fs::read_to_string(user.manager().token()).expect("there is one");
    let own = &daemon.http;
    let foreign = [
        String::new(),
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: 127.0.0.1:1\r\n".to_owned(),
        "Host: localhost\r\n".to_owned(),
        format!("Host: {own}\r\nHost: evil.example\r\n"),
        format!("Host: {own}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {own}\r\nOrigin: null\r\n"),
        format!("Host: {own}\r\nOrigin: http://127.0.0.1:1\r\n"),
        format!("Host: {own}\r\nOrigin: file://{own}\r\n"),
    ];
    for route in listed() {
        for foreign in &foreign {
            let (status, text) = request(&daemon, &route, &format!("{foreign}Authorization: Bearer {token}\r\n"));
            // Without a host it is no request at all.
            assert!(status == 403 || foreign.is_empty() && status == 400, "{} {foreign:?}: {text}", route.path);
        }
    }
    // An absolute address counts as well.
    let text = format!("GET http://evil.example/healthz HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n");
    assert_eq!(daemon.raw(&text).0, 403);
    for host in [own.clone(), format!("localhost:{port}"), format!("[::1]:{port}"), format!("LOCALHOST:{port}")] {
        let text =
            format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n");
        assert_eq!(daemon.raw(&text).0, 200, "{host}");
    }
}

/// A session's cookie, which a link has given.
fn session(daemon: &Daemon) -> String {
    let url = daemon.client.login_link().expect("there is one").url;
    let path = url.split_once(&daemon.http).expect("it is of this daemon").1.to_owned();
    let get = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", daemon.http);
    let (status, text) = daemon.raw(&get);
    assert_eq!(status, 303, "{text}");
    let cookie = text.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("there is one");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    // It is good for one time.
    assert_eq!(daemon.raw(&get).0, 401);
    cookie.split(';').next().expect("there is one").to_owned()
}

#[test]
fn a_session_may_look_and_changes_something_only_with_its_token() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let cookie = session(&daemon);
    let head = format!("Host: {}\r\nCookie: other=1; {cookie}\r\n", daemon.http);
    for route in listed().filter(|route| !route.is_open) {
        let (status, text) = request(&daemon, &route, &head);
        if route.method == "GET" {
            assert!(matches!(status, 200 | 404), "{} {}: {text}", route.method, route.path);
        } else {
            assert_eq!(status, 403, "{} {}: {text}", route.method, route.path);
            assert!(text.contains("no_csrf_token"), "{text}");
            let wrong = format!("{head}X-CSRF-Token: {}\r\n", "0".repeat(64));
            assert_eq!(request(&daemon, &route, &wrong).0, 403);
        }
    }
    let text = format!("GET /api/v1/info HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
    assert_eq!(daemon.raw(&text).0, 200);
    // A token that is wrong is not made good by a cookie.
    let text = format!("GET /api/v1/info HTTP/1.1\r\n{head}Authorization: Bearer x\r\nConnection: close\r\n\r\n");
    assert_eq!(daemon.raw(&text).0, 401);
    // With a new token it is over.
    let old = fs::read_to_string(user.manager().token()).expect("there is one");
    let token = daemon.client.rotate_token().expect("it is made").token;
    let text = format!("GET /api/v1/info HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
    assert_eq!(daemon.raw(&text).0, 401);
    assert_eq!(refused(daemon.client.info()).0, 401);
    let kept = fs::read_to_string(user.manager().token()).expect("there is one");
    assert!(kept == token && kept != old);
    let rights = user.manager().token().metadata().expect("it is there").permissions().mode();
    assert_eq!(rights & 0o777, 0o600);
    assert_eq!(daemon.ask(&user, "GET", "/api/v1/info", "", "").0, 200);
    // So that it is asked with the new token at the end.
    let mut daemon = daemon;
    daemon.client = sage_api::client::Client::find(&user.home(), 0).expect("there is a token");
}

#[test]
fn the_token_begins_a_session_and_a_wrong_one_does_not() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let token = fs::read_to_string(user.manager().token()).expect("there is one");
    for (sent, expected) in [(token, 303), ("0".repeat(64), 401), (String::new(), 401)] {
        let body = format!("token={sent}");
        let (status, _) = daemon.raw(&format!(
            "POST /login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Connection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            daemon.http,
            body.len()
        ));
        assert_eq!(status, expected, "{sent}");
    }
}

#[test]
fn no_path_is_what_a_client_has_sent() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let job = daemon.submit(&user.shell(
        "mkdir -p $SAGE_LOG_DIR/sub; echo x > $SAGE_LOG_DIR/sub/x.log; \
        ln -s /etc/passwd $SAGE_LOG_DIR/link.log",
    ));
    daemon.until_over(&job.id);
    let get = |path: &str| daemon.ask(&user, "GET", path, "", "");
    assert_eq!(get("/api/v1/jobs/1/logs/sub/x.log").0, 200);
    assert_eq!(get("/api/v1/jobs/1/logs/sub%2Fx.log").0, 200);
    for path in [
        "/api/v1/jobs/../../../../../etc/passwd",
        "/api/v1/jobs/..%2F..%2F..%2Fetc%2Fpasswd/output",
        "/api/v1/jobs/1/logs/../job.json",
        "/api/v1/jobs/1/logs/..%2F..%2Ftoken",
        "/api/v1/jobs/1/logs/%2Fetc%2Fpasswd",
        "/api/v1/jobs/1/logs//etc/passwd",
        "/api/v1/jobs/1/logs/sub/../sub/x.log",
        "/api/v1/jobs/1/logs/link.log",
        "/api/v1/jobs/1/logs/%00",
        "/../../etc/passwd",
    ] {
        let (status, text) = get(path);
        assert_eq!(status, 404, "{path}: {text}");
        assert!(!text.contains("root:"));
    }
    for path in ["/api/v1/jobs/%FF%FE", "/api/v1/jobs/1/logs/%FF"] {
        let (status, text) = get(path);
        assert!(status == 400 && text.contains("\"code\":\"malformed\""), "{path}: {text}");
    }
}

#[test]
fn what_is_too_large_or_malformed_is_refused_and_the_daemon_stays_up() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let status = |method: &str, path: &str, body: &str| daemon.ask(&user, method, path, "", body).0;
    for body in ["", "{", "[]", "{\"name\": 1}", "\u{0}", "{\"name\":\"a\",\"unknown\":1}", &"[".repeat(60_000)] {
        assert_eq!(status("POST", "/api/v1/jobs", body), 400, "{body:.40}");
        if !body.is_empty() {
            assert_eq!(status("POST", "/api/v1/shutdown", body), 400, "{body:.40}");
        }
    }
    for path in [
        "/api/v1/jobs?limit=0",
        "/api/v1/jobs?limit=1001",
        "/api/v1/jobs?limit=x",
        "/api/v1/jobs?before=-1",
        "/api/v1/jobs?state=happy",
        "/api/v1/jobs?unknown=1",
        "/api/v1/stream/../jobs?limit=99999999999999999999",
    ] {
        assert!(matches!(status("GET", path, ""), 400 | 404), "{path}");
    }
    assert_eq!(status("PUT", "/api/v1/jobs", "{}"), 405);
    assert_eq!(status("POST", "/api/v1/cleanup", &"x".repeat((64 << 10) + 1)), 413);
    assert_eq!(status("POST", "/api/v1/login-link", &"x".repeat(64 << 10)), 200);

    // A body that says that it is too long is refused before it comes, and one that does not when it is.
    let token = fs::read_to_string(user.manager().token()).expect("there is one");
    let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n", daemon.http);
    let mut stream = daemon.connect();
    let piece = vec![b'x'; 1 << 20];
    let sent = write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").and_then(|()| {
        (0..80).try_for_each(|_| {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(&piece)?;
            stream.write_all(b"\r\n")
        })
    });
    // It may hang up before all was sent.
    drop(sent);
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said}");

    for nonsense in ["GET\r\n\r\n", "\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = daemon.connect();
        stream.write_all(nonsense.as_bytes()).expect("it is read");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), "{nonsense:?}: {said:?}");
    }
    let long = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nX: {}\r\n\r\n", daemon.http, "x".repeat(200_000));
    assert_eq!(daemon.raw(&long).0, 431);
    assert_eq!(daemon.client.health().expect("it is up").status, "healthy");
}

#[test]
fn clients_that_send_slowly_or_nothing_are_hung_up_on_and_others_are_served() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..400).map(|_| daemon.connect()).collect();
    for (index, stream) in slow.iter_mut().enumerate() {
        let head = ["", "G", "GET /healthz HTTP/1.1\r\n", "GET /healthz HTTP/1.1\r\nHost: x"][index % 4];
        stream.write_all(head.as_bytes()).expect("it is read");
    }
    // Others are served meanwhile, over TCP and over the socket.
    assert_eq!(daemon.ask(&user, "GET", "/api/v1/health", "", "").0, 200);
    assert_eq!(daemon.client.health().expect("it is up").status, "healthy");
    for mut stream in slow {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(!said.starts_with(b"HTTP/1.1 200"));
    }
    let passed = begun.elapsed();
    assert!(passed >= Duration::from_secs(9) && passed < Duration::from_secs(19), "{passed:?}");
}

#[test]
fn who_speaks_the_protocol_of_sage_is_told_that_this_is_another_one() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let message = br#"{"action":"health_check","request_id":"1"}"#;
    let mut stream = daemon.connect();
    stream.write_all(&u32::try_from(message.len()).expect("it is short").to_be_bytes()).expect("it is read");
    stream.write_all(message).expect("it is read");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it is an answer");
    let length = u32::from_be_bytes(answer[..4].try_into().expect("four bytes"));
    assert_eq!(usize::try_from(length).expect("it is short"), answer.len() - 4);
    let text = String::from_utf8_lossy(&answer[4..]);
    assert!(text.contains("\"status\":\"error\"") && text.contains("speaks HTTP"), "{text}");
}

#[test]
fn streams_are_limited_and_end_with_the_daemon() {
    let user = User::new();
    let daemon = user.daemon(&[]);
    let token = fs::read_to_string(user.manager().token()).expect("there is one");
    let get = format!(
        "GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
        daemon.http
    );
    let mut streams: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = daemon.connect();
            stream.write_all(get.as_bytes()).expect("it is read");
            let (status, _) = answer(&mut stream);
            assert_eq!(status, 200);
            stream
        })
        .collect();
    assert_eq!(daemon.raw(&get).0, 503);
    // A place is free when a client is gone.
    drop(streams.pop());
    crate::job::until("a place is free", || (daemon.raw(&get).0 == 200).then_some(()));
    let begun = Instant::now();
    assert!(daemon.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for mut stream in streams {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
}
