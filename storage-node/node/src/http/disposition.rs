//! `Content-Disposition` of a form's part: the field's name and the file's name, as bytes.
//!
//! File names need not be UTF-8, and some Python versions send `filename*` (RFC 5987); the multipart reader's own
//! accessors support neither. Within quotes `\"` and `\\` are unescaped. Any other backslash is kept, because browsers
//! send it unescaped.

use percent_encoding::percent_decode;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    pub name: Option<Vec<u8>>,
    /// `filename*` wins over `filename`.
    pub file_name: Option<Vec<u8>>,
}

impl Disposition {
    /// Parameters that do not parse are ignored.
    pub(super) fn parse(header: &[u8]) -> Self {
        let mut found = Self::default();
        let mut extended = None;
        let mut rest = skip_to_parameters(header);
        while let Some((key, value, after)) = parameter(rest) {
            match &key.to_ascii_lowercase()[..] {
                b"name" => found.name = found.name.or(Some(value)),
                b"filename" => found.file_name = found.file_name.or(Some(value)),
                b"filename*" => extended = extended.or_else(|| decode_extended(&value)),
                _ => {}
            }
            rest = after;
        }
        found.file_name = extended.or(found.file_name);
        found
    }
}

fn skip_to_parameters(header: &[u8]) -> &[u8] {
    let end = header.iter().position(|byte| *byte == b';').unwrap_or(header.len());
    &header[end..]
}

/// Parses `; key = value`, and returns key, value and the rest.
fn parameter(header: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let header = header.strip_prefix(b";")?;
    let equals = header.iter().position(|byte| *byte == b'=')?;
    let key = header[..equals].trim_ascii();
    let value = header[equals + 1..].trim_ascii_start();
    let (value, rest) = match value.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            (value[..end].trim_ascii().to_vec(), &value[end..])
        }
    };
    Some((key, value, skip_to_parameters(rest)))
}

/// Returns the text up to the closing quote, and the rest. `None` without a closing quote.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate().peekable();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => {
                let escaped = bytes.next_if(|(_, next)| matches!(next, b'"' | b'\\'));
                value.push(escaped.map_or(b'\\', |(_, byte)| *byte));
            }
            _ => value.push(byte),
        }
    }
    None
}

/// Decodes `charset'language'percent-encoded`.
fn decode_extended(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode(text).collect();
    match &charset.to_ascii_lowercase()[..] {
        b"utf-8" | b"us-ascii" | b"" => Some(bytes),
        b"iso-8859-1" => Some(bytes.into_iter().map(char::from).collect::<String>().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_name(header: &str) -> Option<String> {
        Disposition::parse(header.as_bytes()).file_name.map(|name| String::from_utf8(name).unwrap())
    }

    #[test]
    fn headers_that_clients_send_are_understood() {
        for (header, expected) in [
            (r#"form-data; name="files"; filename="a.txt""#, Some("a.txt")),
            (r#"form-data; filename=a.txt; name=files"#, Some("a.txt")),
            (r#"form-data; name="files"; filename*=utf-8''%C3%A4.txt"#, Some("ä.txt")),
            (r#"form-data; name="files"; filename="_.txt"; filename*=UTF-8'de'%C3%A4.txt"#, Some("ä.txt")),
            (r#"form-data; name="files"; filename*=iso-8859-1''%E4"#, Some("ä")),
            (r#"form-data; name="files"; filename*=koi8-r''%E4"#, None),
            (r#"form-data; name="files"; filename="a\"b\\c\d;e""#, Some(r#"a"b\c\d;e"#)),
            (r#"form-data; name="files"; filename="""#, Some("")),
            (r#"form-data; name="files"; filename="a"#, None),
            (r#"form-data; NAME="files"; FileName = "x y""#, Some("x y")),
            (r#"form-data; name="filename=x""#, None),
            ("form-data", None),
            ("", None),
            (";;==;\"", None),
        ] {
            assert_eq!(file_name(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn names_that_are_not_utf8_are_kept() {
        let parsed = Disposition::parse(b"form-data; name=\"files\"; filename=\"\xe4\xff\"");
        assert_eq!(
            (parsed.name.as_deref(), parsed.file_name.as_deref()),
            (Some(&b"files"[..]), Some(&b"\xe4\xff"[..]))
        );
    }
}
