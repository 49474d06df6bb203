//! Codes as bytes, and back: a cache that is made again when it is missing, damaged or older than the rows.
//!
//! Layout, all numbers little-endian: magic, stamp, metric, dimensions, rows, rows at the time of the build, centre,
//! the arrays of [`Codes`] one after the other, and the BLAKE3 hash of all that.

use thiserror::Error;

use super::codes::{CHUNK_BYTES, Codes, Factors, Head, Reach, Shape};
use super::{BLOCK, Metric, Quantised};

/// Why bytes are not the codes of the rows at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The bytes are not whole, or not those that were written.
    #[error("the index is damaged")]
    Damaged,
    /// The bytes belong to other rows, or were written by another version.
    #[error("the index belongs to other rows")]
    Other,
}

/// What the bytes begin with. Another layout gets another number.
const MAGIC: [u8; 8] = *b"sageqnt1";
const HASH: usize = 32;
/// Numbers of the [`Factors`] of a row.
const FACTORS: usize = 6;

impl Quantised {
    /// Writes the codes as bytes, for [`from_bytes`](Self::from_bytes). `stamp` says which state of the rows they
    /// belong to.
    pub fn to_bytes(&self, stamp: u64) -> Vec<u8> {
        let codes = &self.codes;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(stamp.to_le_bytes());
        bytes.push(self.metric as u8);
        bytes.extend((self.encoder.shape.dimensions as u32).to_le_bytes());
        bytes.extend((self.rows as u32).to_le_bytes());
        bytes.extend((self.centred_rows as u32).to_le_bytes());
        put_numbers(&mut bytes, &self.encoder.centre);
        for Head { signs, offset, gain } in &codes.heads {
            bytes.extend(signs);
            put_numbers(&mut bytes, offset);
            put_numbers(&mut bytes, gain);
        }
        bytes.extend(&codes.tail);
        for numbers in [&codes.gain, &codes.error] {
            put_numbers(&mut bytes, numbers);
        }
        bytes.extend(&codes.levels);
        bytes.extend(&codes.fine);
        for factors in &codes.factors {
            put_numbers(&mut bytes, &numbers(*factors));
        }
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    /// How many bytes [`to_bytes`](Self::to_bytes) writes for so many rows.
    pub fn bytes_of(dimensions: usize, rows: usize) -> u64 {
        let (shape, blocks) = (Shape::new(dimensions), rows.div_ceil(BLOCK));
        let (number, numbers_of_a_row) = (size_of::<f32>(), 2 + 2 + FACTORS);
        let row = number * numbers_of_a_row + 2 * shape.levels();
        let head = MAGIC.len() + 8 + 1 + 3 * 4 + number * dimensions;
        (head + blocks * (CHUNK_BYTES + shape.tail() + BLOCK * row) + HASH) as u64
    }

    /// Reads the codes of a matrix with so many rows and dimensions.
    ///
    /// # Errors
    ///
    /// [`CacheError::Damaged`] for bytes that are not those written; [`CacheError::Other`] where stamp, metric,
    /// dimensions or rows differ.
    pub fn from_bytes(
        bytes: &[u8],
        stamp: u64,
        metric: Metric,
        dimensions: usize,
        rows: usize,
    ) -> Result<Self, CacheError> {
        let (content, hash) = bytes.split_last_chunk::<HASH>().ok_or(CacheError::Damaged)?;
        if blake3::hash(content) != *hash {
            return Err(CacheError::Damaged);
        }
        let mut rest = Reader(content);
        let is_same = rest.take(MAGIC.len())? == MAGIC
            && rest.take(8)? == stamp.to_le_bytes()
            && rest.take(1)? == [metric as u8]
            && rest.count()? == dimensions
            && rest.count()? == rows;
        if !is_same {
            return Err(CacheError::Other);
        }
        let centred_rows = rest.count()?;
        let mut index = Self::empty(rest.numbers(dimensions)?, metric);
        index.rows = rows;
        index.centred_rows = centred_rows;
        let blocks = rows.div_ceil(BLOCK);
        let shape = index.encoder.shape;
        index.codes = Codes {
            reach: Reach::default(),
            heads: (0..blocks).map(|_| rest.head()).collect::<Result<_, _>>()?,
            tail: rest.take(blocks * shape.tail())?.to_vec(),
            gain: rest.numbers(blocks * BLOCK)?,
            error: rest.numbers(blocks * BLOCK)?,
            levels: rest.take(blocks * BLOCK * shape.levels())?.to_vec(),
            fine: rest.take(blocks * BLOCK * shape.levels())?.to_vec(),
            factors: rest
                .numbers(blocks * BLOCK * FACTORS)?
                .as_chunks()
                .0
                .iter()
                .map(|numbers| factors(*numbers))
                .collect(),
        };
        index.codes.reach_anew(0..blocks, shape);
        if rest.0.is_empty() { Ok(index) } else { Err(CacheError::Damaged) }
    }
}

fn numbers(factors: Factors) -> [f32; FACTORS] {
    let Factors { offset, radius, gain, error, fine_gain, fine_error } = factors;
    [offset, radius, gain, error, fine_gain, fine_error]
}

fn factors([offset, radius, gain, error, fine_gain, fine_error]: [f32; FACTORS]) -> Factors {
    Factors { offset, radius, gain, error, fine_gain, fine_error }
}

fn put_numbers(bytes: &mut Vec<u8>, numbers: &[f32]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// The bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CacheError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CacheError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn count(&mut self) -> Result<usize, CacheError> {
        let bytes = self.take(4)?.first_chunk().ok_or(CacheError::Damaged)?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    }

