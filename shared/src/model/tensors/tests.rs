use serde_json::{Value, json};

use super::{
    super::{Axis, Shape, description::tests::flowers},
    *,
};
use crate::tensor::{
    DataType, Tensor,
    open_inference::{binary, json},
};

fn inputs(list: Value) -> Vec<Given> {
    json::read(&list, Pointer::ROOT).unwrap()
}

fn check(model: &Model, list: Value) -> Result<JobInput, Vec<(String, &'static str, String)>> {
    let outcome = model.check_tensors(inputs(list), Pointer::ROOT.member("inputs"));
    outcome
        .map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect())
}

fn errors(list: Value) -> Vec<(String, &'static str, String)> {
    check(&flowers(), list).unwrap_err()
}

fn at(pointer: &str, code: &'static str, detail: &str) -> (String, &'static str, String) {
    (format!("/inputs{pointer}"), code, detail.to_owned())
}

/// The only input of the model with these members.
fn one(shape: Value, data: Value) -> Value {
    json!([{"name": "x", "shape": shape, "datatype": "FP32", "data": data}])
}

fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

/// A model with a second input, of one integer.
fn with_two_inputs() -> Model {
    let mut model = flowers();
    let mut second = model.inputs[0].clone();
    (second.name, second.shape, second.datatype) = ("y".to_owned(), Shape::default(), DataType::Int64);
    (second.features, second.greater_than, second.less_than) = (Vec::new(), None, None);
    model.inputs.push(second);
    model
}

#[test]
fn tensors_are_put_into_the_order_of_the_description() {
    let list = json!([
        {"name": "y", "shape": [2], "datatype": "INT64", "data": [7, 8]},
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]},
    ]);
    let input = check(&with_two_inputs(), list).unwrap();
    assert_eq!((input.rows, input.tensors.len()), (2, 2));
    assert_eq!(input.tensors[0], InputTensor { shape: vec![2, 2], data: floats(&[1.0, 2.0, 3.0, 4.0]) });
    assert_eq!(input.tensors[1].shape, [2]);
}

#[test]
fn the_same_rows_are_the_same_input_as_data_and_as_tensors() {
    let model = flowers();
    let data = model.read_data(&json!([[1, 2.5], [3, 4]])).unwrap();
    assert_eq!(check(&model, one(json!([2, 2]), json!([1, 2.5, 3, 4]))).unwrap(), data);
}

#[test]
fn wrong_missing_surplus_and_repeated_inputs_are_refused() {
    let list = json!([
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "z", "shape": [1], "datatype": "INT64", "data": [1]},
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
    ]);
    assert_eq!(
        check(&with_two_inputs(), list).unwrap_err(),
        [
            at("/1/name", "unknown_value", "is not an input of the model; its inputs are `x`, `y`"),
            at("/2/name", "repeated", "must name each input only once"),
            at("", "missing", "lacks the input `y`"),
        ]
    );
    assert_eq!(errors(json!([])), [at("", "missing", "lacks the input `x`")]);
}

