//! Makes the answer of a call, with the fault that the call was scripted to have.

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
/// Name of the output that makes an answer large.
const PADDING: &str = "padding";

/// An answer before it is encoded.
pub(super) struct Answer {
    pub(super) outputs: Vec<Output>,
    /// Bytes of a further output; 0 for none.
    pub(super) padding: usize,
}

/// An output of an answer.
pub(super) struct Output {
    pub(super) name: String,
    pub(super) sizes: Vec<usize>,
    pub(super) values: Vec<f32>,
    /// Whether the values are numbers as text.
    pub(super) is_text: bool,
    /// Whether it has a type that does not exist.
    pub(super) has_unknown_type: bool,
    /// Whether it has one value less than its shape says.
    pub(super) is_short: bool,
}

impl Answer {
    /// The answer for these rows.
    pub(super) fn new(spec: &ServerSpec, rows: &Rows, behaviour: &Behaviour) -> Self {
        let (mut sizes, mut values) = compute(spec, rows);
        spoil_values(behaviour, &mut sizes, &mut values);
        let name = if *behaviour == Behaviour::MissingOutput { "other" } else { &spec.output.name };
        let mut outputs = vec![Output {
            has_unknown_type: *behaviour == Behaviour::UnknownDtype,
            is_short: *behaviour == Behaviour::ShortValues,
            ..Output::new(name, sizes, values, spec.output.is_text)
        }];
        if spec.with_row_sums && is_wanted(rows, ROW_SUM) {
            let sums = rows.values.chunks_exact(spec.row_len()).map(|row| row.iter().sum()).collect();
            outputs.push(Output::new(ROW_SUM, vec![rows.count], sums, false));
        }
        let padding = match behaviour {
            Behaviour::HugeReply => PADDING_BYTES,
            Behaviour::PadReply(row_bytes) => row_bytes * rows.count,
            _ => 0,
        };
        Self { outputs, padding }
    }

    /// The outputs as TensorFlow Serving sends them.
    pub(super) fn into_tensorflow(self, style: AnswerStyle) -> BTreeMap<String, TensorProto> {
        let padding = (self.padding > 0).then(|| {
            let tensor_content = vec![0; self.padding];
            (PADDING.to_owned(), TensorProto { tensor_content, ..TensorProto::default() })
        });
        let encode = |output: Output| (output.name.clone(), output.into_tensorflow(style));
        self.outputs.into_iter().map(encode).chain(padding).collect()
    }

    /// Name and bytes of the output that makes the answer large.
    pub(super) fn take_padding(&mut self) -> Option<(String, Vec<u8>)> {
        let bytes = std::mem::take(&mut self.padding);
        (bytes > 0).then(|| (PADDING.to_owned(), vec![0; bytes]))
    }
}

impl Output {
    fn new(name: &str, sizes: Vec<usize>, values: Vec<f32>, is_text: bool) -> Self {
        let (has_unknown_type, is_short) = (false, false);
        Self { name: name.to_owned(), sizes, values, is_text, has_unknown_type, is_short }
    }

    fn into_tensorflow(self, style: AnswerStyle) -> TensorProto {
        let dtype = if self.is_text { DataType::DtString } else { DataType::DtFloat };
        let mut tensor = TensorProto {
            dtype: if self.has_unknown_type { UNKNOWN_DTYPE } else { dtype.into() },
            tensor_shape: Some(shape(self.sizes.iter().map(|size| *size as i64))),
            ..TensorProto::default()
        };
        let mut values = self.values;
        values.truncate(values.len() - usize::from(self.is_short && !values.is_empty()));
        match style {
            _ if self.is_text => {
                tensor.string_val = values.iter().map(|value| value.to_string().into_bytes()).collect();
            }
            AnswerStyle::FloatVal => tensor.float_val = values,
            AnswerStyle::TensorContent => {
                tensor.tensor_content = values.into_iter().flat_map(f32::to_le_bytes).collect();
            }
        }
        tensor
    }
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
