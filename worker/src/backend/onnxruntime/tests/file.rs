//! Writes ONNX files.

use prost::Message as _;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType as Type,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// A tensor with its type and shape; -1 is a variable axis.
pub(super) fn value(name: &str, element: Type, shape: &[i64]) -> ValueInfoProto {
    let dimension = |length: &i64| Dimension {
        value: (*length >= 0).then_some(dimension::Value::DimValue(*length)),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dimension).collect() };
    let tensor = type_proto::Tensor { elem_type: element.into(), shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A graph under construction.
#[derive(Default)]
pub(super) struct GraphBuilder(GraphProto);

impl GraphBuilder {
    pub(super) fn new() -> Self {
        Self(GraphProto { name: "graph".to_owned(), ..GraphProto::default() })
    }

    pub(super) fn input(mut self, value: ValueInfoProto) -> Self {
        self.0.input.push(value);
        self
    }

    pub(super) fn output(mut self, value: ValueInfoProto) -> Self {
        self.0.output.push(value);
        self
    }

    /// Adds a node, which is named after its first output.
    pub(super) fn node(self, operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        self.with(NodeProto {
            op_type: operator.to_owned(),
            input: owned(inputs),
            output: owned(outputs),
            name: format!("node of {}", outputs[0]),
            ..NodeProto::default()
        })
    }

    fn with(mut self, node: NodeProto) -> Self {
        self.0.node.push(node);
        self
    }

    /// Adds a loop that counts from 0 to its input, one by one.
    pub(super) fn count(mut self, times: &str, counted: &str) -> Self {
        let body = Self::new()
            .input(value("step", Type::Int64, &[]))
            .input(value("go_on", Type::Bool, &[]))
            .input(value("before", Type::Int64, &[1]))
            .node("Identity", &["go_on"], &["still"])
            .node("Add", &["before", "one"], &["after"])
            .output(value("still", Type::Bool, &[]))
            .output(value("after", Type::Int64, &[1]));
        self.0.initializer = vec![integer("zero", 0), integer("one", 1)];
        let mut node = NodeProto {
            op_type: "Loop".to_owned(),
            input: owned(&[times, "", "zero"]),
            output: owned(&[counted]),
            ..NodeProto::default()
        };
        node.attribute = vec![AttributeProto {
            name: "body".to_owned(),
            r#type: AttributeType::Graph.into(),
            g: Some(body.0),
            ..AttributeProto::default()
        }];
        self.with(node)
    }

    /// The file.
    pub(super) fn bytes(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            graph: Some(self.0),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }
}

fn integer(name: &str, number: i64) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: vec![1],
        data_type: Type::Int64.into(),
        int64_data: vec![number],
        ..TensorProto::default()
    }
}
