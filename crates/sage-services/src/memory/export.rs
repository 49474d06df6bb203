//! A memory as one file of lines, and back: [`Memory::export`], [`Memory::import`].
//!
//! The format is for other programs, too. It is JSON Lines in UTF-8. The first line is `{"sage_memory": 1, "embedder":
//! …, "dimensions": …}`, where `embedder` says what made the vectors, or is `null`. Every other line is a turn, in the
//! order in which they were appended:
//!
//! | name | value |
//! |---|---|
//! | `tenant`, `user`, `agent`, `session` | the scope; those that are not named are left out |
//! | `id`, `role` | strings |
//! | `said`, `expires` | moments of RFC 3339, to the microsecond; a turn that does not expire has no `expires` |
//! | `versions` | a list of objects, oldest first, at least one |
//!
//! A version has `recorded` (a moment), `text` (`null` from when the turn was deleted), `importance` (0 to 1; 0 if left
//! out), `metadata` (an object; a moment in it is `{"date": …}`; may be left out) and `vector` (the numbers as 32-bit
//! little-endian floats in base64; may be left out).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value as Json};

use super::contents::{Contents, Slot, State, with_role};
use super::entry::{Appended, Entry, Says, StoredScope, Updated};
use super::error::MemoryError;
use super::memory::Memory;
use super::scope::Scope;
use super::times::{from_micros, to_micros};
use super::turn::{NewTurn, check_id, shortened};
use crate::store::stored::{StoredMetadata, StoredVector};
use crate::store::{Metadata, Value};

/// The longest line that is read, in bytes.
const LONGEST_LINE: u64 = 256 << 20;
/// Turns that are written at once.
const AT_ONCE: usize = 1_000;

/// What an import has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Imported {
    /// Turns that were remembered.
    pub turns: usize,
    /// Turns that were there already, which were left as they are.
    pub known: usize,
    /// Turns that have expired.
    pub expired: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    sage_memory: u32,
    embedder: Option<String>,
    dimensions: usize,
}

/// A turn's line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    id: String,
    role: String,
    said: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    versions: Vec<LineVersion>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LineVersion {
    recorded: Timestamp,
    text: Option<String>,
    #[serde(default)]
    importance: f32,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vector: Option<String>,
}

/// A line that was read and checked.
struct Parsed {
    scope: Scope,
    line: Line,
    /// By version.
    metadata: Vec<Metadata>,
    vectors: Vec<Option<Vec<f32>>>,
}

impl Memory {
    /// Writes the turns of a scope, with their histories and vectors, into a new file, for its owner only, and says how
    /// many. [`import`](Self::import) reads it. Writes to the memory wait meanwhile.
    ///
    /// The file has a line of JSON for each turn, and one before them; the guide says what is in them.
    ///
    /// # Errors
    /// [`MemoryError::UnknownScope`] for a scope without turns; [`MemoryError::File`], also if there is a file already;
    /// [`MemoryError::NotOpen`], [`MemoryError::BadScope`].
    pub fn export(&self, scope: &Scope, path: impl AsRef<Path>) -> Result<usize, MemoryError> {
        scope.check()?;
        let path = path.as_ref();
        let failed = |source| MemoryError::File { path: path.to_owned(), done: "written", source };
        // A write that waited for what is read here would hold up whoever reads.
        let _writer = self.inner.writing()?;
        let now = self.inner.now();
        let contents = self.inner.reading()?;
        let slots: Vec<&Slot> = contents.slots_in(scope).into_iter().map(|slot| contents.slot(slot)).collect();
        let slots: Vec<&Slot> = slots.into_iter().filter(|slot| !slot.is_expired(now)).collect();
        if slots.is_empty() {
            return Err(MemoryError::UnknownScope { scope: scope.clone() });
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let made_by = self.inner.made_by.as_ref();
        let head = Head {
            sage_memory: 1,
            embedder: made_by.map(ToString::to_string),
            dimensions: made_by.map_or(0, |made_by| made_by.dimensions()),
        };
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(&file);
            write_line(&mut file, &head)?;
            slots.iter().try_for_each(|slot| write_line(&mut file, &line_of(&contents, slot)))?;
            file.flush()
        };
        if let Err(error) = write().and_then(|()| file.sync_all()) {
            // Half of it helps nobody, and may be what filled the disk.
            let _ = std::fs::remove_file(path);
            return Err(failed(error));
        }
        Ok(slots.len())
    }

