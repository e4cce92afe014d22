//! Reads the inputs and outputs of a model from its ONNX file, without an engine and without its weights.

mod external;
mod sift;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use prost::Message as _;
use tepal_proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    tensor_proto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto::{self, Value},
};

use self::{external::ExternalError, sift::Damage};
use crate::tensor::DataType;

/// How a Git LFS pointer file begins (github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// What an ONNX file says about its model.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxFile {
    /// The inputs that a call must give, in order.
    pub inputs: Vec<OnnxValue>,
    /// The outputs, in order.
    pub outputs: Vec<OnnxValue>,
    /// The version of each operator set; the standard one is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// The operators that an engine must have; those outside of the standard set with their set: `ai.onnx.ml.ZipMap`.
    pub operators: BTreeSet<String>,
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxValue {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: OnnxType,
}

/// The type of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub enum OnnxType {
    /// A tensor.
    Tensor {
        /// The type of its elements.
        datatype: DataType,
        /// Its shape, the batch axis included; `None` if the file does not say it.
        shape: Option<Vec<OnnxAxis>>,
    },
    /// The file does not say it.
    Unknown,
    /// A map for each row, in words: `a sequence (each element is a map from INT64 to FP32)`. ONNX Runtime makes a tensor of it.
    Maps(String),
    /// Something that no [`Tensor`](crate::tensor::Tensor) can hold, in words: `a map from INT64 to FP32`.
    Other(String),
}

/// The length of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnnxAxis {
    /// A fixed length.
    Fixed(usize),
    /// Each call decides. Axes with the same name have the same length in a call.
    Named(String),
    /// Each call decides.
    Variable,
}

/// An ONNX file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// It cannot be opened.
    #[error("cannot read the ONNX file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It is empty.
    #[error("the ONNX file {path} is empty: copy it again")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It stands for a file that was not downloaded.
    #[error("the ONNX file {path} is a Git LFS pointer, not the model: run `git lfs pull`")]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// It is shorter than its content.
    #[error(
        "the ONNX file {path} is incomplete: it has {has} bytes, but needs at least {needs}; copy it again"
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        has: u64,
        /// Bytes up to the end of the first field that is incomplete.
        needs: u64,
    },
    /// It is damaged, or another file.
    #[error("{path} is damaged or no ONNX file: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its external weights cannot be used.
    #[error("the external data of the ONNX file {path} cannot be used: {source}")]
    External {
        /// The file.
        path: PathBuf,
        /// The reason; it is part of the message.
        source: ExternalError,
    },
}

impl OnnxFile {
    /// Reads a file. Checks that the files with its external weights are beside it and complete.
    ///
    /// # Errors
    /// When the file is missing, damaged or incomplete, and when a file with external weights is, or is in another folder.
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let unreadable = |source| OnnxError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let model = decode(file, size, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        external::check(folder, tensors(&model))
            .map_err(|source| OnnxError::External { path: path.to_owned(), source })?;
        Self::of(&model).map_err(|reason| OnnxError::Damaged { path: path.to_owned(), reason })
    }

    /// Reads the content of a file. Leaves out external weights.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, OnnxError> {
        let path = Path::new("model.onnx");
        let model = decode(io::Cursor::new(bytes), bytes.len() as u64, path)?;
        Self::of(&model).map_err(|reason| OnnxError::Damaged { path: path.to_owned(), reason })
    }

    /// Whether `content`, if it can be read, is read as if nothing were left out.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn is_read_as_a_whole(content: &[u8]) -> bool {
        let kept = sift::model(io::Cursor::new(content), content.len() as u64);
        match (kept, ModelProto::decode(content)) {
            (Ok(kept), Ok(whole)) => ModelProto::decode(kept.as_slice()).is_ok_and(|kept| kept == whole),
            _ => true,
        }
    }

    fn of(model: &ModelProto) -> Result<Self, String> {
        let graph = model.graph.as_ref().ok_or("it has no graph")?;
        let weights: HashSet<_> = weights(graph).map(TensorProto::name).collect();
        let inputs = graph.input.iter().filter(|input| !weights.contains(input.name()));
        let opset = |set: &OperatorSetIdProto| (domain(set.domain()).to_owned(), set.version());
        Ok(Self {
            inputs: inputs.map(|input| value(input, "input")).collect::<Result<_, _>>()?,
            outputs: graph.output.iter().map(|output| value(output, "output")).collect::<Result<_, _>>()?,
            opsets: model.opset_import.iter().map(opset).collect(),
            operators: operators(model),
        })
    }
}

