//! Who has dialled the reaper's socket: lines come from them, and go to them.
//!
//! Invariants:
//!  1. Nobody is waited for.
//!  2. All is bounded: the connections, a line, the unfinished lines of all together, and what waits for one to read
//!     it. Who exceeds a bound is dropped.
//!  3. Only processes of this user are heard.
//!
//! It knows nothing of what the lines say.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;

use nix::poll::{PollFd, PollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sage_api::message::MOST_BYTES;
use sage_api::socket;

use super::say;

/// The most connections at a time.
const MOST_PEERS: u64 = 1024;
/// Descriptors that are needed besides.
const OTHER_DESCRIPTORS: u64 = 64;
/// The most bytes of unfinished lines, of all connections together.
const MOST_UNFINISHED: usize = 2 * MOST_BYTES;
/// Nothing more is sent to whom so many bytes wait for.
const MOST_UNSENT: usize = 4 << 20;
/// What is read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// So many dropped connections are said.
const MOST_SAID: usize = 20;

/// A line, which may wait for several to read it.
pub(super) type Line = Rc<[u8]>;

/// What was read of a connection.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Whole lines.
    pub(super) lines: Vec<u8>,
    /// Whether there may be more at once.
    pub(super) is_more: bool,
    /// Whether the connection is over.
    pub(super) is_over: bool,
}

/// The connections, by number, each with what it is to whoever reads the lines.
#[derive(Debug)]
pub(super) struct Peers<K> {
    listener: Option<UnixListener>,
    peers: BTreeMap<u64, Peer<K>>,
    /// The number of the next one.
    next: u64,
    most: u64,
    unfinished: usize,
    chunk: Vec<u8>,
    said: usize,
}

#[derive(Debug)]
struct Peer<K> {
    kind: K,
    stream: UnixStream,
    /// The begin of a line.
    unfinished: Vec<u8>,
    unsent: VecDeque<Line>,
    /// How much of the first of those was sent.
    sent: usize,
    unsent_bytes: usize,
    /// It cannot be told anything any more.
    is_deaf: bool,
}

impl<K: Default> Peer<K> {
    fn new(stream: UnixStream) -> Self {
        let (unfinished, unsent) = (Vec::new(), VecDeque::new());
        Self { kind: K::default(), stream, unfinished, unsent, sent: 0, unsent_bytes: 0, is_deaf: false }
    }
}

impl<K: Default> Peers<K> {
    /// Nobody can dial.
    pub(super) fn none() -> Self {
        let (peers, chunk) = (BTreeMap::new(), Vec::new());
        Self { listener: None, peers, next: 1, most: 0, unfinished: 0, chunk, said: 0 }
    }

