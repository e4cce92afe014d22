use serde_json::{Value, json};

use super::*;
use crate::tensor::Tensor;

const INPUTS: Pointer<'_> = Pointer::ROOT;

fn tensor(name: &str, datatype: DataType, shape: &[usize], data: &[u8]) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.to_vec(), data: data.to_vec() }
}

fn tensors(list: &Value) -> Vec<Tensor> {
    read(list, INPUTS).unwrap().into_iter().map(|given| given.tensor).collect()
}

fn errors(list: Value) -> Vec<(String, &'static str, String)> {
    let errors = read(&list, INPUTS.member("inputs")).unwrap_err();
    errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect()
}

fn error(list: Value) -> (String, &'static str, String) {
    let mut errors = errors(list);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

fn at(pointer: &str, code: &'static str, detail: &str) -> (String, &'static str, String) {
    (format!("/inputs/0{pointer}"), code, detail.to_owned())
}

/// A tensor with these members.
fn one(datatype: &str, shape: Value, data: Value) -> Value {
    json!([{"name": "x", "shape": shape, "datatype": datatype, "data": data}])
}

#[test]
fn flat_and_nested_data_are_the_same() {
    let expected = [tensor("x", DataType::Uint8, &[2, 3], &[1, 2, 3, 4, 5, 6])];
    assert_eq!(tensors(&one("UINT8", json!([2, 3]), json!([1, 2, 3, 4, 5, 6]))), expected);
    assert_eq!(tensors(&one("UINT8", json!([2, 3]), json!([[1, 2, 3], [4, 5, 6]]))), expected);
}

#[test]
fn a_scalar_is_a_value_or_a_list_of_one() {
    let expected = [tensor("x", DataType::Int16, &[], &[5, 0])];
    assert_eq!(tensors(&one("INT16", json!([]), json!(5))), expected);
    assert_eq!(tensors(&one("INT16", json!([]), json!([5]))), expected);
    let detail = "must be a list, not a number";
    assert_eq!(error(one("INT16", json!([1]), json!(5))), at("/data", "type", detail));
}

#[test]
fn every_datatype_survives_its_json() {
    let half = |bits: u16| bits.to_le_bytes();
    let tensors = [
        tensor("bool", DataType::Bool, &[2], &[0, 1]),
        tensor("uint8", DataType::Uint8, &[1], &[255]),
        tensor("uint16", DataType::Uint16, &[1], &u16::MAX.to_le_bytes()),
        tensor("uint32", DataType::Uint32, &[1], &u32::MAX.to_le_bytes()),
        tensor("uint64", DataType::Uint64, &[1], &u64::MAX.to_le_bytes()),
        tensor("int8", DataType::Int8, &[1], &i8::MIN.to_le_bytes()),
        tensor("int16", DataType::Int16, &[1], &i16::MIN.to_le_bytes()),
        tensor("int32", DataType::Int32, &[1], &i32::MIN.to_le_bytes()),
        tensor("int64", DataType::Int64, &[1], &i64::MIN.to_le_bytes()),
        tensor("fp16", DataType::Fp16, &[1, 2], &[half(0x3555), half(0xfc00)].concat()),
        tensor("bf16", DataType::Bf16, &[1], &half(0x3eab)),
        tensor("fp32", DataType::Fp32, &[2], &[0.1_f32, f32::INFINITY].map(f32::to_le_bytes).concat()),
        tensor("fp64", DataType::Fp64, &[2], &[0.1_f64, f64::MIN_POSITIVE].map(f64::to_le_bytes).concat()),
        tensor("bytes \"~/", DataType::Bytes, &[3], b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xff\xfe"),
    ];
    let mut text = Vec::new();
    write(tensors.iter().map(Tensor::view), &mut text).unwrap();
    let mut outputs = Vec::new();
    write_outputs(tensors.iter().map(Tensor::view), &mut outputs).unwrap();
    assert_eq!(outputs, [&br#"{"outputs":"#[..], &text, b"}"].concat());
    assert_eq!(length_of_outputs(tensors.iter().map(Tensor::view)), outputs.len());
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(self::tensors(&list), tensors);
    assert_eq!(list[9]["data"], json!([0.33325195, "-Infinity"]));
    assert_eq!(list[13]["data"], json!(["a", "", {"b64": "//4="}]));
}

#[test]
fn a_wrong_element_is_reported_with_its_place() {
    let uint8 = "must be an integer from 0 to 255, and 300 is none";
    let expected = at("/data/1", "not_representable", uint8);
    assert_eq!(error(one("UINT8", json!([2]), json!([1, 300]))), expected);
    let expected = at("/data/1/0", "not_representable", uint8);
    assert_eq!(error(one("UINT8", json!([2, 1]), json!([[1], [300]]))), expected);
    let int64 = "must be an integer from -9223372036854775808 to 9223372036854775807, and 1.5 is none";
    assert_eq!(error(one("INT64", json!([1, 1]), json!([1.5]))), at("/data/0", "not_representable", int64));
    let number = "must be a number, not a string";
    assert_eq!(error(one("FP32", json!([1]), json!(["a"]))), at("/data/0", "type", number));
    let (pointer, code, _) = error(one("BYTES", json!([1]), json!([{"b64": "//4"}])));
    assert_eq!((pointer.as_str(), code), ("/inputs/0/data/0", "invalid_base64"));
}

#[test]
fn data_must_have_as_many_values_as_the_shape_says() {
    let detail = "must have 6 values, as the shape [2, 3] says, not 5";
    assert_eq!(error(one("INT8", json!([2, 3]), json!([1, 2, 3, 4, 5]))), at("/data", "length", detail));
    let detail = "must have 2 values, as the shape says, not 1";
    assert_eq!(error(one("INT8", json!([2, 3]), json!([[1, 2, 3]]))), at("/data", "length", detail));
    let detail = "must have 3 values, as the shape says, not 2";
    assert_eq!(
        error(one("INT8", json!([2, 3]), json!([[1, 2, 3], [4, 5]]))),
        at("/data/1", "length", detail)
    );
    let detail = "must be a list of 3 values, not a number";
    assert_eq!(error(one("INT8", json!([2, 3]), json!([[1, 2, 3], 4]))), at("/data/1", "type", detail));
    let detail = "must have 4 values, as the shape [4] says, not 1";
    assert_eq!(error(one("INT8", json!([4]), json!([[1, 2, 3, 4]]))), at("/data", "length", detail));
}

#[test]
fn a_shape_has_axes_of_at_least_one_and_a_bounded_product() {
    let wrong = |shape: Value| error(one("INT8", shape, json!([1])));
    let detail = "must be a whole number from 1, not -1";
    assert_eq!(wrong(json!([1, -1])), at("/shape/1", "out_of_range", detail));
    let detail = "must be a whole number from 1, not 0";
    assert_eq!(wrong(json!([0, 3])), at("/shape/0", "out_of_range", detail));
    let detail = "must be a whole number from 1, not 1.5";
    assert_eq!(wrong(json!([1.5])), at("/shape/0", "out_of_range", detail));
    let detail = "must be a whole number from 1, not a string";
    assert_eq!(wrong(json!(["1"])), at("/shape/0", "type", detail));
    let detail = "must be a list of the lengths of the axes, not a number";
    assert_eq!(wrong(json!(1)), at("/shape", "type", detail));
    let detail = "must have at most 1073741824 elements in all";
    for overflowing in [json!([1_u64 << 32, 1_u64 << 32]), json!([u64::MAX]), json!([1 << 15, 1 << 15, 2])] {
        assert_eq!(wrong(overflowing), at("/shape", "out_of_range", detail));
    }
    let detail = "must have at most 254 axes, not 255";
    assert_eq!(wrong(json!(vec![1; 255])), at("/shape", "length", detail));
}

#[test]
fn all_wrong_members_are_reported_at_once() {
    let list = json!([{"name": 5, "shape": [0], "datatype": "fp32", "parameters": {}}]);
    let datatypes = "must be one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, \
                     FP64, BYTES";
    let unknown = "is not a member of a tensor; known are name, shape, datatype, data";
    assert_eq!(
        errors(list),
        [
            at("/parameters", "unknown_field", unknown),
            at("/name", "type", "must be a string, not a number"),
            at("/shape/0", "out_of_range", "must be a whole number from 1, not 0"),
            at("/datatype", "unknown_value", datatypes),
            at("/data", "missing", "is missing"),
        ]
    );
    let missing = ["/name", "/shape", "/datatype", "/data"];
    assert_eq!(errors(json!([{}])), missing.map(|pointer| at(pointer, "missing", "is missing")));
    assert_eq!(error(json!({})).2, "must be a list of tensors, not an object");
    let detail = "must be an object with name, shape, datatype, data, not a number";
    assert_eq!(error(json!([1])), at("", "type", detail));
}

#[test]
fn at_most_twenty_mistakes_are_reported() {
    assert_eq!(errors(one("INT8", json!([100]), json!(vec![300; 100]))).len(), 20);
    assert_eq!(errors(json!(vec![json!({}); 100])).len(), 20);
}

#[test]
fn a_declared_shape_alone_reserves_nothing() {
    let mut errors = InputErrors::default();
    let members = json!({"name": "x", "shape": [1 << 30], "datatype": "FP64"});
    let JsonRef::Object(members) = JsonRef::from(&members) else { panic!() };
    let head = Head::read(members, INPUTS, &mut errors).unwrap();
    let given = read_data(head, JsonRef::from(&json!([1, 2])), INPUTS, &mut errors);
    assert_eq!(given.tensor.data.capacity(), 0);
}
