//! How we write, as far as a machine can see it: comments that stand on their own, and one meaning for each type name.

use std::collections::BTreeMap;

use crate::sources::{SourceFile, is_for_tests, production};

/// Openings that lean on a sentence the reader has not seen, or hide the subject. CONTRIBUTING.md says how to write
/// instead.
const BANNED: [&str; 16] = [
    "The same",
    "Of ",
    "That ",
    "Who ",
    "Whom ",
    "Whose ",
    "Whoever",
    "It came to",
    "One that",
    "So much",
    "So long",
    "For so long",
    "Up to it",
    "As it ",
    "Nobody ",
    "Somebody ",
];

#[test]
fn comments_stand_on_their_own() {
    let found: Vec<String> = production().iter().flat_map(banned_openings).collect();
    assert!(
        found.is_empty(),
        "{} comments open with words that CONTRIBUTING.md rules out:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn no_type_name_is_defined_twice() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for file in production().iter().filter(|file| !file.is_test) {
        for name in type_names(&file.syntax.items) {
            places.entry(name).or_default().push(file.path.display().to_string());
        }
    }
    let twice: Vec<String> = places
        .iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(twice.is_empty(), "{} type names have several meanings:\n{}", twice.len(), twice.join("\n"));
}

#[test]
fn comments_fit_their_columns() {
    let wide: Vec<String> = production().iter().flat_map(wide_comments).collect();
    assert!(wide.is_empty(), "{} comments are wider than {MAX_COLUMNS} columns:\n{}", wide.len(), wide.join("\n"));
}

/// As in rustfmt.toml, which looks at code alone.
const MAX_COLUMNS: usize = 120;

/// Lines of comments that are too wide. Rows of tables and what stands in a code block cannot be broken.
fn wide_comments(file: &SourceFile) -> Vec<String> {
    let mut in_block = false;
    let mut wide = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let Some(text) = comment(line) else {
            in_block = false;
            continue;
        };
        in_block ^= text.starts_with("```");
        if !in_block && !text.starts_with('|') && line.chars().count() > MAX_COLUMNS {
            wide.push(format!("{}:{}", file.path.display(), number + 1));
        }
    }
    wide
}

/// Lines on which a block of comments begins with a banned opening.
fn banned_openings(file: &SourceFile) -> Vec<String> {
    let mut in_comment = false;
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let text = comment(line);
        if let Some(text) = text
            && !in_comment
            && BANNED.iter().any(|opening| text.starts_with(opening))
        {
            found.push(format!("{}:{}: {text}", file.path.display(), number + 1));
        }
        in_comment = text.is_some();
    }
    found
}

fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim_start)
}

fn type_names(items: &[syn::Item]) -> Vec<String> {
    let mut names = Vec::new();
    for item in items {
        match item {
            syn::Item::Struct(item) if !is_for_tests(&item.attrs) => names.push(item.ident.to_string()),
            syn::Item::Enum(item) if !is_for_tests(&item.attrs) => names.push(item.ident.to_string()),
            syn::Item::Union(item) if !is_for_tests(&item.attrs) => names.push(item.ident.to_string()),
            syn::Item::Trait(item) if !is_for_tests(&item.attrs) => names.push(item.ident.to_string()),
            syn::Item::Type(item) if !is_for_tests(&item.attrs) => names.push(item.ident.to_string()),
            syn::Item::Mod(item) if !is_for_tests(&item.attrs) => {
                names.extend(item.content.iter().flat_map(|(_, items)| type_names(items)));
            }
            _ => {}
        }
    }
    names
}
