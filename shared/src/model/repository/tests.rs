mod served;
mod versions;

use std::{collections::BTreeSet, error::Error};

use serde_json::json;

use super::{
    super::{
        Axis, Shape,
        onnx_file::tests::{FLOAT, INT64, STRING, file, other_output, untyped_output},
    },
    *,
};
use crate::tensor::DataType;

const ROWS: i64 = -1;

/// A folder with models.
struct Models(tempfile::TempDir);

impl Models {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file of the model `m`.
    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, String> {
        Repository::new(self.0.path()).load("m").map_err(|error| self.text(&error))
    }

    fn model(&self) -> Model {
        self.load().unwrap().model
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err()
    }

    /// The error with its causes.
    fn text(&self, error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text.replace(&self.0.path().display().to_string(), "models")
    }
}

/// Words of several inputs of one length: ids `[N, S]`, mask `[N, S]` -> embedding `[N, S, 4]`, score `[N]`.
fn encoder() -> Vec<u8> {
    file(
        &[("ids", INT64, Some(&[ROWS, -1])), ("mask", INT64, Some(&[ROWS, -1]))],
        &[("embedding", FLOAT, Some(&[ROWS, -1, 4])), ("score", FLOAT, Some(&[ROWS]))],
    )
}

fn described(description: &str) -> Models {
    Models::new().with("m/model.onnx", encoder()).with("m/model.toml", description)
}

fn shape(axes: &[i64]) -> Shape {
    let axis = |length: &i64| usize::try_from(*length).map_or(Axis::Variable, Axis::Fixed);
    axes.iter().map(axis).collect()
}

#[test]
fn a_folder_with_only_an_onnx_file_is_a_model() {
    let models = Models::new().with("m/model.onnx", encoder());
    let model = models.model();
    assert_eq!((model.name.as_str(), model.version.as_str()), ("m", "1"));
    assert_eq!(model.onnx_file, Some(models.0.path().join("m/model.onnx")));
    assert_eq!(model.max_batch, 1024);
    let inputs: Vec<_> =
        model.inputs.iter().map(|input| (input.name.as_str(), input.datatype, input.shape.clone())).collect();
    let ids = |name| (name, DataType::Int64, shape(&[-1]));
    assert_eq!(inputs, [ids("ids"), ids("mask")]);
    let outputs: Vec<_> =
        model.outputs().map(|output| (output.name.as_str(), output.datatype, output.shape.clone())).collect();
    let expected = [("embedding", DataType::Fp32, shape(&[-1, 4])), ("score", DataType::Fp32, shape(&[]))];
    assert_eq!(outputs, expected);
    assert_eq!(model.sample_input().unwrap().tensors[0].shape, [1, 32]);
}

#[test]
fn only_an_axis_that_is_variable_everywhere_is_that_of_the_batch() {
    let rows = (&[ROWS, 3][..], 1024, &[3][..]);
    let fixed = (&[1, 3][..], 0, &[1, 3][..]);
    for (axes, max_batch, expected) in [rows, fixed] {
        let onnx = file(&[("x", FLOAT, Some(axes))], &[("y", FLOAT, Some(&[ROWS]))]);
        let model = Models::new().with("m/model.onnx", onnx).model();
        assert_eq!((model.max_batch, &model.inputs[0].shape), (max_batch, &shape(expected)));
    }
    // A scalar, and an output whose first axis is fixed.
    for output in [&[][..], &[2, -1]] {
        let onnx = file(&[("x", FLOAT, Some(&[ROWS, 3]))], &[("y", FLOAT, Some(output))]);
        let model = Models::new().with("m/model.onnx", onnx).model();
        assert_eq!((model.max_batch, &model.output.shape), (0, &shape(output)));
        assert_eq!(model.inputs[0].shape, shape(&[-1, 3]));
    }
}

#[test]
fn a_description_adds_what_the_file_lacks() {
    let models = described(
        r#"
        version = "7"
        max_batch = 8
        sample = [{ ids = [1, 2], mask = [1, 1] }]
        [[inputs]]
        name = "ids"
        greater_than = 0.0
        [[inputs]]
        name = "mask"
        shape = [2]
        features = ["first", "second"]
        [[outputs]]
        name = "score"
        finite = true
        "#,
    );
    let model = models.model();
    assert_eq!((model.version.as_str(), model.max_batch), ("7", 8));
    assert_eq!(model.sample, Some(json!([{"ids": [1, 2], "mask": [1, 1]}])));
    assert_eq!((model.inputs[0].greater_than, &model.inputs[0].shape), (Some(0.0), &shape(&[-1])));
    assert_eq!(model.inputs[1].shape, shape(&[2]), "a variable axis may be fixed");
    assert_eq!(model.inputs[1].features, ["first", "second"]);
    // Only the listed output is asked for.
    let outputs: Vec<_> = model.outputs().map(|output| (output.name.as_str(), output.finite)).collect();
    assert_eq!(outputs, [("score", Some(true))]);
}

