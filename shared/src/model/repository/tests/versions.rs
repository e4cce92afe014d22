use super::*;

#[test]
fn the_newest_version_is_served_and_folders_of_other_backends_are_passed_over() {
    let models = Models::new().with("m/2/model.onnx", encoder()).with("m/10/model.onnx", encoder());
    let models = models.with("m/11/saved_model.pb", "").with("m/old/model.onnx", encoder());
    let model = models.model();
    assert_eq!(
        (model.version.as_str(), model.onnx_file),
        ("10", Some(models.0.path().join("m/10/model.onnx")))
    );
    // A file beside the description is version 1, or what the description says.
    let models = models.with("m/model.onnx", encoder());
    assert_eq!(models.model().version, "10");
    let models = models.with("m/model.toml", "version = \"12\"");
    assert_eq!(models.model().onnx_file, Some(models.0.path().join("m/model.onnx")));
}

#[test]
fn a_description_pins_a_version() {
    let models = Models::new().with("m/1/model.onnx", encoder()).with("m/2/model.onnx", encoder());
    let models = models.with("m/model.toml", "version = \"1\"");
    assert_eq!(models.model().version, "1");
    let models = models.with("m/model.toml", "version = \"3\"");
    let expected = "the model description models/m/model.toml is inconsistent: its version is `3`, but the folder has `2`, `1`";
    assert_eq!(models.refusal(), expected);
}

#[test]
fn of_two_versions_the_good_one_is_served_and_the_broken_one_named() {
    for broken in ["1", "2"] {
        let models = Models::new().with("m/1/model.onnx", encoder()).with("m/2/model.onnx", encoder());
        let models = models.with(&format!("m/{broken}/model.onnx"), "");
        let Loaded { model, broken_versions } = models.load().unwrap();
        assert_ne!(model.version, broken);
        let texts: Vec<_> = broken_versions.iter().map(|broken| models.text(broken)).collect();
        let expected = format!(
            "version {broken} of the model is broken: the ONNX file models/m/{broken}/model.onnx is empty: copy it again"
        );
        assert_eq!(texts, [expected]);
        // One that is asked for must be good.
        let models = models.with("m/model.toml", format!("version = \"{broken}\""));
        assert!(models.refusal().ends_with("is empty: copy it again"));
    }
    let models = Models::new().with("m/1/model.onnx", "").with("m/2/model.onnx", "{");
    let expected = "no version in the folder models/m can be used, neither 2 nor 1: version 2 of the model is broken: \
                    models/m/2/model.onnx is damaged or no ONNX file: byte 0 begins no field of an ONNX file";
    assert_eq!(models.refusal(), expected);
}

#[test]
fn two_files_of_one_version_are_refused() {
    let models = Models::new().with("m/model.onnx", encoder()).with("m/1/model.onnx", encoder());
    let expected = "the model description models/m/model.toml is inconsistent: version 1 is there twice, \
                    models/m/model.onnx and models/m/1/model.onnx: remove one, or change `version`";
    assert_eq!(models.refusal(), expected);
}

#[test]
fn clients_may_pin_the_other_versions_that_fit_the_description() {
    let pinnable = |models: &Models| {
        let Loaded { model, broken_versions } = models.load().unwrap();
        let pinnable: Vec<_> = model.pinnable_versions().map(|version| version.version.clone()).collect();
        (pinnable, broken_versions.iter().map(|broken| models.text(broken)).collect::<Vec<_>>())
    };
    let versions = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>();
    let models = Models::new().with("m/1/model.onnx", encoder()).with("m/2/model.onnx", encoder());
    let models = models.with("m/10/model.onnx", encoder());
    assert_eq!(pinnable(&models), (versions(&[10, 2, 1]), vec![]));
    let oldest = models.model().other_versions[1].onnx_file.clone();
    assert_eq!(oldest, Some(models.0.path().join("m/1/model.onnx")));

    let other = file(&[("text", STRING, Some(&[ROWS]))], &[("score", FLOAT, Some(&[ROWS]))]);
    let models =
        models.with("m/2/model.onnx", other).with("m/model.toml", "outputs = [{ name = \"score\" }]");
    assert_eq!(pinnable(&models), (versions(&[10, 2, 1]), vec![]));
    let models = models.with("m/model.toml", "inputs = [{ name = \"ids\" }]");
    let expected = "version 2 of the model is broken: the model description models/m/model.toml is inconsistent: \
                    it has the input `ids`, but the inputs of the ONNX file are `text`";
    assert_eq!(pinnable(&models), (versions(&[10, 1]), vec![expected.to_owned()]));

    let models = models.with("m/model.toml", "version = \"1\"");
    assert_eq!(pinnable(&models), (versions(&[1]), vec![]));
    let many = (1..=20)
        .fold(Models::new(), |models, number| models.with(&format!("m/{number}/model.onnx"), encoder()));
    assert_eq!(pinnable(&many).0.len(), 16);
}

#[test]
fn a_model_server_runs_a_pinned_version_only_if_the_description_names_it() {
    let pinnable = |description: &str| {
        let model = Models::new().with("m/model.toml", description).model();
        model.pinnable_versions().map(|version| version.version.clone()).collect::<Vec<_>>()
    };
    let tensors = "max_batch = 0\ninputs = [{ name = \"x\", datatype = \"FP32\", shape = [] }]\n\
                   outputs = [{ name = \"y\", datatype = \"FP32\", shape = [] }]\n";
    assert_eq!(pinnable(&format!("version = \"3\"\n{tensors}")), ["3"]);
    assert_eq!(pinnable(tensors), [""; 0]);
}
