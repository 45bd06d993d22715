//! How we write, as far as a machine can see it: comments that stand on their own, and one meaning for each type name.

use std::{collections::BTreeMap, fs, path::Path};

use crate::sources::{SourceFile, is_for_tests, listed_files, production, root};

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
    let files = commented_files();
    for notation in [Notation::Slashes, Notation::Hashes] {
        let count = files.iter().filter(|file| file.notation == notation).count();
        assert!(count > 70, "only {count} files were found whose comments begin with {notation:?}");
    }
    let found: Vec<String> = files.iter().flat_map(banned_openings).collect();
    assert!(
        found.is_empty(),
        "{} comments open with words that CONTRIBUTING.md rules out:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn banned_openings_are_found_in_every_notation() {
    let found = |notation: Notation, text: &str| {
        let file = CommentedFile { path: String::new(), notation, text: text.to_owned() };
        banned_openings(&file).len()
    };
    assert_eq!(found(Notation::Slashes, "/// Of one.\n    // Of two\n    // lines.\n"), 1, "one block");
    assert_eq!(found(Notation::Slashes, "/// One line\n/// Of two.\nlet it = 1; // Of one.\n"), 0);
    assert_eq!(found(Notation::Hashes, "# Of one.\n\n    # Of two\n"), 2);
    assert_eq!(found(Notation::Hashes, "# Two lines,\n# Of one comment.\n"), 0);
    assert_eq!(found(Notation::Hashes, "one = 1  # Of one.\ntwo = 2  # Of two.\n"), 2, "behind code");
    assert_eq!(found(Notation::Hashes, "    \"\"\"Of one.\"\"\"\n    # Of two.\n"), 2, "a docstring, then a comment");
    assert_eq!(found(Notation::Hashes, "#!/bin/sh\necho \"${#Of}\"\n"), 0);
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

/// A file of the repository that may have comments.
struct CommentedFile {
    path: String,
    notation: Notation,
    text: String,
}

/// How comments are written in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Notation {
    /// Rust.
    Slashes,
    /// Python with its docstrings, shell, YAML, TOML, systemd's units, Dockerfiles.
    Hashes,
}

impl Notation {
    /// Scripts without a suffix are known by their first line.
    fn of(path: &str, text: &str) -> Option<Self> {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("rs") => Some(Self::Slashes),
            Some("py" | "sh" | "yaml" | "yml" | "toml" | "service" | "timer" | "socket" | "conf") => Some(Self::Hashes),
            _ if name.starts_with("Dockerfile") || text.starts_with("#!/") => Some(Self::Hashes),
            _ => None,
        }
    }
}

fn commented_files() -> Vec<CommentedFile> {
    let files = listed_files("*").into_iter().filter_map(|path| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        let notation = Notation::of(&path, &text)?;
        Some(CommentedFile { path, notation, text })
    });
    files.collect()
}

/// Lines on which a comment begins with a banned opening.
fn banned_openings(file: &CommentedFile) -> Vec<String> {
    let mut in_comment = false;
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let (whole_line, opening) = match file.notation {
            Notation::Slashes => (comment(line), None),
            Notation::Hashes => (line.trim_start().strip_prefix("# "), docstring_or_trailing(line)),
        };
        let begins = if in_comment { opening } else { whole_line.or(opening) };
        if let Some(text) = begins.map(str::trim_start)
            && BANNED.iter().any(|banned| text.starts_with(banned))
        {
            found.push(format!("{}:{}: {text}", file.path, number + 1));
        }
        in_comment = whole_line.is_some();
    }
    found
}

/// Comments that begin on their line, whatever stands above: the first line of a docstring, and a comment behind code.
fn docstring_or_trailing(line: &str) -> Option<&str> {
    let after_code =
        || Some(line.split_once("  # ")?).filter(|(code, _)| !code.trim().is_empty()).map(|(_, text)| text);
    line.trim_start().strip_prefix("\"\"\"").or_else(after_code)
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
