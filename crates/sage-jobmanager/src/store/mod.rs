//! The records of jobs, in SQLite: an index over the jobs' folders, for questions that would otherwise read them all.
//!
//! 1. What is in here is in the folders as well. What is damaged is put aside, and made anew from them (`rebuild`).
//! 2. Every change has a number greater than all before: who knows the changes up to one asks for those since.
//! 3. A record that is over may be lost by a crash of the system only to be found in its folder again; that it is to be
//!    started anew is on the disk before the folder says so (`lasting`).
//!
//! It knows nothing of processes, and of which job is doing what.

mod rebuild;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params, params_from_iter};
use sage_api::home::ManagerFolder;
use sage_api::job::{JobRecord, State};

use crate::folder;

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite failed.
    #[error("the records of the jobs cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// A record is none.
    #[error("a record of a job cannot be read")]
    Record(#[from] serde_json::Error),
    /// The folders cannot be used.
    #[error("the folders of the jobs cannot be used")]
    Folder(#[from] io::Error),
}

impl StoreError {
    fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => {
                matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            }
            Self::Sqlite(_) | Self::Record(_) => true,
            Self::Folder(_) => false,
        }
    }
}

/// How many numbers are reserved at a time.
const RESERVED: u64 = 100;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -2000;
    PRAGMA busy_timeout = 2000;
    CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        ended_ms INTEGER,
        bytes INTEGER NOT NULL DEFAULT 0,
        change INTEGER NOT NULL,
        record TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number, name);
    CREATE INDEX IF NOT EXISTS by_end ON jobs (ended_ms, bytes) WHERE ended_ms IS NOT NULL;
    CREATE INDEX IF NOT EXISTS by_change ON jobs (change);
    CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
";

/// Which jobs are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Those in one of these states; all if there is none.
    pub states: Vec<State>,
    /// Those with this in their name, whatever the case of its letters a to z.
    pub name: String,
    /// Those with a smaller number.
    pub before: Option<u64>,
    /// So many at most.
    pub limit: u64,
}

/// What is known of the jobs that are over, for deciding which are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) ended_ms: u64,
    pub(crate) bytes: u64,
}

/// The records.
#[derive(Debug)]
pub(crate) struct Store {
    folder: ManagerFolder,
    connection: Connection,
    /// The last change.
    change: u64,
    /// The last number given.
    number: u64,
    /// No number above it was given before it is raised on the disk.
    reserved: u64,
    /// Whether it was made anew since this was last asked.
    was_rebuilt: bool,
}

impl Store {
    /// Opens the records of a job manager, or makes them anew.
    pub(crate) fn open(folder: &ManagerFolder) -> Result<Self, StoreError> {
        let opened = Self::open_as_is(folder).and_then(|mut store| {
            store.check()?;
            store.compare()?;
            Ok(store)
        });
        match opened {
            Err(error) if error.is_damage() => Self::rebuilt(folder, &error),
            other => other,
        }
    }

