//! What clients of servers share: how they connect, what they keep to themselves, and what a refusal says.

mod address;
#[cfg(any(feature = "chroma", feature = "llm"))]
mod delay;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Response, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use sage::BoxError;

pub(crate) use address::{Address, Key};
#[cfg(any(feature = "chroma", feature = "llm"))]
pub(crate) use delay::asked_delay;
#[cfg(feature = "llm")]
pub(crate) use delay::should_retry;

/// The most bytes that are read of an error.
const LARGEST_ERROR: usize = 64 << 10;
/// The most characters of a server's error that are quoted.
const QUOTED: usize = 500;

/// A client of the server at this address, by HTTP/1.1. It follows no redirection and sends each request once.
#[cfg(any(feature = "chroma", feature = "llm"))]
pub(crate) fn connecting(address: &Address, connect_timeout: Duration) -> Result<ClientBuilder, BoxError> {
    client(address, connect_timeout, &[])
}

/// As [`connecting`], by HTTP/2.
#[cfg(feature = "milvus")]
pub(crate) fn connecting_http2(address: &Address, connect_timeout: Duration) -> Result<ClientBuilder, BoxError> {
    // The windows that HTTP/2 begins with would have a client wait for every 64 KiB.
    Ok(client(address, connect_timeout, &["h2"])?.http2_prior_knowledge().http2_adaptive_window(true))
}

fn client(address: &Address, connect_timeout: Duration, protocols: &[&str]) -> Result<ClientBuilder, BoxError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // The system's certificates are read only where they are needed: a small container may have none.
    let mut tls = if address.0.starts_with("http:") {
        tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    } else {
        tls.with_platform_verifier()?.with_no_client_auth()
    };
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect_timeout)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .user_agent(concat!("sage-services/", env!("CARGO_PKG_VERSION"))))
}

/// The text of a server's error, as far as it can be read.
pub(crate) async fn told(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes[..bytes.len().min(LARGEST_ERROR - body.len())]);
        if body.len() == LARGEST_ERROR {
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// A server's error, cut to 500 characters.
pub(crate) fn quoted(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "(nothing more)".to_owned(),
        None => text.to_owned(),
    }
}

/// Whether it is the handshake that failed: somebody is there.
pub(crate) fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || io.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}
