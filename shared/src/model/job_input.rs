//! The input of one job as tensors, and of several jobs as one model call.

use super::Model;
use crate::tensor::{Batch, Tensor};

/// The input of one job: a tensor for each input of the model, in the order of the description.
#[derive(Clone, Debug, PartialEq)]
pub struct JobInput {
    /// Number of rows; 1 if the model has no batch axis.
    pub rows: usize,
    /// The tensors.
    pub tensors: Vec<InputTensor>,
}

/// One tensor of a job. The description has its name and its datatype.
#[derive(Clone, Debug, PartialEq)]
pub struct InputTensor {
    /// The lengths of all axes, the batch axis first if the model has one.
    pub shape: Vec<usize>,
    /// The elements, as [`Tensor::data`] contains them.
    pub data: Vec<u8>,
}

impl JobInput {
    /// Bytes of all elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.data.len()).sum()
    }

    /// Whether both jobs can share a call of a model with a batch axis: all other axes are equal.
    #[must_use]
    pub fn is_alike(&self, other: &Self) -> bool {
        self.tensors.len() == other.tensors.len()
            && self
                .tensors
                .iter()
                .zip(&other.tensors)
                .all(|(own, other)| own.row_shape() == other.row_shape())
    }
}

impl InputTensor {
    /// The lengths of all axes but the first.
    fn row_shape(&self) -> Option<&[usize]> {
        self.shape.get(1..)
    }
}

impl Model {
    /// Joins the rows of several jobs to one batch, in order. The jobs are alike, see [`JobInput::is_alike`].
    #[must_use]
    pub fn concatenate<'a>(&self, jobs: impl Iterator<Item = &'a JobInput> + Clone) -> Batch {
        let rows = jobs.clone().map(|job| job.rows).sum();
        let inputs = self.inputs.iter().enumerate().map(|(number, input)| {
            let tensors = || jobs.clone().map(|job| &job.tensors[number]);
            let mut data = Vec::with_capacity(tensors().map(|tensor| tensor.data.len()).sum());
            tensors().for_each(|tensor| data.extend_from_slice(&tensor.data));
            let mut shape = tensors().next().map(|tensor| tensor.shape.clone()).unwrap_or_default();
            if self.has_batch_axis() {
                shape.first_mut().into_iter().for_each(|length| *length = rows);
            }
            Tensor { name: input.name.clone(), datatype: input.datatype, shape, data }
        });
        Batch { rows, inputs: inputs.collect() }
    }
}
