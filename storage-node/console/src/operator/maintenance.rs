//! Work on one node, and what concerns the data of all. What cannot be undone is confirmed by typing the ring's name.

use maud::{Markup, html};

use super::OperatorView;

pub(super) fn body(view: &OperatorView) -> Markup {
    html! {
        div.actions { (one_node(view)) (clear_caches(view)) (delete_all(view)) }
        form method="post" action="/logout" { button { "Log out" } }
    }
}

fn one_node(view: &OperatorView) -> Markup {
    html! {
        form method="post" action="/console/node" aria-labelledby="one-node" {
            h3 #one-node { "One node" }
            label for="node" { "Node" }
            select #node name="node" { @for node in &view.nodes { option value=(node) { (node) } } }
            fieldset {
                legend { "What it does" }
                (choice("scrub", "Scrub: checks every stored chunk against its checksum", true))
                (choice("drain", "Drain: hands over everything, then its process ends", false))
                (choice("drain-fewer", "Drain although fewer than three nodes stay", false))
                (choice("cancel", "Cancel its drain", false))
            }
            button { "Go" }
        }
    }
}

fn choice(value: &str, text: &str, is_first: bool) -> Markup {
    html! { label.choice { input type="radio" name="action" value=(value) checked[is_first]; " " (text) } }
}

fn clear_caches(view: &OperatorView) -> Markup {
    html! {
        form method="post" action="/console/clear-cache" aria-labelledby="clear-cache" {
            h3 #clear-cache { "Clear the caches of all nodes" }
            p.note { "No file changes. Reads are slower until the caches are filled again." }
            (confirmation("clear-cache-name", view))
            button { "Clear all caches" }
        }
    }
}

fn delete_all(view: &OperatorView) -> Markup {
    html! {
        form.danger method="post" action="/console/delete-all" aria-labelledby="delete-all" {
            h3 #delete-all { "Delete all data" }
            p.note { "Removes every file and folder in the ring, for all mounts. This cannot be undone." }
            @if let Some(deletion) = &view.deletion { p role="status" { (deletion) } }
            (confirmation("delete-all-name", view))
            button { "Delete all data" }
        }
    }
}

fn confirmation(id: &str, view: &OperatorView) -> Markup {
    let name = view.config.name;
    html! {
        label for=(id) { "To confirm, type the name of the ring, " strong { (name) } }
        input id=(id) name="ring" autocomplete="off" required;
    }
}
