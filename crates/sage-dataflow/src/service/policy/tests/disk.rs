//! A file in memory that remembers what was done to it, and what a crash may make of that.

use std::io;
use std::sync::{Arc, Mutex};

use super::super::store::Disk;

#[derive(Debug, Clone)]
pub(super) enum Done {
    Written(u64, Vec<u8>),
    Cut(u64),
    Synced,
}

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    bytes: Vec<u8>,
    done: Vec<Done>,
    room: Option<u64>,
}

impl Fake {
    pub(super) fn with(bytes: Vec<u8>) -> Self {
        let fake = Self::default();
        fake.0.lock().unwrap().bytes = bytes;
        fake
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// From now on the file has no more bytes than this.
    pub(super) fn room(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().room = bytes;
    }

    /// What was done since this was asked for last.
    pub(super) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut self.0.lock().unwrap().done)
    }

    pub(super) fn does(&self, done: &Done) {
        match done {
            Done::Written(offset, bytes) => self.write_at(bytes, *offset).unwrap(),
            Done::Cut(bytes) => self.cut(*bytes).unwrap(),
            Done::Synced => {}
        }
    }
}

impl Disk for Fake {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let inside = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let found = inside.bytes.get(from..from + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inside = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let most = inside.room.map_or(usize::MAX, |room| usize::try_from(room).unwrap().saturating_sub(from));
        let fits = bytes.len().min(most);
        let end = inside.bytes.len().max(from + fits);
        inside.bytes.resize(end, 0);
        inside.bytes[from..from + fits].copy_from_slice(&bytes[..fits]);
        inside.done.push(Done::Written(offset, bytes[..fits].to_vec()));
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut inside = self.0.lock().unwrap();
        inside.bytes.truncate(usize::try_from(bytes).unwrap());
        inside.done.push(Done::Cut(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.lock().unwrap().done.push(Done::Synced);
        Ok(())
    }
}