#[test]
fn nothing_is_converted() {
    let list = json!([{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]);
    assert_eq!(errors(list), [at("/0/datatype", "datatype", "must be FP32, not FP64")]);
}

#[test]
fn the_shape_must_fit() {
    let rank = "must have 2 axes, as [-1, 2] says, not 1";
    assert_eq!(errors(one(json!([2]), json!([1, 2]))), [at("/0/shape", "length", rank)]);
    let axis = "must be 2, not 3";
    assert_eq!(errors(one(json!([1, 3]), json!([1, 2, 3]))), [at("/0/shape/1", "out_of_range", axis)]);
    let rows = "must be 1 to 4 rows, not 5";
    assert_eq!(errors(one(json!([5, 2]), json!(vec![1; 10]))), [at("/0/shape/0", "too_many_rows", rows)]);
    let list = json!([
        {"name": "y", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
    ]);
    let detail = "must be 2, as in the first input, not 3";
    assert_eq!(check(&with_two_inputs(), list).unwrap_err(), [at("/0/shape/0", "out_of_range", detail)]);
}

#[test]
fn variable_axes_and_whole_shapes_are_taken() {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.shape, input.features) = ([Axis::Variable, Axis::Fixed(2)].into_iter().collect(), Vec::new());
    assert_eq!(check(&model, one(json!([2, 1, 2]), json!([1, 2, 3, 4]))).unwrap().rows, 2);
    model.max_batch = 0;
    let input = check(&model, one(json!([3, 2]), json!([1, 2, 3, 4, 5, 6]))).unwrap();
    assert_eq!((input.rows, input.tensors[0].shape.as_slice()), (1, &[3, 2][..]));
    let detail = "must have 2 axes, as [-1, 2] says, not 3";
    assert_eq!(
        check(&model, one(json!([1, 3, 2]), json!([1, 2, 3, 4, 5, 6]))).unwrap_err(),
        [at("/0/shape", "length", detail)]
    );
}

#[test]
fn an_element_out_of_bounds_is_reported_where_the_client_wrote_it() {
    let detail = "height must be greater than 0 and less than 10, but is 10.0";
    let flat = one(json!([2, 2]), json!([1, 2, 3, 10]));
    assert_eq!(errors(flat), [at("/0/data/3", "out_of_range", detail)]);
    let nested = one(json!([2, 2]), json!([[1, 2], [3, 10]]));
    assert_eq!(errors(nested), [at("/0/data/1/1", "out_of_range", detail)]);
    let nan = "width must be greater than 0 and less than 10, but is NaN";
    assert_eq!(errors(one(json!([1, 2]), json!(["NaN", 1]))), [at("/0/data/0", "out_of_range", nan)]);

    let mut raw = one(json!([2, 2]), json!(null));
    raw[0].as_object_mut().unwrap().remove("data");
    raw[0]["parameters"] = json!({"binary_data_size": 16});
    let given =
        binary::read(&raw, &floats(&[1.0, 2.0, 3.0, 10.0]), binary::Unknown::Refused, Pointer::ROOT).unwrap();
    let error = flowers().check_tensors(given, Pointer::ROOT.member("inputs")).unwrap_err().remove(0);
    let detail = "height must be greater than 0 and less than 10, but element 3 is 10.0";
    assert_eq!((error.pointer.as_str(), error.detail.as_str()), ("/inputs/0", detail));
}

#[test]
fn at_most_twenty_elements_are_reported() {
    let mut model = flowers();
    model.max_batch = 1000;
    let list = one(json!([100, 2]), json!(vec![0; 200]));
    assert_eq!(check(&model, list).unwrap_err().len(), MOST_ERRORS);
}

#[test]
fn a_row_has_a_bounded_number_of_values() {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.shape, input.features, input.datatype) =
        ([Axis::Variable; 2].into_iter().collect(), Vec::new(), DataType::Uint8);
    (input.greater_than, input.less_than) = (None, None);
    let shape = vec![1, 1 << 13, 1 << 12];
    let data = vec![0; 1 << 25];
    let tensor = Tensor { name: "x".to_owned(), datatype: DataType::Uint8, shape, data };
    let error =
        model.check_tensors(vec![Given { tensor, form: Form::Raw }], Pointer::ROOT).unwrap_err().remove(0);
    assert_eq!((error.pointer.as_str(), error.code), ("/0/shape", "length"));
}

#[test]
fn raw_content_is_the_only_element_of_a_model_that_takes_bytes() {
    let mut model = flowers();
    assert!(!model.takes_raw() && model.raw_input("a/b", b"x").is_none());
    let input = &mut model.inputs[0];
    (input.datatype, input.features) = (DataType::Bytes, Vec::new());
    (input.greater_than, input.less_than) = (None, None);
    assert!(!model.takes_raw(), "it takes two elements");
    for shape in
        [Shape::default(), [Axis::Fixed(1)].into_iter().collect(), [Axis::Variable].into_iter().collect()]
    {
        let axes = shape.axes().len();
        model.inputs[0].shape = shape;
        let input = model.raw_input("a/b", b"\xff\xd8").unwrap();
        let tensor = InputTensor { shape: vec![1; axes + 1], data: b"\x02\0\0\0\xff\xd8".to_vec() };
        assert_eq!(input, JobInput { rows: 1, tensors: vec![tensor] });
        assert_eq!(model.read_stored(&model.stored(&input)), Ok(input));
    }
    model.inputs.push(model.inputs[0].clone());
    assert!(!model.takes_raw());
}

#[test]
fn names_of_outputs_are_checked() {
    let model = flowers();
    let check = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let errors = model.check_output_names(&names, Pointer::ROOT.member("outputs"));
        errors.map_err(|errors| {
            errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect::<Vec<_>>()
        })
    };
    assert_eq!((check(&[]), check(&["p"])), (Ok(()), Ok(())));
    let at = |pointer: &str, code, detail: &str| (pointer.to_owned(), code, detail.to_owned());
    assert_eq!(
        check(&["p", "q", "p"]),
        Err(vec![
            at("/outputs/1", "unknown_value", "is not an output of the model; its outputs are `p`"),
            at("/outputs/2", "repeated", "must name each output only once"),
        ])
    );
}