    fn head(&mut self) -> Result<Head, CacheError> {
        let mut head = Head::default();
        head.signs.copy_from_slice(self.take(CHUNK_BYTES)?);
        head.offset.copy_from_slice(&self.numbers(BLOCK)?);
        head.gain.copy_from_slice(&self.numbers(BLOCK)?);
        Ok(head)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<f32>, CacheError> {
        let (numbers, _) = self.take(4 * count)?.as_chunks();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Quantised, CacheError> {
        Quantised::from_bytes(bytes, 7, Metric::Euclidean, 2, 3)
    }

    fn written() -> Vec<u8> {
        let mut index = Quantised::build(&[1.0, 2.0, -3.0, 4.0], 2, Metric::Euclidean, 1);
        index.push(&[0.5, 0.0]);
        index.to_bytes(7)
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let index = read(&written()).expect("the bytes are whole");
        assert_eq!(index.to_bytes(7), written());
        let nearest = index.search(&[0.4, 0.0], &[1.0, 2.0, -3.0, 4.0, 0.5, 0.0], None, 1, |a, b| a.cmp(&b));
        assert_eq!(nearest[0].row, 2);
    }

    #[test]
    fn no_byte_may_differ_or_be_missing() {
        let bytes = written();
        for at in 0..bytes.len() {
            assert_eq!(read(&bytes[..at]).err(), Some(CacheError::Damaged), "truncated at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(read(&damaged).err(), Some(CacheError::Damaged), "byte {at}");
        }
        assert_eq!(read(&[bytes, vec![0]].concat()).err(), Some(CacheError::Damaged));
    }

    #[test]
    fn codes_of_other_rows_are_refused() {
        let bytes = written();
        let others = [
            Quantised::from_bytes(&bytes, 8, Metric::Euclidean, 2, 3),
            Quantised::from_bytes(&bytes, 7, Metric::Cosine, 2, 3),
            Quantised::from_bytes(&bytes, 7, Metric::Euclidean, 3, 3),
            Quantised::from_bytes(&bytes, 7, Metric::Euclidean, 2, 4),
        ];
        for other in others {
            assert_eq!(other.err(), Some(CacheError::Other));
        }
    }
}
