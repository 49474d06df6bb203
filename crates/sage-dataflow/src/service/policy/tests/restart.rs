use super::super::restart::Restart;
use super::super::time::tests::ManualTime;
use super::Callers;

#[test]
fn whoever_waits_goes_on_when_the_restart_is_over_and_no_sooner() {
    let restart = Restart::new();
    let mut callers = Callers::new(&ManualTime::new());
    callers.call(restart.over());
    assert_eq!(callers.run().len(), 1, "there is none");
    restart.begins();
    assert!(restart.is_on());
    let leaves = callers.call(restart.over());
    let waits = callers.call(restart.over());
    assert!(callers.run().is_empty());
    callers.leaves(leaves);
    restart.ends();
    assert_eq!(callers.run(), [(waits, ())]);
    assert!(!restart.is_on());
}

#[test]
fn whoever_was_woken_waits_on_if_another_restart_has_begun_meanwhile() {
    let restart = Restart::new();
    let mut callers = Callers::new(&ManualTime::new());
    restart.begins();
    let waits = callers.call(restart.over());
    assert!(callers.run().is_empty());
    restart.ends();
    restart.begins();
    assert!(callers.run().is_empty());
    restart.ends();
    assert_eq!(callers.run(), [(waits, ())]);
}
