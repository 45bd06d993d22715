//! Progress bars of the commands that take long. They are drawn on standard error, and only where that is a terminal.

pub(crate) use indicatif::ProgressBar;
use indicatif::{ProgressDrawTarget, ProgressStyle};

pub(crate) fn of_bytes(name: &'static str) -> ProgressBar {
    bar(name, "{prefix} [{bar:30}] {binary_bytes} of {binary_total_bytes} {msg}")
}

pub(crate) fn of_copies(name: &'static str) -> ProgressBar {
    bar(name, "{prefix} [{bar:30}] {human_pos} of about {human_len} copies {msg}")
}

/// Without a length: it is not known before the first answer.
fn bar(name: &'static str, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is a constant and well formed");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.with_style(style.progress_chars("=> ")).with_prefix(name)
}
