//! The page: its routes are merged with those of the HTTP interface, and pass the same layer.
//!
//! A handler gets the [`App`](crate::http::App) as its state, with all jobs in it, and as an extension who asks: a
//! [`Caller`](crate::auth::Caller), which has the token of the session for forms.

use axum::Router;

use crate::http::App;

/// The routes of the page.
pub(crate) fn routes() -> Router<App> {
    Router::new()
}
