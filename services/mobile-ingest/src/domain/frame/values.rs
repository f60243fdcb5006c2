//! Free-form numbers of a sensor (`imu_data`), flattened while they are read.
//!
//! `{"accel": {"x": 1}, "t": [2, 3]}` becomes `accel.x = 1`, `t.0 = 2`, `t.1 = 3`. What is not a number
//! (a unit, a flag) is no measurement and is not carried. Reading stops with an error at the bounds, so
//! that a large body costs no more memory than itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Numbers one sample may carry; a sample with more is refused.
const MAX_VALUES: usize = 32;
/// Longest flattened name, bytes; a sample with a longer one is refused.
const MAX_NAME: usize = 64;
/// Deepest nesting; a sample nested deeper is refused.
const MAX_DEPTH: usize = 4;

/// Numbers by flattened name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Values(pub(crate) BTreeMap<String, f64>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = BTreeMap::new();
        deserializer.deserialize_map(Object {
            prefix: "",
            depth: 1,
            values: &mut values,
        })?;
        Ok(Self(values))
    }
}

/// Reads one value under a name.
struct Leaf<'v> {
    name: String,
    depth: usize,
    values: &'v mut BTreeMap<String, f64>,
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
        if self.values.len() >= MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} numbers")));
        }
        self.values.insert(self.name, value);
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
            values: self.values,
        }
        .visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let mut index = 0_usize;
        while seq
            .next_element_seed(Leaf {
                name: format!("{}.{index}", self.name),
                depth,
                values: &mut *self.values,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }
}

/// Reads the members of one object.
struct Object<'v> {
    prefix: &'v str,
    depth: usize,
    values: &'v mut BTreeMap<String, f64>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let name = if self.prefix.is_empty() {
                key
            } else {
                format!("{}.{key}", self.prefix)
            };
            map.next_value_seed(Leaf {
                name,
                depth: self.depth,
                values: &mut *self.values,
            })?;
        }
        Ok(())
    }
}
