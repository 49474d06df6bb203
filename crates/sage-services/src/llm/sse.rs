//! [`Events`]: what a stream of server-sent events is cut into.

use std::mem::take;

/// Cuts a stream of server-sent events into the data of each, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// What came and is no whole line yet.
    rest: Vec<u8>,
    /// How much of the rest is known to have no end of a line.
    looked: usize,
    /// The data of the event that is not over.
    data: Option<Vec<u8>>,
}

impl Events {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The data of the next event, if it is whole.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                if let Some(data) = take(&mut self.data) {
                    return Some(data);
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                match &mut self.data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    None => self.data = Some(value.to_vec()),
                }
            }
            // Comments, names and ids of events say nothing here.
        }
        None
    }

    /// The next line without its end, which is `\n`, `\r\n` or `\r`.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.rest[self.looked..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|end| self.looked + end) else {
            self.looked = self.rest.len();
            return None;
        };
        let after = match (self.rest[end], self.rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            // Whether this is half of an end is not known yet.
            (b'\r', None) => {
                self.looked = end;
                return None;
            }
            _ => end + 1,
        };
        let line = self.rest[..end].to_vec();
        self.rest.drain(..after);
        self.looked = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream =
            ": alive\n\nevent: message\ndata: one\n\ndata:two\r\ndata: more\r\n\r\nid: 7\rdata: drei ä\r\rdata: cut";
        for size in 1..stream.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                events.push(piece);
                found.extend(std::iter::from_fn(|| events.next()).map(|data| String::from_utf8(data).unwrap()));
            }
            assert_eq!(found, ["one", "two\nmore", "drei ä"], "in pieces of {size}");
        }
    }
}
