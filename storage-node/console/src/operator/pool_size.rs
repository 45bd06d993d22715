//! The buttons that grow and shrink the pool by one node. The settings of the pool follow below them.

use chordfs_types::ring_config::PoolMode;
use maud::{Markup, html};

use super::{OperatorView, settings};

pub(super) fn body(view: &OperatorView) -> Markup {
    html! {
        @match view.config.pool.mode {
            PoolMode::Manual => (buttons()),
            PoolMode::Automatic => p { "The scaler chooses the size. Set pool.mode to manual to choose it here." },
        }
        (settings::form(&view.config, "pool"))
    }
}

fn buttons() -> Markup {
    html! {
        form.row method="post" action="/console/pool" aria-label="Size of the pool" {
            button name="action" value="grow" { "Grow by one node" }
            button name="action" value="shrink" { "Shrink by one node" }
            button name="action" value="release" { "Let the pool follow its own settings" }
        }
        p.note { "A node that leaves hands over its chunks first, and serves until that is done." }
    }
}
