use serde_json::{Value, json};

use super::{super::description::tests::flowers, *};

/// No limit.
const ANY: usize = usize::MAX;

fn tensor<T: Element>(datatype: DataType, shape: &[usize], values: &[T]) -> Tensor {
    let mut data = Vec::new();
    values.iter().for_each(|value| value.append(&mut data));
    Tensor { name: "p".to_owned(), datatype, shape: shape.to_vec(), data }
}

/// The output of a model of 32-bit floats.
fn answer(model: &Model, shape: &[usize], values: &[f32]) -> Answer {
    model.check_outputs(shape[0], vec![tensor(DataType::Fp32, shape, values)]).unwrap()
}

/// A model with an output of this type and shape and without labels.
fn plain(datatype: DataType, shape: &[usize]) -> Model {
    let mut model = flowers();
    (model.output.datatype, model.output.shape, model.output.labels) = (datatype, shape.into(), Vec::new());
    model
}

fn json_of<T: Element>(datatype: DataType, values: &[T]) -> String {
    let model = plain(datatype, &[values.len()]);
    let answer = model.check_outputs(1, vec![tensor(datatype, &[1, values.len()], values)]).unwrap();
    model.render(&answer, 0..1, ANY).unwrap().json
}

#[test]
fn one_row_reads_as_specified() {
    let rendered = flowers().render(&answer(&flowers(), &[1, 2], &[0.25, 0.75]), 0..1, ANY).unwrap();
    assert_eq!(rendered.class_name.as_deref(), Some("tulip"));
    let json: Value = serde_json::from_str(&rendered.json).unwrap();
    assert_eq!(json, json!({"prediction": 1, "class_name": "tulip", "probabilities": [0.25, 0.75]}));
}

#[test]
fn several_rows_add_a_list_and_a_job_sees_only_its_own() {
    let answer = answer(&flowers(), &[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]);
    let rendered = flowers().render(&answer, 1..3, ANY).unwrap();
    let json: Value = serde_json::from_str(&rendered.json).unwrap();
    assert_eq!(json["class_name"], "tulip");
    assert_eq!(json["predictions"][1]["class_name"], "rose");
    assert_eq!(json["predictions"].as_array().unwrap().len(), 2);
}

#[test]
fn floats_are_written_as_short_as_they_are_exact() {
    let rendered = flowers().render(&answer(&flowers(), &[1, 2], &[0.1, 0.9]), 0..1, ANY).unwrap();
    assert!(rendered.json.contains("[0.1,0.9]"), "{}", rendered.json);
}

#[test]
fn a_result_of_few_enough_rows_is_as_small_as_predicted() {
    fn sizes<T: Element>(model: &Model, row: &[T]) -> Vec<usize> {
        let rows = 40;
        let shape: Vec<_> = std::iter::once(rows).chain(model.output.shape.with_length(0)).collect();
        let tensor = tensor(model.output.datatype, &shape, &row.repeat(rows));
        let answer = model.check_outputs(rows, vec![tensor]).unwrap();
        (1..=rows).map(|rows| model.render(&answer, 0..rows, ANY).unwrap().json.len()).collect()
    }
    let long = -1.234_567_89e-6;
    let doubles = plain(DataType::Fp64, &[1, 2, 1]);
    let bools = plain(DataType::Bool, &[2]);
    for (model, sizes) in [
        (flowers(), sizes(&flowers(), &[long as f32; 2])),
        (doubles.clone(), sizes(&doubles, &[long; 2])),
        (bools.clone(), sizes(&bools, &[false; 2])),
    ] {
        for (rows, size) in (1..).zip(sizes) {
            assert!(model.rows_within(size - 1) < rows, "{size} bytes for {rows} rows");
            let is_close = rows < 5 || model.rows_within(2 * size) >= rows;
            assert!(is_close, "{rows} rows have only {size} bytes");
        }
    }
    assert_eq!(plain(DataType::Bytes, &[1]).rows_within(1 << 40), 0, "a string has any length");
}