    /// Remembers the turns of a file that [`export`](Self::export) has written, with their histories. Turns that are
    /// there already are left as they are, so an import that failed half-way can be repeated. If a line is none,
    /// nothing is imported. Vectors of another embedder are made anew, if the memory has one.
    ///
    /// # Errors
    /// [`MemoryError::BadLine`], [`MemoryError::OtherText`], [`MemoryError::OtherEmbedder`], [`MemoryError::Full`],
    /// [`MemoryError::File`], [`MemoryError::NotOpen`].
    pub fn import(&self, path: impl AsRef<Path>) -> Result<Imported, MemoryError> {
        let path = path.as_ref();
        let mut read = self.read_lines(path)?;
        let mut imported = Imported::default();
        let now = self.inner.now();
        let is_expired = |read: &Parsed| read.line.expires.is_some_and(|expires| to_micros(expires) <= now);
        let all = read.len();
        read.retain(|read| !is_expired(read));
        imported.expired = all - read.len();
        {
            let contents = self.inner.reading()?;
            let mut is_new = Vec::with_capacity(read.len());
            for read in &read {
                is_new.push(is_new_to(&contents, read)?);
            }
            let all = read.len();
            let mut is_new = is_new.into_iter();
            read.retain(|_| is_new.next() == Some(true));
            imported.known = all - read.len();
        }
        self.embed_lines(&mut read)?;
        for read in read.chunks(AT_ONCE) {
            imported.turns += self.inner.import(read.len(), |contents, place| entries(contents, read, place))?;
        }
        Ok(imported)
    }

    fn read_lines(&self, path: &Path) -> Result<Vec<Parsed>, MemoryError> {
        let failed = |source| MemoryError::File { path: path.to_owned(), done: "read", source };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let mut lines = Vec::new();
        let mut seen: HashMap<(Scope, String), usize> = HashMap::new();
        let mut takes_vectors = None;
        let mut bytes = Vec::new();
        for number in 1.. {
            let bad = |why: String| MemoryError::BadLine { path: path.to_owned(), line: number, why };
            bytes.clear();
            let length = file.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes).map_err(failed)?;
            if length == 0 {
                break;
            }
            if length as u64 > LONGEST_LINE {
                return Err(bad(format!("it has more than {LONGEST_LINE} bytes")));
            }
            let text = std::str::from_utf8(&bytes);
            let text = text.map_err(|error| bad(format!("it is not UTF-8 from byte {} on", error.valid_up_to())))?;
            let Some(takes) = takes_vectors else {
                takes_vectors = Some(self.check_head(path, text).map_err(|why| why.unwrap_or_else(bad))?);
                continue;
            };
            if text.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
            let read = self.checked(line, takes).map_err(bad)?;
            if let Some(earlier) = seen.insert((read.scope.clone(), read.line.id.clone()), number) {
                return Err(bad(format!("line {earlier} has the id {:?}, too", read.line.id)));
            }
            lines.push(read);
        }
        match takes_vectors {
            Some(_) => Ok(lines),
            None => Err(MemoryError::BadLine { path: path.to_owned(), line: 1, why: "the file is empty".to_owned() }),
        }
    }

    /// Whether the vectors of a file are taken.
    fn check_head(&self, path: &Path, text: &str) -> Result<bool, Result<MemoryError, String>> {
        let is_none = "it is not the first line of a memory's export".to_owned();
        let head: Head = serde_json::from_str(text).map_err(|_| Err(is_none))?;
        if head.sage_memory != 1 {
            return Err(Err(format!("it is of version {}; 1 is read", head.sage_memory)));
        }
        let given = self.inner.made_by.as_ref().map(ToString::to_string);
        if head.embedder == given || head.embedder.is_none() || self.inner.embedder().is_some() {
            return Ok(head.embedder == given);
        }
        let (path, found) = (path.to_owned(), head.embedder.unwrap_or_default());
        Err(Ok(MemoryError::OtherEmbedder { path, found, expected: given.unwrap_or_else(|| "no embedder".to_owned()) }))
    }

    fn checked(&self, line: Line, takes_vectors: bool) -> Result<Parsed, String> {
        let told = |error: MemoryError| error.to_string();
        let mut scope = Scope::tenant(&*line.tenant);
        for (part, name) in [&line.user, &line.agent, &line.session].into_iter().enumerate() {
            scope = scope.with(part, name.as_deref().map(Into::into));
        }
        scope.check().map_err(told)?;
        check_id(&line.id).map_err(told)?;
        let (mut metadata, mut vectors) = (Vec::new(), Vec::new());
        if line.versions.first().is_none_or(|first| first.text.is_none()) {
            return Err("its first version has no text".to_owned());
        }
        let mut recorded = None;
        for (at, version) in line.versions.iter().enumerate() {
            if recorded.is_some_and(|before| before >= version.recorded) {
                return Err(format!("version {at} was recorded before the one before it"));
            }
            recorded = Some(version.recorded);
            if version.text.is_none() && at + 1 < line.versions.len() {
                return Err("it has a version after it was deleted".to_owned());
            }
            let values: Option<Metadata> =
                version.metadata.iter().map(|(name, json)| Some((name.clone(), value_of(json)?))).collect();
            let values = values.ok_or_else(|| format!("the metadata of version {at} has a value that is none"))?;
            let mut turn = NewTurn::new(&*line.role, version.text.as_deref().unwrap_or("deleted"));
            (turn.importance, turn.said) = (version.importance, Some(line.said));
            turn.metadata.clone_from(&values);
            turn.check().map_err(told)?;
            let vector = version.vector.as_deref().filter(|_| takes_vectors).map(numbers).transpose()?;
            self.inner.check_vector(&shortened(&line.id), vector.as_deref()).map_err(told)?;
            metadata.push(values);
            vectors.push(vector);
        }
        Ok(Parsed { scope, line, metadata, vectors })
    }

    /// Has texts without a vector embedded.
    fn embed_lines(&self, lines: &mut [Parsed]) -> Result<(), MemoryError> {
        for lines in lines.chunks_mut(AT_ONCE) {
            let mut lacking: Vec<(String, &mut Option<Vec<f32>>)> = Vec::new();
            for Parsed { line, vectors, .. } in lines {
                let versions = line.versions.iter().zip(vectors);
                let lacks = versions.filter(|(_, vector)| vector.is_none());
                let text = |version: &LineVersion| Some(with_role(&line.role, version.text.as_deref()?));
                lacking.extend(lacks.filter_map(|(version, vector)| Some((text(version)?, vector))));
            }
            let (texts, lacking): (Vec<String>, Vec<_>) = lacking.into_iter().unzip();
            for (vector, made) in lacking.into_iter().zip(self.inner.embed(&texts)?.unwrap_or_default()) {
                *vector = Some(made);
            }
        }
        Ok(())
    }
}

