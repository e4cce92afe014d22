//! Tensors: elements of one type with a shape, as raw bytes.

pub mod bounds;
pub mod bytes;
mod element;
pub(crate) mod from_json;
mod input_error;
pub(crate) mod nested;
pub mod open_inference;
pub mod pointer;
pub mod stored;
pub mod stored_outputs;
pub mod tensorflow_json;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub use element::Element;
pub(crate) use element::with_element;
pub use input_error::{InputError, InputErrors, MOST_ERRORS};

/// Element type of a tensor, named as the Open Inference Protocol names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    /// True or false, one byte.
    Bool,
    /// 8-bit unsigned integer.
    Uint8,
    /// 16-bit unsigned integer.
    Uint16,
    /// 32-bit unsigned integer.
    Uint32,
    /// 64-bit unsigned integer.
    Uint64,
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// 16-bit float (IEEE 754 binary16).
    Fp16,
    /// 16-bit float with the exponent of a 32-bit float.
    Bf16,
    /// 32-bit float.
    Fp32,
    /// 64-bit float.
    Fp64,
    /// Text or bytes of any length.
    Bytes,
}

/// What is fixed about an element type.
struct Facts {
    name: &'static str,
    tensorflow_name: &'static str,
    /// Bytes of an element.
    width: Option<usize>,
    /// Characters of the longest JSON text of an element.
    longest_json: Option<usize>,
}

impl DataType {
    /// All element types.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    fn facts(self) -> Facts {
        let fixed = |name, tensorflow_name, width, longest_json| Facts {
            name,
            tensorflow_name,
            width: Some(width),
            longest_json: Some(longest_json),
        };
        match self {
            Self::Bool => fixed("BOOL", "DT_BOOL", 1, 5),
            Self::Uint8 => fixed("UINT8", "DT_UINT8", 1, 3),
            Self::Uint16 => fixed("UINT16", "DT_UINT16", 2, 5),
            Self::Uint32 => fixed("UINT32", "DT_UINT32", 4, 10),
            Self::Uint64 => fixed("UINT64", "DT_UINT64", 8, 20),
            Self::Int8 => fixed("INT8", "DT_INT8", 1, 4),
            Self::Int16 => fixed("INT16", "DT_INT16", 2, 6),
            Self::Int32 => fixed("INT32", "DT_INT32", 4, 11),
            Self::Int64 => fixed("INT64", "DT_INT64", 8, 20),
            // Nine or seventeen digits, behind some zeros: -0.00000123456789. "-Infinity" is shorter.
            Self::Fp16 => fixed("FP16", "DT_HALF", 2, 17),
            Self::Bf16 => fixed("BF16", "DT_BFLOAT16", 2, 17),
            Self::Fp32 => fixed("FP32", "DT_FLOAT", 4, 17),
            Self::Fp64 => fixed("FP64", "DT_DOUBLE", 8, 24),
            Self::Bytes => {
                Facts { name: "BYTES", tensorflow_name: "DT_STRING", width: None, longest_json: None }
            }
        }
    }

    /// Its number in stored tensors: the place in [`Self::ALL`].
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The type with this number.
    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The Open Inference Protocol's name of the type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// The type with this name in the Open Inference Protocol.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.as_str() == name)
    }

    /// TensorFlow's name of the type (`tensorflow/core/framework/types.proto`).
    #[must_use]
    pub fn tensorflow_name(self) -> &'static str {
        self.facts().tensorflow_name
    }

    /// The type with this TensorFlow name.
    #[must_use]
    pub fn from_tensorflow(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|datatype| datatype.tensorflow_name() == name)
    }

    /// Bytes of an element; `None` if elements differ in length.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        self.facts().width
    }

    /// The integers of the type; `None` if its elements are no integers.
    #[must_use]
    pub fn integers(self) -> Option<RangeInclusive<i128>> {
        fn range<T: Into<i128>>(least: T, most: T) -> Option<RangeInclusive<i128>> {
            Some(least.into()..=most.into())
        }
        match self {
            Self::Uint8 => range(u8::MIN, u8::MAX),
            Self::Uint16 => range(u16::MIN, u16::MAX),
            Self::Uint32 => range(u32::MIN, u32::MAX),
            Self::Uint64 => range(u64::MIN, u64::MAX),
            Self::Int8 => range(i8::MIN, i8::MAX),
            Self::Int16 => range(i16::MIN, i16::MAX),
            Self::Int32 => range(i32::MIN, i32::MAX),
            Self::Int64 => range(i64::MIN, i64::MAX),
            Self::Bool | Self::Fp16 | Self::Bf16 | Self::Fp32 | Self::Fp64 | Self::Bytes => None,
        }
    }

    /// Characters of the longest JSON text of an element; `None` if there is no limit.
    #[must_use]
    pub fn longest_json(self) -> Option<usize> {
        self.facts().longest_json
    }
}

