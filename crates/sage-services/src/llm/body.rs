//! [`Body`]: what is read of an answer. Invariant: no more is read of it than it may have.

use bytes::Bytes;
use reqwest::Response;
use sage::{ServiceError, Verdict};

use super::error::{LlmError, unsent};
use super::options::LlmOptions;

/// What is to be read of an answer, within its limit.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    read: usize,
    limit: usize,
}

impl Body {
    pub(super) fn new(response: Response, options: &LlmOptions) -> Result<Self, ServiceError> {
        let body = Self { response, read: 0, limit: options.largest_answer };
        match body.response.content_length() {
            Some(length) if length > body.limit as u64 => Err(body.too_large()),
            _ => Ok(body),
        }
    }

    pub(super) async fn more(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let Some(bytes) = self.response.chunk().await.map_err(unsent)? else { return Ok(None) };
        self.read = self.read.saturating_add(bytes.len());
        if self.read > self.limit { Err(self.too_large()) } else { Ok(Some(bytes)) }
    }

    pub(super) async fn all(mut self) -> Result<Vec<u8>, ServiceError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.more().await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    fn too_large(&self) -> ServiceError {
        ServiceError::new(Verdict::Bad, LlmError::TooLarge { limit: self.limit })
    }
}
