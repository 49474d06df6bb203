//! Turns: appended, read back, changed, deleted, forgotten.

use std::time::Duration;

use sage::Environment;
use sage_services::memory::{Change, Memory, MemoryError, NewTurn, Recall, Scope, Window};

use crate::shared::{Clock, contains, in_memory, opened, session, texts, turn};

#[test]
fn a_window_has_the_latest_turns_oldest_first() {
    let memory = in_memory();
    let (one, two) = (session("one"), session("two"));
    for number in 0..10 {
        let scope = if number % 3 == 0 { &two } else { &one };
        memory.append(scope, vec![turn(&number.to_string(), &format!("text {number}"))]).unwrap();
    }
    let of = |scope: &Scope, window: Window| -> Vec<String> {
        memory.window(scope, window).unwrap().into_iter().map(|turn| turn.id).collect()
    };
    assert_eq!(of(&one, 3.into()), ["5", "7", "8"]);
    assert_eq!(of(&two, 100.into()), ["0", "3", "6", "9"]);
    let user = Scope::tenant("t").user("u");
    assert_eq!(of(&user, 4.into()), ["6", "7", "8", "9"]);
    // A text has two tokens.
    assert_eq!(of(&user, Window::tokens(5)), ["8", "9"]);
    assert_eq!(of(&user, Window::tokens(1)), [""; 0]);
    assert_eq!(of(&user, Window::tokens(1_000).and_turns(3)), ["7", "8", "9"]);
    assert_eq!(of(&user, Window::tokens(7).count_by(|_| 1)), ["3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(of(&Scope::tenant("stranger"), 3.into()), [""; 0]);
}

#[test]
fn tokens_are_counted_over_more_turns_than_are_read_at_once() {
    let memory = in_memory();
    let turns = (0..1_000).map(|number| turn(&number.to_string(), "word")).collect();
    memory.append(&session("s"), turns).unwrap();
    for tokens in [1, 63, 64, 65, 500, 999, 1_000, 5_000] {
        let window = memory.window(&session("s"), Window::tokens(tokens)).unwrap();
        assert_eq!(window.len(), tokens.min(1_000));
        assert_eq!(window.last().unwrap().id, "999");
    }
}

/// What counts tokens may take as long as it likes, and ask the memory itself.
#[test]
fn nothing_is_locked_while_tokens_are_counted() {
    let memory = std::sync::Arc::new(in_memory());
    memory.append(&session("s"), vec![turn("a", "one"), turn("b", "two")]).unwrap();
    let asks = std::sync::Arc::clone(&memory);
    let count = move |text: &str| {
        asks.append(&session("other"), vec![NewTurn::user(text)]).unwrap();
        1
    };
    assert_eq!(memory.window(&session("s"), Window::tokens(9).count_by(count)).unwrap().len(), 2);
    assert_eq!(memory.count(&session("other")).unwrap(), 2);
}

#[test]
fn a_turn_that_is_appended_again_is_remembered_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    let turns = || vec![turn("1", "Tea is hot."), turn("2", "Ice is cold."), turn("1", "Tea is hot.")];
    assert_eq!(memory.append(&session("s"), turns()).unwrap(), ["1", "2", "1"]);
    memory.append(&session("s"), turns()).unwrap();
    // Whatever became of it since.
    memory.update(&session("s"), "1", "Tea is lukewarm.").unwrap();
    memory.delete(&session("s"), "2").unwrap();
    drop(memory);
    let memory = opened(&path);
    memory.append(&session("s"), turns()).unwrap();
    assert_eq!(texts(&memory.window(&session("s"), 9).unwrap()), ["Tea is lukewarm."]);
    // In another scope it is another turn.
    memory.append(&session("other"), vec![turn("1", "Tea is cold.")]).unwrap();
    for refused in [turn("1", "Tea is cold."), NewTurn::assistant("Tea is hot.").id("1"), turn("2", "Ice.")] {
        let error = memory.append(&session("s"), vec![turn("3", "New."), refused]).unwrap_err();
        assert!(matches!(error, MemoryError::OtherText { .. }), "{error}");
    }
    let error = memory.append(&session("s"), vec![turn("4", "Yes."), turn("4", "No.")]).unwrap_err();
    assert!(error.to_string().contains(r#"turn "4" of tenant t, user u, session s is there already"#), "{error}");
    // Those beside one that is refused are not remembered.
    assert_eq!(memory.count(&session("s")).unwrap(), 1);
}

#[test]
fn turns_without_an_id_get_one_each() {
    let memory = in_memory();
    let ids = memory.append(&session("s"), vec![NewTurn::user("Yes."), NewTurn::user("Yes.")]).unwrap();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(memory.get(&session("s"), &ids[1]).unwrap().unwrap().text, "Yes.");
}

#[test]
fn every_version_stays_readable_at_its_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let clock = Clock::new();
    let memory = clock.of(Memory::at(&path));
    memory.open().unwrap();
    let scope = session("s");
    let mut moments = vec![memory.moment().unwrap()];
    memory.append(&scope, vec![turn("a", "I live in Basel.")]).unwrap();
    moments.push(memory.moment().unwrap());
    memory.update(&scope, "a", Change::from("I live in Bern.").importance(0.5)).unwrap();
    moments.push(memory.moment().unwrap());
    memory.update(&scope, "a", Change::new().importance(1.0)).unwrap();
    moments.push(memory.moment().unwrap());
    memory.delete(&scope, "a").unwrap();
    moments.push(memory.moment().unwrap());
    let check = |memory: &Memory| {
        let told = [
            None,
            Some(("I live in Basel.", 0.0)),
            Some(("I live in Bern.", 0.5)),
            Some(("I live in Bern.", 1.0)),
            None,
        ];
        for (moment, told) in moments.iter().zip(told) {
            let turn = memory.get_at(&scope, "a", *moment).unwrap();
            assert_eq!(turn.as_ref().map(|turn| (&*turn.text, turn.importance)), told);
            let window = memory.window(&scope, Window::turns(9).at(*moment)).unwrap();
            assert_eq!(window.first(), turn.as_ref());
            let recalled = memory.recall(&scope, Recall::new("where do I live?").at(*moment)).unwrap();
            assert_eq!(recalled.first().map(|recalled| &recalled.turn), turn.as_ref());
        }
        assert_eq!(memory.get(&scope, "a").unwrap(), None);
        let history = memory.history(&scope, "a").unwrap();
        let texts: Vec<Option<&str>> = history.iter().map(|version| version.text.as_deref()).collect();
        assert_eq!(texts, [Some("I live in Basel."), Some("I live in Bern."), Some("I live in Bern."), None]);
    };
    check(&memory);
    drop(memory);
    check(&opened(&path));
}

#[test]
fn a_turn_is_there_to_the_moment_at_which_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let clock = Clock::new();
    let memory = clock.of(Memory::at(&path).ttl(Duration::from_secs(100)));
    memory.open().unwrap();
    let scope = session("s");
    let short = turn("short", "The code is 4711.").ttl(Duration::from_secs(10));
    memory.append(&scope, vec![short, turn("long", "The code is long.")]).unwrap();
    let sees = |memory: &Memory| {
        let window = memory.window(&scope, 9).unwrap().len();
        assert_eq!(memory.recall(&scope, Recall::new("code")).unwrap().len(), window);
        assert_eq!(memory.count(&scope).unwrap(), window);
        assert_eq!(memory.get(&scope, "short").unwrap().is_some(), window == 2);
        assert_eq!(memory.history(&scope, "short").unwrap().len(), usize::from(window == 2));
        window
    };
    clock.forward(9.999_999);
    assert_eq!(sees(&memory), 2);
    let before = memory.moment().unwrap();
    clock.forward(0.000_001);
    assert_eq!(sees(&memory), 1);
    // Not in the past either.
    assert_eq!(memory.window(&scope, Window::turns(9).at(before)).unwrap().len(), 1);
    assert_eq!(memory.expire().unwrap(), 1);
    let file = std::fs::read(&path).unwrap();
    assert!(!contains(&file, b"4711") && contains(&file, b"long"));
    drop(memory);
    // What expires while nobody has it open is gone before anything is served.
    clock.forward(100.0);
    let memory = clock.of(Memory::at(&path));
    memory.open().unwrap();
    assert_eq!(sees(&memory), 0);
    assert!(!contains(&std::fs::read(&path).unwrap(), b"long"));
}

/// Whether the thread that erases has come to it or not.
#[test]
fn a_turn_that_has_expired_is_not_there_for_writes_either() {
    let clock = Clock::new();
    let memory = clock.of(Memory::in_memory());
    memory.open().unwrap();
    let scope = session("s");
    let short = || turn("a", "x").ttl(Duration::from_secs(1));
    memory.append(&scope, vec![short()]).unwrap();
    clock.forward(1.0);
    assert!(matches!(memory.update(&scope, "a", "y"), Err(MemoryError::UnknownTurn { .. })));
    memory.append(&scope, vec![short()]).unwrap();
    assert_eq!(memory.count(&scope).unwrap(), 1);
    clock.forward(1.0);
    assert!(matches!(memory.delete(&scope, "a"), Err(MemoryError::UnknownTurn { .. })));
    memory.append(&scope, vec![short()]).unwrap();
    clock.forward(1.0);
    memory.append(&scope, vec![turn("a", "another text")]).unwrap();
    clock.forward(9.0);
    assert_eq!(memory.count(&scope).unwrap(), 1);
}

#[test]
fn what_expires_is_erased_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    // The thread waits for the later one when the sooner one comes.
    memory.append(&session("s"), vec![turn("a", "for an hour").ttl(Duration::from_secs(3_600))]).unwrap();
    memory.append(&session("s"), vec![turn("b", "for a moment").ttl(Duration::from_millis(20))]).unwrap();
    while contains(&std::fs::read(&path).unwrap(), b"moment") {
        std::thread::yield_now();
    }
    assert_eq!(texts(&memory.window(&session("s"), 9).unwrap()), ["for an hour"]);
    assert!(contains(&std::fs::read(&path).unwrap(), b"hour"));
}