fn decode(mut file: impl Read + Seek, size: u64, path: &Path) -> Result<ModelProto, OnnxError> {
    let path = || path.to_owned();
    if size == 0 {
        return Err(OnnxError::Empty { path: path() });
    }
    let unreadable = |source| OnnxError::Unreadable { path: path(), source };
    let mut start = Vec::new();
    (&mut file).take(LFS_POINTER.len() as u64).read_to_end(&mut start).map_err(unreadable)?;
    if start == LFS_POINTER {
        return Err(OnnxError::LfsPointer { path: path() });
    }
    file.rewind().map_err(unreadable)?;
    let kept = sift::model(file, size).map_err(|damage| match damage {
        Damage::Io(source) => OnnxError::Unreadable { path: path(), source },
        Damage::Truncated { has, needs } => OnnxError::Incomplete { path: path(), has, needs },
        Damage::Malformed { .. } | Damage::TooDeep { .. } => {
            OnnxError::Damaged { path: path(), reason: damage.to_string() }
        }
    })?;
    ModelProto::decode(kept.as_slice())
        .map_err(|error| OnnxError::Damaged { path: path(), reason: error.to_string() })
}

/// The weights of a graph.
fn weights(graph: &GraphProto) -> impl Iterator<Item = &TensorProto> {
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    graph.initializer.iter().chain(sparse)
}

/// Name and type of an input or output.
fn value(info: &ValueInfoProto, what: &str) -> Result<OnnxValue, String> {
    let name = info.name().to_owned();
    if name.is_empty() {
        return Err(format!("an {what} has no name"));
    }
    let kind = match info.r#type.as_ref().and_then(|info| info.value.as_ref()) {
        Some(Value::TensorType(tensor)) => tensor_type(tensor),
        Some(Value::SequenceType(list)) if is_map(list.elem_type.as_deref()) => {
            Ok(OnnxType::Maps(in_words(&Value::SequenceType(list.clone()))))
        }
        Some(other) => Ok(OnnxType::Other(in_words(other))),
        None => Ok(OnnxType::Unknown),
    };
    let kind = kind.map_err(|reason| format!("{what} `{name}` {reason}"))?;
    Ok(OnnxValue { name, kind })
}

fn is_map(info: Option<&TypeProto>) -> bool {
    info.is_some_and(|info| matches!(info.value, Some(Value::MapType(_))))
}

fn tensor_type(tensor: &type_proto::Tensor) -> Result<OnnxType, String> {
    let Some(datatype) = datatype(tensor.elem_type()) else {
        return Ok(OnnxType::Other(format!("a tensor of {}", element_name(tensor.elem_type()))));
    };
    let axis = |dimension: &Dimension| match &dimension.value {
        // Some exporters write -1 or 0 for an axis that each call decides.
        Some(dimension::Value::DimValue(-1 | 0)) => Ok(OnnxAxis::Variable),
        Some(dimension::Value::DimValue(length)) => usize::try_from(*length)
            .map(OnnxAxis::Fixed)
            .map_err(|_| format!("has an axis of length {length}")),
        Some(dimension::Value::DimParam(name)) if !name.is_empty() => Ok(OnnxAxis::Named(name.clone())),
        Some(dimension::Value::DimParam(_)) | None => Ok(OnnxAxis::Variable),
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(axis).collect());
    Ok(OnnxType::Tensor { datatype, shape: shape.transpose()? })
}