#[test]
fn a_result_has_as_many_bytes_as_it_may_and_no_more() {
    let answer = answer(&flowers(), &[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.6, 0.4]);
    let size = flowers().render(&answer, 0..3, ANY).unwrap().json.len();
    assert!(flowers().render(&answer, 0..3, size).is_ok());
    for most in [0, 1, size / 2, size - 1] {
        assert_eq!(flowers().render(&answer, 0..3, most), Err(OutputError::TooLarge { most }));
    }
}

#[test]
fn an_output_that_does_not_fit_is_explained() {
    let error = |rows, tensor| flowers().check_outputs(rows, vec![tensor]).unwrap_err().to_string();
    let floats = |shape: &[usize], values: &[f32]| tensor(DataType::Fp32, shape, values);
    assert_eq!(
        error(2, floats(&[1, 2], &[0.5, 0.5])),
        "The model answered with shape [1, 2] instead of [2, 2] in the output `p`"
    );
    assert_eq!(
        error(1, floats(&[1, 2], &[0.5])),
        "The model answered with 1 values instead of 2 in the output `p`"
    );
    let doubles = tensor(DataType::Fp64, &[1, 2], &[0.5, 0.5]);
    assert_eq!(error(1, doubles), "The model answered with FP64 instead of FP32 in the output `p`");
    let mut incomplete = floats(&[1, 2], &[0.5, 0.5]);
    incomplete.data.pop();
    assert_eq!(error(1, incomplete), "The model answered with 1 values instead of 2 in the output `p`");
}