#[test]
fn a_clock_that_goes_back_changes_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let clock = Clock::new();
    let memory = clock.of(Memory::at(&path));
    memory.open().unwrap();
    let scope = session("s");
    memory.append(&scope, vec![turn("a", "first").ttl(Duration::from_secs(60))]).unwrap();
    let between = memory.moment().unwrap();
    clock.forward(-3_600.0);
    memory.append(&scope, vec![turn("b", "second")]).unwrap();
    let seen = |memory: &Memory| {
        assert_eq!(texts(&memory.window(&scope, 9).unwrap()), ["first", "second"]);
        assert_eq!(texts(&memory.window(&scope, Window::turns(9).at(between)).unwrap()), ["first"]);
        let [first, second] = ["a", "b"].map(|id| memory.get(&scope, id).unwrap().unwrap().recorded);
        assert!(first < between && between < second);
    };
    seen(&memory);
    drop(memory);
    let memory = clock.of(Memory::at(&path));
    memory.open().unwrap();
    seen(&memory);
    assert!(memory.moment().unwrap() > between);
}

#[test]
fn what_is_no_turn_is_refused_with_why() {
    let memory = in_memory();
    let scope = session("s");
    let long = "x".repeat((1 << 20) + 1);
    let refused = |turn: NewTurn| memory.append(&scope, vec![NewTurn::user("fine"), turn]).unwrap_err().to_string();
    for (turn, why) in [
        (turn("a", ""), r#"turn "a" is refused: it says nothing"#),
        (turn("a", " \n"), r#"turn "a" is refused: it says nothing"#),
        (turn("a", &long), r#"turn "a" is refused: its text has 1048577 bytes; 1048576 are taken"#),
        (turn("", "x"), "its id has 0 bytes; 1 to 512 are taken"),
        (turn(&"i".repeat(513), "x"), "its id has 513 bytes"),
        (NewTurn::new("", "x"), "its role has 0 bytes; 1 to 128 are taken"),
        (NewTurn::user("x").importance(1.1), "its importance is 1.1, which is not from 0 to 1"),
        (NewTurn::user("x").importance(f32::NAN), "its importance is NaN"),
        (NewTurn::user("x").with("n", f64::NAN), "NaN is not a finite number, in `n`"),
        (NewTurn::user("x").ttl(Duration::ZERO), "remembered for no time"),
        (NewTurn::user("x").vector(vec![1.0]), "made without an embedder"),
    ] {
        let told = refused(turn);
        assert!(told.contains(why), "{told}");
        assert!(told.len() < 300, "{told}");
    }
    assert_eq!(memory.count(&scope).unwrap(), 0);
    memory.append(&scope, vec![turn("a", &long[1..])]).unwrap();
    for scope in [Scope::tenant(""), Scope::tenant("t").user("a\nb"), Scope::tenant("t").session("s".repeat(257))] {
        let error = memory.append(&scope, vec![NewTurn::user("x")]).unwrap_err();
        assert!(matches!(error, MemoryError::BadScope { .. }), "{error}");
        assert!(matches!(memory.window(&scope, 1), Err(MemoryError::BadScope { .. })));
        assert!(matches!(memory.erase(&scope), Err(MemoryError::BadScope { .. })));
    }
    for error in [
        memory.update(&scope, "nobody", "x").unwrap_err(),
        memory.delete(&scope, "nobody").unwrap_err(),
        // The turn is of another scope, if one that contains this.
        memory.update(&Scope::tenant("t").user("u"), "a", "x").unwrap_err(),
        memory.erase_turn(&scope, "nobody").map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, MemoryError::UnknownTurn { .. }), "{error}");
    }
    assert!(matches!(memory.window(&scope, 0), Err(MemoryError::BadQuery { .. })));
    assert!(matches!(memory.window(&scope, Window::tokens(0)), Err(MemoryError::BadQuery { .. })));
}

#[test]
fn no_more_turns_are_taken_than_was_said() {
    let memory = Memory::in_memory().max_turns(2);
    memory.open().unwrap();
    let error = memory.append(&session("s"), (0..3).map(|n| turn(&n.to_string(), "x")).collect()).unwrap_err();
    assert!(error.to_string().contains("its maximum of 2 turns"), "{error}");
    memory.append(&session("s"), vec![turn("a", "x"), turn("b", "x")]).unwrap();
    memory.append(&session("s"), vec![turn("a", "x")]).unwrap();
    memory.append(&session("s"), vec![turn("c", "x")]).unwrap_err();
    memory.erase_turn(&session("s"), "a").unwrap();
    memory.append(&session("s"), vec![turn("c", "x")]).unwrap();
}

#[test]
fn a_memory_that_is_not_open_says_so() {
    let memory = Memory::in_memory();
    let refused = |memory: &Memory| {
        for error in [
            memory.append(&session("s"), vec![turn("a", "x")]).map(drop).unwrap_err(),
            memory.window(&session("s"), 1).map(drop).unwrap_err(),
            memory.recall(&session("s"), Recall::new("x")).map(drop).unwrap_err(),
            memory.erase(&session("s")).map(drop).unwrap_err(),
            memory.moment().map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, MemoryError::NotOpen), "{error}");
        }
    };
    refused(&memory);
    memory.open().unwrap();
    memory.open().unwrap();
    memory.append(&session("s"), vec![turn("a", "x")]).unwrap();
    memory.close();
    memory.close();
    refused(&memory);
    memory.open().unwrap();
    assert_eq!(memory.count(&session("s")).unwrap(), 0);
}