/// Our name of a type of elements; `None` if we have none.
fn datatype(elem_type: i32) -> Option<DataType> {
    use tensor_proto::DataType as Onnx;
    Some(match Onnx::try_from(elem_type).ok()? {
        Onnx::Bool => DataType::Bool,
        Onnx::Uint8 => DataType::Uint8,
        Onnx::Uint16 => DataType::Uint16,
        Onnx::Uint32 => DataType::Uint32,
        Onnx::Uint64 => DataType::Uint64,
        Onnx::Int8 => DataType::Int8,
        Onnx::Int16 => DataType::Int16,
        Onnx::Int32 => DataType::Int32,
        Onnx::Int64 => DataType::Int64,
        Onnx::Float16 => DataType::Fp16,
        Onnx::Bfloat16 => DataType::Bf16,
        Onnx::Float => DataType::Fp32,
        Onnx::Double => DataType::Fp64,
        Onnx::String => DataType::Bytes,
        _ => return None,
    })
}

/// The Open Inference Protocol's name of a type of elements, or ONNX's.
fn element_name(elem_type: i32) -> String {
    match (datatype(elem_type), tensor_proto::DataType::try_from(elem_type)) {
        (Some(datatype), _) => datatype.as_str().to_owned(),
        (None, Ok(known)) => known.as_str_name().to_owned(),
        (None, Err(_)) => format!("the unknown type {elem_type}"),
    }
}

/// A type as an operand of "is".
fn in_words(value: &Value) -> String {
    fn inner(info: Option<&TypeProto>) -> String {
        info.and_then(|info| info.value.as_ref()).map_or_else(|| "an unknown type".to_owned(), in_words)
    }
    match value {
        Value::TensorType(tensor) if tensor.shape.as_ref().is_some_and(|shape| shape.dim.is_empty()) => {
            element_name(tensor.elem_type())
        }
        Value::TensorType(tensor) => format!("a tensor of {}", element_name(tensor.elem_type())),
        Value::SparseTensorType(tensor) => format!("a sparse tensor of {}", element_name(tensor.elem_type())),
        Value::SequenceType(list) => {
            format!("a sequence (each element is {})", inner(list.elem_type.as_deref()))
        }
        Value::OptionalType(optional) => format!("optional ({})", inner(optional.elem_type.as_deref())),
        Value::MapType(map) => {
            format!("a map from {} to {}", element_name(map.key_type()), inner(map.value_type.as_deref()))
        }
    }
}

/// All constants, also those of graphs inside of operators.
fn tensors(model: &ModelProto) -> impl Iterator<Item = &TensorProto> {
    let (graphs, nodes) = graphs_and_nodes(model);
    let attributes = nodes.into_iter().flat_map(|node| &node.attribute);
    let constants = attributes.flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors));
    graphs.into_iter().flat_map(weights).chain(constants)
}

/// The operators of all graphs, except for those that the model defines itself.
fn operators(model: &ModelProto) -> BTreeSet<String> {
    let full_name = |set: &str, name: &str| match domain(set) {
        "ai.onnx" => name.to_owned(),
        set => format!("{set}.{name}"),
    };
    let own = model.functions.iter().map(|function| full_name(function.domain(), function.name()));
    let own: HashSet<_> = own.collect();
    let (_, nodes) = graphs_and_nodes(model);
    let operators = nodes.into_iter().map(|node| full_name(node.domain(), node.op_type()));
    operators.filter(|operator| !own.contains(operator)).collect()
}

/// The name of an operator set; the standard one has two.
fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

/// All graphs and nodes, also those inside of operators.
fn graphs_and_nodes(model: &ModelProto) -> (Vec<&GraphProto>, Vec<&NodeProto>) {
    let mut graphs: Vec<_> = model.graph.iter().collect();
    let mut nodes: Vec<_> = model.functions.iter().flat_map(|function| &function.node).collect();
    let (mut known_graphs, mut known_nodes) = (0, 0);
    while known_graphs < graphs.len() || known_nodes < nodes.len() {
        let new_nodes = nodes[known_nodes..].iter().flat_map(|node| &node.attribute);
        let inner: Vec<_> =
            new_nodes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)).collect();
        known_nodes = nodes.len();
        graphs.extend(inner);
        nodes.extend(graphs[known_graphs..].iter().flat_map(|graph| &graph.node));
        known_graphs = graphs.len();
    }
    (graphs, nodes)
}

#[cfg(test)]
pub(super) mod tests;
