//! [`Address`] and [`Key`]. Invariant: neither shows a secret.

use std::fmt;

/// The key of an account. It is not shown.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// The address of a server. A name and password in it are not shown.
#[derive(Clone)]
pub(crate) struct Address(pub(crate) String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match host.rfind('@') {
            Some(at) => write!(f, "{scheme}://(not shown)@{}", &rest[at + 1..]),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_string().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let shown = |url: &str| format!("{:?}", Address(url.to_owned()));
        assert_eq!(shown("https://me:se@cret@host:1/v1?a@b"), "\"https://(not shown)@host:1/v1?a@b\"");
        assert_eq!(shown("http://host/v1@2"), "\"http://host/v1@2\"");
    }
}
