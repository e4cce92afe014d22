//! The recorded answers of one model.

use std::collections::BTreeMap;

use tepal_proto::Any;
use tepal_proto::tensorflow::TensorProto;
use tepal_proto::tensorflow::serving::PredictRequest;
use tonic::Status;

use super::proto;
use super::row::Row;
use crate::real_models::Tensor;
use crate::saved_models::elements::bytes;
use crate::saved_models::{Port, SavedModel};

/// The signature of a model, and the outputs of each row.
pub(super) struct Answers {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// A row of each input -> a row of each output.
    rows: BTreeMap<Vec<Row>, Vec<Row>>,
}

impl Answers {
    pub(super) fn of(model: &SavedModel) -> Self {
        let (inputs, outputs) = (model.inputs.clone(), model.outputs.clone());
        let mut rows = BTreeMap::new();
        for case in &model.cases {
            let (given, answered) = (by_row(&case.inputs), by_row(&case.outputs));
            assert_eq!(given.len(), answered.len(), "a row of outputs for each row of inputs");
            rows.extend(given.into_iter().zip(answered));
        }
        Self { inputs, outputs, rows }
    }

    /// The metadata of the model.
    pub(super) fn signatures(&self) -> Any {
        proto::signatures(&self.inputs, &self.outputs)
    }

    /// Looks all rows of a request up.
    pub(super) fn predict(&self, request: &PredictRequest) -> Result<BTreeMap<String, TensorProto>, Status> {
        proto::check_names(&self.inputs, &self.outputs, request)?;
        let inputs = self.inputs.iter().map(|port| proto::rows(port, &request.inputs[&port.name]));
        let inputs = across(inputs.collect::<Result<_, _>>()?);
        let known =
            |row| self.rows.get(row).ok_or_else(|| Status::invalid_argument("Unknown image file format"));
        let answers = inputs.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let is_wanted = |name| request.output_filter.is_empty() || request.output_filter.contains(name);
        let outputs = self.outputs.iter().enumerate().filter(|(_, port)| is_wanted(&port.name));
        Ok(outputs
            .map(|(index, port)| {
                let rows: Vec<_> = answers.iter().map(|outputs| &outputs[index]).collect();
                (port.name.clone(), proto::tensor(&port.datatype, &rows))
            })
            .collect())
    }
}

/// The rows of several tensors -> a row of each tensor, for each row.
fn across(tensors: Vec<Vec<Row>>) -> Vec<Vec<Row>> {
    let count = tensors.first().map_or(0, Vec::len);
    (0..count).map(|index| tensors.iter().map(|rows| rows[index].clone()).collect()).collect()
}

fn by_row(tensors: &[Tensor]) -> Vec<Vec<Row>> {
    let rows = |tensor: &Tensor| {
        let elements = tensor.data.iter().map(|element| bytes(&tensor.datatype, element)).collect();
        Row::split(&tensor.shape, elements)
    };
    across(tensors.iter().map(rows).collect())
}