    fn open_as_is(folder: &ManagerFolder) -> Result<Self, StoreError> {
        let path = folder.records();
        // Made with the rights of this user only, and so is what SQLite puts beside it.
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.read(true).append(true).create(true), 0o600).open(&path)?;
        let connection = Connection::open(&path)?;
        connection.execute_batch(SCHEMA)?;
        let last = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<u64>>(0));
        let change = last("SELECT MAX(change) FROM jobs")?.unwrap_or_default();
        let given = last("SELECT MAX(value) FROM counters WHERE name = 'number'")?;
        let highest = last("SELECT MAX(number) FROM jobs")?.unwrap_or_default();
        let reserved = folder::read_json(&folder.numbers()).ok().flatten().unwrap_or_default();
        // What was counted is lost with the records: then no number that was reserved is given.
        let number = given.unwrap_or(reserved).max(highest);
        Ok(Self { folder: folder.clone(), connection, change, number, reserved, was_rebuilt: false })
    }

    fn check(&self) -> Result<(), StoreError> {
        let found: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found == "ok" {
            return Ok(());
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        Err(rusqlite::Error::SqliteFailure(code, Some(found)).into())
    }

    /// Runs what asks or changes the records. If they are damaged, they are made anew, and it is run once more.
    pub(crate) fn with<T>(
        &mut self,
        mut action: impl FnMut(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match action(self) {
            Err(error) if error.is_damage() => {
                *self = Self { change: self.change, ..Self::rebuilt(&self.folder, &error)? };
                self.was_rebuilt = true;
                action(self)
            }
            other => other,
        }
    }

    /// Whether the records were made anew from the folders since this was last asked: what only the daemon knows of
    /// jobs that run is missing then.
    pub(crate) fn take_rebuilt(&mut self) -> bool {
        std::mem::take(&mut self.was_rebuilt)
    }

    /// The number of the next job.
    pub(crate) fn next_number(&mut self) -> Result<u64, StoreError> {
        if self.number >= self.reserved {
            self.reserved = self.number + RESERVED;
            folder::write_json(&self.folder.numbers(), &self.reserved)?;
        }
        self.number += 1;
        let number = self.number;
        self.with(|store| {
            let sql = "INSERT INTO counters VALUES ('number', ?1) ON CONFLICT (name) DO UPDATE SET value = ?1";
            store.connection.prepare_cached(sql)?.execute([number])?;
            Ok(())
        })?;
        self.number = self.number.max(number);
        Ok(number)
    }

    /// The last change: see [`Self::since`].
    pub(crate) fn change(&self) -> u64 {
        self.change
    }

    /// Adds a record, or changes it.
    pub(crate) fn put(&mut self, record: &JobRecord) -> Result<(), StoreError> {
        self.with(|store| store.put_once(record, None))
    }

    /// As [`Self::put`], for a job that is over and takes so much of the disk.
    pub(crate) fn put_ended(&mut self, record: &JobRecord, bytes: u64) -> Result<(), StoreError> {
        self.with(|store| store.put_once(record, Some(bytes)))
    }

    /// As [`Self::put`], and it is on the disk.
    pub(crate) fn put_lasting(&mut self, record: &JobRecord) -> Result<(), StoreError> {
        self.with(|store| {
            store.connection.execute_batch("PRAGMA synchronous = FULL")?;
            let put = store.put_once(record, None);
            store.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
            put
        })
    }

    fn put_once(&mut self, record: &JobRecord, bytes: Option<u64>) -> Result<(), StoreError> {
        let sql = "INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
            ON CONFLICT (number) DO UPDATE SET id = ?2, name = ?3, state = ?4, ended_ms = ?5, bytes = ?6, change = ?7,
            record = ?8";
        let JobRecord { number, id, name, state, ended_ms, .. } = record;
        let (bytes, text) = (bytes.unwrap_or_default(), serde_json::to_string(record)?);
        let change = self.change + 1;
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![number, id, name, state.word(), ended_ms, bytes, change, text])?;
        self.change = change;
        Ok(())
    }

    /// The record of this id.
    pub(crate) fn by_id(&mut self, id: &str) -> Result<Option<JobRecord>, StoreError> {
        self.one("SELECT record FROM jobs WHERE id = ?", id.to_owned().into())
    }

    /// The record of this number.
    pub(crate) fn by_number(&mut self, number: u64) -> Result<Option<JobRecord>, StoreError> {
        // No number is that large.
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        self.one("SELECT record FROM jobs WHERE number = ?", number.into())
    }

    fn one(&mut self, sql: &str, key: Value) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.with(|store| store.records(sql, vec![key.clone()]))?.pop())
    }

    /// Up to eleven records whose ids begin so: a prefix of an id, of lowercase hexadecimal digits and dashes.
    pub(crate) fn by_prefix(&mut self, prefix: &str) -> Result<Vec<JobRecord>, StoreError> {
        let sql = "SELECT record FROM jobs WHERE id >= ?1 AND id < ?2 ORDER BY number DESC LIMIT 11";
        // No character of an id is behind `f`.
        let keys = [Value::from(prefix.to_owned()), Value::from(format!("{prefix}g"))];
        self.with(|store| store.records(sql, keys.to_vec()))
    }

    /// The records that were asked for, newest first, and how many there are without regard to pages.
    pub(crate) fn page(&mut self, asked: &Asked) -> Result<(Vec<JobRecord>, u64), StoreError> {
        let states = match asked.states.len() {
            0 => "1".to_owned(),
            count => format!("state IN ({})", vec!["?"; count].join(", ")),
        };
        let mut values: Vec<Value> = asked.states.iter().map(|state| state.word().to_owned().into()).collect();
        let before = i64::try_from(asked.before.unwrap_or(u64::MAX)).unwrap_or(i64::MAX);
        if !asked.name.is_empty() {
            values.push(pattern(&asked.name).into());
            return self.with(|store| store.page_by_name(&states, &values, before, asked.limit));
        }
        self.with(|store| {
            let count = format!("SELECT COUNT(*) FROM jobs WHERE {states}");
            let mut count = store.connection.prepare_cached(&count)?;
            let total = count.query_row(params_from_iter(values.iter()), |row| row.get(0))?;
            let limit = asked.limit;
            let sql =
                format!("SELECT record FROM jobs WHERE {states} AND number < ? ORDER BY number DESC LIMIT {limit}");
            let values = values.iter().cloned().chain([before.into()]).collect();
            Ok((store.records(&sql, values)?, total))
        })
    }

    /// Names are looked for in the index, which is a tenth of the table, and once.
    fn page_by_name(
        &self,
        states: &str,
        values: &[Value],
        before: i64,
        limit: u64,
    ) -> Result<(Vec<JobRecord>, u64), StoreError> {
        let sql = format!("SELECT number FROM jobs INDEXED BY by_state WHERE {states} AND name LIKE ? ESCAPE '\\'");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let numbers = statement.query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?;
        let mut numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let total = numbers.len() as u64;
        numbers.retain(|number| *number < before);
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        numbers.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut records = Vec::with_capacity(numbers.len());
        for number in numbers {
            records.extend(self.records("SELECT record FROM jobs WHERE number = ?", vec![number.into()])?);
        }
        Ok((records, total))
    }

    /// Up to so many records that have changed since this change, in the order of their changes, and the last of these.
    pub(crate) fn since(&mut self, change: u64, limit: u64) -> Result<(Vec<JobRecord>, u64), StoreError> {
        let sql = "SELECT record, change FROM jobs WHERE change > ? ORDER BY change LIMIT ?";
        self.with(|store| {
            let mut statement = store.connection.prepare_cached(sql)?;
            let rows = statement.query_map([change, limit], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let (mut records, mut last) = (Vec::new(), change);
            for row in rows {
                let (record, change) = row?;
                records.push(serde_json::from_str(&record)?);
                last = change;
            }
            Ok((records, last))
        })
    }

    /// The records of jobs that are not over, by number.
    pub(crate) fn open_jobs(&mut self) -> Result<Vec<JobRecord>, StoreError> {
        self.with(|store| store.records("SELECT record FROM jobs WHERE ended_ms IS NULL ORDER BY number", Vec::new()))
    }

    /// How many jobs are in which state.
    pub(crate) fn counts(&mut self) -> Result<BTreeMap<String, u64>, StoreError> {
        self.with(|store| {
            let mut statement = store.connection.prepare_cached("SELECT state, COUNT(*) FROM jobs GROUP BY state")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How many jobs are over, and how much of the disk they take.
    pub(crate) fn ended_size(&mut self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM jobs WHERE ended_ms IS NOT NULL";
        self.with(|store| Ok(store.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?))
    }

    /// So many of the jobs that are over, those first that ended first.
    pub(crate) fn oldest_ended(&mut self, limit: u64) -> Result<Vec<Ended>, StoreError> {
        let sql = "SELECT id, ended_ms, bytes FROM jobs WHERE ended_ms IS NOT NULL ORDER BY ended_ms LIMIT ?";
        self.with(|store| {
            let mut statement = store.connection.prepare_cached(sql)?;
            let rows = statement
                .query_map([limit], |row| Ok(Ended { id: row.get(0)?, ended_ms: row.get(1)?, bytes: row.get(2)? }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Removes a record.
    pub(crate) fn delete(&mut self, id: &str) -> Result<(), StoreError> {
        self.with(|store| {
            store.connection.prepare_cached("DELETE FROM jobs WHERE id = ?")?.execute([id])?;
            store.change += 1;
            Ok(())
        })
    }

    fn records(&self, sql: &str, values: Vec<Value>) -> Result<Vec<JobRecord>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(0))?;
        rows.map(|row| Ok(serde_json::from_str(&row?)?)).collect()
    }

    fn has(&self, id: &str) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM jobs WHERE id = ?")?;
        Ok(statement.query_row([id], |_| Ok(())).optional()?.is_some())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The pattern of texts with this in them.
fn pattern(text: &str) -> String {
    let escaped = text.chars().flat_map(|character| {
        let escape = matches!(character, '%' | '_' | '\\').then_some('\\');
        escape.into_iter().chain([character])
    });
    ['%'].into_iter().chain(escaped).chain(['%']).collect()
}

/// What SQLite has of one set of records.
fn files_of(records: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|ending| {
        let mut path = records.as_os_str().to_owned();
        path.push(ending);
        path.into()
    })
}
