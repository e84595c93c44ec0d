//! Settings that a file can switch off.
//!
//! Not every format has a null, and a setting that is left out takes its default, which may be on. So
//! what is off is written as the word `"off"`; a null is read as the same.
//!
//! ```
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     #[serde(with = "portcullis_core::off")]
//!     failure_rate: Option<f64>,
//! }
//!
//! let settings: Settings = serde_json::from_str(r#"{ "failure_rate": "off" }"#)?;
//! assert_eq!(settings.failure_rate, None);
//! let settings: Settings = serde_json::from_str(r#"{ "failure_rate": 0.25 }"#)?;
//! assert_eq!(settings.failure_rate, Some(0.25));
//! # Ok::<_, serde_json::Error>(())
//! ```

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

const OFF: &str = "off";

struct SettingOrOff<T>(PhantomData<T>);

/// Writes a setting, or `"off"`.
///
/// # Errors
///
/// Those of the format.
pub fn serialize<S: Serializer, T: Serialize>(
    setting: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match setting {
        Some(setting) => setting.serialize(serializer),
        None => serializer.serialize_str(OFF),
    }
}

/// Reads a setting, or `"off"`. Needs a format that says of which type a value is, as those that people
/// write do.
///
/// # Errors
///
/// Those of the setting, and of the format.
pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_any(SettingOrOff(PhantomData))
}

// ===== impl SettingOrOff =====

impl<'de, T: Deserialize<'de>> Visitor<'de> for SettingOrOff<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting, or \"off\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            OFF => Ok(None),
            text => T::deserialize(text.into_deserializer()).map(Some),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(list)).map(Some)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(with = "super")]
        rate: Option<f64>,
        #[serde(with = "super")]
        count: Option<u32>,
        #[serde(with = "super")]
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        depth: i32,
    }

    fn read(text: &str) -> Result<Settings, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for settings in [
            Settings { rate: None, count: None, inner: None },
            Settings { rate: Some(0.5), count: Some(7), inner: Some(Inner { depth: -1 }) },
        ] {
            let text = serde_json::to_string(&settings).unwrap();
            assert_eq!(read(&text).unwrap(), settings, "{text}");
        }
    }

    #[test]
    fn off_and_null_are_off() {
        let off = read(r#"{ "rate": "off", "count": null, "inner": "off" }"#).unwrap();
        assert_eq!(off, Settings { rate: None, count: None, inner: None });
    }

    #[test]
    fn what_is_neither_a_setting_nor_off_says_what_it_is() {
        let rest = r#""count": 1, "inner": "off""#;
        let of = |rate: &str| read(&format!(r#"{{ "rate": {rate}, {rest} }}"#)).unwrap_err();
        assert!(of("false").contains("boolean `false`, expected a setting, or \"off\""));
        assert!(of(r#""of""#).contains("string \"of\", expected f64"));
        let unknown = r#"{ "rate": 1.0, "count": 1, "inner": { "width": 1 } }"#;
        assert!(read(unknown).unwrap_err().contains("unknown field `width`"));
        assert!(read(r#"{ "rate": 1.0, "count": -1, "inner": "off" }"#).is_err());
    }
}
