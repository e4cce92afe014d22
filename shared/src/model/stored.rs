//! The stored form of a job's input, see [`crate::tensor::stored`]. It has no names: the tensors are in the order of the description. For
//! that of an opaque model see [`crate::content`].

use super::{InputSpec, InputTensor, JobInput, Model};
use crate::{
    job::input::{self, ResultForm},
    tensor::stored::{self, StoredError, StoredTensor},
};

/// A stored input does not fit the model, because the description has changed since the job was submitted, or is another one where
/// it was submitted. The text is safe for clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredMismatch {
    /// Nothing can be read.
    #[error("its stored form cannot be read: {0}")]
    Unreadable(#[from] StoredError),
    /// Another number of inputs.
    #[error("it has {given} tensors, but the model takes {expected}")]
    Inputs {
        /// The job.
        given: usize,
        /// The description.
        expected: usize,
    },
    /// A raw body for a model that takes only JSON.
    #[error("it is a raw body, but the model takes only JSON")]
    RawBody,
    /// Another datatype.
    #[error("`{input}` is {given}, but the model takes {expected}")]
    DataType {
        /// Name of the input.
        input: String,
        /// The job.
        given: &'static str,
        /// The description.
        expected: &'static str,
    },
    /// Another shape.
    #[error("`{input}` has the shape {given:?}, but the model takes {expected}")]
    Shape {
        /// Name of the input.
        input: String,
        /// The job.
        given: Vec<usize>,
        /// The description.
        expected: String,
    },
    /// The client pinned another version.
    #[error("it is for version `{0}`, which is no longer served")]
    Version(String),
    /// An output that the client chose.
    #[error("it asks for the output `{0}`, which the model does not have")]
    Output(String),
    /// Too many rows.
    #[error("it has {given} rows, but the model takes at most {most}")]
    Rows {
        /// The job.
        given: usize,
        /// The description.
        most: usize,
    },
}

impl Model {
    /// The stored form of an input.
    #[must_use]
    pub fn stored(&self, input: &JobInput) -> Vec<u8> {
        if self.is_opaque {
            return Self::stored_value(input);
        }
        let overhead =
            input.tensors.iter().map(|tensor| stored::most_overhead(tensor.shape.len())).sum::<usize>();
        let mut bytes = Vec::with_capacity(input.bytes() + overhead);
        for (spec, tensor) in self.inputs.iter().zip(&input.tensors) {
            stored::append(&mut bytes, spec.datatype, &tensor.shape, &tensor.data);
        }
        bytes
    }

    /// Reads the input of a job, and the form of its result.
    ///
    /// # Errors
    /// When the job does not fit the description.
    pub fn read_job(&self, bytes: &[u8]) -> Result<(JobInput, ResultForm), StoredMismatch> {
        let (pinned, bytes) = input::pinned(bytes)?;
        if let Some(version) = pinned.filter(|version| *version != self.version) {
            return Err(StoredMismatch::Version(version.to_owned()));
        }
        let (form, tensors) = ResultForm::of(bytes)?;
        let input = self.read_stored(tensors)?;
        if let ResultForm::Outputs(names) = &form
            && let Some(unknown) =
                names.iter().find(|name| self.outputs().all(|output| output.name != **name))
        {
            return Err(StoredMismatch::Output(unknown.clone()));
        }
        Ok((input, form))
    }

    /// Reads the stored form of an input. The values were checked when the job was submitted.
    ///
    /// # Errors
    /// When the input does not fit the description.
    pub fn read_stored(&self, bytes: &[u8]) -> Result<JobInput, StoredMismatch> {
        if self.is_opaque {
            return self.read_stored_value(bytes);
        }
        let tensors = stored::read(bytes)?;
        if tensors.len() != self.inputs.len() {
            return Err(StoredMismatch::Inputs { given: tensors.len(), expected: self.inputs.len() });
        }
        let rows = match tensors.first() {
            Some(first) if self.has_batch_axis() => first.shape.first().copied().unwrap_or_default(),
            _ => 1,
        };
        self.inputs
            .iter()
            .zip(&tensors)
            .try_for_each(|(spec, tensor)| self.check_stored(spec, tensor, rows))?;
        if self.has_batch_axis() && rows > self.max_batch {
            return Err(StoredMismatch::Rows { given: rows, most: self.max_batch });
        }
        let owned =
            |tensor: StoredTensor<'_>| InputTensor { data: tensor.data.to_vec(), shape: tensor.shape };
        Ok(JobInput { rows, tensors: tensors.into_iter().map(owned).collect() })
    }

