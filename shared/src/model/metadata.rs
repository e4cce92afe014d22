//! The metadata of a model.

use serde_json::{Map, Value, json};

use super::{InputSpec, Model, OutputSpec, Shape};
use crate::tensor::DataType;

/// The method of a signature that takes and returns any tensors (`signature_constants.h`).
const PREDICT: &str = "tensorflow/serving/predict";

impl Model {
    /// The metadata of the model in the form of TensorFlow Serving's REST API (`GET /v1/models/<name>/metadata`), as far as the
    /// description contains it. An opaque model has no signature.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let (inputs, outputs) = self.tensor_infos(|_, info| info);
        let signatures = self.signatures(json!({"inputs": inputs, "outputs": outputs}));
        json!({
            "model_spec": {"name": self.name, "version": self.version},
            "metadata": {"signature_def": signatures},
        })
    }

    /// The same with every member that TensorFlow Serving prints, for a model that clients know by this name. The member
    /// `signature_def` is there twice: it is a map in a message in `Any` (`get_model_metadata.proto`).
    #[must_use]
    pub fn tensorflow_metadata(&self, name: &str) -> Value {
        let (inputs, outputs) = self.tensor_infos(|name, mut info| {
            info["name"] = name.into();
            info["tensor_shape"]["unknown_rank"] = false.into();
            for axis in info["tensor_shape"]["dim"].as_array_mut().into_iter().flatten() {
                axis["name"] = "".into();
            }
            info
        });
        let signature = json!({"inputs": inputs, "outputs": outputs, "method_name": PREDICT});
        json!({
            "model_spec": {"name": name, "signature_name": "", "version": self.version},
            "metadata": {"signature_def": {"signature_def": self.signatures(signature)}},
        })
    }

    /// The only signature by its name. An opaque model has none.
    fn signatures(&self, signature: Value) -> Map<String, Value> {
        let signature = (!self.is_opaque).then(|| (self.signature.clone(), signature));
        signature.into_iter().collect()
    }

    /// All inputs and outputs by their names.
    fn tensor_infos(
        &self,
        complete: impl Fn(&str, Value) -> Value,
    ) -> (Map<String, Value>, Map<String, Value>) {
        let info = |name: &str, datatype, shape: &Shape| {
            let info = tensor_info(datatype, &shape.behind(self.batch_axis()));
            (name.to_owned(), complete(name, info))
        };
        let input = |input: &InputSpec| info(&input.name, input.datatype, &input.shape);
        let output = |output: &OutputSpec| info(&output.name, output.datatype, &output.shape);
        (self.inputs.iter().map(input).collect(), self.outputs().map(output).collect())
    }
}

/// The REST API prints sizes as strings (64-bit integers in proto3's JSON mapping); -1 is a variable axis.
fn tensor_info(datatype: DataType, shape: &Shape) -> Value {
    let dims: Vec<_> = shape.axes().iter().map(|axis| json!({"size": axis.to_string()})).collect();
    json!({"dtype": datatype.tensorflow_name(), "tensor_shape": {"dim": dims}})
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Axis, description::tests::flowers},
        *,
    };

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
        (ids.name, ids.datatype, ids.shape) = ("ids".to_owned(), DataType::Int64, Shape::default());
        model.further_outputs.push(ids);
        assert_eq!(model.metadata(), expected);
    }

    #[test]
    fn the_whole_metadata_has_the_signatures_twice() {
        let dim = |size: &str| json!({"size": size, "name": ""});
        let info = |name: &str| {
            let shape = json!({"dim": [dim("-1"), dim("2")], "unknown_rank": false});
            json!({"dtype": "DT_FLOAT", "tensor_shape": shape, "name": name})
        };
        let signature = json!({
            "inputs": {"x": info("x")},
            "outputs": {"p": info("p")},
            "method_name": "tensorflow/serving/predict",
        });
        let expected = json!({
            "model_spec": {"name": "garden", "signature_name": "", "version": "3"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
        });
        assert_eq!(flowers().tensorflow_metadata("garden"), expected);
    }

    #[test]
    fn a_variable_axis_is_minus_one_and_a_model_without_a_batch_axis_has_no_other() {
        let mut model = flowers();
        (model.max_batch, model.output.shape) = (0, [Axis::Fixed(3), Axis::Variable].into_iter().collect());
        let signature = &model.metadata()["metadata"]["signature_def"]["serving_default"];
        let dims = |tensor: &Value| tensor["tensor_shape"]["dim"].clone();
        assert_eq!(dims(&signature["inputs"]["x"]), json!([{"size": "2"}]));
        assert_eq!(dims(&signature["outputs"]["p"]), json!([{"size": "3"}, {"size": "-1"}]));
    }
}
