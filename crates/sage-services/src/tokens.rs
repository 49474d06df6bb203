//! [`estimated_tokens`].

/// How many tokens a text is likely to have: one for four bytes of ASCII, and one for each other character, as other
/// scripts have shorter words. Tokenisers differ; they count a third less or more.
pub fn estimated_tokens(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let others = text.chars().filter(|character| !character.is_ascii()).count() as u64;
    ascii.div_ceil(4) + others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_grows_with_the_text() {
        assert_eq!(["", "a", "abcd", "abcde", "蜜蜂"].map(estimated_tokens), [0, 1, 1, 2, 2]);
    }
}
