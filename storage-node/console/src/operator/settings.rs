//! A form for the settings of one group. Fields and explanations come from the list of settings, so a new setting has
//! its field at once.

use chordfs_types::ring_config::{CONFIG_FIELDS, CachePolicy, ConfigField, PoolMode, RingConfig};
use maud::{Markup, html};

/// The form carries the version of the configuration that it shows: of two operators, the second has to look again.
pub(super) fn form(config: &RingConfig, group: &str) -> Markup {
    let fields = CONFIG_FIELDS.iter().filter(|field| field.name.split('.').next() == Some(group));
    html! {
        form method="post" action="/console/settings" {
            input type="hidden" name="version" value=(config.version);
            div.fields { @for field in fields { (labelled(field, config)) } }
            button { "Apply to all nodes" }
        }
    }
}

fn labelled(field: &ConfigField, config: &RingConfig) -> Markup {
    let (name, value) = (field.name, field.text(config));
    let help_id = format!("{}-help", name.replace('.', "-"));
    html! {
        label for=(name) { (name) }
        @if let Some(choices) = choices(name) {
            select id=(name) name=(name) aria-describedby=(help_id) {
                @for choice in choices { option value=(choice) selected[*choice == value] { (choice) } }
            }
        } @else {
            input id=(name) name=(name) value=(value) aria-describedby=(help_id) required autocomplete="off";
        }
        span.note id=(help_id) { (field.help) }
    }
}

/// The values of a setting that has only a few.
fn choices(name: &str) -> Option<Vec<String>> {
    match name {
        "cache.policy" => Some([CachePolicy::Lru, CachePolicy::Random].map(|policy| policy.to_string()).to_vec()),
        "pool.mode" => Some([PoolMode::Manual, PoolMode::Automatic].map(|mode| mode.to_string()).to_vec()),
        _ => None,
    }
}