    /// Listens at this path.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        let listener = socket::listen(path)?;
        listener.set_nonblocking(true)?;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let wanted = (MOST_PEERS + OTHER_DESCRIPTORS).clamp(soft.min(hard), hard);
        // With fewer descriptors there are fewer connections.
        let has = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
        let most = has.saturating_sub(OTHER_DESCRIPTORS).clamp(1, MOST_PEERS);
        let chunk = vec![0; CHUNK_BYTES];
        Ok(Self { listener: Some(listener), most, chunk, ..Self::none() })
    }

    /// What to wait for: of the listener, number 0, and of each connection.
    pub(super) fn asked(&self) -> impl Iterator<Item = (u64, PollFd<'_>)> {
        let listener = self.listener.iter().map(|listener| (0, PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        listener.chain(self.peers.iter().map(|(number, peer)| {
            let writes = if peer.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (*number, PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN | writes))
        }))
    }

    /// Lets those in that have dialled.
    pub(super) fn accept(&mut self) {
        loop {
            let accepted = match &self.listener {
                Some(listener) => listener.accept(),
                None => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Without descriptors it would be asked again and again. Jobs go on untold.
                    self.complain(&format!("nobody is heard any more: {error}"));
                    self.listener = None;
                    return;
                }
            };
            if self.peers.len() as u64 >= self.most {
                self.complain(&format!("one more was refused: there are {} already", self.most));
                continue;
            }
            match socket::check_peer(&stream).and_then(|()| stream.set_nonblocking(true)) {
                Err(error) => self.complain(&format!("one was refused: {error}")),
                Ok(()) => {
                    self.peers.insert(self.next, Peer::new(stream));
                    self.next += 1;
                }
            }
        }
    }

    /// Reads what a connection has sent, at most one chunk.
    pub(super) fn read(&mut self, number: u64) -> Heard {
        let Some(peer) = self.peers.get_mut(&number) else { return Heard { is_over: true, ..Heard::default() } };
        let count = match peer.stream.read(&mut self.chunk) {
            Ok(0) => return Heard { is_over: true, ..Heard::default() },
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Heard { is_more: true, ..Heard::default() };
            }
            Err(_) => return Heard { is_over: true, ..Heard::default() },
        };
        let chunk = &self.chunk[..count];
        let ends = chunk.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut lines = Vec::new();
        if ends > 0 {
            self.unfinished -= peer.unfinished.len();
            lines = std::mem::take(&mut peer.unfinished);
            lines.extend_from_slice(&chunk[..ends]);
        }
        peer.unfinished.extend_from_slice(&chunk[ends..]);
        self.unfinished += count - ends;
        let is_too_long = peer.unfinished.len() > MOST_BYTES;
        if is_too_long || self.unfinished > MOST_UNFINISHED {
            self.complain(&if is_too_long {
                format!("one was dropped that sent a line of more than {MOST_BYTES} bytes")
            } else {
                format!("one was dropped: unfinished lines have more than {MOST_UNFINISHED} bytes")
            });
            return Heard { lines, is_more: false, is_over: true };
        }
        Heard { lines, is_more: true, is_over: false }
    }

    /// Sends a line, now or when there is room, and says whether the other side reads what it is told.
    #[must_use = "a connection whose other side does not is to be removed or deafened"]
    pub(super) fn tell(&mut self, number: u64, line: Line) -> bool {
        let Some(peer) = self.peers.get_mut(&number).filter(|peer| !peer.is_deaf) else { return true };
        if peer.unsent_bytes > MOST_UNSENT {
            self.complain("one does not read what it is told, and is told nothing more");
            return false;
        }
        peer.unsent_bytes += line.len();
        peer.unsent.push_back(line);
        self.flush(number);
        true
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self, number: u64) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        while let Some(line) = peer.unsent.front() {
            match peer.stream.write(&line[peer.sent..]) {
                Ok(count) => peer.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    // It is gone. What it has sent before is still to be read.
                    self.deafen(number);
                    return;
                }
            }
            if peer.sent == line.len() {
                peer.unsent_bytes -= line.len();
                peer.unsent.pop_front();
                peer.sent = 0;
            }
        }
    }

    /// Sends nothing more to it.
    pub(super) fn deafen(&mut self, number: u64) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.is_deaf = true;
            peer.unsent.clear();
            (peer.sent, peer.unsent_bytes) = (0, 0);
        }
    }

    /// Whether nothing is sent to it any more.
    pub(super) fn is_deaf(&self, number: u64) -> bool {
        self.peers.get(&number).is_none_or(|peer| peer.is_deaf)
    }

    /// Whether nothing waits to be sent to it.
    pub(super) fn has_all(&self, number: u64) -> bool {
        self.peers.get(&number).is_none_or(|peer| peer.unsent.is_empty())
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.peers.keys().copied().collect()
    }

    /// What a connection is.
    pub(super) fn kind(&mut self, number: u64) -> Option<&mut K> {
        self.peers.get_mut(&number).map(|peer| &mut peer.kind)
    }

    /// All of them.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (u64, &K)> {
        self.peers.iter().map(|(number, peer)| (*number, &peer.kind))
    }

    /// Ends a connection, and says what it was.
    pub(super) fn remove(&mut self, number: u64) -> Option<K> {
        let peer = self.peers.remove(&number)?;
        self.unfinished -= peer.unfinished.len();
        Some(peer.kind)
    }

    /// Lets nobody in any more.
    pub(super) fn close(&mut self) {
        self.listener = None;
    }

    /// Says what is wrong with a connection.
    pub(super) fn complain(&mut self, line: &str) {
        self.said += 1;
        if self.said <= MOST_SAID {
            say(&format!("of the connections to the job's socket, {line}"));
        }
    }
}
