use serde_json::{Value, json};

use super::*;
use crate::tensor::Tensor;

fn read_all(list: Value, raw: &[u8]) -> Result<Vec<Tensor>, Vec<(String, &'static str, String)>> {
    read_with(list, raw, Unknown::Refused)
}

fn read_with(
    list: Value,
    raw: &[u8],
    unknown: Unknown,
) -> Result<Vec<Tensor>, Vec<(String, &'static str, String)>> {
    let read = read(&list, raw, unknown, Pointer::ROOT.member("inputs"));
    let read = read.map(|given| given.into_iter().map(|given| given.tensor).collect());
    read.map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect())
}

fn error(list: Value, raw: &[u8]) -> (String, &'static str, String) {
    let mut errors = read_all(list, raw).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn at(pointer: &str, code: &'static str, detail: &str) -> (String, &'static str, String) {
    (format!("/inputs{pointer}"), code, detail.to_owned())
}

fn raw(name: &str, datatype: &str, shape: Value, size: impl Into<Value>) -> Value {
    json!({"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size.into()}})
}

#[test]
fn raw_and_json_tensors_mix() {
    let list = json!([
        raw("a", "INT16", json!([2]), 4),
        {"name": "b", "shape": [1], "datatype": "UINT8", "data": [7]},
        {"name": "c", "shape": [1], "datatype": "UINT8", "data": [8], "parameters": {}},
        raw("d", "BYTES", json!([1, 2]), 9),
    ]);
    let tensors = read_all(list, b"\x01\0\x02\0\x01\0\0\0x\0\0\0\0").unwrap();
    let found: Vec<_> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.data.as_slice())).collect();
    let expected: [(&str, &[u8]); 4] =
        [("a", &[1, 0, 2, 0]), ("b", &[7]), ("c", &[8]), ("d", b"\x01\0\0\0x\0\0\0\0")];
    assert_eq!(found, expected);
    assert_eq!((tensors[3].shape.as_slice(), tensors[3].datatype), (&[1, 2][..], DataType::Bytes));
}

#[test]
fn what_was_written_is_read() {
    let tensor = |name: &str, datatype, shape: &[usize], data: &[u8]| Tensor {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
        data: data.to_vec(),
    };
    let tensors = [
        tensor("f", DataType::Fp32, &[1, 2], &[f32::NAN, -0.0].map(f32::to_le_bytes).concat()),
        tensor("s", DataType::Bytes, &[1], b"\x02\0\0\0\xff\xfe"),
        tensor("scalar", DataType::Bool, &[], &[1]),
    ];
    let mut text = Vec::new();
    write_list(tensors.iter().map(Tensor::view), &mut text).unwrap();
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list[0], raw("f", "FP32", json!([1, 2]), 8));
    let data = tensors.iter().flat_map(|tensor| tensor.data.clone()).collect::<Vec<_>>();
    assert_eq!(read_all(list, &data).unwrap(), tensors);
}

#[test]
fn too_few_and_too_many_bytes_are_refused() {
    let one = |size: i32| json!([raw("a", "FP32", json!([1, 4]), size)]);
    let size = "/0/parameters/binary_data_size";
    let left = "must be at most the raw bytes that are left, 12, not 16";
    assert_eq!(error(one(16), &[0; 12]), at(size, "length", left));
    let surplus = "must announce all raw bytes of the body; 3 bytes follow the last tensor";
    assert_eq!(error(one(16), &[0; 19]), at("", "length", surplus));
    let other = "must be 16, since FP32 of the shape [1, 4] has so many bytes, not 15";
    assert_eq!(error(one(15), &[0; 15]), at(size, "length", other));
    assert_eq!(error(json!([]), &[0]).0, "/inputs");
    let huge = json!([raw("a", "FP32", json!([1, 4]), u64::MAX)]);
    assert_eq!(error(huge, &[0; 16]).0, "/inputs/0/parameters/binary_data_size");
}

#[test]
fn elements_of_bytes_must_be_complete_and_as_many_as_the_shape_says() {
    let one = |data: &[u8]| error(json!([raw("a", "BYTES", json!([2]), data.len())]), data);
    let incomplete = |index, at_byte, length| {
        let detail = format!(
            "must have elements with their lengths, four bytes each, but element {index} at byte {at_byte} of {length} is \
             incomplete"
        );
        at("/0", "length", &detail)
    };
    assert_eq!(one(b"\x01\0\0\0x\x05\0\0\0y"), incomplete(1, 5, 10));
    assert_eq!(one(b"\x01\0\0"), incomplete(0, 0, 3));
    let detail = "must have 2 elements, as the shape [2] says, not 1";
    assert_eq!(one(b"\x01\0\0\0x"), at("/0", "length", detail));
    assert_eq!(one(b"\x01\0\0\0x\0\0\0\0\0\0\0\0").2, "must have 2 elements, as the shape [2] says, not 3");
}

