//! Tensors as the Open Inference Protocol writes them: JSON, its binary form (the extension `binary_tensor_data`), and the messages of
//! gRPC.

pub mod binary;
mod head;
pub mod json;
pub mod message;

use super::{Tensor, pointer::Pointer};

/// A tensor of a request, and the form of its elements there.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The tensor.
    pub tensor: Tensor,
    /// The form.
    pub form: Form,
}

/// The form of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A flat list in the member `data`.
    Flat,
    /// Lists in the member `data`, nested as the shape says.
    Nested,
    /// Raw bytes, which have no place in the JSON.
    Raw,
    /// This list of a message.
    List(&'static str),
}

impl Given {
    /// The JSON Pointer to an element of the tensor at this place. Raw elements have that of the tensor.
    #[must_use]
    pub fn place_of(&self, index: usize, at: Pointer<'_>) -> String {
        match self.form {
            Form::Raw => at.to_string(),
            Form::List(name) => at.member(message::CONTENTS).member(name).element(index).to_string(),
            Form::Flat => at.member(json::DATA).element(index).to_string(),
            Form::Nested => {
                let mut below: usize = self.tensor.shape.iter().product();
                let mut rest = index;
                let steps = self.tensor.shape.iter().map(|length| {
                    below /= length;
                    let step = rest / below;
                    rest %= below;
                    format!("/{step}")
                });
                let steps: String = steps.collect();
                format!("{}{steps}", at.member(json::DATA))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DataType;

    #[test]
    fn an_element_has_the_place_where_the_client_wrote_it() {
        let given = |shape: &[usize], form| {
            let data = vec![0; shape.iter().product()];
            let tensor = Tensor { name: "x".into(), datatype: DataType::Int8, shape: shape.to_vec(), data };
            Given { tensor, form }
        };
        let at = Pointer::ROOT.member("inputs");
        let at = at.element(1);
        assert_eq!(given(&[2, 3, 4], Form::Flat).place_of(23, at), "/inputs/1/data/23");
        assert_eq!(given(&[2, 3, 4], Form::Nested).place_of(23, at), "/inputs/1/data/1/2/3");
        assert_eq!(given(&[2, 3, 4], Form::Nested).place_of(5, at), "/inputs/1/data/0/1/1");
        assert_eq!(given(&[], Form::Nested).place_of(0, at), "/inputs/1/data");
        let list = given(&[2, 3, 4], Form::List("int_contents"));
        assert_eq!(list.place_of(5, at), "/inputs/1/contents/int_contents/5");
        assert_eq!(given(&[2, 3, 4], Form::Raw).place_of(23, at), "/inputs/1");
    }
}
