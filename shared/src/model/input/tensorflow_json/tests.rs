use serde_json::{Value, json};

use super::{
    super::super::{Axis, InputTensor, Shape, description::tests::flowers},
    *,
};
use crate::tensor::DataType;

const AT: Pointer<'_> = Pointer::ROOT;

fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// What both forms make of a value for the only input.
fn both(model: &Model, value: Value) -> [Result<JobInput, Vec<InputError>>; 2] {
    [model.read_instances(&value, AT.member("instances")), model.read_columns(&value, AT.member("inputs"))]
}

fn places(outcome: Result<JobInput, Vec<InputError>>) -> Vec<(String, String)> {
    outcome.unwrap_err().into_iter().map(|error| (error.pointer, error.detail)).collect()
}

fn only(outcome: Result<JobInput, Vec<InputError>>) -> (String, String) {
    let mut errors = places(outcome);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[track_caller]
fn assert_error((pointer, detail): (String, String), expected: &str) {
    assert_eq!(format!("{pointer} {detail}"), expected);
}

/// A model whose only input has this type and shape.
fn of(datatype: DataType, shape: &[Axis]) -> Model {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.datatype, input.shape) = (datatype, shape.iter().copied().collect());
    (input.features, input.greater_than, input.less_than) = (Vec::new(), None, None);
    model
}

/// A model with a second input, of one text.
fn with_two_inputs() -> Model {
    let mut model = flowers();
    let mut second = of(DataType::Bytes, &[]).inputs.remove(0);
    second.name = "word".to_owned();
    model.inputs.push(second);
    model
}

#[test]
fn the_only_input_needs_no_name() {
    let expected = JobInput {
        rows: 2,
        tensors: vec![InputTensor { shape: vec![2, 2], data: floats(&[1.0, 2.5, 3.0, 4.0]) }],
    };
    for outcome in both(&flowers(), json!([[1, 2.5], [3, 4]])) {
        assert_eq!(outcome.as_ref(), Ok(&expected));
    }
    let named = json!([{"x": [1, 2.5]}, {"x": [3, 4]}]);
    assert_eq!(flowers().read_instances(&named, AT).as_ref(), Ok(&expected));
    let named = json!({"x": [[1, 2.5], [3, 4]], "ignored": 1});
    assert_eq!(flowers().read_columns(&named, AT), Ok(expected));
}

#[test]
fn several_inputs_have_names() {
    let model = with_two_inputs();
    let rows = json!([{"x": [1, 2], "word": "a"}, {"word": {"b64": "/w=="}, "x": [3, 4]}]);
    let columns = json!({"x": [[1, 2], [3, 4]], "word": ["a", {"b64": "/w=="}]});
    let words = InputTensor { shape: vec![2], data: b"\x01\0\0\0a\x01\0\0\0\xff".to_vec() };
    let values = InputTensor { shape: vec![2, 2], data: floats(&[1.0, 2.0, 3.0, 4.0]) };
    let expected = JobInput { rows: 2, tensors: vec![values, words] };
    assert_eq!(model.read_instances(&rows, AT).as_ref(), Ok(&expected));
    assert_eq!(model.read_columns(&columns, AT), Ok(expected));
}

#[test]
fn a_row_may_be_one_value() {
    for (datatype, value, data) in [
        (DataType::Int8, json!([1, -2]), b"\x01\xfe".to_vec()),
        (DataType::Bool, json!([true, false]), b"\x01\0".to_vec()),
        (DataType::Bytes, json!([{"b64": ""}, "a"]), b"\0\0\0\0\x01\0\0\0a".to_vec()),
    ] {
        for outcome in both(&of(datatype, &[]), value) {
            let tensor = InputTensor { shape: vec![2], data: data.clone() };
            assert_eq!(outcome, Ok(JobInput { rows: 2, tensors: vec![tensor] }));
        }
    }
}

