//! Tensors as TensorFlow Serving's REST API writes them: rows, columns and classes. An output whose name ends in `_bytes` is base64.

use std::io::{self, Write};

use super::{DataType, Element, View, bytes, nested, open_inference::json::write_list, with_element};

/// The end of the name of an output that is always written as base64.
const BINARY: &str = "_bytes";

/// The number of rows, if it is the same for all tensors.
#[must_use]
pub fn rows(tensors: &[View<'_>]) -> Option<usize> {
    let (first, others) = tensors.split_first()?;
    let rows = first.shape.first()?;
    others.iter().all(|tensor| tensor.shape.first() == Some(rows)).then_some(*rows)
}

/// Writes a list of this many rows: the values of the only tensor, or objects with a value for each.
///
/// # Errors
/// When `text` cannot take it.
pub fn write_rows(tensors: &[View<'_>], rows: usize, text: &mut impl Write) -> io::Result<()> {
    if let [only] = tensors {
        return write_value(only, &only.shape, only.data, text);
    }
    let mut rests: Vec<&[u8]> = tensors.iter().map(|tensor| tensor.data).collect();
    write_list(0..rows, text, |_, text| {
        let members = tensors.iter().zip(&mut rests).map(|(tensor, rest)| (tensor.name, (tensor, rest)));
        write_object(members, text, |(tensor, rest), text| {
            let shape = tensor.shape.get(1..).unwrap_or_default();
            write_value(tensor, shape, take_row(tensor, shape, rest), text)
        })
    })
}

/// Writes the whole value of the only tensor, or an object with those of all.
///
/// # Errors
/// As [`write_rows`].
pub fn write_columns(tensors: &[View<'_>], text: &mut impl Write) -> io::Result<()> {
    if let [only] = tensors {
        return write_value(only, &only.shape, only.data, text);
    }
    let members = tensors.iter().map(|tensor| (tensor.name, tensor));
    write_object(members, text, |tensor, text| write_value(tensor, &tensor.shape, tensor.data, text))
}

/// Writes for each row of the tensor a list of its classes, each with its number.
///
/// # Errors
/// As [`write_rows`].
pub fn write_classes(tensor: &View<'_>, labels: &[String], text: &mut impl Write) -> io::Result<()> {
    fn write<T: Element, W: Write>(
        mut scores: impl ExactSizeIterator<Item = T>,
        labels: &[String],
        text: &mut W,
    ) -> io::Result<()> {
        let rows = scores.len() / labels.len().max(1);
        write_list(0..rows, text, |_, text| {
            write_list(labels.iter().zip(scores.by_ref()), text, |(label, score), text| {
                text.write_all(b"[")?;
                serde_json::to_writer(&mut *text, label)?;
                text.write_all(b",")?;
                score.write_json(text)?;
                text.write_all(b"]")
            })
        })
    }
    with_element!(tensor.datatype, T => write(T::all(tensor.data), labels, text), BYTES => text.write_all(b"[]"))
}

/// Writes an object with these members.
fn write_object<'a, T, W: Write>(
    members: impl Iterator<Item = (&'a str, T)>,
    text: &mut W,
    mut write: impl FnMut(T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    text.write_all(b"{")?;
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            text.write_all(b",")?;
        }
        serde_json::to_writer(&mut *text, name)?;
        text.write_all(b":")?;
        write(value, text)?;
    }
    text.write_all(b"}")
}

/// Writes elements of the tensor.
fn write_value(tensor: &View<'_>, shape: &[usize], data: &[u8], text: &mut impl Write) -> io::Result<()> {
    if tensor.datatype == DataType::Bytes && tensor.name.ends_with(BINARY) {
        return nested::write_with(text, shape, &mut bytes::elements(data), &bytes::write_base64);
    }
    nested::write(tensor.datatype, data, shape, text)
}

/// Takes the elements of a row of this shape from the rest of the tensor's data.
fn take_row<'a>(tensor: &View<'_>, shape: &[usize], rest: &mut &'a [u8]) -> &'a [u8] {
    let elements = shape.iter().product();
    let bytes = match tensor.datatype.width() {
        Some(width) => elements * width,
        None => bytes::elements(rest).take(elements).map(|element| bytes::LENGTH + element.len()).sum(),
    };
    let (row, after) = rest.split_at(bytes.min(rest.len()));
    *rest = after;
    row
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn floats(shape: &[usize], elements: &[f32]) -> (Vec<usize>, Vec<u8>) {
        (shape.to_vec(), elements.iter().flat_map(|element| element.to_le_bytes()).collect())
    }

    fn texts(shape: &[usize], elements: &[&[u8]]) -> (Vec<usize>, Vec<u8>) {
        let mut data = Vec::new();
        elements.iter().for_each(|element| bytes::append(&mut data, element).unwrap());
        (shape.to_vec(), data)
    }

    fn view<'a>(name: &'a str, datatype: DataType, (shape, data): &'a (Vec<usize>, Vec<u8>)) -> View<'a> {
        View { name, datatype, shape: shape.clone(), data }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Value {
        let mut text = Vec::new();
        write(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&text)))
    }

    fn both(tensors: &[View<'_>]) -> (Value, Value) {
        let rows = rows(tensors).unwrap();
        (written(|text| write_rows(tensors, rows, text)), written(|text| write_columns(tensors, text)))
    }

    #[test]
    fn the_only_tensor_has_no_name() {
        let data = floats(&[2, 1, 2], &[1.0, f32::NAN, 3.0, 4.5]);
        let list = json!([[[1.0, "NaN"]], [[3.0, 4.5]]]);
        assert_eq!(both(&[view("p", DataType::Fp32, &data)]), (list.clone(), list));
        let single = floats(&[], &[0.5]);
        let tensors = [view("p", DataType::Fp32, &single)];
        assert_eq!((rows(&tensors), written(|text| write_columns(&tensors, text))), (None, json!(0.5)));
    }

    #[test]
    fn rows_of_several_tensors_are_objects_and_columns_are_one() {
        let (scores, words) = (floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), texts(&[2, 1], &[b"a", b"\xff"]));
        let (keys, none) = (texts(&[2], &[b"k", b""]), floats(&[2, 0], &[]));
        let tensors = [
            view("s\"", DataType::Fp32, &scores),
            view("w", DataType::Bytes, &words),
            view("k_bytes", DataType::Bytes, &keys),
            view("n", DataType::Fp32, &none),
        ];
        let (rows, columns) = both(&tensors);
        let row = |s: Value, w: Value, k: &str| json!({"s\"": s, "w": [w], "k_bytes": {"b64": k}, "n": []});
        let second = row(json!([3.0, 4.0]), json!({"b64": "/w=="}), "");
        assert_eq!(rows, json!([row(json!([1.0, 2.0]), json!("a"), "aw=="), second]));
        let expected = json!({
            "s\"": [[1.0, 2.0], [3.0, 4.0]],
            "w": [["a"], [{"b64": "/w=="}]],
            "k_bytes": [{"b64": "aw=="}, {"b64": ""}],
            "n": [[], []],
        });
        assert_eq!(columns, expected);
    }

    #[test]
    fn tensors_of_different_lengths_have_no_rows() {
        let (two, three) = (floats(&[2], &[1.0, 2.0]), floats(&[3], &[1.0, 2.0, 3.0]));
        let tensors = [view("a", DataType::Fp32, &two), view("b", DataType::Fp32, &three)];
        assert_eq!(rows(&tensors), None);
        assert_eq!(rows(&[]), None);
    }

    #[test]
    fn classes_have_their_labels() {
        let scores = floats(&[2, 1, 2], &[0.25, 0.75, 1.0, 0.0]);
        let labels = ["rose", "tulip"].map(str::to_owned);
        let classes = written(|text| write_classes(&view("p", DataType::Fp32, &scores), &labels, text));
        let expected = json!([[["rose", 0.25], ["tulip", 0.75]], [["rose", 1.0], ["tulip", 0.0]]]);
        assert_eq!(classes, expected);
    }
}