#[test]
fn nan_and_infinity_fail_a_job_only_where_they_must_not_be() {
    let mut model = flowers();
    let not_finite = |model: &Model| answer(model, &[2, 2], &[0.5, 0.25, f32::NAN, f32::NEG_INFINITY]);
    assert_eq!(
        model.render(&not_finite(&model), 1..2, ANY),
        Err(OutputError::NotFinite { output: "p".to_owned() })
    );
    assert!(model.render(&not_finite(&model), 0..1, ANY).is_ok(), "a job sees only its own rows");
    model.output.finite = Some(false);
    let rendered = model.render(&not_finite(&model), 1..2, ANY).unwrap();
    let expected = r#"{"prediction":1,"class_name":"tulip","probabilities":["NaN","-Infinity"]}"#;
    assert_eq!(rendered.json, expected);
    assert_eq!(json_of(DataType::Fp64, &[f64::INFINITY, 1.0]), r#"{"prediction":["Infinity",1.0]}"#);
}

#[test]
fn every_type_is_written() {
    assert_eq!(json_of(DataType::Bool, &[true, false]), r#"{"prediction":[true,false]}"#);
    assert_eq!(json_of(DataType::Uint8, &[200_u8]), r#"{"prediction":[200]}"#);
    assert_eq!(json_of(DataType::Int16, &[-200_i16]), r#"{"prediction":[-200]}"#);
    assert_eq!(json_of(DataType::Uint64, &[u64::MAX]), r#"{"prediction":[18446744073709551615]}"#);
    assert_eq!(json_of(DataType::Fp16, &[half::f16::from_f32(0.5)]), r#"{"prediction":[0.5]}"#);
    assert_eq!(json_of(DataType::Bf16, &[half::bf16::from_f32(-2.0)]), r#"{"prediction":[-2.0]}"#);
}

#[test]
fn strings_are_written_row_by_row() {
    let model = plain(DataType::Bytes, &[2]);
    let mut data = Vec::new();
    for element in [&b"a"[..], b"", b"\xff\xfe", "\u{e9}\"".as_bytes()] {
        bytes::append(&mut data, element).unwrap();
    }
    let tensor =
        Tensor { name: "p".to_owned(), datatype: DataType::Bytes, shape: vec![2, 2], data: data.clone() };
    let answer = model.check_outputs(2, vec![tensor.clone()]).unwrap();
    assert_eq!(model.render(&answer, 0..1, ANY).unwrap().json, r#"{"prediction":["a",""]}"#);
    let expected = "{\"prediction\":[{\"b64\":\"//4=\"},\"\u{e9}\\\"\"]}";
    assert_eq!(model.render(&answer, 1..2, ANY).unwrap().json, expected);
    data.pop();
    let error = model.check_outputs(2, vec![Tensor { data, ..tensor }]).unwrap_err().to_string();
    assert_eq!(error, "The model answered with 3 values instead of 4 in the output `p`");
}

#[test]
fn an_answer_without_classes_keeps_its_shape() {
    let model = plain(DataType::Fp32, &[2, 1]);
    let rendered = model.render(&answer(&model, &[1, 2, 1], &[1.5, 2.0]), 0..1, ANY).unwrap();
    assert_eq!(rendered, Rendered { json: r#"{"prediction":[[1.5],[2.0]]}"#.to_owned(), class_name: None });
    let scalar = plain(DataType::Fp32, &[]);
    let rendered = scalar.render(&answer(&scalar, &[2], &[1.5, 2.0]), 0..2, ANY).unwrap();
    let expected = r#"{"prediction":1.5,"predictions":[{"prediction":1.5},{"prediction":2.0}]}"#;
    assert_eq!(rendered.json, expected);
}

/// A model with labels and two further outputs.
fn with_three_outputs() -> Model {
    let mut model = flowers();
    let mut further = |name: &str, datatype, shape: &[usize]| {
        let mut output = model.output.clone();
        output.labels.clear();
        (output.name, output.datatype, output.shape) = (name.to_owned(), datatype, shape.into());
        model.further_outputs.push(output);
    };
    further("label", DataType::Int64, &[]);
    further("box", DataType::Fp32, &[2, 1]);
    model
}

fn three_outputs() -> Vec<Tensor> {
    vec![
        tensor(DataType::Fp32, &[2, 2], &[0.25_f32, 0.75, 0.5, 0.5]),
        tensor(DataType::Int64, &[2], &[7_i64, 8]),
        tensor(DataType::Fp32, &[2, 2, 1], &[1.0_f32, 2.0, 3.0, f32::INFINITY]),
    ]
}

#[test]
fn several_outputs_are_listed_beside_the_prediction() {
    let model = with_three_outputs();
    let answer = model.check_outputs(2, three_outputs()).unwrap();
    let rendered = model.render(&answer, 1..2, ANY).unwrap();
    let json: Value = serde_json::from_str(&rendered.json).unwrap();
    let expected = json!({
        "prediction": 0,
        "class_name": "rose",
        "probabilities": [0.5, 0.5],
        "outputs": [
            {"name": "p", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]},
            {"name": "label", "shape": [1], "datatype": "INT64", "data": [8]},
            {"name": "box", "shape": [1, 2, 1], "datatype": "FP32", "data": [3.0, "Infinity"]},
        ],
    });
    assert_eq!(json, expected);
    let both: Value = serde_json::from_str(&model.render(&answer, 0..2, ANY).unwrap().json).unwrap();
    assert_eq!(
        (&both["outputs"][1]["data"], &both["outputs"][2]["shape"]),
        (&json!([7, 8]), &json!([2, 2, 1]))
    );
    assert_eq!(both["predictions"].as_array().unwrap().len(), 2);
    for rows in 1..=2 {
        let size = model.render(&answer, 0..rows, ANY).unwrap().json.len();
        assert!(model.rows_within(size - 1) < rows, "{size} bytes for {rows} rows");
    }
}

#[test]
fn a_wrong_or_missing_output_is_named() {
    let model = with_three_outputs();
    let mut outputs = three_outputs();
    outputs[1].shape = vec![2, 1];
    let error = model.check_outputs(2, outputs).unwrap_err().to_string();
    assert_eq!(error, "The model answered with shape [2, 1] instead of [2] in the output `label`");
    let error = model.check_outputs(2, three_outputs()[..2].to_vec()).unwrap_err().to_string();
    assert_eq!(error, "The model answered without the output `box`");
    let mut model = model;
    model.further_outputs[1].finite = Some(true);
    let answer = model.check_outputs(2, three_outputs()).unwrap();
    assert!(model.render(&answer, 0..1, ANY).is_ok());
    assert_eq!(model.render(&answer, 1..2, ANY), Err(OutputError::NotFinite { output: "box".to_owned() }));
}

#[test]
fn a_variable_axis_of_an_output_has_the_length_of_the_answer() {
    let mut model = plain(DataType::Fp32, &[]);
    model.output.shape = [Axis::Variable, Axis::Fixed(2)].into_iter().collect();
    let render = |shape: &[usize], rows: Range<usize>| {
        let values: Vec<_> = (0..shape.iter().product()).map(|value: usize| value as f32).collect();
        model.render(&answer(&model, shape, &values), rows, ANY).unwrap().json
    };
    assert_eq!(render(&[2, 1, 2], 1..2), r#"{"prediction":[[2.0,3.0]]}"#);
    assert_eq!(render(&[1, 2, 2], 0..1), r#"{"prediction":[[0.0,1.0],[2.0,3.0]]}"#);
    assert_eq!(render(&[2, 0, 2], 0..1), r#"{"prediction":[]}"#, "nothing found is an answer");
    assert_eq!(model.rows_within(1 << 40), 0, "a result has any length");

    let error = |shape: &[usize]| {
        let values = vec![0.0_f32; shape.iter().product()];
        model.check_outputs(1, vec![tensor(DataType::Fp32, shape, &values)]).unwrap_err().to_string()
    };
    for shape in [&[1, 5, 3][..], &[1, 5], &[2, 5, 2], &[]] {
        let expected =
            format!("The model answered with shape {shape:?} instead of [1, -1, 2] in the output `p`");
        assert_eq!(error(shape), expected);
    }
}

#[test]
fn strings_have_a_variable_axis_too() {
    let mut model = plain(DataType::Bytes, &[]);
    model.output.shape = [Axis::Variable].into_iter().collect();
    let strings = |shape: &[usize]| {
        let mut data = Vec::new();
        (0..shape.iter().product()).for_each(|_: usize| bytes::append(&mut data, b"a").unwrap());
        Tensor { name: "p".to_owned(), datatype: DataType::Bytes, shape: shape.to_vec(), data }
    };
    let render = |shape| {
        let answer = model.check_outputs(2, vec![strings(shape)]).unwrap();
        model.render(&answer, 1..2, ANY).unwrap().json
    };
    assert_eq!(render(&[2, 3]), r#"{"prediction":["a","a","a"]}"#);
    assert_eq!(render(&[2, 0]), r#"{"prediction":[]}"#);
}

#[test]
fn the_outputs_of_a_model_without_a_batch_axis_are_whole() {
    let mut model = with_three_outputs();
    model.max_batch = 0;
    let outputs = vec![
        tensor(DataType::Fp32, &[2], &[0.25_f32, 0.75]),
        tensor(DataType::Int64, &[], &[7_i64]),
        tensor(DataType::Fp32, &[2, 1], &[1.0_f32, 2.0]),
    ];
    let answer = model.check_outputs(1, outputs).unwrap();
    let json: Value = serde_json::from_str(&model.render(&answer, 0..1, ANY).unwrap().json).unwrap();
    let expected = json!({
        "prediction": 1,
        "class_name": "tulip",
        "probabilities": [0.25, 0.75],
        "outputs": [
            {"name": "p", "shape": [2], "datatype": "FP32", "data": [0.25, 0.75]},
            {"name": "label", "shape": [], "datatype": "INT64", "data": [7]},
            {"name": "box", "shape": [2, 1], "datatype": "FP32", "data": [1.0, 2.0]},
        ],
    });
    assert_eq!(json, expected);
    let error = model.check_outputs(1, three_outputs()).unwrap_err().to_string();
    assert_eq!(error, "The model answered with shape [2, 2] instead of [2] in the output `p`");
}

#[test]
fn probabilities_are_flat_behind_axes_of_length_1() {
    let mut model = flowers();
    (model.max_batch, model.output.shape) = (0, [1, 2].into());
    let answer = model.check_outputs(1, vec![tensor(DataType::Fp32, &[1, 2], &[0.25_f32, 0.75])]).unwrap();
    let expected = r#"{"prediction":1,"class_name":"tulip","probabilities":[0.25,0.75]}"#;
    assert_eq!(model.render(&answer, 0..1, ANY).unwrap().json, expected);
}