#[test]
fn variable_axes_are_equal_in_all_rows() {
    let model = of(DataType::Uint8, &[Axis::Variable]);
    for (outcome, place) in both(&model, json!([[1, 2, 3], [4]])).into_iter().zip(["/instances", "/inputs"]) {
        assert_error(
            only(outcome),
            &format!("{place}/1 must hold 3 values like the first list of its axis, not 1"),
        );
    }
    for outcome in both(&model, json!([[1, 2, 3]])) {
        assert_eq!(outcome.unwrap().tensors[0].shape, [1, 3]);
    }
}

#[test]
fn rows_are_the_first_axis_of_a_model_without_a_batch_axis() {
    let mut model = with_two_inputs();
    model.max_batch = 0;
    model.inputs[1].shape = [Axis::Variable].into_iter().collect();
    model.inputs[0].shape = Shape::from([2, 2]);
    model.inputs[0].features.clear();
    let rows = json!([{"x": [1, 2], "word": "a"}, {"x": [3, 4], "word": "b"}]);
    let columns = json!({"x": [[1, 2], [3, 4]], "word": ["a", "b"]});
    let read = model.read_instances(&rows, AT).unwrap();
    assert_eq!(
        (read.rows, &read.tensors[0].shape[..], &read.tensors[1].shape[..]),
        (1, &[2, 2][..], &[2][..])
    );
    assert_eq!(model.read_columns(&columns, AT), Ok(read));
    let one = json!([{"x": [1, 2], "word": "a"}]);
    assert_error(
        only(model.read_instances(&one, AT.member("instances"))),
        "/instances must hold exactly 2 values, not 1",
    );
}

#[test]
fn a_model_of_single_values_has_columns_only() {
    let mut model = of(DataType::Fp32, &[]);
    model.max_batch = 0;
    assert_eq!(model.read_columns(&json!(2.5), AT).unwrap().tensors[0].data, floats(&[2.5]));
    let error = only(model.read_instances(&json!([2.5]), AT.member("instances")));
    assert_error(error, "/instances must be columns, since the input `x` is a single value");
}

#[test]
fn no_rank_is_added() {
    let errors = places(flowers().read_instances(&json!([1, 2]), AT.member("instances")));
    assert_eq!(errors.len(), 2);
    assert_error(errors[0].clone(), "/instances/0 must be a list of 2 values, not a number");
    let error = only(flowers().read_columns(&json!(5), AT.member("inputs")));
    assert_error(error, "/inputs must be a list of rows, not a number");
}

#[test]
fn wrong_rows_are_reported_at_their_place() {
    let model = with_two_inputs();
    let form = r#"must be an object {"x": ..., "word": ...}"#;
    let row = || json!({"x": [1, 2], "word": "a"});
    for (rows, expected) in [
        (json!({}), "/instances must be a list of rows, not an object".to_owned()),
        (json!([]), "/instances must hold 1 to 4 rows, but is empty".to_owned()),
        (json!([row(), row(), row(), row(), row()]), "/instances must hold 1 to 4 rows, not 5".to_owned()),
        (json!([[1, 2]]), format!("/instances/0 {form}, not a list")),
        (json!([row(), [1, 2]]), format!("/instances/1 {form}, not a list")),
        (json!([row(), {"b64": "YQ=="}]), format!("/instances/1 {form}, not an object")),
        (json!([{"x": [1, 2]}]), "/instances/0/word is missing".to_owned()),
        (
            json!([{"x": [1, 2], "word": "a", "y": 1}]),
            "/instances/0/y is not an input of the model; its inputs are `x`, `word`".to_owned(),
        ),
        (json!([row(), {"x": [1, "a"], "word": "a"}]), "/instances/1/x/1 height must be a number, not a string".to_owned()),
        (
            json!([{"x": [1, 2], "word": {"b64": "?"}}]),
            "/instances/0/word must be base64 with padding (RFC 4648, section 4): Invalid symbol 63, offset 0.".to_owned(),
        ),
    ] {
        assert_error(only(model.read_instances(&rows, AT.member("instances"))), &expected);
    }
    let mixed = places(flowers().read_instances(&json!([[1, 2], {"x": [1, 2]}]), AT.member("instances")));
    assert_eq!(mixed, [("/instances/1".to_owned(), "must be a list of 2 values, not an object".to_owned())]);
}

