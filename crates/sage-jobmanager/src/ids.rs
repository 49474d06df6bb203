//! Ids of jobs, and secrets: random numbers of the system's.

use std::io;

/// So many random bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The id of a new job: a random UUID (version 4).
pub(crate) fn new_id() -> io::Result<String> {
    let mut bytes: [u8; 16] = random()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Whether this may be the id of a job.
pub(crate) fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// A secret of 256 bits, as 64 hexadecimal digits.
pub(crate) fn secret() -> io::Result<String> {
    Ok(hex(&random::<32>()?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_and_no_two_are_the_same() {
        let (one, other) = (new_id().unwrap(), new_id().unwrap());
        assert!(is_id(&one) && is_id(&other) && one != other);
        assert_eq!(&one[14..15], "4");
        for other in ["", "..", "../../../../../../../../../../../etc", &one.to_uppercase(), &one[1..]] {
            assert!(!is_id(other), "{other}");
        }
        assert_eq!(secret().unwrap().len(), 64);
    }
}