#[test]
fn a_description_that_contradicts_the_file_is_refused_with_both_sides() {
    let inconsistent =
        |reason: &str| format!("the model description models/m/model.toml is inconsistent: {reason}");
    for (description, reason) in [
        ("name = \"other\"", "its name is `other`, but its folder's is `m`"),
        (
            "[[inputs]]\nname = \"x\"",
            "it has the input `x`, but the inputs of the ONNX file are `ids`, `mask`",
        ),
        (
            "[[outputs]]\nname = \"y\"",
            "it has the output `y`, but the outputs of the ONNX file are `embedding`, `score`",
        ),
        (
            "[[inputs]]\nname = \"ids\"\ndatatype = \"INT32\"",
            "input `ids` is INT32 in model.toml, but INT64 in the ONNX file",
        ),
        (
            "[[outputs]]\nname = \"embedding\"\nshape = [-1, 5]",
            "output `embedding` has the shape [-1, 5] in model.toml, but [-1, 4] without the batch axis in the ONNX \
             file",
        ),
        (
            "[[outputs]]\nname = \"embedding\"\nshape = [-1, -1]",
            "output `embedding` has the shape [-1, -1] in model.toml, but [-1, 4] without the batch axis in the ONNX \
             file",
        ),
        (
            "max_batch = 0\n[[inputs]]\nname = \"ids\"\nshape = [-1]",
            "input `ids` has the shape [-1] in model.toml, but [-1, -1] in the ONNX file",
        ),
    ] {
        assert_eq!(described(description).refusal(), inconsistent(reason), "{description}");
    }
    let fixed = file(&[("x", FLOAT, Some(&[1, 3]))], &[("y", FLOAT, Some(&[1]))]);
    let models = Models::new().with("m/model.onnx", fixed).with("m/model.toml", "max_batch = 4");
    let expected = "max_batch is 4, but input `x` has no batch axis in the ONNX file, its shape is [1, 3]: set max_batch \
                    to 0";
    assert_eq!(models.refusal(), inconsistent(expected));
}

#[test]
fn a_shape_that_the_file_does_not_say_must_be_written() {
    let onnx = file(&[("x", FLOAT, Some(&[ROWS, 3]))], &[("y", FLOAT, None)]);
    let models = Models::new().with("m/model.onnx", onnx);
    let expected = "the model models/m/model.onnx cannot be served: the ONNX file does not say the shape of output `y`: \
                    add its shape to model.toml";
    assert_eq!(models.refusal(), expected);
    let models = models.with("m/model.toml", "max_batch = 4\n[[outputs]]\nname = \"y\"\nshape = [2]");
    assert_eq!(models.model().output.shape, shape(&[2]));
    let models = Models::new().with("m/model.onnx", untyped_output("y"));
    let expected = "the model models/m/model.onnx cannot be served: the ONNX file does not say the type of output `y`: add \
                    its datatype to model.toml";
    assert_eq!(models.refusal(), expected);
    let output = "[[outputs]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = [2]";
    let model = models.with("m/model.toml", output).model();
    assert_eq!((model.output.datatype, &model.output.shape), (DataType::Fp32, &shape(&[2])));
}

#[test]
fn an_output_that_is_no_tensor_is_refused_with_the_remedy() {
    let onnx = other_output(&[("x", FLOAT, Some(&[ROWS, 3]))], &[("label", STRING, Some(&[ROWS]))]);
    let models = Models::new().with("m/model.onnx", onnx);
    let expected = "the model models/m/model.onnx cannot be served: output `other` is a sequence (each element is a map \
                    from INT64 to FP32) in the ONNX file, not a tensor: export the model with zipmap=False (of skl2onnx \
                    or onnxmltools), or add its datatype and shape to model.toml and run the model with onnxruntime, or \
                    list only other outputs there";
    assert_eq!(models.refusal(), expected);
    let whole =
        "[[outputs]]\nname = \"other\"\ndatatype = \"FP32\"\nshape = [2]\n[[outputs]]\nname = \"label\"";
    let models = models.with("m/model.toml", whole);
    assert_eq!((models.model().max_batch, &models.model().output.shape), (1024, &shape(&[2])));
    let models = models.with("m/model.toml", "[[outputs]]\nname = \"label\"");
    let model = models.model();
    assert_eq!((model.max_batch, model.output.datatype), (1024, DataType::Bytes));
    // A type that Tepal has not: COMPLEX64.
    let onnx = file(&[("x", 14, Some(&[ROWS]))], &[("y", 14, Some(&[ROWS]))]);
    let models = Models::new().with("m/model.onnx", onnx);
    let expected = "the model models/m/model.onnx cannot be served: input `x` is a tensor of COMPLEX64 in the ONNX file, \
                    which Tepal cannot pass on: export the model with inputs of other types";
    assert_eq!(models.refusal(), expected);
    let onnx = file(&[("x", FLOAT, Some(&[ROWS]))], &[("y", 14, Some(&[ROWS]))]);
    let models = Models::new().with("m/model.onnx", onnx);
    assert!(models.refusal().ends_with("cannot pass on: list only other outputs in model.toml"));
}

