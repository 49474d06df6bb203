//! What every page has around its content.

use maud::{DOCTYPE, Markup, html};

/// Who looks at the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Viewer<'a> {
    /// What the forms of this session carry.
    pub(crate) csrf: &'a str,
}

/// A page with this title. `script` is the part of the script that it needs, if any.
pub(crate) fn page(title: &str, script: Option<&str>, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · SAGE" }
                link rel="stylesheet" href="/static/page.css";
                link rel="icon" href="/static/icon.svg" type="image/svg+xml";
                @if script == Some("job") {
                    link rel="stylesheet" href="/static/uplot.css";
                    script src="/static/uplot.js" defer {}
                }
                @if script.is_some() { script src="/static/page.js" defer {} }
            }
            body data-page=[script] {
                a.skip href="#content" { "Skip to the content" }
                header {
                    a.brand href="/" { "SAGE" }
                    nav aria-label="Pages" { a href="/" { "Jobs" } a href="/about" { "Job manager" } }
                    p.live role="status" aria-live="polite" id="live" {}
                }
                main id="content" tabindex="-1" { (content) }
            }
        }
    }
}

/// The field that says that a form is from this session.
pub(crate) fn csrf(viewer: Viewer<'_>) -> Markup {
    html! { input type="hidden" name="csrf" value=(viewer.csrf); }
}

/// A page that only says something.
pub(crate) fn said(title: &str, words: &str) -> Markup {
    page(title, None, html! { h1 { (title) } p { (words) } p { a href="/" { "All jobs" } } })
}

/// The page for whoever is not logged in.
pub(crate) fn login(wrong: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Log in · SAGE" }
                style { (STYLE_OF_LOGIN) }
            }
            body {
                main {
                    h1 { "Log in to the job manager" }
                    @if let Some(wrong) = wrong { p role="alert" { strong { (wrong) } } }
                    p {
                        "Open the link that " code { "sage jobmanager link" } " prints, or give the token: it is in "
                        "the file "
                        code { "token" } " of the job manager's folder."
                    }
                    form method="post" action="/login" {
                        p { label for="token" { "Token" } }
                        p { input id="token" name="token" type="password" autocomplete="current-password" required; }
                        p { button { "Log in" } }
                    }
                }
            }
        }
    }
}

/// No file is served to who is not logged in.
const STYLE_OF_LOGIN: &str = ":root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;\
    max-width:32rem;padding:0 1rem}input,button{font:inherit;padding:.35rem .6rem;max-width:100%}";
