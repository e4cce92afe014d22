//! The result of a job that is tensors.

use std::ops::Range;

use super::{
    super::{Model, OutputSpec},
    Answer, Checked, OutputError,
};
use crate::tensor::{View, stored_outputs};

/// A job's result that is tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutputs {
    /// The tensors, see [`stored_outputs`].
    pub bytes: Vec<u8>,
    /// The class of the first row, if the model has classes.
    pub class_name: Option<String>,
}

impl Model {
    /// These rows of the outputs with these names, in this order, as the result of one job; without names, of all outputs. Other
    /// names are left out. The stored form has at most `most` bytes.
    ///
    /// # Errors
    /// When a row contains NaN or infinity although the description forbids it, or the result is larger.
    pub fn outputs_of(
        &self,
        answer: &Answer,
        rows: Range<usize>,
        names: &[String],
        most: usize,
    ) -> Result<StoredOutputs, OutputError> {
        self.check_finite(answer, &rows)?;
        let chosen: Vec<(&OutputSpec, &Checked)> = if names.is_empty() {
            self.outputs().zip(answer.outputs()).collect()
        } else {
            let named =
                |name: &String| self.outputs().zip(answer.outputs()).find(|(spec, _)| spec.name == *name);
            names.iter().filter_map(named).collect()
        };
        let views = chosen.iter().map(|(spec, output)| self.view(spec, output, &rows));
        let bytes: usize = views.clone().map(|view| view.data.len()).sum();
        let too_large = || OutputError::TooLarge { most };
        if bytes > most {
            return Err(too_large());
        }
        let bytes = stored_outputs::write(views);
        let class_name = self.class_of_first(answer, &rows);
        if bytes.len() > most { Err(too_large()) } else { Ok(StoredOutputs { bytes, class_name }) }
    }

    fn view<'a>(&self, spec: &'a OutputSpec, output: &'a Checked, rows: &Range<usize>) -> View<'a> {
        let batch = self.has_batch_axis().then_some(rows.len());
        View {
            name: &spec.name,
            datatype: spec.datatype,
            shape: batch.into_iter().chain(output.row_shape().iter().copied()).collect(),
            data: output.rows(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Axis, description::tests::flowers},
        *,
    };
    use crate::tensor::{DataType, Tensor};

    /// A model with a second output of one integer, and an answer of two rows.
    fn answered() -> (Model, Answer) {
        let mut model = flowers();
        let mut label = model.output.clone();
        (label.name, label.datatype, label.shape, label.labels) =
            ("label".to_owned(), DataType::Int8, [Axis::Fixed(1)].into_iter().collect(), Vec::new());
        model.further_outputs.push(label);
        let probabilities: Vec<u8> =
            [0.25_f32, 0.75, 1.0, 0.0].iter().flat_map(|p| p.to_le_bytes()).collect();
        let tensor = |name: &str, datatype, shape: &[usize], data| Tensor {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            data,
        };
        let tensors = vec![
            tensor(&model.output.name, DataType::Fp32, &[2, 2], probabilities),
            tensor("label", DataType::Int8, &[2, 1], vec![1, 0]),
        ];
        let answer = model.check_outputs(2, tensors).unwrap();
        (model, answer)
    }

    fn shown(stored: &StoredOutputs) -> Vec<(String, Vec<usize>, Vec<u8>)> {
        let tensors = stored_outputs::read_owned(&stored.bytes).unwrap();
        tensors.into_iter().map(|tensor| (tensor.name, tensor.shape, tensor.data)).collect()
    }

    #[test]
    fn each_job_gets_its_rows_of_all_outputs_or_of_those_that_it_names() {
        let (model, answer) = answered();
        let all = model.outputs_of(&answer, 1..2, &[], 1000).unwrap();
        let probabilities = [1.0_f32, 0.0].map(f32::to_le_bytes).concat();
        let first = (model.output.name.clone(), vec![1, 2], probabilities);
        let label = ("label".to_owned(), vec![1, 1], vec![0]);
        assert_eq!(shown(&all), [first.clone(), label.clone()]);
        assert_eq!(all.class_name.as_deref(), Some(model.output.labels[0].as_str()));
        let named = ["label".to_owned(), model.output.name.clone()];
        assert_eq!(shown(&model.outputs_of(&answer, 1..2, &named, 1000).unwrap()), [label.clone(), first]);
        let both = model.outputs_of(&answer, 0..2, &named[..1], 1000).unwrap();
        assert_eq!(shown(&both), [("label".to_owned(), vec![2, 1], vec![1, 0])]);
    }

    #[test]
    fn a_result_above_the_limit_is_refused() {
        let (model, answer) = answered();
        let size = model.outputs_of(&answer, 0..2, &[], 1000).unwrap().bytes.len();
        assert!(model.outputs_of(&answer, 0..2, &[], size).is_ok());
        for most in [size - 1, 1] {
            let refused = model.outputs_of(&answer, 0..2, &[], most);
            assert_eq!(refused, Err(OutputError::TooLarge { most }));
        }
    }

    #[test]
    fn nan_is_refused_where_the_description_forbids_it() {
        let (model, _) = answered();
        let nan = [f32::NAN, 0.0].map(f32::to_le_bytes).concat();
        let tensors = vec![
            Tensor { name: String::new(), datatype: DataType::Fp32, shape: vec![1, 2], data: nan },
            Tensor { name: String::new(), datatype: DataType::Int8, shape: vec![1, 1], data: vec![0] },
        ];
        let answer = model.check_outputs(1, tensors).unwrap();
        let refused = model.outputs_of(&answer, 0..1, &["label".to_owned()], 1000);
        assert_eq!(refused, Err(OutputError::NotFinite { output: model.output.name.clone() }));
    }
}
