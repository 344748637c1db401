//! Reads Rust source far enough to know which paths it names: a lexer without comments, strings and test code, and the
//! trees of `use`.

/// What is left of a source file: identifiers and single punctuation marks; `::` is one token.
pub fn tokens(source: &str) -> Vec<String> {
    without_tests(lex(source))
}

/// Every path that starts with one of `roots`, written out in full: `use crate::a::{b, c::d}` gives `crate::a::b` and
/// `crate::a::c::d`.
pub fn paths(tokens: &[String], roots: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = roots.contains(&tokens[at].as_str()) && (at == 0 || tokens[at - 1] != "::");
        if starts && tokens.get(at + 1).is_some_and(|next| next == "::") {
            at = tree(tokens, at, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one tree that begins at `at`; returns where it ends.
fn tree(tokens: &[String], mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let outer = prefix.len();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," { at + 1 } else { tree(tokens, at, prefix, found).max(at + 1) };
                }
                prefix.truncate(outer);
                return at + 1;
            }
            "*" => prefix.push("*".to_owned()),
            name if is_name(name) => prefix.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") {
            break;
        }
        at += 1;
    }
    found.push(prefix.clone());
    prefix.truncate(outer);
    // `as name` belongs to the tree and names nothing.
    if tokens.get(at).is_some_and(|token| token == "as") { at + 2 } else { at }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn lex(source: &str) -> Vec<String> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        at += match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => block_comment(rest),
            b'"' => quoted(rest, '"'),
            b'r' | b'b' | b'c' if string_prefix(rest).is_some() => prefixed_string(rest),
            b'\'' => character_or_lifetime(rest),
            b':' if rest.starts_with("::") => {
                tokens.push("::".to_owned());
                2
            }
            _ => {
                let end = rest.find(|next: char| !(next.is_alphanumeric() || next == '_')).unwrap_or(rest.len());
                let length = if end == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { end };
                if !rest[..length].trim().is_empty() {
                    tokens.push(rest[..length].to_owned());
                }
                length
            }
        };
    }
    tokens
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, next) in rest.char_indices().skip(1) {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if next == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of the letters before the quote or hashes of `r"`, `b"`, `br#"` and the like; none for an identifier.
fn string_prefix(rest: &str) -> Option<usize> {
    let letters = rest.find(|next: char| !matches!(next, 'r' | 'b' | 'c')).filter(|letters| *letters <= 2)?;
    let after = rest[letters..].trim_start_matches('#');
    let hashes = rest.len() - letters - after.len();
    let raw = rest[..letters].ends_with('r');
    (after.starts_with('"') && (raw || hashes == 0)).then_some(letters)
}

fn prefixed_string(rest: &str) -> usize {
    let letters = string_prefix(rest).unwrap_or(0);
    if !rest[..letters].ends_with('r') {
        return letters + quoted(&rest[letters..], '"');
    }
    let hashes = rest[letters..].chars().take_while(|next| *next == '#').count();
    let open = letters + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    rest[open..].find(&close).map_or(rest.len(), |found| open + found + close.len())
}

fn character_or_lifetime(rest: &str) -> usize {
    let mut next = rest.chars().skip(1);
    match (next.next(), next.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(letter), Some('\'')) => 2 + letter.len_utf8(),
        _ => 1,
    }
}

/// Drops each item behind `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let marked =
            tokens.len() - at >= MARK.len() && MARK.iter().zip(&tokens[at..]).all(|(mark, token)| mark == token);
        if marked {
            at = end_of_item(&tokens, at + MARK.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the item that begins at `at`: its `;` or the `}` that closes it.
fn end_of_item(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    // `use a::{b};` goes on to its semicolon.
                    return at + usize::from(tokens.get(at).is_some_and(|next| next == ";"));
                }
            }
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    at
}
