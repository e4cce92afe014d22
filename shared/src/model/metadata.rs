//! The metadata of a model.

use serde_json::{Map, Value, json};

use super::{InputSpec, Model, OutputSpec, Shape};
use crate::tensor::DataType;

impl Model {
    /// The metadata of the model in the form of TensorFlow Serving's REST API (`GET /v1/models/<name>/metadata`), as far as the
    /// description contains it.
    #[must_use]
    pub fn metadata(&self) -> Value {
        let info = |datatype, shape: &Shape| tensor_info(datatype, &shape.behind(self.batch_axis()));
        let input = |input: &InputSpec| (input.name.clone(), info(input.datatype, &input.shape));
        let output = |output: &OutputSpec| (output.name.clone(), info(output.datatype, &output.shape));
        json!({
            "model_spec": {"name": self.name, "version": self.version},
            "metadata": {"signature_def": {&self.signature: {
                "inputs": self.inputs.iter().map(input).collect::<Map<_, _>>(),
                "outputs": self.outputs().map(output).collect::<Map<_, _>>(),
            }}},
        })
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
    fn a_variable_axis_is_minus_one_and_a_model_without_a_batch_axis_has_no_other() {
        let mut model = flowers();
        (model.max_batch, model.output.shape) = (0, [Axis::Fixed(3), Axis::Variable].into_iter().collect());
        let signature = &model.metadata()["metadata"]["signature_def"]["serving_default"];
        let dims = |tensor: &Value| tensor["tensor_shape"]["dim"].clone();
        assert_eq!(dims(&signature["inputs"]["x"]), json!([{"size": "2"}]));
        assert_eq!(dims(&signature["outputs"]["p"]), json!([{"size": "3"}, {"size": "-1"}]));
    }
}
