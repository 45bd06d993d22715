//! The skeleton of the page: a head, a navigation, and sections.
//!
//! To add a section to the console, make a [`Section`] and give it to [`page`]: the navigation follows. A section of
//! this file consists of a heading and a live part, which is replaced by a [`Fragment`] of the same name.

use maud::{DOCTYPE, Markup, html};

use crate::{
    charts, health, node_table, pool, ring_picture, sessions, time,
    view::{ConsoleQuery, RingView},
};

/// A part of the page with a heading of its own.
pub struct Section {
    /// Unique on the page; the navigation leads to it.
    pub id: &'static str,
    pub title: &'static str,
    pub body: Markup,
}

/// The live part of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its section's id.
    pub id: &'static str,
    pub title: &'static str,
    pub html: String,
}

/// The live parts in the order of the page.
pub fn fragments(view: &RingView, query: &ConsoleQuery) -> Vec<Fragment> {
    let fragment = |id, title, html: Markup| Fragment { id, title, html: html.into_string() };
    vec![
        fragment("health", "Health", health::body(&view.status)),
        fragment("ring", "The ring", ring_picture::body(&view.status)),
        fragment("nodes", "Nodes", node_table::body(&view.status, query)),
        fragment("pool", "Size of the pool", pool::body(&view.pool, &view.config.pool)),
        fragment("charts", "The last 30 minutes", charts::body(&view.history, query)),
        fragment("sessions", "Sessions", sessions::body(&view.sessions)),
    ]
}

/// The section in which a fragment lives.
pub fn section(fragment: &Fragment) -> Section {
    let Fragment { id, title, html } = fragment;
    let live = html! { div data-live=(id) { (maud::PreEscaped(html)) } };
    Section { id, title, body: live }
}

/// The whole page.
pub fn page(view: &RingView, sections: &[Section]) -> Markup {
    let (asked, now) = (view.status.asked, view.history.time);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Console of " (asked) " – chordfs" }
                // Without an icon the browser would look for a file `favicon.ico`.
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console.css";
                script src="/console.js" defer {}
                @if !has_form(sections) { noscript { meta http-equiv="refresh" content="10"; } }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    h1 { "chordfs console" }
                    p.note { "The ring as " (asked) " sees it, at " span #as-of { (time::second(now)) } " UTC. " span #live {} }
                    nav aria-label="Sections" {
                        ul { @for section in sections { li { a href={ "#" (section.id) } { (section.title) } } } }
                    }
                }
                p #stale role="alert" hidden {}
                p #announcement.hidden role="status" {}
                main #main {
                    @for Section { id, title, body } in sections {
                        section id=(id) aria-labelledby={ (id) "-heading" } {
                            h2 id={ (id) "-heading" } { (title) }
                            (body)
                        }
                    }
                }
            }
        }
    }
}

/// A page that loads itself anew would take away what somebody is typing.
fn has_form(sections: &[Section]) -> bool {
    sections.iter().any(|section| section.body.0.contains("<form"))
}
