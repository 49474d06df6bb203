//! The frames that go between a job and its workers. The library itself can only be loaded by an interpreter, so that
//! its module of frames, which knows nothing of Python, is a module of this program too.

use std::io;
use std::mem::MaybeUninit;

use wire::{Frame, HEAD, LARGE, PIECE, Part, Reader, Room, Span, head};

#[path = "../src/remote/wire.rs"]
#[expect(dead_code, reason = "it is for the library")]
mod wire;

impl Room for Box<[MaybeUninit<u8>]> {
    fn new(length: usize, _: bool) -> io::Result<Self> {
        Ok(Box::new_uninit_slice(length))
    }

    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        self
    }
}

type Sent = (u8, u64, Vec<Vec<u8>>);

fn written((kind, id, parts): &Sent) -> Vec<u8> {
    let spans: Vec<_> = parts.iter().map(|part| span(part.len())).collect();
    let mut bytes = head(*kind, *id, &spans).expect("it is small");
    parts.iter().for_each(|part| bytes.extend(part));
    bytes
}

fn span(length: usize) -> Span {
    Span { length, is_writable: length % 2 == 1 }
}

fn whole(part: Part<Box<[MaybeUninit<u8>]>>) -> Vec<u8> {
    match part {
        Part::Small(bytes, told) => {
            assert_eq!(told, span(bytes.len()));
            bytes
        }
        // SAFETY: the frame is there as a whole.
        Part::Large(room) => unsafe { room.assume_init() }.into_vec(),
    }
}

fn read(mut bytes: &[u8], piece: usize) -> io::Result<Vec<Sent>> {
    let (mut reader, mut frames) = (Reader::default(), Vec::new());
    while !bytes.is_empty() {
        reader.fill(|room| {
            let count = piece.min(room.len()).min(bytes.len());
            room[..count].write_copy_of_slice(&bytes[..count]);
            bytes = &bytes[count..];
            Ok(count)
        })?;
        frames.extend(std::iter::from_fn(|| reader.next()));
    }
    Ok(frames.into_iter().map(|Frame { kind, id, parts }| (kind, id, parts.into_iter().map(whole).collect())).collect())
}

#[test]
fn frames_are_read_as_they_were_written_in_whatever_pieces_they_come() {
    let part = |length: usize, byte: u8| (0..length).map(|at| byte.wrapping_add(at as u8)).collect::<Vec<_>>();
    let frames = [
        (3, 7, vec![part(5, 1), Vec::new(), part(3 * PIECE + 1, 9)]),
        (1, u64::MAX, Vec::new()),
        (2, 0, vec![part(PIECE, 4), part(1, 2), part(LARGE - 1, 8), part(LARGE, 5)]),
        (9, 1, vec![Vec::new()]),
    ];
    let bytes: Vec<u8> = frames.iter().flat_map(written).collect();
    for piece in [1000, 4096, PIECE, PIECE + 1, usize::MAX] {
        assert_eq!(read(&bytes, piece).expect("they are frames"), frames, "in pieces of {piece}");
    }
    let short: Vec<u8> = frames[1..2].iter().chain(&frames[3..]).flat_map(written).collect();
    assert_eq!(read(&short, 1).expect("they are frames").len(), 2);
}

#[test]
fn what_is_no_frame_is_refused_and_takes_no_memory() {
    let refused = |bytes: &[u8]| read(bytes, usize::MAX).expect_err("it is no frame").to_string();
    assert!(refused(b"GET / HTTP/1.1\r\n\r\n").contains("no frame of version"));
    let mut many = head(1, 1, &[]).expect("it is small");
    many[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refused(&many).contains("4294967295 parts"));
    let mut large = head(1, 1, &[span(0); 2]).expect("it is small");
    large[HEAD..].fill(0xFF);
    assert!(refused(&large).contains("more bytes"));
    assert!(head(1, 1, &[span(5 << 30)]).is_err());
}
