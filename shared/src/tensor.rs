//! Tensors: typed numbers with a shape, in the form of model servers.

pub mod number;

use serde::Deserialize;

/// Element type, named as TensorFlow names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DType {
    /// 32-bit float.
    #[serde(rename = "DT_FLOAT")]
    Float,
    /// 64-bit float.
    #[serde(rename = "DT_DOUBLE")]
    Double,
    /// 32-bit signed integer.
    #[serde(rename = "DT_INT32")]
    Int32,
    /// 64-bit signed integer.
    #[serde(rename = "DT_INT64")]
    Int64,
}

impl DType {
    /// TensorFlow's name of the type (`tensorflow/core/framework/types.proto`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float => "DT_FLOAT",
            Self::Double => "DT_DOUBLE",
            Self::Int32 => "DT_INT32",
            Self::Int64 => "DT_INT64",
        }
    }

    /// Characters of the longest JSON number of the type, as `serde_json` writes it.
    #[must_use]
    pub fn longest_number(self) -> usize {
        match self {
            // Nine or seventeen digits, behind some zeros: -0.00000123456789.
            Self::Float => 17,
            Self::Double => 24,
            Self::Int32 => 11,
            Self::Int64 => 20,
        }
    }
}

/// The elements of a tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// `DT_FLOAT`.
    Float(Vec<f32>),
    /// `DT_DOUBLE`.
    Double(Vec<f64>),
    /// `DT_INT32`.
    Int32(Vec<i32>),
    /// `DT_INT64`.
    Int64(Vec<i64>),
}

impl Values {
    /// No elements yet, with room for `capacity`.
    #[must_use]
    pub fn with_capacity(dtype: DType, capacity: usize) -> Self {
        match dtype {
            DType::Float => Self::Float(Vec::with_capacity(capacity)),
            DType::Double => Self::Double(Vec::with_capacity(capacity)),
            DType::Int32 => Self::Int32(Vec::with_capacity(capacity)),
            DType::Int64 => Self::Int64(Vec::with_capacity(capacity)),
        }
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Float(_) => DType::Float,
            Self::Double(_) => DType::Double,
            Self::Int32(_) => DType::Int32,
            Self::Int64(_) => DType::Int64,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Int64(values) => values.len(),
        }
    }

    /// Bytes that the elements take in memory and on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Float(values) => size_of_val(values.as_slice()),
            Self::Double(values) => size_of_val(values.as_slice()),
            Self::Int32(values) => size_of_val(values.as_slice()),
            Self::Int64(values) => size_of_val(values.as_slice()),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no element is NaN or infinite.
    #[must_use]
    pub fn all_finite(&self) -> bool {
        match self {
            Self::Float(values) => values.iter().all(|value| value.is_finite()),
            Self::Double(values) => values.iter().all(|value| value.is_finite()),
            Self::Int32(_) | Self::Int64(_) => true,
        }
    }
}

/// A named tensor whose first axis is the batch: shape `[rows, ...]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The backend's name of the input or output.
    pub name: String,
    /// Shape, the batch axis first.
    pub shape: Vec<usize>,
    /// The elements. Their number is that of the shape.
    pub values: Values,
}

/// The rows of one model call: one tensor for each input of the model, all with the same number of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Number of rows along the batch axis.
    pub rows: usize,
    /// One tensor for each input, in the description's order.
    pub inputs: Vec<Tensor>,
}
