//! [`Client`]: requests to a Chroma server, and what its refusals mean.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};
use sage::{BoxError, ServiceError, Verdict};
use serde::de::DeserializeOwned;

use super::ChromaServer;
use crate::connection::{Key, asked_delay, connecting, told};
use crate::store::error::StoreError;
use crate::store::remote::{judged, unsent};

#[derive(Debug)]
pub(super) struct Client {
    client: reqwest::Client,
    base: String,
    database: String,
    token: Option<Key>,
    /// What messages call it.
    pub(super) name: String,
}

impl Client {
    pub(super) fn new(server: &ChromaServer) -> Result<Self, StoreError> {
        let (tenant, database) = (&server.tenant, &server.database);
        let name = format!("Chroma at {} (database {database} of {tenant})", server.address);
        let wrong = |error| StoreError::Server {
            server: name.clone(),
            what: "get a client",
            source: ServiceError::new(Verdict::Bad, error),
        };
        let client = built(server).map_err(wrong)?;
        let base = path(&server.address.0, &["api", "v2"]).map_err(wrong)?;
        let database = path(&base, &["tenants", tenant, "databases", database]).map_err(wrong)?;
        Ok(Self { client, base, database, token: server.token.clone(), name })
    }

    /// Asks the server itself.
    pub(super) async fn server<T: DeserializeOwned>(&self, what: &'static str, path: &str) -> Result<T, StoreError> {
        let asked = self.sent(Method::GET, &format!("{}/{path}", self.base), None).await;
        self.answer(what, asked).await
    }

    /// Asks for something of the database; `None` if it is not there.
    pub(super) async fn found<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<Option<T>, StoreError> {
        match self.sent(Method::GET, &format!("{}/{path}", self.database), None).await {
            Ok(response) if response.status() == 404 => Ok(None),
            asked => self.answer(what, asked).await.map(Some),
        }
    }

    /// Sends something to the database.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        body: String,
    ) -> Result<T, StoreError> {
        let asked = self.sent(Method::POST, &format!("{}/{path}", self.database), Some(body)).await;
        self.answer(what, asked).await
    }

    /// Why the server did not do it.
    pub(super) fn did_not(&self, what: &'static str, source: ServiceError) -> StoreError {
        StoreError::Server { server: self.name.clone(), what, source }
    }

    async fn sent(&self, method: Method, url: &str, body: Option<String>) -> Result<Response, ServiceError> {
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        request.send().await.map_err(unsent)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        what: &'static str,
        asked: Result<Response, ServiceError>,
    ) -> Result<T, StoreError> {
        let response = asked.map_err(|source| self.did_not(what, source))?;
        if !response.status().is_success() {
            let (status, delay) = (response.status().as_u16(), asked_delay(response.headers()));
            let mut body = told(response).await;
            if let Some(Key(token)) = self.token.as_ref().filter(|Key(token)| !token.is_empty()) {
                body = body.replace(token, "(token)");
            }
            return Err(self.did_not(what, judged(status, delay, &body)));
        }
        let body = response.bytes().await.map_err(|error| self.did_not(what, unsent(error)))?;
        serde_json::from_slice(&body).map_err(|error| {
            let error = format!("its answer is malformed: {error}");
            self.did_not(what, ServiceError::new(Verdict::Passing(None), error))
        })
    }
}

/// An address with these names in its path, which may have any characters.
fn path(address: &str, names: &[&str]) -> Result<String, BoxError> {
    let mut url = Url::parse(address)?;
    url.path_segments_mut().map_err(|()| "the address is none of a server")?.pop_if_empty().extend(names);
    Ok(url.into())
}

fn built(server: &ChromaServer) -> Result<reqwest::Client, BoxError> {
    let mut headers = HeaderMap::new();
    if let Some(Key(token)) = &server.token {
        for (name, text) in [("x-chroma-token", token.clone()), ("authorization", format!("Bearer {token}"))] {
            let mut value = HeaderValue::from_str(&text).map_err(|_| "the token is none that can be sent")?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    let client = connecting(&server.address, server.connect_timeout)?;
    Ok(client.timeout(server.request_timeout).default_headers(headers).build()?)
}
