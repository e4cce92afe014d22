use serde_json::{Value, json};

use super::{
    super::{Axis, InputTensor, Shape, description::tests::flowers},
    *,
};
use crate::tensor::{DataType, Element as _, MOST_ERRORS};

fn floats(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

fn errors(data: Value) -> Vec<(String, String)> {
    let errors = flowers().read_data(&data).unwrap_err();
    errors.into_iter().map(|error| (error.pointer, error.detail)).collect()
}

fn error(data: Value) -> (String, String) {
    errors(data).remove(0)
}

fn at(pointer: &str, detail: &str) -> (String, String) {
    (pointer.to_owned(), detail.to_owned())
}

#[test]
fn rows_are_read_in_order() {
    let rows = flowers().read_data(&json!([[1, 2.5], [3, 4]])).unwrap();
    let tensor = InputTensor { shape: vec![2, 2], data: floats(&[1.0, 2.5, 3.0, 4.0]) };
    assert_eq!(rows, JobInput { rows: 2, tensors: vec![tensor] });
}

#[test]
fn each_kind_of_wrong_input_is_reported_with_its_place() {
    assert_eq!(error(json!("x")), at("/data", "must be a list of rows, not a string"));
    assert_eq!(error(json!([])), at("/data", "must hold 1 to 4 rows, but is empty"));
    assert_eq!(
        error(json!([[1, 1], [1, 1], [1, 1], [1, 1], [1, 1]])),
        at("/data", "must hold 1 to 4 rows, not 5")
    );
    assert_eq!(error(json!([[1, 2, 3]])), at("/data/0", "must hold exactly 2 values, not 3"));
    assert_eq!(error(json!([[1, 2], 5])), at("/data/1", "must be a list of 2 values, not a number"));
    assert_eq!(error(json!([[1, null]])), at("/data/0/1", "height must be a number, not null"));
    assert_eq!(
        error(json!([[1, 10.0]])),
        at("/data/0/1", "height must be greater than 0 and less than 10, but is 10.0")
    );
    assert_eq!(error(json!([[1e39, 1]])).0, "/data/0/0");
}

#[test]
fn bounds_are_checked_after_the_cast() {
    assert_eq!(error(json!([[1, 9.999_999_999_9]])).0, "/data/0/1");
}

#[test]
fn all_wrong_elements_are_reported_at_once_up_to_a_limit() {
    assert_eq!(errors(json!([[0, -1], [1, "a"]])).len(), 3);
    let mut model = flowers();
    model.max_batch = 100;
    let errors = model.read_data(&json!(vec![json!([0, 0]); 100])).unwrap_err();
    assert_eq!(errors.len(), MOST_ERRORS);
}

/// A model with a second input, of one integer.
fn with_two_inputs() -> Model {
    let mut model = flowers();
    let mut second = model.inputs[0].clone();
    (second.name, second.shape, second.datatype) = ("y/z".to_owned(), Shape::default(), DataType::Int64);
    (second.features, second.greater_than, second.less_than) = (Vec::new(), None, None);
    model.inputs.push(second);
    model
}

#[test]
fn a_row_names_the_values_of_several_inputs() {
    let data = json!([{"x": [1, 2], "y/z": 70_000_000_000_i64}, {"y/z": 6, "x": [3, 4]}]);
    let rows = with_two_inputs().read_data(&data).unwrap();
    assert_eq!(rows.tensors[0].data, floats(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(i64::all(&rows.tensors[1].data).collect::<Vec<_>>(), [70_000_000_000, 6]);
}

#[test]
fn each_wrong_input_of_a_row_is_reported_with_its_name() {
    let errors = |row: Value| -> Vec<_> {
        let errors = with_two_inputs().read_data(&json!([row])).unwrap_err();
        errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect()
    };
    let at = |pointer: &str, code, detail: &str| (pointer.to_owned(), code, detail.to_owned());
    let form = r#"must be an object {"x": ..., "y/z": ...}, not a list"#;
    assert_eq!(errors(json!([1, 2, 3])), [at("/data/0", "type", form)]);
    assert_eq!(
        errors(json!({"x": [1, "2"], "~": 1})),
        [
            at("/data/0/x/1", "type", "height must be a number, not a string"),
            at("/data/0/y~1z", "missing", "is missing"),
            at("/data/0/~0", "unknown_field", "is not an input of the model; its inputs are `x`, `y/z`"),
        ]
    );
    assert_eq!(errors(json!({"x": [1, 2], "y/z": 0.5}))[0].0, "/data/0/y~1z");
}

#[test]
fn nested_rows_follow_the_shape() {
    let mut model = flowers();
    model.inputs[0].shape = [1, 2].into();
    let rows = model.read_data(&json!([[[1, 2]]])).unwrap();
    assert_eq!((&rows.tensors[0].shape[..], &rows.tensors[0].data), (&[1, 1, 2][..], &floats(&[1.0, 2.0])));
    assert_eq!(model.read_data(&json!([[[1, 0]]])).unwrap_err()[0].pointer, "/data/0/0/1");
}

#[test]
fn jobs_are_concatenated_along_the_batch_axis() {
    let model = flowers();
    let jobs = [json!([[1, 2]]), json!([[3, 4], [5, 6]])].map(|data| model.read_data(&data).unwrap());
    let batch = model.concatenate(jobs.iter());
    assert_eq!(batch.rows, 3);
    assert_eq!(batch.inputs[0].shape, [3, 2]);
    assert_eq!(batch.inputs[0].data, floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
}

/// The only element of a model with one scalar input, as its bytes.
fn element_of(datatype: DataType, value: Value) -> Result<Vec<u8>, (&'static str, String)> {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.datatype, input.shape, input.features) = (datatype, Shape::default(), Vec::new());
    (input.greater_than, input.less_than) = (None, None);
    let read = model.read_data(&json!([value]));
    read.map(|mut rows| rows.tensors.remove(0).data).map_err(|mut errors| {
        let InputError { pointer, detail, code } = errors.remove(0);
        assert_eq!(pointer, "/data/0");
        (code, detail)
    })
}

fn refused(code: &'static str, detail: &str) -> Result<Vec<u8>, (&'static str, String)> {
    Err((code, detail.to_owned()))
}

#[test]
fn integers_are_checked_against_the_range_of_their_type() {
    assert_eq!(element_of(DataType::Uint8, json!(255)), Ok(vec![255]));
    assert_eq!(element_of(DataType::Int8, json!(-128)), Ok(vec![128]));
    assert_eq!(element_of(DataType::Uint16, json!(258)), Ok(vec![2, 1]));
    assert_eq!(element_of(DataType::Int64, json!(5.0)), Ok(5_i64.to_le_bytes().to_vec()));
    assert_eq!(element_of(DataType::Int64, json!(i64::MIN)), Ok(i64::MIN.to_le_bytes().to_vec()));
    assert_eq!(element_of(DataType::Uint64, json!(u64::MAX)), Ok(vec![255; 8]));
    for (datatype, value, detail) in [
        (DataType::Uint8, json!(300), "must be an integer from 0 to 255, and 300 is none"),
        (DataType::Uint32, json!(-1), "must be an integer from 0 to 4294967295, and -1 is none"),
        (
            DataType::Int64,
            json!(1.5),
            "must be an integer from -9223372036854775808 to 9223372036854775807, and 1.5 is none",
        ),
        (DataType::Int16, json!(1e300), "must be an integer from -32768 to 32767, and 1e+300 is none"),
    ] {
        assert_eq!(element_of(datatype, value), refused("not_representable", detail));
    }
    assert_eq!(element_of(DataType::Int8, json!("1")), refused("type", "must be a number, not a string"));
    assert_eq!(element_of(DataType::Int8, json!(true)), refused("type", "must be a number, not a boolean"));
}

#[test]
fn floats_may_be_infinite_or_nan_by_name_only() {
    assert_eq!(element_of(DataType::Fp16, json!(1.5)), Ok(half::f16::from_f32(1.5).to_le_bytes().to_vec()));
    assert_eq!(element_of(DataType::Bf16, json!(1.5)), Ok(half::bf16::from_f32(1.5).to_le_bytes().to_vec()));
    assert_eq!(element_of(DataType::Fp64, json!("-Infinity")), Ok(f64::NEG_INFINITY.to_le_bytes().to_vec()));
    assert_eq!(element_of(DataType::Fp32, json!("Infinity")), Ok(f32::INFINITY.to_le_bytes().to_vec()));
    let nan = element_of(DataType::Fp32, json!("NaN")).unwrap();
    assert!(f32::all(&nan).all(f32::is_nan));
    let detail = "must be a finite 16-bit float, and 70000 is none";
    assert_eq!(element_of(DataType::Fp16, json!(70_000)), refused("not_representable", detail));
    assert_eq!(element_of(DataType::Fp32, json!("nan")), refused("type", "must be a number, not a string"));
}

#[test]
fn all_digits_of_a_number_count() {
    // A reader that is off by one in the last place changes them.
    for (text, number) in [
        ("1.8138734630502207", 1.813_873_463_050_220_7_f64),
        ("9.007199254740993", 9.007_199_254_740_993),
        ("0.30000000000000004", 0.300_000_000_000_000_04),
    ] {
        let value = serde_json::from_str(text).unwrap();
        assert_eq!(element_of(DataType::Fp64, value), Ok(number.to_le_bytes().to_vec()), "{text}");
    }
}

#[test]
fn a_bound_refuses_nan() {
    let detail = "height must be greater than 0 and less than 10, but is NaN";
    assert_eq!(error(json!([[1, "NaN"]])), at("/data/0/1", detail));
    assert_eq!(error(json!([["Infinity", 1]])).0, "/data/0/0");
}

#[test]
fn booleans_are_true_or_false() {
    assert_eq!(element_of(DataType::Bool, json!(true)), Ok(vec![1]));
    assert_eq!(element_of(DataType::Bool, json!(1)), refused("type", "must be true or false, not a number"));
}

#[test]
fn bytes_are_text_or_base64() {
    assert_eq!(element_of(DataType::Bytes, json!("\u{e9}")), Ok(b"\x02\0\0\0\xc3\xa9".to_vec()));
    assert_eq!(element_of(DataType::Bytes, json!({"b64": "//4="})), Ok(b"\x02\0\0\0\xff\xfe".to_vec()));
    let (code, detail) = element_of(DataType::Bytes, json!({"b64": "//4"})).unwrap_err();
    assert_eq!(code, "invalid_base64");
    assert!(detail.starts_with("must be base64 with padding (RFC 4648, section 4): "), "{detail}");
    let object = r#"must be a string or {"b64": "..."}, not another object"#;
    assert_eq!(element_of(DataType::Bytes, json!({"b": ""})), refused("type", object));
    let number = r#"must be a string or {"b64": "..."}, not a number"#;
    assert_eq!(element_of(DataType::Bytes, json!(5)), refused("type", number));
}

/// A model of lists of pairs: the number of pairs varies from job to job.
fn with_a_variable_axis() -> Model {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.shape, input.features) = ([Axis::Variable, Axis::Fixed(2)].into_iter().collect(), Vec::new());
    (input.greater_than, input.less_than) = (None, None);
    model
}

#[test]
fn all_rows_of_a_job_agree_on_a_variable_axis() {
    let model = with_a_variable_axis();
    for pairs in [1, 3] {
        let data = json!(vec![vec![[1, 2]; pairs]; 2]);
        assert_eq!(model.read_data(&data).unwrap().tensors[0].shape, [2, pairs, 2]);
    }
    let errors = |data: Value| {
        let errors = model.read_data(&data).unwrap_err();
        errors.into_iter().map(|error| (error.pointer, error.code, error.detail)).collect::<Vec<_>>()
    };
    let at = |pointer: &str, code, detail: &str| (pointer.to_owned(), code, detail.to_owned());
    assert_eq!(
        errors(json!([[[1, 2], [3, 4]], [[5, 6]], [[7, 8], [9, 0]]])),
        [at("/data/1", "length", "must hold 2 values like the first list of its axis, not 1")]
    );
    assert_eq!(
        errors(json!([[[1, 2], [3]]])),
        [at("/data/0/1", "length", "must hold exactly 2 values, not 1")]
    );
    assert_eq!(errors(json!([[]])), [at("/data/0", "empty", "must hold at least 1 value, but is empty")]);
    assert_eq!(errors(json!([7])), [at("/data/0", "type", "must be a list of values, not a number")]);
    assert_eq!(
        errors(json!([[1, 2]])),
        [
            at("/data/0/0", "type", "must be a list of 2 values, not a number"),
            at("/data/0/1", "type", "must be a list of 2 values, not a number"),
        ]
    );
    assert_eq!(
        errors(json!([[[[1], 2]]])),
        [at("/data/0/0/0", "type", "must be a number, not a list")],
        "an axis too many"
    );
}

#[test]
fn ragged_lists_are_refused_at_the_first_list_that_differs() {
    let mut model = with_a_variable_axis();
    model.inputs[0].shape = [Axis::Variable; 2].into_iter().collect();
    assert_eq!(model.read_data(&json!([[[1, 2, 3], [4, 5, 6]]])).unwrap().tensors[0].shape, [1, 2, 3]);
    let errors = model.read_data(&json!([[[1, 2, 3], [4, 5]]])).unwrap_err();
    let detail = "must hold 3 values like the first list of its axis, not 2";
    assert_eq!((errors[0].pointer.as_str(), errors[0].detail.as_str()), ("/data/0/1", detail));
}

#[test]
fn each_input_has_variable_axes_of_its_own() {
    let mut model = with_a_variable_axis();
    let mut second = model.inputs[0].clone();
    (second.name, second.shape) = ("y".to_owned(), [Axis::Variable].into_iter().collect());
    model.inputs.push(second);
    let read = model.read_data(&json!([{"x": [[1, 2]], "y": [1, 2, 3]}, {"x": [[3, 4]], "y": [4, 5, 6]}]));
    let shapes: Vec<_> = read.unwrap().tensors.into_iter().map(|tensor| tensor.shape).collect();
    assert_eq!(shapes, [vec![2, 1, 2], vec![2, 3]]);
}

#[test]
fn data_of_a_model_without_a_batch_axis_is_one_value() {
    let mut model = with_a_variable_axis();
    model.max_batch = 0;
    let read = model.read_data(&json!([[1, 2], [3, 4], [5, 6]])).unwrap();
    assert_eq!((read.rows, &read.tensors[0].shape[..]), (1, &[3, 2][..]));
    assert_eq!(model.read_data(&json!([[1, 2], [3]])).unwrap_err()[0].pointer, "/data/1");
    assert_eq!(model.read_data(&json!([])).unwrap_err()[0].code, "empty");

    model.inputs[0].shape = Shape::default();
    let read = model.read_data(&json!(7)).unwrap();
    assert_eq!(
        read,
        JobInput { rows: 1, tensors: vec![InputTensor { shape: vec![], data: floats(&[7.0]) }] }
    );
    let error = model.read_data(&json!([7])).unwrap_err().remove(0);
    assert_eq!((error.pointer.as_str(), error.detail.as_str()), ("/data", "must be a number, not a list"));

    let mut two = with_two_inputs();
    two.max_batch = 0;
    let read = two.read_data(&json!({"x": [1, 2], "y/z": 5})).unwrap();
    assert_eq!(read.tensors.iter().map(|tensor| tensor.shape.clone()).collect::<Vec<_>>(), [vec![2], vec![]]);
    assert_eq!(two.read_data(&json!({"x": [1, 2]})).unwrap_err()[0].pointer, "/data/y~1z");
}

#[test]
fn jobs_are_alike_if_all_axes_but_the_first_are_equal() {
    let model = with_a_variable_axis();
    let read = |data| model.read_data(&data).unwrap();
    let (one, two, long) =
        (read(json!([[[1, 2]]])), read(json!([[[3, 4]], [[5, 6]]])), read(json!([[[1, 2], [3, 4]]])));
    assert!(one.is_alike(&two) && !one.is_alike(&long));
    let batch = model.concatenate([&one, &two].into_iter());
    assert_eq!((batch.rows, &batch.inputs[0].shape[..]), (3, &[3, 1, 2][..]));
}
