//! What a consumer and a producer share: settings, the callbacks of librdkafka, and the secrets that must not be shown.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::{RDKafkaConfRes, RDKafkaErrorCode};
use sage::OsThread;

use super::error::KafkaError;

/// Parts of the names of settings whose values are secret.
const SECRET: [&str; 9] = ["password", "secret", "token", "pem", "jaas", "oauthbearer", "key", "username", "kinit"];
/// Shorter parts of a secret value are not searched for by themselves: they would be found everywhere.
const SHORTEST_PART: usize = 4;

/// Settings of a client.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) servers: String,
    pub(super) connect_timeout: Duration,
    extra: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn new(servers: String) -> Self {
        Self { servers, connect_timeout: Duration::from_secs(10), extra: Vec::new() }
    }

    pub(super) fn set(&mut self, key: String, value: String) {
        self.extra.retain(|(known, _)| *known != key);
        self.extra.push((key, value));
    }

    /// Makes a client. The user can change the settings in `defaults` by name, but not those in `fixed`.
    pub(super) fn client<C: FromClientConfigAndContext<Context>>(
        &self,
        fixed: &[(&str, String)],
        defaults: &[(&str, &str)],
    ) -> Result<C, KafkaError> {
        let mut config = ClientConfig::new();
        let debug = self.extra.iter().any(|(key, _)| key == "debug");
        config.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.extra {
            if key == "bootstrap.servers" || fixed.iter().any(|(fixed, _)| fixed == key) {
                let why = "is set by the source or sink itself; see its methods".to_owned();
                return Err(KafkaError::Setting { key: key.clone(), why });
            }
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, value);
        }
        config.set("bootstrap.servers", &self.servers);
        let context = Context { secrets: self.secrets().into(), told: Mutex::default() };
        config.create_with_context(context).map_err(|error| match error {
            // The description and the value are left out, for the value may be a secret.
            ClientError::ClientConfig(kind, _, key, _) => {
                let unknown = kind == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
                let why = if unknown { "is unknown" } else { "has a value that librdkafka does not take" };
                KafkaError::Setting { key, why: why.to_owned() }
            }
            error => KafkaError::Client { why: redact(&error.to_string(), &self.secrets()) },
        })
    }

    /// The addresses of the brokers, without secrets.
    pub(super) fn servers_told(&self) -> String {
        redact(&self.servers, &self.secrets())
    }

    /// The secrets: values of secret settings, the values inside those, and what addresses have before an `@`. The
    /// longest comes first, so that none hides a part of another.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for (key, value) in &self.extra {
            let key = key.to_ascii_lowercase();
            if SECRET.iter().any(|part| key.contains(part)) && !matches!(&**value, "true" | "false") {
                secrets.push(value.clone());
                secrets.extend(values_in(value));
            }
            secrets.extend(credentials_in(value));
        }
        secrets.extend(credentials_in(&self.servers));
        // As they are in JSON, which statistics are.
        let escaped =
            |secret: &String| serde_json::to_string(secret).ok().map(|text| text[1..text.len() - 1].to_owned());
        secrets.extend(secrets.iter().filter_map(escaped).collect::<Vec<_>>());
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        secrets
    }
}

/// The values in a secret that is a list of names and values, such as a login module's configuration.
fn values_in(secret: &str) -> impl Iterator<Item = String> {
    let words = secret.split(|c: char| c.is_whitespace() || matches!(c, ';' | ','));
    let values = words.filter_map(|word| word.split_once('=')).map(|(_, value)| value.trim_matches(['"', '\'']));
    values.filter(|value| value.len() >= SHORTEST_PART).map(str::to_owned)
}

/// What the addresses in a text have before an `@`: names and passwords.
fn credentials_in(text: &str) -> impl Iterator<Item = String> {
    let addresses = text.split(|c: char| c.is_whitespace() || c == ',');
    let credentials = addresses.filter_map(|address| {
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = address.find(['/', '?']).unwrap_or(address.len());
        address[..host].rsplit_once('@').map(|(credentials, _)| credentials)
    });
    credentials.map(str::to_owned)
}

/// Shows names but no values: one of them may be a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: Vec<_> = self.extra.iter().map(|(key, _)| key).collect();
        f.debug_struct("Settings").field("servers", &self.servers_told()).field("extra", &extra).finish_non_exhaustive()
    }
}

fn redact(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

/// What librdkafka's callbacks reported. They run on the thread that polls.
#[derive(Debug, Default)]
struct Told {
    last_error: Option<String>,
    acknowledged: u64,
    failed: Option<String>,
}

/// Receives librdkafka's reports.
pub(super) struct Context {
    secrets: Box<[String]>,
    told: Mutex<Told>,
}

impl Context {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last error librdkafka reported, or `or`.
    pub(super) fn reason(&self, or: &dyn fmt::Display) -> String {
        self.told().last_error.clone().unwrap_or_else(|| redact(&or.to_string(), &self.secrets))
    }

    /// How many records were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.told().acknowledged
    }

    /// Why the first record that was not delivered failed.
    pub(super) fn failed(&self) -> Option<String> {
        self.told().failed.clone()
    }
}