/// Clause 6 of the contract: services are stopped and cleaned, once, before the run returns.
#[test]
fn contract_6_a_job_closes_its_memory_before_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let threads = || -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        // That one is the process's.
        names.filter(|name| name != "sage-signals\n").collect()
    };
    let env = Environment::local("remembering");
    let at = path.clone();
    let memory = env.register_service("memory", move || Memory::at(&at)).build();
    env.from_iter(0..100)
        .try_map(move |number| {
            let turn = turn(&number.to_string(), "x").ttl(Duration::from_secs(3_600));
            memory.try_call(|memory| memory.append(&session(&(number % 7).to_string()), vec![turn]))
        })
        .sink(|_| {});
    let before = threads();
    env.run().unwrap();
    assert_eq!(threads(), before);
    // The file is not locked any more.
    let memory = opened(&path);
    assert_eq!(memory.count(&Scope::tenant("t")).unwrap(), 100);
    assert_eq!(memory.scopes(&Scope::tenant("t").user("u")).unwrap().len(), 7);
}

/// Writes go on while turns expire all the time.
#[test]
fn turns_that_expire_one_after_the_other_are_all_erased() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let memory = opened(&path);
    for number in 0..300_u64 {
        let ttl = Duration::from_millis(1 + number % 50);
        memory.append(&session("s"), vec![turn(&number.to_string(), "for a moment").ttl(ttl)]).unwrap();
    }
    while contains(&std::fs::read(&path).unwrap(), b"moment") {
        std::thread::yield_now();
    }
    assert_eq!(memory.count(&session("s")).unwrap(), 0);
}