    fn check_stored(
        &self,
        spec: &InputSpec,
        tensor: &StoredTensor<'_>,
        rows: usize,
    ) -> Result<(), StoredMismatch> {
        if tensor.datatype != spec.datatype {
            return Err(StoredMismatch::DataType {
                input: spec.name.clone(),
                given: tensor.datatype.as_str(),
                expected: spec.datatype.as_str(),
            });
        }
        let row_shape =
            if self.has_batch_axis() { tensor.shape.split_first() } else { Some((&1, &tensor.shape[..])) };
        match row_shape {
            Some((first, row)) if *first == rows && rows > 0 && spec.shape.fits(row) && !row.contains(&0) => {
                Ok(())
            }
            _ => Err(StoredMismatch::Shape {
                input: spec.name.clone(),
                given: tensor.shape.clone(),
                expected: spec.shape.behind(self.batch_axis()).to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Axis, Shape, description::tests::flowers},
        *,
    };
    use crate::tensor::DataType;

    fn stored() -> Vec<u8> {
        let model = flowers();
        model.stored(&model.read_data(&json!([[1, 2], [3, 4]])).unwrap())
    }

    fn mismatch(model: &Model) -> String {
        model.read_stored(&stored()).unwrap_err().to_string()
    }

    #[test]
    fn an_input_is_read_as_it_was_stored() {
        let mut model = flowers();
        let input = model.read_data(&json!([[1, 2], [3, 4]])).unwrap();
        assert_eq!(model.read_stored(&model.stored(&input)), Ok(input));
        model.max_batch = 0;
        let input = model.read_data(&json!([1, 2])).unwrap();
        assert_eq!(model.read_stored(&model.stored(&input)), Ok(input));
    }

    #[test]
    fn a_job_has_the_form_of_its_result_and_outputs_that_exist() {
        let model = flowers();
        let named = |name: &str| ResultForm::Outputs(vec![name.to_owned()]);
        for form in [ResultForm::Prediction, named("p"), ResultForm::Outputs(vec![])] {
            let (input, read) = model.read_job(&form.with(stored())).unwrap();
            assert_eq!((input.rows, read), (2, form));
        }
        let error = model.read_job(&named("q").with(stored())).unwrap_err().to_string();
        assert_eq!(error, "it asks for the output `q`, which the model does not have");
    }

    #[test]
    fn a_job_for_another_version_does_not_fit() {
        let model = flowers();
        assert!(model.read_job(&input::pin("3", &stored())).is_ok());
        let error = model.read_job(&input::pin("2", &stored())).unwrap_err().to_string();
        assert_eq!(error, "it is for version `2`, which is no longer served");
    }

    #[test]
    fn numbers_written_in_two_ways_are_stored_in_one() {
        let model = flowers();
        let stored = |data| model.stored(&model.read_data(&data).unwrap());
        assert_eq!(stored(json!([[5, 1e0]])), stored(json!([[5.0, 1.0]])));
    }

    #[test]
    fn each_difference_from_the_description_is_named() {
        let mut model = flowers();
        model.inputs.push(model.inputs[0].clone());
        assert_eq!(mismatch(&model), "it has 1 tensors, but the model takes 2");
        let mut model = flowers();
        model.inputs[0].datatype = DataType::Int32;
        assert_eq!(mismatch(&model), "`x` is FP32, but the model takes INT32");
        for (shape, expected) in [(Shape::from([3]), "[-1, 3]"), (Shape::default(), "[-1]")] {
            let mut model = flowers();
            model.inputs[0].shape = shape;
            assert_eq!(mismatch(&model), format!("`x` has the shape [2, 2], but the model takes {expected}"));
        }
        let mut model = flowers();
        (model.max_batch, model.inputs[0].shape) = (0, [Axis::Variable].into_iter().collect());
        assert_eq!(mismatch(&model), "`x` has the shape [2, 2], but the model takes [-1]");
        let mut model = flowers();
        model.max_batch = 1;
        assert_eq!(mismatch(&model), "it has 2 rows, but the model takes at most 1");
        let text = flowers().read_stored(b"[[1,2]]").unwrap_err().to_string();
        assert!(text.starts_with("its stored form cannot be read: "), "{text}");
    }

    #[test]
    fn all_inputs_have_the_rows_of_the_first() {
        let mut model = flowers();
        model.inputs.push(model.inputs[0].clone());
        let row = [0; 8];
        let mut bytes = Vec::new();
        crate::tensor::stored::append(&mut bytes, DataType::Fp32, &[1, 2], &row);
        crate::tensor::stored::append(&mut bytes, DataType::Fp32, &[2, 2], &[row, row].concat());
        let error = model.read_stored(&bytes).unwrap_err().to_string();
        assert_eq!(error, "`x` has the shape [2, 2], but the model takes [-1, 2]");
        let mut none = Vec::new();
        crate::tensor::stored::append(&mut none, DataType::Fp32, &[0, 2], &[]);
        assert!(flowers().read_stored(&none).is_err(), "a job has a row");
    }
}
