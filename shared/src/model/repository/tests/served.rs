//! Models that a model server describes, perhaps with a `model.toml` beside it.

use super::*;

/// What a server says of a model with one input and two outputs.
fn served() -> Interface {
    let facts = |name: &str, datatype, axes: &[Axis]| TensorFacts {
        name: name.to_owned(),
        kind: TensorKind::Tensor { datatype, axes: Some(axes.to_vec()) },
        named_shape: None,
    };
    let rows = [Axis::Variable, Axis::Fixed(2)];
    Interface {
        source: "the model server",
        max_batch: None,
        inputs: vec![facts("x", DataType::Bytes, &rows[..1])],
        outputs: vec![facts("label", DataType::Int64, &rows[..1]), facts("p", DataType::Fp32, &rows)],
    }
}

#[test]
fn a_model_server_describes_a_model_whose_folder_does_not() {
    let models = Models::new().with("m/1/saved_model.pb", "");
    let repository = Repository::new(models.0.path());
    let newest = Undescribed {
        backend: None,
        served_name: None,
        signature: "serving_default".to_owned(),
        version: ServerVersion::Newest,
    };
    assert_eq!(repository.undescribed("m").unwrap(), Some(newest.clone()));
    assert_eq!(repository.undescribed("without_folder").unwrap(), Some(newest));
    let model = repository.load_served("m", &served()).unwrap();
    assert_eq!((model.name.as_str(), model.max_batch, model.output.name.as_str()), ("m", 1024, "label"));

    let description = "signature = \"s\"\nversion_label = \"l\"\nserving.backend = \"tensorflow_serving\"\n\
                       serving.served_name = \"org/m\"\n\
                       [[outputs]]\nname = \"p\"\nlabels = [\"a\", \"b\"]";
    let models = models.with("m/model.toml", description);
    let labelled = Undescribed {
        backend: Some("tensorflow_serving".to_owned()),
        served_name: Some("org/m".to_owned()),
        signature: "s".to_owned(),
        version: ServerVersion::Label("l".to_owned()),
    };
    assert_eq!(repository.undescribed("m").unwrap(), Some(labelled));
    let model = repository.load_served("m", &served()).unwrap();
    assert_eq!(
        (model.output.name.as_str(), &model.output.labels[..]),
        ("p", &["a".to_owned(), "b".to_owned()][..])
    );

    let models = models.with("m/model.toml", "[[inputs]]\nname = \"x\"\ndatatype = \"FP32\"");
    let error = repository.load_served("m", &served()).unwrap_err();
    let expected = "the model description models/m/model.toml is inconsistent: input `x` is FP32 in model.toml, but BYTES in \
                    the model server";
    assert_eq!(models.text(&error), expected);
}

#[test]
fn a_model_server_is_not_asked_about_a_model_that_its_folder_describes() {
    let models = Models::new().with("m/model.onnx", encoder());
    assert_eq!(Repository::new(models.0.path()).undescribed("m").unwrap(), None);
    let description = "max_batch = 1\ninputs = [{ name = \"x\", datatype = \"FP32\", shape = [] }]\n\
                       outputs = [{ name = \"y\", datatype = \"FP32\", shape = [] }]";
    let models = Models::new().with("m/model.toml", description);
    assert_eq!(Repository::new(models.0.path()).undescribed("m").unwrap(), None);
}

#[test]
fn the_server_limits_the_rows_of_a_call() {
    let interface = |most| Interface { max_batch: Some(most), ..served() };
    let described = |text: &str, most| {
        let models = Models::new().with("m/model.toml", text);
        let model = Repository::new(models.0.path()).load_served("m", &interface(most));
        model.map(|model| model.max_batch).map_err(|error| models.text(&error))
    };
    assert_eq!(described("", 64), Ok(64));
    assert_eq!(described("max_batch = 8", 64), Ok(8));
    assert_eq!(described("max_batch = 8", 0), Ok(8), "the first axis may count rows all the same");
    let error = "the model description models/m/model.toml is inconsistent: max_batch is 65 in model.toml, but 64 in the model \
                 server";
    assert_eq!(described("max_batch = 65", 64), Err(error.to_owned()));

    let models = Models::new().with("m/readme", "");
    let whole = Repository::new(models.0.path()).load_served("m", &interface(0)).unwrap();
    assert_eq!((whole.max_batch, whole.output.shape.to_string()), (0, "[-1]".to_owned()));
}

#[test]
fn the_folder_adds_what_the_server_does_not_say() {
    let silent = Interface { inputs: Vec::new(), outputs: Vec::new(), ..served() };
    let half = Interface { outputs: Vec::new(), ..served() };
    let described = |text: &str, interface: &Interface| {
        let models = Models::new().with("m/model.toml", text);
        let model = Repository::new(models.0.path()).load_served("m", interface);
        model.map(|model| (model.inputs.len(), model.output.name)).map_err(|error| models.text(&error))
    };
    let inputs = "inputs = [{ name = \"x\", datatype = \"FP32\", shape = [4] }]\n";
    let outputs = "outputs = [{ name = \"y\", datatype = \"FP32\", shape = [3] }]\n";
    let refused =
        |reason: &str| Err(format!("the model description models/m/model.toml is inconsistent: {reason}"));

    assert_eq!(described("", &half), refused("the model server names no outputs: add outputs to model.toml"));
    assert_eq!(
        described(outputs, &silent),
        refused("the model server names no inputs: add inputs to model.toml")
    );
    let max_batch = "it must have `max_batch`, since neither an ONNX file nor a model server says that";
    assert_eq!(described(&[inputs, outputs].concat(), &silent), refused(max_batch));
    for (text, interface) in [
        (format!("max_batch = 9\n{inputs}{outputs}"), &silent),
        (format!("max_batch = 9\n{outputs}"), &half),
        (outputs.to_owned(), &Interface { max_batch: Some(9), ..half.clone() }),
    ] {
        assert_eq!(described(&text, interface), Ok((1, "y".to_owned())), "{text}");
    }
}
