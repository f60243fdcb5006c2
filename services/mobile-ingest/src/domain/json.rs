//! JSON bodies.

use serde::Deserialize;

/// Longest sentence about a body, bytes; the rest of it is cut. It may quote what was sent, which may be
/// as long as the body.
const MAX_SENTENCE: usize = 256;

/// Reads one JSON object; `what` names it in errors.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, String> {
    let body = inside(body);
    // A struct would also be read from an array of its fields, which no sender means.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(format!("the body is not a {what}: it is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let sentence = match error.path().to_string().as_str() {
            "." => format!("the body is not a {what}: {}", error.inner()),
            field => format!("{field}: {}", error.inner()),
        };
        cut(sentence)
    })?;
    json.end()
        .map_err(|error| format!("the body is more than a {what}: {error}"))?;
    Ok(value)
}

/// A body without what some senders put around it: a byte-order mark before, zero bytes behind.
fn inside(body: &[u8]) -> &[u8] {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let mut json = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    while let [rest @ .., 0] = json {
        json = rest;
    }
    json
}

fn cut(mut sentence: String) -> String {
    if sentence.len() > MAX_SENTENCE {
        sentence.truncate(sentence.floor_char_boundary(MAX_SENTENCE));
        sentence.push_str("...");
    }
    sentence
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_error_does_not_repeat_the_body() {
        let long = "\u{20ac}".repeat(1 << 16);
        for body in [
            format!(r#"{{"{long}": "x"}}"#),
            format!(r#"{{"x": "{long}"}}"#),
        ] {
            let error = read_object::<BTreeMap<String, f64>>(body.as_bytes(), "frame").unwrap_err();
            assert!(error.len() <= MAX_SENTENCE + 3, "{}", error.len());
        }
    }
}
