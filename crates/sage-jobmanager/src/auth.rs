//! Who may ask: whoever shows the token, or has the cookie of a session that was begun with the token or with a link.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sage_api::home::ManagerFolder;
use subtle::ConstantTimeEq;

use crate::{folder, ids};

/// How long a session lasts that nobody uses.
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// How long a link is good.
const LINK: Duration = Duration::from_secs(600);

/// How many sessions and links there are at most: the oldest go.
const MOST: usize = 256;

/// The digits of a token.
const DIGITS: usize = 64;

/// Who has asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A program that has shown the token.
    Token,
    /// A browser, in a session.
    Session(Session),
}

/// A session of a browser.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// What forms and scripts of this session have to send back.
    pub csrf: String,
    /// Its cookie.
    pub(crate) cookie: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// The token, and the sessions.
pub(crate) struct Auth {
    folder: ManagerFolder,
    secrets: Mutex<Secrets>,
}

struct Secrets {
    token: String,
    /// By cookie: the token for forms, and the last use.
    sessions: HashMap<String, (String, Instant)>,
    /// The codes of links, and when they were made.
    links: HashMap<String, Instant>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth")
    }
}

impl Auth {
    /// Reads the token of this folder, or makes one.
    pub(crate) fn open(folder: &ManagerFolder) -> io::Result<Self> {
        let path = folder.token();
        let token = match fs::read_to_string(&path) {
            Ok(text) if is_token(text.trim()) => {
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                text.trim().to_owned()
            }
            // It is damaged, so nobody can show it.
            Ok(_) => new_token(folder)?,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                new_token(folder)?
            }
            Err(error) => return Err(error),
        };
        let secrets = Secrets { token, sessions: HashMap::new(), links: HashMap::new() };
        Ok(Self { folder: folder.clone(), secrets: Mutex::new(secrets) })
    }

    fn secrets(&self) -> MutexGuard<'_, Secrets> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the token. Takes as long whatever of it is wrong.
    pub(crate) fn is_token(&self, shown: &str) -> bool {
        self.secrets().token.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// Makes a new token, with which all sessions and links are void.
    pub(crate) fn rotate(&self) -> io::Result<String> {
        let token = new_token(&self.folder)?;
        *self.secrets() = Secrets { token: token.clone(), sessions: HashMap::new(), links: HashMap::new() };
        tracing::info!("the token was changed: all sessions are void");
        Ok(token)
    }

    /// The code of a new link.
    pub(crate) fn new_link(&self) -> io::Result<String> {
        let code = ids::secret()?;
        let mut secrets = self.secrets();
        secrets.links.retain(|_, made| made.elapsed() < LINK);
        make_room(&mut secrets.links, |made| *made);
        secrets.links.insert(code.clone(), Instant::now());
        Ok(code)
    }

    /// Begins a session for whoever shows the code of a link; the code is good for nothing then.
    pub(crate) fn use_link(&self, code: &str) -> io::Result<Option<Session>> {
        let is_good = self.secrets().links.remove(code).is_some_and(|made| made.elapsed() < LINK);
        if is_good { self.begin_session().map(Some) } else { Ok(None) }
    }

    /// Begins a session.
    pub(crate) fn begin_session(&self) -> io::Result<Session> {
        let session = Session { cookie: ids::secret()?, csrf: ids::secret()? };
        let mut secrets = self.secrets();
        secrets.sessions.retain(|_, (_, used)| used.elapsed() < IDLE);
        make_room(&mut secrets.sessions, |(_, used)| *used);
        secrets.sessions.insert(session.cookie.clone(), (session.csrf.clone(), Instant::now()));
        Ok(session)
    }

    /// The session with this cookie.
    pub(crate) fn session(&self, cookie: &str) -> Option<Session> {
        let mut secrets = self.secrets();
        let (csrf, used) = secrets.sessions.get_mut(cookie)?;
        if used.elapsed() >= IDLE {
            secrets.sessions.remove(cookie);
            return None;
        }
        *used = Instant::now();
        Some(Session { cookie: cookie.to_owned(), csrf: csrf.clone() })
    }

    /// Ends a session.
    pub(crate) fn end_session(&self, session: &Session) {
        self.secrets().sessions.remove(&session.cookie);
    }
}

impl Session {
    /// Whether this is what its forms send back.
    pub(crate) fn is_csrf(&self, sent: &str) -> bool {
        self.csrf.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

fn make_room<T>(kept: &mut HashMap<String, T>, used: impl Fn(&T) -> Instant) {
    if kept.len() >= MOST
        && let Some(oldest) = kept.iter().min_by_key(|(_, value)| used(value)).map(|(key, _)| key.clone())
    {
        kept.remove(&oldest);
    }
}

fn new_token(folder: &ManagerFolder) -> io::Result<String> {
    let token = ids::secret()?;
    folder::write(&folder.token(), token.as_bytes())?;
    Ok(token)
}

fn is_token(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
