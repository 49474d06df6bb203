//! One input file as a stream of plain bytes: its length at opening, its compression. Its encoding is in `encoding.rs`.
//!
//! Invariants: no byte beyond the length the file had when it was opened is read; a compressed file that ends early is
//! an error of kind `UnexpectedEof`; memory does not depend on the size of the file.
//!
//! Knows nothing of lines, records and jobs.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::encoding::{Encoding, decoded};

const BUFFER_BYTES: usize = 128 << 10;

/// The plain bytes of a file.
pub(crate) type Input = Box<dyn BufRead + Send>;

/// How a file is compressed, by the extension of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("gz") => Self::Gzip,
            Some(extension) if extension.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Opens a file and turns its text into UTF-8. Read errors come from the reader.
pub(crate) fn open(path: &Path, encoding: Encoding) -> io::Result<Input> {
    let raw = BufReader::with_capacity(BUFFER_BYTES, Snapshot::open(path)?);
    let plain: Input = match Compression::of(path) {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
        Compression::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, Zstd::new(raw))),
    };
    Ok(decoded(plain, encoding))
}

/// A file as long as it was when it was opened.
struct Snapshot {
    file: Take<File>,
    /// Whether the length is known, and an end before it is an error.
    measured: bool,
}

impl Snapshot {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Pipes and devices have no length, and the files of `/proc` say 0.
        let measured = about.is_file() && about.len() > 0;
        let limit = if measured { about.len() } else { u64::MAX };
        Ok(Self { file: file.take(limit), measured })
    }
}

impl Read for Snapshot {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read == 0 && self.measured && self.file.limit() > 0 && !buffer.is_empty() {
            return Err(io::Error::other("the file became shorter while it was read"));
        }
        Ok(read)
    }
}

/// The content of all zstd frames of a file, one after the other.
struct Zstd<R> {
    raw: R,
    decoder: FrameDecoder,
    inside: bool,
    /// Whether there was a frame: an empty file is a compressed file that was cut off.
    begun: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(raw: R) -> Self {
        Self { raw, decoder: FrameDecoder::new(), inside: false, begun: false }
    }

    /// Goes to the next frame with content; false at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            match self.raw.fill_buf()? {
                [] if self.begun => return Ok(false),
                [] => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.begun = true,
            }
            match self.decoder.reset(&mut self.raw) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.raw.by_ref().take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(unpacked(error)),
            }
        }
    }

    /// Compares the frame's checksum, where it has one, with what was decoded.
    fn check(&self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(told), Some(found)) if told != found => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a zstd frame does not match"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.inside {
                if buffer.is_empty() || !self.next_frame()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.raw, BlockDecodingStrategy::UptoBlocks(1)).map_err(unpacked)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.check()?;
            self.inside = false;
        }
    }
}

/// The decoder's error as an I/O error; of kind `UnexpectedEof` if that is its cause.
fn unpacked(error: FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::UnexpectedEof
        {
            return io::ErrorKind::UnexpectedEof.into();
        }
        cause = inner.source();
    }
    io::Error::other(error)
}