#[test]
fn without_an_onnx_file_the_description_must_say_everything() {
    let whole = [
        "max_batch = 2\n",
        "[[inputs]]\nname = \"x\"\n",
        "datatype = \"FP32\"\n",
        "shape = [2]\n",
        "[[outputs]]\nname = \"y\"\ndatatype = \"FP32\"\nshape = []\n",
    ];
    let model = Models::new().with("m/model.toml", whole.concat()).model();
    assert_eq!((model.version.as_str(), model.onnx_file), ("1", None));
    for (left_out, what) in
        [(0, "`max_batch`"), (2, "the datatype of input `x`"), (3, "the shape of input `x`")]
    {
        let mut parts = whole;
        parts[left_out] = "";
        let expected = format!(
            "the model description models/m/model.toml is inconsistent: it must have {what}, since neither an ONNX \
             file nor a model server says that"
        );
        assert_eq!(Models::new().with("m/model.toml", parts.concat()).refusal(), expected);
    }
}

#[test]
fn a_folder_that_holds_no_model_is_reported() {
    let models = Models::new().with("iris/model.onnx", encoder()).with("n/readme", "");
    assert_eq!(models.refusal(), "MODELS_DIR `models` has no folder `m`, but `iris`, `n`");
    let models = Models::new().with("m/notes.txt", "");
    let expected = "the folder models/m has no model: it needs a model.onnx, a number folder with one for each version, or \
                    a model.toml";
    assert_eq!(models.refusal(), expected);
    let error = Repository::new(models.0.path()).load("../m").unwrap_err();
    let expected = "`../m` is not a model name: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit";
    assert_eq!(error.to_string(), expected);
    let error = Repository::new("nowhere").load("m").unwrap_err();
    assert_eq!(error.to_string(), "cannot read the folder of the models, MODELS_DIR `nowhere`");
}

#[test]
fn a_damaged_or_half_copied_file_is_reported_as_such() {
    let models = Models::new().with("m/model.onnx", &encoder()[..60]);
    assert!(models.refusal().starts_with("the ONNX file models/m/model.onnx is incomplete: it has 60 bytes"));
    let models = Models::new().with("m/1/model.onnx", "<html>");
    let expected = "models/m/1/model.onnx is damaged or no ONNX file: byte 0 begins no field of an ONNX file";
    assert_eq!(models.refusal(), expected);
    let models = Models::new().with("m/model.toml", "onnx_file = \"gone.onnx\"");
    assert!(models.refusal().starts_with("cannot read the ONNX file models/m/gone.onnx: No such file"));
    let models = Models::new().with("m/model.toml", "inputs = 3");
    assert!(
        models
            .refusal()
            .starts_with("the model description models/m/model.toml is malformed: TOML parse error")
    );
}

#[test]
fn two_folders_that_claim_one_name_are_refused() {
    let models = described("name = \"other\"").with("other/model.onnx", encoder());
    let expected =
        "the folders `m` and `other` both claim the model name `other`: change `name` in models/m/model.toml";
    assert_eq!(models.refusal(), expected);
}

#[test]
fn a_sample_may_be_a_file() {
    let sample = json!([{"ids": [1, 2], "mask": [1, 0]}]);
    let models = described("sample_file = \"sample.json\"").with("m/sample.json", sample.to_string());
    assert_eq!(models.model().sample, Some(sample));
    let models = models.with("m/sample.json", "[");
    assert!(models.refusal().starts_with("the sample models/m/sample.json is no JSON: EOF"));
    let models = described("sample_file = \"gone.json\"");
    assert!(models.refusal().starts_with("cannot read models/m/gone.json: No such file"));
    let models = described("sample_file = \"a\"\nsample = []");
    assert!(models.refusal().contains("it has both `sample` and `sample_file`"), "{}", models.refusal());
    let models = described("sample_file = \"sample.json\"").with("m/sample.json", "[[1]]");
    assert!(models.refusal().contains("its sample is not valid input: /data/0"), "{}", models.refusal());
}

#[test]
fn without_a_name_iris_is_served_or_the_only_model() {
    let models = |names: &[&str]| {
        names.iter().fold(Models::new(), |models, name| models.with(&format!("{name}/model.onnx"), "x"))
    };
    let default = |names: &[&str]| {
        let models = models(names);
        Repository::new(models.0.path()).default_model().map_err(|error| models.text(&error))
    };
    assert_eq!(default(&["a", "iris", "z"]), Ok("iris".to_owned()));
    assert_eq!(default(&["a", ".hidden", "lost+found"]), Ok("a".to_owned()));
    assert_eq!(default(&["b", "a"]), Err("set MODEL_NAME: MODELS_DIR `models` has `a`, `b`".to_owned()));
    let names = Repository::new(models(&["b", "a", ".x"]).0.path()).names().unwrap();
    assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}
