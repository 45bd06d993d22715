//! The page that answers a form: what was done, or why nothing was.

use maud::{DOCTYPE, Markup, html};

/// `section` is the id of the section with the form, to which a link leads back.
pub fn outcome_page(is_done: bool, text: &str, section: &str) -> Markup {
    let title = if is_done { "Done" } else { "Nothing was changed" };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " – chordfs" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console.css";
            }
            body {
                main {
                    h1 { (title) }
                    p role=(if is_done { "status" } else { "alert" }) { (text) }
                    p { a href={ "/#" (section) } autofocus { "Back to the console" } }
                }
            }
        }
    }
}
