//! JSON bodies.

use serde::Deserialize;

/// Reads one JSON object; `what` names it in errors.
///
/// # Errors
/// A sentence that names the field that does not parse.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, String> {
    // A struct would also be read from an array of its fields, which no sender means.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(format!("the body is not a {what}: it is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        match error.path().to_string().as_str() {
            "." => format!("the body is not a {what}: {}", error.inner()),
            field => format!("{field}: {}", error.inner()),
        }
    })?;
    json.end()
        .map_err(|error| format!("the body is more than a {what}: {error}"))?;
    Ok(value)
}
