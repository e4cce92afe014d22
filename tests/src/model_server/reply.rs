//! Makes the answer of a Predict call, with the fault that the call was scripted to have.

use std::collections::BTreeMap;

use tepal_proto::tensorflow::tensor_shape_proto::Dim;
use tepal_proto::tensorflow::{DataType, TensorProto, TensorShapeProto};

use super::behaviour::Behaviour;
use super::request::Rows;
use super::spec::{AnswerStyle, ROW_SUM, ServerSpec};

/// No element type of TensorFlow has this number.
const UNKNOWN_DTYPE: i32 = 9_999;
/// More than the 4 MiB that a tonic client takes by default.
const PADDING_BYTES: usize = 5 << 20;

/// The outputs for these rows.
pub(super) fn outputs(
    spec: &ServerSpec,
    rows: &Rows,
    behaviour: &Behaviour,
) -> BTreeMap<String, TensorProto> {
    let (mut sizes, mut values) = compute(spec, rows);
    spoil_values(behaviour, &mut sizes, &mut values);
    let mut tensor = encode(spec.answer_style, &sizes, values);
    spoil_tensor(behaviour, &mut tensor);

    let name = if *behaviour == Behaviour::MissingOutput { "other" } else { &spec.output.name };
    let mut outputs = BTreeMap::from([(name.to_owned(), tensor)]);
    if spec.with_row_sums && is_wanted(rows, ROW_SUM) {
        let sums = rows.values.chunks_exact(spec.row_len()).map(|row| row.iter().sum()).collect();
        outputs.insert(ROW_SUM.to_owned(), encode(spec.answer_style, &[rows.count], sums));
    }
    let padding = match behaviour {
        Behaviour::HugeReply => PADDING_BYTES,
        Behaviour::PadReply(row_bytes) => row_bytes * rows.count,
        _ => 0,
    };
    if padding > 0 {
        let tensor = TensorProto { tensor_content: vec![0; padding], ..TensorProto::default() };
        outputs.insert("padding".to_owned(), tensor);
    }
    outputs
}

fn is_wanted(rows: &Rows, output: &str) -> bool {
    rows.output_filter.is_empty() || rows.output_filter.iter().any(|name| name == output)
}

/// A shape with these sizes.
pub(super) fn shape(sizes: impl IntoIterator<Item = i64>) -> TensorShapeProto {
    let dim = sizes.into_iter().map(|size| Dim { size, name: String::new() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

fn compute(spec: &ServerSpec, rows: &Rows) -> (Vec<usize>, Vec<f32>) {
    let values: Vec<f32> =
        rows.values.chunks_exact(spec.row_len()).flat_map(|row| (spec.compute)(row)).collect();
    assert_eq!(
        values.len(),
        rows.count * spec.output.row_len(),
        "`compute` returned a row of another length"
    );
    let mut sizes = vec![rows.count];
    sizes.extend(&spec.output.row_shape);
    (sizes, values)
}

fn spoil_values(behaviour: &Behaviour, sizes: &mut [usize], values: &mut Vec<f32>) {
    let row_len = sizes[1..].iter().product::<usize>();
    let last_row = values.len().saturating_sub(row_len);
    match behaviour {
        Behaviour::WrongShape => {
            sizes[sizes.len() - 1] += 1;
            values.resize(sizes.iter().product(), 0.0);
        }
        Behaviour::MissingRow => {
            sizes[0] = sizes[0].saturating_sub(1);
            values.truncate(last_row);
        }
        Behaviour::Nan => {
            if let Some(value) = values.get_mut(last_row) {
                *value = f32::NAN;
            }
        }
        _ => {}
    }
}

fn spoil_tensor(behaviour: &Behaviour, tensor: &mut TensorProto) {
    match behaviour {
        Behaviour::UnknownDtype => tensor.dtype = UNKNOWN_DTYPE,
        Behaviour::ShortValues => {
            tensor.float_val.pop();
            tensor.tensor_content.truncate(tensor.tensor_content.len().saturating_sub(size_of::<f32>()));
        }
        _ => {}
    }
}

fn encode(style: AnswerStyle, sizes: &[usize], values: Vec<f32>) -> TensorProto {
    let mut tensor = TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(shape(sizes.iter().map(|size| *size as i64))),
        ..TensorProto::default()
    };
    match style {
        AnswerStyle::FloatVal => tensor.float_val = values,
        AnswerStyle::TensorContent => {
            tensor.tensor_content = values.into_iter().flat_map(f32::to_le_bytes).collect();
        }
    }
    tensor
}
