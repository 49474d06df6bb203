//! Scopes do not leak: what is read in one is what a memory would give that has nothing else.

use proptest::prelude::*;
use sage_services::memory::{Memory, NewTurn, Recall, Recalled, Scope, Turn, Window};

use crate::shared::{Clock, in_memory};

fn name() -> impl Strategy<Value = &'static str> {
    // One contains another as text; a slash might be how scopes are written.
    prop::sample::select(vec!["a", "b", "ab", "a/b"])
}

fn scope() -> impl Strategy<Value = Scope> {
    let part = || prop::option::of(name());
    (prop::sample::select(vec!["x", "x/a"]), part(), part(), part()).prop_map(|(tenant, user, agent, session)| {
        let scope = Scope::tenant(tenant);
        let scope = user.map_or(scope.clone(), |user| scope.user(user));
        let scope = agent.map_or(scope.clone(), |agent| scope.agent(agent));
        session.map_or(scope.clone(), |session| scope.session(session))
    })
}

/// What is done to a memory.
#[derive(Debug, Clone)]
enum Step {
    Append(Scope, u8, String),
    Update(Scope, u8, String),
    Delete(Scope, u8),
    Erase(Scope),
    EraseTurn(Scope, u8),
}

fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["tea", "ice", "engine", "basel", "moon"]);
    prop::collection::vec(word, 1..5).prop_map(|words| words.join(" "))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (scope(), 0..4_u8, text()).prop_map(|(scope, id, text)| Step::Append(scope, id, text)),
        2 => (scope(), 0..4_u8, text()).prop_map(|(scope, id, text)| Step::Update(scope, id, text)),
        1 => (scope(), 0..4_u8).prop_map(|(scope, id)| Step::Delete(scope, id)),
        1 => scope().prop_map(Step::Erase),
        1 => (scope(), 0..4_u8).prop_map(|(scope, id)| Step::EraseTurn(scope, id)),
    ]
}

fn take(memory: &Memory, step: &Step) {
    // Some ids are not there, and some are there with another text.
    let _refused = match step {
        Step::Append(scope, id, text) => {
            memory.append(scope, vec![NewTurn::user(&**text).id(id.to_string())]).map(drop)
        }
        Step::Update(scope, id, text) => memory.update(scope, &id.to_string(), &**text),
        Step::Delete(scope, id) => memory.delete(scope, &id.to_string()),
        Step::Erase(scope) => memory.erase(scope).map(drop),
        Step::EraseTurn(scope, id) => memory.erase_turn(scope, &id.to_string()).map(drop),
    };
}

fn scope_of(step: &Step) -> &Scope {
    match step {
        Step::Append(scope, ..)
        | Step::Update(scope, ..)
        | Step::Delete(scope, _)
        | Step::Erase(scope)
        | Step::EraseTurn(scope, _) => scope,
    }
}

/// Without the moments at which it was recorded: another memory counts its own.
fn plain(turn: &Turn) -> (Scope, String, String) {
    (turn.scope.clone(), turn.id.clone(), turn.text.clone())
}

fn plain_recalled(recalled: &[Recalled]) -> Vec<((Scope, String, String), f32, f32)> {
    recalled.iter().map(|recalled| (plain(&recalled.turn), recalled.score, recalled.parts.words)).collect()
}

proptest! {
    #[test]
    fn a_scope_is_as_if_there_were_no_other(
        steps in prop::collection::vec(step(), 1..60),
        asked in scope(),
        query in text(),
        reopens: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new();
        let at = || clock.of(Memory::at(folder.path().join("memory")));
        let mut memory = at();
        memory.open().unwrap();
        let alone = clock.of(Memory::in_memory());
        alone.open().unwrap();
        for step in &steps {
            take(&memory, step);
            // An erasure of a wider scope takes what is in this one, too.
            let scope = scope_of(step);
            if asked.contains(scope) {
                take(&alone, step);
            } else if matches!(step, Step::Erase(_)) && scope.contains(&asked) {
                alone.erase(&asked).unwrap();
            } else if let Step::Erase(scope) = step {
                // What both contain.
                for within in alone.scopes(&asked).unwrap().iter().filter(|within| scope.contains(within)) {
                    for turn in memory_ids(&alone, within) {
                        alone.erase_turn(within, &turn).unwrap();
                    }
                }
            }
        }
        if reopens {
            drop(memory);
            memory = at();
            memory.open().unwrap();
        }
        let window = |memory: &Memory, window: Window| -> Vec<_> {
            memory.window(&asked, window).unwrap().iter().map(plain).collect()
        };
        prop_assert_eq!(window(&memory, 5.into()), window(&alone, 5.into()));
        prop_assert_eq!(window(&memory, Window::tokens(7)), window(&alone, Window::tokens(7)));
        let recall = |memory: &Memory| memory.recall(&asked, Recall::new(&*query)).unwrap();
        let recalled = recall(&memory);
        prop_assert_eq!(plain_recalled(&recalled), plain_recalled(&recall(&alone)));
        prop_assert_eq!(&recalled, &recall(&memory));
        // The past of now is the present.
        let at = memory.moment().unwrap();
        let past = memory.recall(&asked, Recall::new(&*query).at(at)).unwrap();
        prop_assert_eq!(plain_recalled(&past), plain_recalled(&recalled));
        prop_assert_eq!(memory.count(&asked).unwrap(), alone.count(&asked).unwrap());
        prop_assert!(recalled.iter().all(|recalled| asked.contains(&recalled.turn.scope)));
    }
}

/// Of exactly this scope, deleted ones too.
fn memory_ids(memory: &Memory, scope: &Scope) -> Vec<String> {
    (0..4).map(|id: u8| id.to_string()).filter(|id| !memory.history(scope, id).unwrap().is_empty()).collect()
}

#[test]
fn names_that_look_alike_are_other_scopes() {
    let memory = in_memory();
    let scopes = [
        Scope::tenant("a").user("b"),
        Scope::tenant("a").agent("b"),
        Scope::tenant("a").session("b"),
        Scope::tenant("a/b"),
        Scope::tenant("a, user b"),
        Scope::tenant("A").user("b"),
    ];
    for (number, scope) in scopes.iter().enumerate() {
        memory.append(scope, vec![NewTurn::user(format!("text {number}")).id("1")]).unwrap();
    }
    for (number, scope) in scopes.iter().enumerate() {
        let window = memory.window(scope, 9).unwrap();
        assert_eq!(window.iter().map(|turn| &*turn.text).collect::<Vec<_>>(), [format!("text {number}")]);
        let tags = scopes.iter().filter(|other| other.tag() == scope.tag()).count();
        assert_eq!(tags, 1);
    }
    assert_eq!(memory.count(&Scope::tenant("a")).unwrap(), 3);
}