/// Whether a memory does not have a turn yet.
fn is_new_to(contents: &Contents, read: &Parsed) -> Result<bool, MemoryError> {
    let Some(slot) = contents.find(&read.scope, &read.line.id) else { return Ok(true) };
    let slot = contents.slot(slot);
    let first = slot.states[0].text.as_deref();
    if *slot.role == *read.line.role && first == read.line.versions[0].text.as_deref() {
        return Ok(false);
    }
    Err(MemoryError::OtherText { scope: read.scope.clone(), id: read.line.id.clone() })
}

/// The entries of turns that a memory does not have, from a place on.
fn entries<'a>(contents: &Contents, lines: &'a [Parsed], mut place: u64) -> Result<Vec<Entry<'a>>, MemoryError> {
    let mut entries = Vec::new();
    for read in lines {
        if !is_new_to(contents, read)? {
            continue;
        }
        let Parsed { scope, line, metadata, vectors } = read;
        let scope = StoredScope::of(scope);
        for (at, version) in line.versions.iter().enumerate() {
            let says = Says {
                recorded: to_micros(version.recorded),
                text: version.text.as_deref(),
                importance: version.importance,
                metadata: StoredMetadata::of(&metadata[at]),
                vector: vectors[at].as_deref().map(StoredVector::of),
            };
            if at > 0 {
                entries.push(Entry::Update(Updated { scope, id: &line.id, says }));
                continue;
            }
            let (id, role, said) = (&*line.id, &*line.role, to_micros(line.said));
            let expires = line.expires.map(to_micros);
            entries.push(Entry::Append(Appended { scope, id, place, role, said, expires, says }));
            place += 1;
        }
    }
    Ok(entries)
}

fn line_of(contents: &Contents, slot: &Slot) -> Line {
    let scope = contents.scope(slot.leaf);
    let [user, agent, session] = scope.within().each_ref().map(|name| name.as_deref().map(str::to_owned));
    let latest = slot.states.len() - 1;
    let version = |(at, state): (usize, &State)| {
        let row = slot.row.filter(|_| at == latest).and_then(|row| contents.live.vector(row));
        let vector = state.vector.clone().or(row);
        LineVersion {
            recorded: from_micros(state.recorded),
            text: state.text.as_deref().map(str::to_owned),
            importance: state.importance,
            metadata: state.metadata.iter().map(|(name, value)| (name.clone(), json_of(value))).collect(),
            vector: vector
                .filter(|vector| vector.iter().any(|x| *x != 0.0))
                .map(|vector| STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())),
        }
    };
    Line {
        tenant: scope.tenant_name().to_owned(),
        user,
        agent,
        session,
        id: slot.id.to_string(),
        role: slot.role.to_string(),
        said: from_micros(slot.said),
        expires: slot.expires.map(from_micros),
        versions: slot.states.iter().enumerate().map(version).collect(),
    }
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

fn numbers(text: &str) -> Result<Vec<f32>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("its vector is not base64: {error}"))?;
    let (numbers, []) = bytes.as_chunks::<4>() else { return Err("its vector has half a number".to_owned()) };
    Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::String(text) => Json::String(text.clone()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Boolean(truth) => Json::Bool(*truth),
        Value::Date(date) => serde_json::json!({ "date": date }),
        Value::List(values) => Json::Array(values.iter().map(json_of).collect()),
    }
}

fn value_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::String(text) => Value::String(text.clone()),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Float(number.as_f64()?),
        },
        Json::Bool(truth) => Value::Boolean(*truth),
        Json::Object(date) => Value::Date(serde_json::from_value(date.get("date")?.clone()).ok()?),
        Json::Array(values) => Value::List(values.iter().map(value_of).collect::<Option<_>>()?),
        Json::Null => return None,
    })
}
