//! What a server says of a model.

use serde_json::{Map, Value, json};
use tepal_proto::open_inference::{ModelMetadataResponse, model_metadata_response::TensorMetadata};
use tepal_shared::{
    model::{
        Axis, Model,
        repository::{Interface, TensorFacts, TensorKind},
    },
    tensor::DataType,
};

/// The metadata of a model in the form of TensorFlow Serving's REST API. What the server leaves out comes from the description.
pub(in super::super) fn metadata(reply: &ModelMetadataResponse, version: &str, model: &Model) -> Value {
    let mut metadata = model.metadata();
    metadata["model_spec"] = json!({"name": reply.name, "version": served_version(reply, version)});
    let signature = &mut metadata["metadata"]["signature_def"][&model.signature];
    for (kind, tensors) in [("inputs", &reply.inputs), ("outputs", &reply.outputs)] {
        if !tensors.is_empty() {
            let tensors = tensors.iter().map(|tensor| (tensor.name.clone(), tensor_json(tensor)));
            signature[kind] = Value::Object(tensors.collect::<Map<_, _>>());
        }
    }
    metadata
}

/// The inputs and outputs of a model. Some servers leave them out.
pub(in super::super) fn interface(reply: &ModelMetadataResponse, max_batch: Option<usize>) -> Interface {
    let facts = |tensors: &[TensorMetadata]| tensors.iter().map(facts).collect();
    Interface {
        source: "the model server",
        max_batch,
        inputs: facts(&reply.inputs),
        outputs: facts(&reply.outputs),
    }
}

/// The version that is called: the one that was asked for, or else the newest.
fn served_version<'a>(reply: &'a ModelMetadataResponse, asked: &'a str) -> &'a str {
    let newest = || reply.versions.iter().max_by_key(|version| version.parse::<u64>().ok());
    if asked.is_empty() { newest().map_or("", String::as_str) } else { asked }
}

fn tensor_json(tensor: &TensorMetadata) -> Value {
    let known = DataType::named(&tensor.datatype);
    let dtype = known.map_or(tensor.datatype.as_str(), |datatype| datatype.tensorflow_name());
    let dims: Vec<_> = tensor.shape.iter().map(|size| json!({"size": size.to_string()})).collect();
    json!({"dtype": dtype, "tensor_shape": {"dim": dims}})
}

fn facts(tensor: &TensorMetadata) -> TensorFacts {
    let axis = |size: &i64| usize::try_from(*size).map_or(Axis::Variable, Axis::Fixed);
    let kind = match DataType::named(&tensor.datatype) {
        Some(datatype) => {
            TensorKind::Tensor { datatype, axes: Some(tensor.shape.iter().map(axis).collect()) }
        }
        None => TensorKind::Other(format!("a tensor of `{}`", tensor.datatype)),
    };
    TensorFacts { name: tensor.name.clone(), kind, named_shape: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;

    fn tensor(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
        TensorMetadata { name: name.to_owned(), datatype: datatype.to_owned(), shape: shape.to_vec() }
    }

    fn iris() -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
    }

    #[test]
    fn metadata_has_the_form_of_tensorflow_serving() {
        let reply = ModelMetadataResponse {
            name: "iris".to_owned(),
            versions: vec!["9".to_owned(), "10".to_owned(), "v11".to_owned()],
            inputs: vec![tensor("input", "FP32", &[-1, 4])],
            ..ModelMetadataResponse::default()
        };
        let json = metadata(&reply, "", &iris());
        assert_eq!(json["model_spec"], json!({"name": "iris", "version": "10"}));
        let signature = &json["metadata"]["signature_def"]["serving_default"];
        let input = json!({"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}]}});
        assert_eq!(signature["inputs"], json!({"input": input}));
        assert_eq!(signature["outputs"]["output"]["dtype"], "DT_FLOAT", "from the description");
        assert_eq!(metadata(&reply, "9", &iris())["model_spec"]["version"], "9");
    }

    #[test]
    fn an_interface_has_the_order_of_the_server() {
        let reply = ModelMetadataResponse {
            inputs: vec![tensor("z", "BYTES", &[-1]), tensor("a", "TYPE_FP32", &[])],
            ..ModelMetadataResponse::default()
        };
        let Interface { inputs, outputs, max_batch, .. } = interface(&reply, Some(8));
        assert_eq!((inputs.len(), outputs.len(), max_batch), (2, 0, Some(8)));
        let axes = Some(vec![Axis::Variable]);
        assert_eq!(inputs[0].kind, TensorKind::Tensor { datatype: DataType::Bytes, axes });
        assert_eq!(inputs[1].kind, TensorKind::Other("a tensor of `TYPE_FP32`".to_owned()));
    }
}
