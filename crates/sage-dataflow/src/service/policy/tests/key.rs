//! The key of a call: each part of a call is part of it.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::key::*;

#[test]
fn each_part_of_a_call_is_part_of_its_key() {
    let (secret, other) = (Secret::random().unwrap(), Secret::random().unwrap());
    let keys = [
        secret.method("llm", "1", "chat").of_bytes(b"q".to_vec(), 0),
        secret.method("llm", "1", "chat").of_bytes(b"q".to_vec(), 1),
        secret.method("llm", "1", "chat").of_bytes(b"r".to_vec(), 0),
        secret.method("llm", "1", "embed").of_bytes(b"q".to_vec(), 0),
        secret.method("llm", "2", "chat").of_bytes(b"q".to_vec(), 0),
        secret.method("store", "1", "chat").of_bytes(b"q".to_vec(), 0),
        secret.method("ll", "m1", "chat").of_bytes(b"q".to_vec(), 0),
        other.method("llm", "1", "chat").of_bytes(b"q".to_vec(), 0),
    ];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 8);
    let again = Secret::from_bytes(*secret.bytes());
    assert_eq!(again.method("llm", "1", "chat").of_bytes(b"q".to_vec(), 0), keys[0]);
    assert_ne!(secret.tag("a"), secret.tag("b"));
}

#[test]
fn the_text_of_a_key_is_32_hexadecimal_digits() {
    let key = CallKey([0x0a; 16]);
    assert_eq!(key.to_string(), "0a".repeat(16));
    assert_eq!(format!("{key:?}"), key.to_string());
}

proptest! {
    #[test]
    fn different_arguments_or_samples_have_different_keys(
        one in (prop::collection::vec(any::<u8>(), 0..40), any::<u64>()),
        two in (prop::collection::vec(any::<u8>(), 0..40), any::<u64>()),
    ) {
        let method = Secret::from_bytes([7; 32]).method("llm", "1", "chat");
        let keys = [&one, &two].map(|(bytes, sample)| method.of_bytes(bytes.clone(), *sample));
        prop_assert_eq!(keys[0] == keys[1], one == two);
    }
}