#[test]
fn wrong_columns_are_reported_at_their_place() {
    let model = with_two_inputs();
    for (columns, expected) in [
        (json!([[1, 2]]), r#"/inputs must be an object {"x": ..., "word": ...}, not a list"#),
        (json!({"x": [[1, 2]]}), "/inputs/word is missing"),
        (
            json!({"x": [[1, 2]], "word": ["a", "b"]}),
            "/inputs/word must hold as many rows as the first input, 1, not 2",
        ),
        (json!({"x": [[1, 2]], "word": []}), "/inputs/word must hold 1 to 4 rows, but is empty"),
        (
            json!({"x": [[1, 20]], "word": ["a"]}),
            "/inputs/x/0/1 height must be greater than 0 and less than 10, but is 20",
        ),
    ] {
        assert_error(only(model.read_columns(&columns, AT.member("inputs"))), expected);
    }
}

#[test]
fn a_float_is_no_integer_and_an_integer_no_boolean() {
    let [rows, columns] = both(&of(DataType::Int8, &[]), json!([1, 2.0]));
    assert_error(only(rows), "/instances/1 must be an integer from -128 to 127, and 2.0 is none");
    assert_error(only(columns), "/inputs/1 must be an integer from -128 to 127, and 2.0 is none");
    let [rows, _] = both(&of(DataType::Bool, &[]), json!([true, 1]));
    assert_error(only(rows), "/instances/1 must be true or false, not a number");
    assert!(of(DataType::Int8, &[]).read_data(&json!([1, 2.0])).is_ok(), "`data` is less strict");
}

#[test]
fn an_example_has_values_for_inputs_or_features() {
    let expected = flowers().read_data(&json!([[1, 2], [3, 4]])).unwrap();
    let read = |examples: Value, context: Value| {
        let JsonRef::Object(members) = JsonRef::from(&context) else { panic!("{context}") };
        flowers().read_examples(&examples, AT.member("examples"), Some((members, AT.member("context"))))
    };
    let inputs = json!([{"x": [1, 2], "other": 0}, {"x": [3, 4]}]);
    assert_eq!(read(inputs, json!({})).as_ref(), Ok(&expected));
    let features = json!([{"width": 1, "height": [2]}, {"height": 4, "width": [3]}]);
    assert_eq!(read(features, json!({})).as_ref(), Ok(&expected));
    let shared = read(json!([{}, {"width": 3}]), json!({"width": 1, "height": 2})).unwrap();
    assert_eq!(shared.tensors[0].data, floats(&[1.0, 2.0, 3.0, 2.0]));
    assert_error(only(read(json!([{"width": 1}]), json!({}))), "/examples/0/height is missing");
    let error = only(read(json!([{"width": 1, "height": [2, 3]}]), json!({})));
    assert_error(error, "/examples/0/height must be a number, not a list");
    let error = only(read(json!([{"width": 1}]), json!({"height": 20})));
    assert_error(error, "/context/height must be greater than 0 and less than 10, but is 20");
    assert_error(
        only(read(json!([5]), json!({}))),
        r#"/examples/0 must be an object {"x": ...}, not a number"#,
    );
}

#[test]
fn an_input_of_one_value_needs_no_list_in_an_example() {
    let model = of(DataType::Int8, &[Axis::Fixed(1)]);
    let read = model.read_examples(&json!([{"x": 5}, {"x": [6]}]), AT, None).unwrap();
    assert_eq!((read.rows, &read.tensors[0].data[..]), (2, &[5, 6][..]));
}
