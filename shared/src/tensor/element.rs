//! Elements of one width: from raw bytes and back, and as JSON.

use std::io::{self, Write};

use half::{bf16, f16};

/// The Rust type of an element type of one width.
pub trait Element: Copy + PartialOrd {
    /// The elements of row-major little-endian bytes. An incomplete last one is left out.
    fn all(data: &[u8]) -> impl ExactSizeIterator<Item = Self>;

    /// Appends the element, little-endian.
    fn append(self, data: &mut Vec<u8>);

    /// Whether the element is neither NaN nor infinite.
    fn is_finite(self) -> bool;

    /// The nearest 64-bit float; 0 or 1 for a boolean.
    fn as_f64(self) -> f64;

    /// Writes the element as JSON. NaN and infinity have no numbers in JSON, so they are strings.
    ///
    /// # Errors
    /// When `text` cannot take it.
    fn write_json(self, text: &mut impl Write) -> io::Result<()>;
}

macro_rules! all_of {
    ($type:ty) => {
        fn all(data: &[u8]) -> impl ExactSizeIterator<Item = Self> {
            data.as_chunks().0.iter().map(|element| <$type>::from_le_bytes(*element))
        }

        fn append(self, data: &mut Vec<u8>) {
            data.extend_from_slice(&self.to_le_bytes());
        }
    };
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Element for $type {
            all_of!($type);

            fn is_finite(self) -> bool {
                true
            }

            fn as_f64(self) -> f64 {
                self as f64
            }

            fn write_json(self, text: &mut impl Write) -> io::Result<()> {
                Ok(serde_json::to_writer(text, &self)?)
            }
        })*
    };
}

/// Floats are written through a type that JSON numbers are made of. A 32-bit float converted to 64 bits is longer, but not more
/// exact.
macro_rules! floats {
    ($($type:ty as $written:ty),*) => {
        $(impl Element for $type {
            all_of!($type);

            fn is_finite(self) -> bool {
                <$type>::is_finite(self)
            }

            fn as_f64(self) -> f64 {
                self.into()
            }

            fn write_json(self, text: &mut impl Write) -> io::Result<()> {
                if Element::is_finite(self) {
                    return Ok(serde_json::to_writer(text, &<$written>::from(self))?);
                }
                let is_negative = self.is_sign_negative();
                text.write_all(match (self.is_nan(), is_negative) {
                    (true, _) => br#""NaN""#,
                    (false, false) => br#""Infinity""#,
                    (false, true) => br#""-Infinity""#,
                })
            }
        })*
    };
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64);
floats!(f16 as f32, bf16 as f32, f32 as f32, f64 as f64);

impl Element for bool {
    fn all(data: &[u8]) -> impl ExactSizeIterator<Item = Self> {
        data.iter().map(|byte| *byte != 0)
    }

    fn append(self, data: &mut Vec<u8>) {
        data.push(u8::from(self));
    }

    fn is_finite(self) -> bool {
        true
    }

    fn as_f64(self) -> f64 {
        f64::from(u8::from(self))
    }

    fn write_json(self, text: &mut impl Write) -> io::Result<()> {
        text.write_all(if self { b"true" } else { b"false" })
    }
}

/// Evaluates an expression with the [`Element`] type of a [`DataType`](super::DataType), or another one for BYTES.
macro_rules! with_element {
    ($datatype:expr, $type:ident => $fixed:expr, BYTES => $bytes:expr) => {{
        use $crate::tensor::DataType;
        macro_rules! with {
            ($element:ty) => {{
                type $type = $element;
                $fixed
            }};
        }
        match $datatype {
            DataType::Bool => with!(bool),
            DataType::Uint8 => with!(u8),
            DataType::Uint16 => with!(u16),
            DataType::Uint32 => with!(u32),
            DataType::Uint64 => with!(u64),
            DataType::Int8 => with!(i8),
            DataType::Int16 => with!(i16),
            DataType::Int32 => with!(i32),
            DataType::Int64 => with!(i64),
            DataType::Fp16 => with!(half::f16),
            DataType::Bf16 => with!(half::bf16),
            DataType::Fp32 => with!(f32),
            DataType::Fp64 => with!(f64),
            DataType::Bytes => $bytes,
        }
    }};
}
pub(crate) use with_element;

#[cfg(test)]
mod tests {
    use super::*;

    fn json<T: Element>(element: T) -> String {
        let mut text = Vec::new();
        element.write_json(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn again<T: Element>(elements: &[T]) -> Vec<T> {
        let mut data = Vec::new();
        elements.iter().for_each(|element| element.append(&mut data));
        T::all(&data).collect()
    }

    #[test]
    fn elements_survive_their_bytes() {
        assert_eq!(again(&[true, false]), [true, false]);
        assert_eq!(again(&[i8::MIN, -1, 7]), [i8::MIN, -1, 7]);
        assert_eq!(again(&[u64::MAX, 0]), [u64::MAX, 0]);
        assert_eq!(again(&[f16::MAX, f16::from_f32(-0.5)]), [f16::MAX, f16::from_f32(-0.5)]);
        assert_eq!(again(&[0.1_f32, f32::INFINITY]), [0.1, f32::INFINITY]);
        assert_eq!(f32::all(&[0, 0, 128, 63, 1, 2]).collect::<Vec<_>>(), [1.0]);
    }

    #[test]
    fn each_element_is_written_as_short_as_it_is_exact() {
        assert_eq!((json(true), json(false)), ("true".to_owned(), "false".to_owned()));
        assert_eq!((json(u64::MAX), json(i8::MIN)), (u64::MAX.to_string(), "-128".to_owned()));
        assert_eq!((json(0.1_f32), json(0.1_f64), json(2.0_f32)), ("0.1".into(), "0.1".into(), "2.0".into()));
        assert_eq!(json(f16::from_f32(0.1)), "0.099975586");
        assert_eq!(json(bf16::from_f32(1.5)), "1.5");
    }

    #[test]
    fn nan_and_infinity_are_strings() {
        let names = [r#""NaN""#, r#""Infinity""#, r#""-Infinity""#];
        assert_eq!([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(json), names);
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(json), names);
        assert_eq!([f16::NAN, f16::INFINITY, f16::NEG_INFINITY].map(json), names);
        assert_eq!([bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY].map(json), names);
        assert!(!Element::is_finite(f16::NAN) && Element::is_finite(f16::MAX) && Element::is_finite(1_u8));
    }
}