/// A named tensor whose first axis is the batch: shape `[rows, ...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The backend's name of the input or output.
    pub name: String,
    /// Element type.
    pub datatype: DataType,
    /// Shape, the batch axis first.
    pub shape: Vec<usize>,
    /// The elements, row-major and little-endian. An element of [`DataType::Bytes`] has its length before it, see [`bytes`].
    pub data: Vec<u8>,
}

/// A tensor whose elements are held by something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// As [`Tensor::name`].
    pub name: &'a str,
    /// As [`Tensor::datatype`].
    pub datatype: DataType,
    /// As [`Tensor::shape`].
    pub shape: Vec<usize>,
    /// As [`Tensor::data`].
    pub data: &'a [u8],
}

impl From<View<'_>> for Tensor {
    fn from(view: View<'_>) -> Self {
        let View { name, datatype, shape, data } = view;
        Self { name: name.to_owned(), datatype, shape, data: data.to_vec() }
    }
}

impl Tensor {
    /// The tensor without its elements.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let Self { name, datatype, shape, data } = self;
        View { name, datatype: *datatype, shape: shape.clone(), data }
    }

    /// Number of elements in `data`, which may differ from that of the shape. An incomplete element does not count.
    #[must_use]
    pub fn elements(&self) -> usize {
        match self.datatype.width() {
            Some(width) => self.data.len() / width,
            None => bytes::elements(&self.data).count(),
        }
    }
}

/// The rows of one model call: one tensor for each input of the model, all with the same number of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Number of rows along the batch axis.
    pub rows: usize,
    /// One tensor for each input, in the description's order.
    pub inputs: Vec<Tensor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_by_its_name_and_found_by_its_tensorflow_name() {
        for datatype in DataType::ALL {
            let read: DataType = serde_json::from_value(datatype.as_str().into()).unwrap();
            assert_eq!((read, DataType::named(datatype.as_str())), (datatype, Some(datatype)));
            assert_eq!(DataType::from_tensorflow(datatype.tensorflow_name()), Some(datatype));
        }
        assert_eq!(DataType::from_tensorflow("FP32"), None);
    }

    #[test]
    fn an_element_takes_its_width_and_its_longest_text_is_not_exceeded() {
        fn longest<T: Element>(extremes: &[T]) -> (usize, usize) {
            let text = |element: &T| {
                let mut text = Vec::new();
                element.write_json(&mut text).unwrap();
                text.len()
            };
            let mut data = Vec::new();
            extremes[0].append(&mut data);
            (data.len(), extremes.iter().map(text).max().unwrap())
        }
        let found = [
            (DataType::Bool, longest(&[true, false])),
            (DataType::Uint8, longest(&[u8::MAX])),
            (DataType::Uint16, longest(&[u16::MAX])),
            (DataType::Uint32, longest(&[u32::MAX])),
            (DataType::Uint64, longest(&[u64::MAX])),
            (DataType::Int8, longest(&[i8::MIN])),
            (DataType::Int16, longest(&[i16::MIN])),
            (DataType::Int32, longest(&[i32::MIN])),
            (DataType::Int64, longest(&[i64::MIN])),
        ];
        for (datatype, (width, json)) in found {
            assert_eq!(
                (Some(width), Some(json)),
                (datatype.width(), datatype.longest_json()),
                "{datatype:?}"
            );
        }
        let all = |datatype: DataType, (width, json): (usize, usize)| {
            assert_eq!(Some(width), datatype.width());
            assert!(Some(json) <= datatype.longest_json(), "{datatype:?}: {json}");
        };
        all(DataType::Fp16, longest(&(0..=u16::MAX).map(half::f16::from_bits).collect::<Vec<_>>()));
        all(DataType::Bf16, longest(&(0..=u16::MAX).map(half::bf16::from_bits).collect::<Vec<_>>()));
        all(DataType::Fp32, longest(&[-1.234_567_9e-6_f32, f32::NEG_INFINITY, f32::MIN_POSITIVE]));
        all(DataType::Fp64, longest(&[-1.234_567_890_123_456_7e-5_f64, f64::NEG_INFINITY, f64::MIN]));
    }
}
