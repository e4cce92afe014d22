//! What a model itself says about its inputs and outputs.

use super::super::{
    Axis,
    onnx_file::{OnnxAxis, OnnxFile, OnnxType, OnnxValue},
};
use crate::tensor::DataType;

/// The inputs and outputs of a model, from the model itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Where this is from, for messages: "model.onnx".
    pub source: &'static str,
    /// Most rows of a call, 0 if there is no batch axis; `None` if the model does not say it.
    pub max_batch: Option<usize>,
    /// The inputs, in order; none if the model does not say them.
    pub inputs: Vec<TensorFacts>,
    /// The outputs, in order; none if the model does not say them.
    pub outputs: Vec<TensorFacts>,
}

/// What a model says about an input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFacts {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: TensorKind,
    /// Its whole shape for people, if the model names axes: `[N, length]`.
    pub named_shape: Option<String>,
}

/// The type of an input or output.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorKind {
    /// A tensor.
    Tensor {
        /// The type of its elements.
        datatype: DataType,
        /// All its axes, also that of the batch; `None` if the model does not say them.
        axes: Option<Vec<Axis>>,
    },
    /// The model does not say it.
    Unknown,
    /// A map for each row, in words. ONNX Runtime makes a tensor of them, but the model does not say how many columns it has.
    Maps(String),
    /// Something else, in words.
    Other(String),
}

impl Interface {
    /// The interface of an ONNX file.
    #[must_use]
    pub fn of_onnx(file: &OnnxFile) -> Self {
        let facts = |values: &[OnnxValue]| values.iter().map(TensorFacts::of_onnx).collect::<Vec<_>>();
        let (inputs, mut outputs) = (facts(&file.inputs), facts(&file.outputs));
        correct_labels(&inputs, &mut outputs);
        Self { source: "the ONNX file", max_batch: None, inputs, outputs }
    }

    /// The outputs that Tepal can pass on.
    pub(super) fn served_outputs(&self) -> impl Iterator<Item = &TensorFacts> {
        self.outputs.iter().filter(|facts| facts.is_tensor())
    }
}

impl TensorFacts {
    /// Whether it can be a tensor of our types.
    pub(super) fn is_tensor(&self) -> bool {
        !matches!(self.kind, TensorKind::Maps(_) | TensorKind::Other(_))
    }

    fn of_onnx(value: &OnnxValue) -> Self {
        let axis = |axis: &OnnxAxis| match axis {
            OnnxAxis::Fixed(length) => Axis::Fixed(*length),
            OnnxAxis::Named(_) | OnnxAxis::Variable => Axis::Variable,
        };
        let kind = match &value.kind {
            OnnxType::Tensor { datatype, shape } => TensorKind::Tensor {
                datatype: *datatype,
                axes: shape.as_ref().map(|shape| shape.iter().map(axis).collect()),
            },
            OnnxType::Unknown => TensorKind::Unknown,
            OnnxType::Maps(words) => TensorKind::Maps(words.clone()),
            OnnxType::Other(words) => TensorKind::Other(words.clone()),
        };
        Self { name: value.name.clone(), kind, named_shape: named_shape(&value.kind) }
    }

    /// Whether the first axis can be that of the batch.
    pub(super) fn has_variable_first_axis(&self) -> bool {
        match &self.kind {
            TensorKind::Tensor { axes: Some(axes), .. } => axes.first() == Some(&Axis::Variable),
            TensorKind::Maps(_) => true,
            TensorKind::Tensor { axes: None, .. } | TensorKind::Unknown | TensorKind::Other(_) => false,
        }
    }
}

/// onnxmltools writes the shape `[1]` for the labels of any number of rows. The other outputs show that there is a batch axis.
fn correct_labels(inputs: &[TensorFacts], outputs: &mut [TensorFacts]) {
    let is_batched = inputs.iter().all(TensorFacts::has_variable_first_axis)
        && outputs.iter().any(TensorFacts::has_variable_first_axis);
    for output in outputs.iter_mut().filter(|_| is_batched) {
        if let TensorKind::Tensor { axes: Some(axes), .. } = &mut output.kind
            && *axes == [Axis::Fixed(1)]
        {
            *axes = vec![Axis::Variable];
        }
    }
}

fn named_shape(kind: &OnnxType) -> Option<String> {
    let OnnxType::Tensor { shape: Some(axes), .. } = kind else { return None };
    let has_names = axes.iter().any(|axis| matches!(axis, OnnxAxis::Named(_)));
    let axes = axes.iter().map(|axis| match axis {
        OnnxAxis::Fixed(length) => length.to_string(),
        OnnxAxis::Named(name) => name.clone(),
        OnnxAxis::Variable => "?".to_owned(),
    });
    has_names.then(|| format!("[{}]", axes.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn value(name: &str, shape: Vec<OnnxAxis>) -> OnnxValue {
        let kind = OnnxType::Tensor { datatype: DataType::Fp32, shape: Some(shape) };
        OnnxValue { name: name.to_owned(), kind }
    }

    fn first_axes(inputs: Vec<OnnxValue>, outputs: Vec<OnnxValue>) -> Vec<bool> {
        let file = OnnxFile { inputs, outputs, opsets: BTreeMap::new(), operators: BTreeSet::new() };
        Interface::of_onnx(&file).outputs.iter().map(TensorFacts::has_variable_first_axis).collect()
    }

    #[test]
    fn labels_of_one_row_are_those_of_any_number_if_the_other_outputs_have_a_batch_axis() {
        use OnnxAxis::{Fixed, Variable};
        let features = || value("features", vec![Variable, Fixed(4)]);
        let labels = || value("label", vec![Fixed(1)]);
        let probabilities = || value("probabilities", vec![Variable, Fixed(3)]);
        assert_eq!(first_axes(vec![features()], vec![labels(), probabilities()]), [true, true]);
        assert_eq!(first_axes(vec![features()], vec![labels()]), [false]);
        let one = vec![value("features", vec![Fixed(1), Fixed(4)])];
        assert_eq!(first_axes(one, vec![labels(), probabilities()]), [false, true]);
    }
}
