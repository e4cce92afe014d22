//! The metadata of a model.

use serde_json::{Map, Value, json};

use super::Model;
use crate::tensor::DataType;

impl Model {
    /// The metadata of the model in the form of TensorFlow Serving's REST API (`GET /v1/models/<name>/metadata`), as far as the
    /// description contains it.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let input =
            |input: &super::InputSpec| (input.name.clone(), tensor_info(input.datatype, &input.shape));
        let output =
            |output: &super::OutputSpec| (output.name.clone(), tensor_info(output.datatype, &output.shape));
        json!({
            "model_spec": {"name": self.name, "version": self.version},
            "metadata": {"signature_def": {&self.signature: {
                "inputs": self.inputs.iter().map(input).collect::<Map<_, _>>(),
                "outputs": self.outputs().map(output).collect::<Map<_, _>>(),
            }}},
        })
    }
}

/// The REST API prints sizes as strings (64-bit integers in proto3's JSON mapping); -1 is the batch axis.
fn tensor_info(datatype: DataType, row_shape: &[usize]) -> Value {
    let sizes = std::iter::once("-1".to_owned()).chain(row_shape.iter().map(ToString::to_string));
    let dims: Vec<_> = sizes.map(|size| json!({"size": size})).collect();
    json!({"dtype": datatype.tensorflow_name(), "tensor_shape": {"dim": dims}})
}

#[cfg(test)]
mod tests {
    use super::{super::description::tests::flowers, *};

    #[test]
    fn the_metadata_reads_as_the_rest_api_prints_it() {
        let expected = json!({
            "model_spec": {"name": "flowers", "version": "3"},
            "metadata": {"signature_def": {"serving_default": {
                "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}},
                "outputs": {
                    "p": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "2"}]}},
                    "ids": {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1"}]}},
                },
            }}},
        });
        let mut model = flowers();
        let mut ids = model.output.clone();
        (ids.name, ids.datatype, ids.shape) = ("ids".to_owned(), DataType::Int64, Vec::new());
        model.further_outputs.push(ids);
        assert_eq!(model.metadata(), expected);
    }
}