#[test]
fn a_boolean_is_0_or_1() {
    let detail = "must have only bytes 0 and 1, but element 1 is 2";
    let list = json!([raw("a", "BOOL", json!([3]), 3)]);
    assert_eq!(error(list, &[0, 2, 1]), at("/0", "not_representable", detail));
}

#[test]
fn a_tensor_has_either_data_or_raw_bytes() {
    let mut both = raw("a", "UINT8", json!([1]), 1);
    both["data"] = json!([1]);
    let detail = "must be omitted, since the tensor has raw bytes";
    assert_eq!(error(json!([both]), &[1]), at("/0/data", "unknown_field", detail));
    let neither = json!([{"name": "a", "shape": [1], "datatype": "UINT8", "parameters": {}}]);
    let detail = "is missing, and so is parameters/binary_data_size";
    assert_eq!(error(neither, &[]), at("/0/data", "missing", detail));
}

#[test]
fn parameters_are_checked() {
    let with = |parameters: Value| {
        let mut tensor = json!({"name": "a", "shape": [1], "datatype": "UINT8", "data": [1]});
        tensor["parameters"] = parameters;
        json!([tensor])
    };
    let detail = "must be an object with binary_data_size, not a number";
    assert_eq!(error(with(json!(1)), &[]), at("/0/parameters", "type", detail));
    let detail = "is not a parameter of a tensor; known is binary_data_size";
    assert_eq!(error(with(json!({"a/b": 1})), &[]), at("/0/parameters/a~1b", "unknown_field", detail));
    for (size, given) in [(json!(-1), "-1"), (json!(1.5), "1.5"), (json!("1"), "a string")] {
        let detail = format!("must be a number of bytes, not {given}");
        let expected = at("/0/parameters/binary_data_size", "type", &detail);
        assert_eq!(error(json!([raw("a", "UINT8", json!([1]), size)]), &[1]), expected);
    }
}

#[test]
fn what_servers_of_the_protocol_ignore_can_be_ignored() {
    let mut list = json!([raw("a", "UINT8", json!([1]), 1), raw("b", "UINT8", json!([1]), Value::Null)]);
    list[0]["parameters"]["content_type"] = json!("np");
    list[0]["data"] = Value::Null;
    list[0]["note"] = json!("");
    list[1]["data"] = json!([2]);
    let tensors = read_with(list.clone(), &[1], Unknown::Ignored).unwrap();
    assert_eq!(tensors.iter().map(|tensor| tensor.data[0]).collect::<Vec<_>>(), [1, 2]);
    assert!(read_all(list.clone(), &[1]).is_err());
    list[1]["parameters"] = json!({"shared_memory_region": "r"});
    let detail = "is not supported; the request must contain the elements";
    let expected = at("/1/parameters/shared_memory_region", "unknown_field", detail);
    assert_eq!(read_with(list, &[1], Unknown::Ignored), Err(vec![expected]));
}

#[test]
fn raw_and_json_tensors_are_written_side_by_side() {
    let tensor = |name: &str| Tensor {
        name: name.to_owned(),
        datatype: DataType::Uint8,
        shape: vec![2],
        data: vec![1, 2],
    };
    let tensors = [tensor("a"), tensor("b")];
    let mut text = Vec::new();
    write_mixed(tensors.iter().map(Tensor::view), |name| name == "b", &mut text).unwrap();
    let expected = json!([
        {"name": "a", "shape": [2], "datatype": "UINT8", "data": [1, 2]},
        raw("b", "UINT8", json!([2]), 2),
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
}

#[test]
fn the_header_divides_the_body() {
    assert_eq!(split(b"2", b"{}\x01"), Ok((&b"{}"[..], &b"\x01"[..])));
    assert_eq!(split(b"3", b"{}\x01"), Ok((&b"{}\x01"[..], &b""[..])));
    for bad in [&b"0"[..], b"4", b"99999999999999999999999"] {
        let given = std::str::from_utf8(bad).unwrap();
        let detail = format!("must be from 1 to the length of the body, 3, not {given}");
        assert_eq!(split(bad, b"{}\x01"), Err(detail));
    }
    for bad in [&b""[..], b"+2", b"-1", b"2 ", b"0x2", b"\xff"] {
        assert_eq!(split(bad, b"{}\x01"), Err("must be a number of bytes".to_owned()));
    }
}

#[test]
fn the_bytes_of_a_tensor_with_a_mistake_are_passed_over() {
    let mut first = raw("a", "UINT8", json!([1]), 1);
    first["datatype"] = json!("uint8");
    let (pointer, code, _) = error(json!([first, raw("b", "UINT8", json!([1]), 1)]), &[1, 2]);
    assert_eq!((pointer.as_str(), code), ("/inputs/0/datatype", "unknown_value"));
}
