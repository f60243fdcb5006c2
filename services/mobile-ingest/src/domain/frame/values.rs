//! Free-form numbers of a sensor (`imu_data`), flattened while they are read.
//!
//! `{"accel": {"x": 1}, "t": [2, 3]}` becomes `accel.x = 1`, `t.0 = 2`, `t.1 = 3`. What is not a number
//! (a unit, a flag) is no measurement and is not carried. Reading stops with an error at the bounds, and
//! a name is cut while it is made, so that a large body costs no more than reading it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Numbers one sample may carry; a sample with more is refused.
const MAX_VALUES: usize = 32;
/// Members and elements of any kind, numbers or not, at all levels; a sample with more is refused.
const MAX_ELEMENTS: usize = 8 * MAX_VALUES;
/// Longest flattened name of a number, bytes; a sample with a longer one is refused.
const MAX_NAME: usize = 64;
/// Deepest nesting; a sample nested deeper is refused.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Values(pub(crate) BTreeMap<String, f64>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut taken = Taken::default();
        deserializer.deserialize_map(Object {
            prefix: "",
            depth: 1,
            taken: &mut taken,
        })?;
        Ok(Self(taken.values))
    }
}

#[derive(Default)]
struct Taken {
    values: BTreeMap<String, f64>,
    elements: usize,
}

impl Taken {
    fn element<E: de::Error>(&mut self) -> Result<(), E> {
        if self.elements >= MAX_ELEMENTS {
            return Err(E::custom(format_args!(
                "more than {MAX_ELEMENTS} members and elements"
            )));
        }
        self.elements += 1;
        Ok(())
    }
}

/// The name of `key` within `prefix`. One that is too long is cut just beyond [`MAX_NAME`]: long enough
/// to be refused if a number bears it, never as long as what was sent.
fn nested_name(prefix: &str, key: &str) -> String {
    let separator = if prefix.is_empty() { "" } else { "." };
    let mut name = String::new();
    for character in [prefix, separator, key].into_iter().flat_map(str::chars) {
        if name.len() > MAX_NAME {
            break;
        }
        name.push(character);
    }
    name
}

struct Leaf<'v> {
    name: String,
    depth: usize,
    taken: &'v mut Taken,
}

impl<'de> DeserializeSeed<'de> for Leaf<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Leaf<'_> {
    fn number<E: de::Error>(self, value: f64) -> Result<(), E> {
        if self.name.len() > MAX_NAME {
            return Err(E::custom(format_args!(
                "a name is longer than {MAX_NAME} bytes"
            )));
        }
        if !value.is_finite() {
            return Err(E::custom(format_args!("`{}` is not finite", self.name)));
        }
        if self.taken.values.len() >= MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} numbers")));
        }
        self.taken.values.insert(self.name, value);
        Ok(())
    }

    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> Visitor<'de> for Leaf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "measurements travel as double, as JSON means them"
    )]
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.number(value as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "measurements travel as double, as JSON means them"
    )]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        Object {
            prefix: &self.name,
            depth,
            taken: self.taken,
        }
        .visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut index = 0_usize;
        while seq
            .next_element_seed(Leaf {
                name: nested_name(&self.name, &index.to_string()),
                depth,
                taken: &mut *self.taken,
            })?
            .is_some()
        {
            self.taken.element()?;
            index += 1;
        }
        Ok(())
    }
}

struct Object<'v> {
    prefix: &'v str,
    depth: usize,
    taken: &'v mut Taken,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.taken.element()?;
            map.next_value_seed(Leaf {
                name: nested_name(self.prefix, &key),
                depth: self.depth,
                taken: &mut *self.taken,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Values, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_never_made_much_longer_than_one_may_be() {
        let long = "\u{20ac}".repeat(1 << 20);
        for name in [
            nested_name("", &long),
            nested_name(&long, "x"),
            nested_name("x", &long),
        ] {
            assert!(name.len() > MAX_NAME, "a number under it is refused");
            assert!(name.len() <= MAX_NAME + '\u{20ac}'.len_utf8());
        }
        let longest = "x".repeat(MAX_NAME - 2);
        assert_eq!(nested_name(&longest, "y"), format!("{longest}.y"));
        for refused in [
            format!(r#"{{"{long}": 1}}"#),
            format!(r#"{{"{long}": [1]}}"#),
            format!(r#"{{"x": {{"{long}": 1}}}}"#),
        ] {
            let error = read(&refused).unwrap_err();
            assert!(error.contains("a name is longer"));
        }
        let without_number = format!(r#"{{"{long}": ["a", {{"b": null}}], "x": 1}}"#);
        assert_eq!(read(&without_number).unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_no_number_is_counted_and_nothing_is_read_beyond_the_bound() {
        for element in [r#""a""#, "true", "null", "{}", "[]"] {
            // Reading on would find that this is no JSON.
            let elements = format!("{element},").repeat(MAX_ELEMENTS + 1);
            let members = format!(r#""x":{element},"#).repeat(MAX_ELEMENTS + 1);
            for endless in [
                format!(r#"{{"t": [{elements} ?"#),
                format!(r#"{{{members} ?"#),
                format!(r#"{{"t": {{{members} ?"#),
            ] {
                let error = read(&endless).unwrap_err();
                assert!(error.contains("members and elements"), "{element}: {error}");
            }
        }
        let elements = vec!["null"; MAX_ELEMENTS - 2].join(",");
        assert!(read(&format!(r#"{{"t": [{elements}], "x": 1}}"#)).is_ok());
    }
}
