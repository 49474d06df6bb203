//! The environment variable that asks for log files. It is set for a child only: another thread may read variables
//! while a test sets one.

use std::path::Path;

use sage::Environment;

use super::limits::in_child;
use crate::leaks::leak_free;

#[test]
fn the_variable_sage_log_dir_asks_for_log_files_where_the_environment_does_not_say() {
    let test = "contract::log_variable::\
                the_variable_sage_log_dir_asks_for_log_files_where_the_environment_does_not_say";
    let [asked, own] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for variable in [asked.path().to_str().unwrap(), ""] {
        in_child(test, &[("SAGE_LOG_DIR", variable)], || {
            leak_free(|_| {
                let run = |env: Environment| {
                    env.from_iter([1]).sink(|_| {});
                    let job = env.submit().unwrap();
                    let folder = job.log_dir().map(Path::to_owned);
                    job.wait().unwrap();
                    folder
                };
                let asked = std::env::var("SAGE_LOG_DIR").unwrap();
                match run(Environment::local("asked")) {
                    None => assert_eq!(asked, ""),
                    Some(folder) => {
                        assert!(!asked.is_empty() && folder.starts_with(asked), "{folder:?}");
                        let told = std::fs::read_to_string(folder.with_file_name("Dispatcher.log")).unwrap();
                        assert!(told.contains("task"), "{told}");
                    }
                }
                let folder = run(Environment::local("own").log_files(own.path())).unwrap();
                assert!(folder.starts_with(own.path()), "{folder:?}");
            });
        });
    }
}
