use serde_json::json;

use super::{
    super::{Shape, description::tests::flowers},
    *,
};

/// A model with one scalar input.
fn model(datatype: DataType, greater_than: Option<f64>, less_than: Option<f64>) -> Model {
    let mut model = flowers();
    let input = &mut model.inputs[0];
    (input.datatype, input.shape, input.features) = (datatype, Shape::default(), Vec::new());
    (input.greater_than, input.less_than) = (greater_than, less_than);
    model
}

/// Whether a value fits a schema of the keywords that are used here.
fn fits(schema: &Value, value: &Value) -> bool {
    let number = |value: &Value| value.as_f64().unwrap();
    let compare = |expected: &Value| match (expected.is_f64(), number(value)) {
        (true, value) => value.partial_cmp(&number(expected)).unwrap(),
        // As 64-bit floats, the largest integers are equal.
        (false, value_as_float) => {
            let exact = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
            let expected = expected.as_i64().map_or_else(|| expected.as_u64().unwrap().into(), i128::from);
            exact.unwrap_or(value_as_float as i128).cmp(&expected)
        }
    };
    let check = |(keyword, expected): (&String, &Value)| match keyword.as_str() {
        "anyOf" => expected.as_array().unwrap().iter().any(|schema| fits(schema, value)),
        "enum" => expected.as_array().unwrap().contains(value),
        "type" => match expected.as_str().unwrap() {
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "object" => value.is_object(),
            "number" => value.is_number(),
            "integer" => value.is_number() && number(value).fract() == 0.0,
            other => panic!("{other}"),
        },
        "minimum" => compare(expected).is_ge(),
        "exclusiveMinimum" => compare(expected).is_gt(),
        "maximum" => compare(expected).is_le(),
        "exclusiveMaximum" => compare(expected).is_lt(),
        "pattern" => regex::Regex::new(expected.as_str().unwrap()).unwrap().is_match(value.as_str().unwrap()),
        "properties" => {
            let mut members = expected.as_object().unwrap().iter();
            members.all(|(name, schema)| value.get(name).is_none_or(|value| fits(schema, value)))
        }
        "required" => {
            expected.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
        }
        "additionalProperties" => value.as_object().unwrap().keys().all(|name| name == "b64"),
        other => panic!("{other}"),
    };
    // Without the right type, the other keywords say nothing.
    let schema = schema.as_object().unwrap();
    schema.get_key_value("type").is_none_or(check) && schema.iter().all(check)
}

fn values() -> Vec<Value> {
    let ends = [8, 16, 32, 64].map(|bits| 2_f64.powi(bits)).into_iter();
    let ends = ends.flat_map(|end| [end, end / 2.0]).flat_map(|end| [end - 1.0, end, -end, -end - 1.0]);
    let overflows = [65_504.0, 65_519.9, 65_520.0, 65_536.0, 3.396_177_529_230_495_3e38, 3.396_177_6e38]
        .into_iter()
        .chain([f64::from(f32::MAX), 3.402_823_567_797_336_6e38, 3.402_823_567_797_336e38, 1e39, f64::MAX])
        .flat_map(|overflow| [overflow, -overflow]);
    let mut values: Vec<_> = ends.chain(overflows).map(Value::from).collect();
    values.extend([0.0, -0.0, 0.5, 1e-320, 5.0, 10.0, 9.99, 0.1].map(Value::from));
    values.extend([json!(u64::MAX), json!(i64::MIN), json!(i64::MAX), json!(255), json!(-1)]);
    values.extend([
        Value::Null,
        json!(true),
        json!([]),
        json!({}),
        json!({"b64": 5}),
        json!({"b64": "", "c": 1}),
    ]);
    values.extend(["NaN", "Infinity", "-Infinity", "nan", ""].map(Value::from));
    values.extend(
        ["", "/w==", "//8=", "AAAA", "AAAA/w==", "/w", "/x==", "//9=", "_w==", "/w==\n", "="]
            .map(|text| json!({"b64": text})),
    );
    values
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let bounds = [
        (None, None),
        (Some(0.25), None),
        (None, Some(10.0)),
        (Some(-1e6), Some(1e6)),
        (Some(0.0), Some(9.5)),
    ];
    for datatype in DataType::ALL {
        for (low, high) in bounds {
            let model = model(datatype, low, high);
            let schema = element(&model.inputs[0]);
            for value in values() {
                let read = model.read_data(&json!([value]));
                assert_eq!(read.is_ok(), fits(&schema, &value), "{datatype:?} {value} {schema}: {read:?}");
            }
        }
    }
}

#[test]
fn the_bounds_of_the_iris_model_are_those_of_its_type() {
    let schema = element(&model(DataType::Fp32, Some(0.0), Some(10.0)).inputs[0]);
    let expected = json!({
        "type": "number",
        "minimum": f64::from(0_f32.next_up()),
        "maximum": f64::from(10_f32.next_down()),
    });
    assert_eq!(schema, expected);
}

#[test]
fn several_inputs_are_members_of_an_object() {
    let mut model = model(DataType::Bool, None, None);
    let mut second = model.inputs[0].clone();
    (second.name, second.datatype, second.shape) = ("y".to_owned(), DataType::Uint8, [1].into());
    model.inputs.push(second);
    let integer = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let expected = json!({
        "type": "object",
        "properties": {
            "x": {"type": "boolean"},
            "y": {"type": "array", "minItems": 1, "maxItems": 1, "items": integer},
        },
        "required": ["x", "y"],
        "additionalProperties": false,
    });
    assert_eq!(model.data_schema()["items"], expected);
}

#[test]
fn a_variable_axis_takes_lists_of_any_length_but_none() {
    let mut model = model(DataType::Bool, None, None);
    model.inputs[0].shape = [Axis::Variable, Axis::Fixed(2)].into_iter().collect();
    let pair = json!({"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "boolean"}});
    let row = json!({"type": "array", "minItems": 1, "items": pair});
    assert_eq!(model.data_schema()["items"], row);
    model.max_batch = 0;
    assert_eq!(model.data_schema(), row, "without a batch axis, data is one value");
}
