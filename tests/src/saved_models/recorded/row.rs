//! Rows of tensors.

/// One element along the first axis of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    /// Without the first axis.
    pub(super) shape: Vec<usize>,
    /// The bytes of each element.
    pub(super) elements: Vec<Vec<u8>>,
}

impl Row {
    /// The rows of a tensor with at least one row.
    pub(super) fn split(shape: &[usize], elements: Vec<Vec<u8>>) -> Vec<Self> {
        let width = shape[1..].iter().product::<usize>().max(1);
        elements
            .chunks(width)
            .map(|elements| Self { shape: shape[1..].to_vec(), elements: elements.to_vec() })
            .collect()
    }
}
