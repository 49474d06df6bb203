//! [`Client`]: calls of a Milvus server by gRPC, and what its refusals mean.
//!
//! A call of gRPC is a request of HTTP/2 whose body is a message behind five bytes: a zero, as it is not compressed,
//! and its length. Its outcome comes in the header or in the trailer `grpc-status`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use prost::Message;
use reqwest::Body;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use sage::{BoxError, ServiceError, Verdict};

use super::MilvusServer;
use super::messages::{Answer, Status};
use crate::connection::{Key, connecting_http2, quoted, told};
use crate::store::error::StoreError;
use crate::store::remote::{judged, unsent};

#[derive(Debug)]
pub(super) struct Client {
    client: reqwest::Client,
    address: String,
    token: Option<Key>,
    /// What messages call it.
    pub(super) name: String,
}

impl Client {
    pub(super) fn new(server: &MilvusServer) -> Result<Self, StoreError> {
        let name = format!("Milvus at {} (database {})", server.address, server.database);
        let client = built(server).map_err(|error| StoreError::Server {
            server: name.clone(),
            what: "get a client",
            source: ServiceError::new(Verdict::Bad, error),
        })?;
        let address = server.address.0.trim_end_matches('/').to_owned();
        Ok(Self { client, address, token: server.token.clone(), name })
    }

    /// Calls a method. The server may refuse, and say why.
    pub(super) async fn asked<A: Answer>(
        &self,
        what: &'static str,
        method: &str,
        request: &impl Message,
    ) -> Result<Result<A, Status>, StoreError> {
        let answer: A = self.called(method, request).await.map_err(|source| self.did_not(what, source))?;
        match answer.status().filter(|status| status.code != 0 || status.error_code != 0) {
            Some(status) => Ok(Err(status.clone())),
            None => Ok(Ok(answer)),
        }
    }

    /// Why the server did not do it.
    pub(super) fn did_not(&self, what: &'static str, source: ServiceError) -> StoreError {
        StoreError::Server { server: self.name.clone(), what, source }
    }

    /// What a refusal means.
    pub(super) fn refused(&self, what: &'static str, status: &Status) -> StoreError {
        let verdict = match status {
            Status { code: 8, .. } | Status { error_code: 49, .. } => Verdict::Throttled(None),
            Status { retriable: true, .. } => Verdict::Passing(None),
            // Not ready yet, without resources, without a node: 1 to 7 are of the server as a whole.
            Status { code: 1..=7, error_code: 0 | 2 | 44..=48 | 52..=56, .. } => Verdict::Passing(None),
            Status { code: 1400..=1402, .. } => Verdict::Denied,
            _ => Verdict::Bad,
        };
        let text = format!("it answered {}: {}", status.code.max(status.error_code), self.shown(&status.reason));
        self.did_not(what, ServiceError::new(verdict, text))
    }

    async fn called<A: Answer>(&self, method: &str, request: &impl Message) -> Result<A, ServiceError> {
        let url = format!("{}/milvus.proto.milvus.MilvusService/{method}", self.address);
        let response = self.client.post(url).body(framed(request)).send().await.map_err(unsent)?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(judged(status, None, &self.shown(&told(response).await)));
        }
        let headers = response.headers().clone();
        let collected = Body::from(response).collect().await.map_err(unsent)?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        if let Some(error) = [headers, trailers].iter().find_map(|headers| self.failure(headers)) {
            return Err(error);
        }
        unframed(collected.to_bytes())
    }

    /// What gRPC says of a call that failed.
    fn failure(&self, headers: &HeaderMap) -> Option<ServiceError> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let status: u32 = text("grpc-status")?.parse().ok()?;
        let verdict = match status {
            0 => return None,
            14 => Verdict::Outage,
            8 => Verdict::Throttled(None),
            7 | 16 => Verdict::Denied,
            1 | 2 | 4 | 10 | 13 | 15 => Verdict::Passing(None),
            _ => Verdict::Bad,
        };
        let told = self.shown(text("grpc-message").unwrap_or_default());
        Some(ServiceError::new(verdict, format!("the call ended with status {status}: {told}")))
    }

    fn shown(&self, text: &str) -> String {
        match self.token.as_ref().filter(|Key(token)| !token.is_empty()) {
            Some(Key(token)) => quoted(&text.replace(token, "(token)")),
            None => quoted(text),
        }
    }
}

fn framed(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut body = Vec::with_capacity(5 + length);
    body.push(0);
    body.extend_from_slice(&u32::try_from(length).expect("pieces of a batch are smaller").to_be_bytes());
    message.encode(&mut body).expect("a vector grows");
    body
}

fn unframed<A: Answer>(body: Bytes) -> Result<A, ServiceError> {
    let malformed = |why: String| ServiceError::new(Verdict::Passing(None), format!("its answer is malformed: {why}"));
    let (head, message) = body.split_at_checked(5).ok_or_else(|| malformed("it is cut".to_owned()))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || message.len() != length as usize {
        return Err(malformed(format!("{} bytes are not one message of {length}", message.len())));
    }
    A::decode(message).map_err(|error| malformed(error.to_string()))
}

fn built(server: &MilvusServer) -> Result<reqwest::Client, BoxError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert("dbname", HeaderValue::from_str(&server.database).map_err(|_| "the database has no such name")?);
    if let Some(Key(token)) = &server.token {
        let mut value = HeaderValue::from_str(&STANDARD.encode(token)).expect("it is letters and digits");
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let client = connecting_http2(&server.address, server.connect_timeout)?;
    Ok(client.timeout(server.request_timeout).default_headers(headers).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_and_read_again() {
        let status = Status { error_code: 1, reason: "no".to_owned(), code: 2, retriable: true };
        assert_eq!(unframed::<Status>(framed(&status).into()).unwrap(), status);
        for wrong in [&[0, 0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 1], &[0, 0, 0, 0, 1, 255]] {
            let error = unframed::<Status>(Bytes::copy_from_slice(wrong)).unwrap_err();
            assert_eq!(error.verdict(), Verdict::Passing(None), "{wrong:?}");
        }
    }
}
