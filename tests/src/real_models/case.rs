//! Models, their inputs and the expected answers.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Largest difference of a number from the expected one.
const LARGEST_DIFFERENCE: f64 = 1e-3;

/// A folder with a model and its cases.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name of the folder.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Inputs of several sizes; the first is the one whose time is measured.
    pub cases: Vec<Case>,
}

/// Inputs, and the answer of onnxruntime or TensorFlow to them.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// A tensor for each input.
    pub inputs: Vec<Tensor>,
    /// A tensor for each output.
    pub outputs: Vec<Tensor>,
    /// How long onnxruntime took on one thread; 0 if that was not measured.
    #[serde(default)]
    pub milliseconds: f64,
}

/// A tensor in the form of the Open Inference Protocol.
#[derive(Clone, Debug, Deserialize)]
pub struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) datatype: String,
    pub(crate) data: Vec<Value>,
}

impl Model {
    /// All models of a folder, by name.
    ///
    /// # Panics
    /// When the folder is not one that `prepare.sh` made.
    #[must_use]
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(folder).expect("the folder of prepare.sh").flatten();
        let mut models: Vec<_> = entries.map(|entry| Self::load(entry.path())).collect();
        models.sort_by(|one, other| one.name.cmp(&other.name));
        models
    }

    /// Of a repository that holds this model only.
    fn load(repository: PathBuf) -> Self {
        let name = repository.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = repository.join(&name);
        let text = std::fs::read(folder.join("case.json")).expect("case.json of prepare.sh");
        let cases = serde_json::from_slice(&text).expect("cases as prepare.sh writes them");
        Self { name, folder, cases }
    }
}

impl Case {
    /// The inputs as rows of `data`, this many times.
    #[must_use]
    pub fn rows(&self) -> Vec<Value> {
        let count = self.inputs[0].shape[0];
        let row = |index| match &self.inputs[..] {
            [input] => input.row(index),
            inputs => Value::Object(
                inputs.iter().map(|input| (input.name.clone(), input.row(index))).collect::<Map<_, _>>(),
            ),
        };
        (0..count).map(row).collect()
    }

    /// The first row as tensors in the form of the Open Inference Protocol.
    #[must_use]
    pub fn first_row(&self) -> Vec<Value> {
        let first = |tensor: &Tensor| {
            let Tensor { name, shape, datatype, data } = tensor;
            let shape = [&[1], &shape[1..]].concat();
            let data = &data[..shape.iter().product()];
            json!({"name": name, "shape": shape, "datatype": datatype, "data": data})
        };
        self.inputs.iter().map(first).collect()
    }

    /// The largest difference between the result of a job and the expected outputs.
    ///
    /// # Errors
    /// What is wrong, if it is more than rounding.
    pub fn difference(&self, result: &Value) -> Result<f64, String> {
        let mut largest = 0.0_f64;
        for expected in &self.outputs {
            let given = self.output(result, expected);
            let difference =
                expected.difference(&given).map_err(|error| format!("`{}`: {error}", expected.name))?;
            largest = largest.max(difference);
        }
        Ok(largest)
    }

    /// The elements of an output in the result of a job.
    fn output(&self, result: &Value, expected: &Tensor) -> Vec<Value> {
        let mut elements = Vec::new();
        match result["outputs"].as_array() {
            Some(outputs) => {
                let named = outputs.iter().filter(|output| output["name"] == expected.name.as_str());
                named.for_each(|output| flatten(&output["data"], &mut elements));
            }
            None => match result["predictions"].as_array() {
                Some(rows) => rows.iter().for_each(|row| flatten(&row["prediction"], &mut elements)),
                None => flatten(&result["prediction"], &mut elements),
            },
        }
        elements
    }
}

impl Tensor {
    /// One element along the first axis.
    fn row(&self, index: usize) -> Value {
        let width: usize = self.shape[1..].iter().product();
        nest(&self.data[index * width..(index + 1) * width], &self.shape[1..])
    }

    fn difference(&self, given: &[Value]) -> Result<f64, String> {
        if given.len() != self.data.len() {
            return Err(format!("{} elements instead of {}", given.len(), self.data.len()));
        }
        let mut largest = 0.0_f64;
        for (index, (expected, given)) in self.data.iter().zip(given).enumerate() {
            let difference = match (self.datatype.as_str(), expected.as_f64(), given.as_f64()) {
                ("FP32" | "FP64", Some(expected), Some(given)) => (expected - given).abs(),
                _ if expected == given => 0.0,
                _ => f64::INFINITY,
            };
            if difference > LARGEST_DIFFERENCE {
                return Err(format!("element {index} is {given} instead of {expected}"));
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }

    /// A table of model.toml for this tensor.
    pub(super) fn table(&self) -> String {
        let Self { name, datatype, shape, .. } = self;
        format!("{{ name = {name:?}, datatype = {datatype:?}, shape = {:?} }}", &shape[1..])
    }
}

fn nest(elements: &[Value], shape: &[usize]) -> Value {
    let Some((length, inner)) = shape.split_first() else { return elements[0].clone() };
    let width = inner.iter().product::<usize>().max(1);
    (0..*length).map(|index| nest(&elements[index * width..(index + 1) * width], inner)).collect()
}

fn flatten(value: &Value, elements: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, elements)),
        value => elements.push(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(outputs: Value) -> Case {
        let inputs = json!([{"name": "x", "shape": [2, 1, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]);
        serde_json::from_value(json!({"inputs": inputs, "outputs": outputs, "milliseconds": 1})).unwrap()
    }

    #[test]
    fn rows_are_nested_as_their_shape() {
        assert_eq!(case(json!([])).rows(), [json!([[1, 2]]), json!([[3, 4]])]);
    }

    #[test]
    fn a_result_with_a_wrong_element_or_too_few_is_noticed() {
        let one = case(json!([{"name": "y", "shape": [2, 1], "datatype": "FP32", "data": [0.5, 1]}]));
        let rows = |second: f64| json!({"prediction": [0.5], "predictions": [{"prediction": [0.5]}, {"prediction": [second]}]});
        assert!(one.difference(&rows(1.0005)).unwrap() > 0.0);
        assert_eq!(one.difference(&rows(1.1)).unwrap_err(), "`y`: element 1 is 1.1 instead of 1");
        assert_eq!(
            one.difference(&json!({"prediction": [0.5]})).unwrap_err(),
            "`y`: 1 elements instead of 2"
        );

        let labels = case(json!([{"name": "label", "shape": [1], "datatype": "BYTES", "data": ["a"]}]));
        let given =
            |label| json!({"outputs": [{"name": "label", "data": [label]}, {"name": "y", "data": [1]}]});
        assert_eq!(labels.difference(&given("a")), Ok(0.0));
        assert!(labels.difference(&given("b")).is_err());
    }
}
