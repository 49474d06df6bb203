//! What a consumer and a producer share: settings, the callbacks of librdkafka, and what must not be told on.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::{RDKafkaConfRes, RDKafkaErrorCode};

use super::error::KafkaError;

/// Parts of the names of settings whose values are secret.
const SECRET: [&str; 8] = ["password", "secret", "token", "pem", "jaas", "oauthbearer", "key", "username"];

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

    /// Makes a client. `fixed` are settings that the user cannot change by name, `defaults` those that they can.
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
        let context = Context { secrets: self.secrets(), told: Mutex::default() };
        config.create_with_context(context).map_err(|error| match error {
            // The description and the value are left out, for the value may be a secret.
            rdkafka::error::KafkaError::ClientConfig(kind, _, key, _) => {
                let unknown = kind == RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
                let why = if unknown { "is unknown" } else { "has a value that librdkafka does not take" };
                KafkaError::Setting { key, why: why.to_owned() }
            }
            error => KafkaError::Client { why: redact(&error.to_string(), &self.secrets()) },
        })
    }

    fn secrets(&self) -> Vec<String> {
        let secret = |key: &str| SECRET.iter().any(|part| key.contains(part));
        self.extra.iter().filter(|(key, _)| secret(key)).map(|(_, value)| value.clone()).collect()
    }
}

/// Names, no values: one of them may be a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: Vec<_> = self.extra.iter().map(|(key, _)| key).collect();
        f.debug_struct("Settings").field("servers", &self.servers).field("extra", &extra).finish_non_exhaustive()
    }
}

fn redact(text: &str, secrets: &[String]) -> String {
    let told = secrets.iter().filter(|secret| !secret.is_empty());
    told.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

/// What librdkafka has told, from its callbacks. They run on the thread that polls.
#[derive(Debug, Default)]
struct Told {
    last_error: Option<String>,
    acknowledged: u64,
    failed: Option<String>,
}

/// Receives what librdkafka tells.
pub(super) struct Context {
    secrets: Vec<String>,
    told: Mutex<Told>,
}

impl Context {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last error librdkafka has told, or else `or`.
    pub(super) fn reason(&self, or: &dyn fmt::Display) -> String {
        self.told().last_error.clone().unwrap_or_else(|| redact(&or.to_string(), &self.secrets))
    }

    /// How many records were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.told().acknowledged
    }

    /// Why the first record that was not delivered was not.
    pub(super) fn failed(&self) -> Option<String> {
        self.told().failed.clone()
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
        tracing::debug!("librdkafka's statistics: {}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
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
                let code = error.rdkafka_error_code();
                let mut why = code.map_or_else(|| error.to_string(), |code| code.to_string());
                if let Some(last) = &told.last_error {
                    why = format!("{why}; {last}");
                }
                told.failed = Some(redact(&why, &self.secrets));
            }
            Err(_) => {}
        }
    }
}

/// Whether an error passes by itself once a broker can be reached again.
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
}