/// A client is dropped before its context, and has joined its threads then; the system may still have them for a
/// moment.
impl Drop for Context {
    fn drop(&mut self) {
        OsThread::await_exiting();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let message = redact(message, &self.secrets);
        match level {
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "librdkafka: {message}");
            }
            _ => tracing::warn!(facility, "librdkafka: {message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let statistics = redact(&String::from_utf8_lossy(statistics), &self.secrets);
        tracing::debug!("librdkafka's statistics: {statistics}");
    }

    fn error(&self, error: ClientError, reason: &str) {
        let code = error.rdkafka_error_code();
        // It only sums up what was told before.
        if code == Some(RDKafkaErrorCode::AllBrokersDown) && self.told().last_error.is_some() {
            return;
        }
        self.told().last_error = Some(redact(reason, &self.secrets));
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut told = self.told();
        match result {
            Ok(_) => told.acknowledged += 1,
            Err((error, _)) if told.failed.is_none() => {
                let mut why = words(error);
                if let Some(last) = &told.last_error {
                    why = format!("{why}; {last}");
                }
                told.failed = Some(redact(&why, &self.secrets));
            }
            Err(_) => {}
        }
    }
}

/// What an error says: its code, if it has one, without what the code is wrapped in.
pub(super) fn words(error: &ClientError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string())
}

/// Whether an error goes away once a broker can be reached again.
pub(super) fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::BrokerDestroy
            | Code::DestroyBroker
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::Outdated
            | Code::Retry
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::UnstableOffsetCommit
            | Code::ThrottlingQuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_settings_are_not_told_on() {
        let mut settings = Settings::new("localhost:1".to_owned());
        settings.set("sasl.password".to_owned(), "hunter2".to_owned());
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(format!("{settings:?}").contains("sasl.password"));
        assert_eq!(redact("with hunter2, not", &settings.secrets()), "with ***, not");
    }

    #[test]
    fn no_part_of_a_secret_is_told_on_in_whatever_form() {
        let mut settings = Settings::new("SASL_PLAINTEXT://ann:s3cret@a:9092,b:9092".to_owned());
        for (key, value) in [
            ("sasl.jaas.config", "module required username=\"ann-user\" password=\"pass;word\";"),
            ("sasl.oauthbearer.config", "principal=admin-1 scope=every"),
            ("ssl.key.password", "quo\"ted"),
            ("sasl.oauthbearer.token.endpoint.url", "https://me:mine@auth.example/token"),
            ("some.url", "http://you:yours@proxy/x"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("client.id", "reader"),
        ] {
            settings.set(key.to_owned(), value.to_owned());
        }
        let secrets = settings.secrets();
        let told = |text: &str| redact(text, &secrets);
        assert_eq!(told("to ann:s3cret@a:9092 as ann-user"), "to ***@a:9092 as ***");
        assert_eq!(told(r#"{"key":"quo\"ted","id":"reader","up":true}"#), r#"{"key":"***","id":"reader","up":true}"#);
        assert_eq!(told("admin-1, every, you:yours@proxy, me:mine@auth"), "***, ***, ***@proxy, ***@auth");
        assert_eq!(settings.servers_told(), "SASL_PLAINTEXT://***@a:9092,b:9092");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    /// Each test of ours has a process of its own.
    #[test]
    fn no_thread_is_left_when_a_client_is_dropped() {
        use rdkafka::consumer::BaseConsumer;

        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let settings = Settings::new("127.0.0.1:1,127.0.0.2:1,127.0.0.3:1".to_owned());
        let before = threads();
        for _ in 0..100 {
            let client: BaseConsumer<Context> = settings.client(&[("group.id", "group".to_owned())], &[]).unwrap();
            assert!(threads() > before);
            drop(client);
            assert_eq!(threads(), before);
        }
    }

    #[test]
    fn statistics_are_logged_without_secrets() {
        let (log, into) = std::io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let subscriber = subscriber.with_writer(Mutex::new(into)).finish();
        let context = Context { secrets: Box::new(["hunter2".to_owned()]), told: Mutex::default() };
        tracing::subscriber::with_default(subscriber, || {
            context.stats_raw(br#"{"name":"hunter2","rx":1}"#);
            context.log(RDKafkaLogLevel::Error, "SASL", "refused hunter2");
        });
        let logged = std::io::read_to_string(log).unwrap();
        assert!(logged.contains(r#""name":"***","rx":1"#) && logged.contains("refused ***"), "{logged}");
    }
}
