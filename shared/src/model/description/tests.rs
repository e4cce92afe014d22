use serde_json::json;

use super::*;

/// A small model with bounds and labels.
pub(in crate::model) fn flowers() -> Model {
    let text = r#"
        name = "flowers"
        version = "3"
        max_batch = 4
        sample = [[1.0, 2.0]]
        [[inputs]]
        name = "x"
        datatype = "FP32"
        shape = [2]
        features = ["width", "height"]
        greater_than = 0.0
        less_than = 10.0
        [[outputs]]
        name = "p"
        datatype = "FP32"
        shape = [2]
        labels = ["rose", "tulip"]
    "#;
    Model::parse(text).unwrap()
}

#[test]
fn a_description_that_contradicts_itself_is_refused_with_the_reason() {
    let mut model = flowers();
    model.output.labels.push("daisy".to_owned());
    assert_eq!(model.check(), Err("3 labels, but the output's shape is [2]".to_owned()));
    let mut model = flowers();
    model.sample = Some(json!([[1.0]]));
    assert!(model.check().unwrap_err().starts_with("its sample is not valid input: /data/0:"));
}

#[test]
fn the_former_name_of_a_datatype_is_refused_with_the_present_one() {
    let error = Model::parse(
        "name = \"m\"\nversion = \"1\"\nmax_batch = 1\nsample = []\n\
         inputs = [{ name = \"x\", dtype = \"DT_FLOAT\", shape = [] }]\n",
    );
    let error = error.unwrap_err();
    assert!(error.contains("`dtype` is now `datatype`") && error.contains("line 5"), "{error}");
}

#[test]
fn the_former_name_of_max_batch_is_refused_with_the_present_one() {
    let text = "name = \"m\"\nversion = \"1\"\nmax_rows = 1\ninputs = []\noutputs = []\n";
    let error = Model::parse(text).unwrap_err();
    assert!(error.contains("`max_rows` is now `max_batch`") && error.contains("line 3"), "{error}");
}

#[test]
fn axes_are_lengths_or_variable() {
    let text = |shape: &str, more: &str| {
        format!(
            "name = \"m\"\nversion = \"1\"\nmax_batch = 0\n\
             inputs = [{{ name = \"x\", datatype = \"FP32\", shape = {shape}{more} }}]\n\
             outputs = [{{ name = \"y\", datatype = \"FP32\", shape = [1, 2], labels = [\"a\", \"b\"] }}]\n"
        )
    };
    let read = |shape, more| Model::parse(&text(shape, more));
    let model = read("[-1, 3]", "").unwrap();
    assert_eq!((model.check(), model.has_batch_axis()), (Ok(()), false));
    assert_eq!(model.inputs[0].shape.axes(), [Axis::Variable, Axis::Fixed(3)]);
    let error = read("[-2]", "").unwrap_err();
    assert!(error.contains("an axis is a length, or -1 for any length; -2 is neither"), "{error}");
    let named = read("[-1]", ", features = [\"a\"]").unwrap_err();
    assert_eq!(named, "input `x` has feature names, but a variable axis");
}

#[test]
fn a_call_has_no_more_rows_than_the_model_takes() {
    let mut model = flowers();
    assert_eq!((model.most_rows_of_call(256), model.most_rows_of_call(2)), (4, 2));
    model.max_batch = 0;
    assert_eq!(model.most_rows_of_call(256), 1);
}

#[test]
fn the_former_form_of_an_output_is_refused_with_the_present_one() {
    let text =
        "name = \"m\"\nversion = \"1\"\nmax_batch = 1\nsample = []\ninputs = []\n[output]\nname = \"y\"\n";
    let error = Model::parse(text).unwrap_err();
    assert!(error.contains("`[output]` is now `[[outputs]]`"), "{error}");
    let text = "name = \"m\"\nversion = \"1\"\nmax_batch = 1\nsample = []\ninputs = []\noutputs = []\n";
    assert_eq!(Model::parse(text).unwrap_err(), "it has no outputs");
}

#[test]
fn only_the_first_output_has_labels_and_each_has_its_own_name() {
    let mut model = flowers();
    model.further_outputs.push(model.output.clone());
    assert_eq!(model.check(), Err("output `p` has labels, which only the first output may have".to_owned()));
    model.further_outputs[0].labels.clear();
    assert_eq!(model.check(), Err("two outputs have the name `p`".to_owned()));
    model.further_outputs[0].name = "q".to_owned();
    assert_eq!(model.check(), Ok(()));
}

#[test]
fn bounds_and_labels_need_numbers() {
    let mut model = flowers();
    model.inputs[0].datatype = DataType::Bool;
    assert_eq!(model.check(), Err("input `x` is BOOL and can have no bounds".to_owned()));
    let mut model = flowers();
    model.output.datatype = DataType::Bytes;
    assert!(model.check().unwrap_err().starts_with("labels, but the output is BYTES"));
}

#[test]
fn nan_is_a_failure_where_there_are_labels_unless_the_description_decides() {
    let mut model = flowers();
    assert!(model.output.must_be_finite());
    model.output.finite = Some(false);
    assert!(!model.output.must_be_finite());
    (model.output.labels, model.output.finite) = (Vec::new(), None);
    assert!(!model.output.must_be_finite());
}

#[test]
fn shapes_that_no_request_can_fill_are_refused() {
    for (shape, reason) in [
        (vec![usize::MAX, 2], "a row of output `p` has more than 16777216 elements"),
        (vec![1; 300], "output `p` has 300 axes; 253 are the most"),
        (vec![2, 0], "output `p` has an axis of length 0"),
    ] {
        let mut model = flowers();
        model.inputs[0].shape = Shape::from(&shape[..]);
        assert_eq!(model.check(), Err(reason.replace("output `p`", "input `x`")));
        let mut model = flowers();
        model.output.shape = Shape::from(&shape[..]);
        assert_eq!(model.check(), Err(reason.to_owned()));
    }
}
