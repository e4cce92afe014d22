//! Writes what an ONNX file says, or what is said of an HTTP endpoint, as a `model.toml` to start from.

use std::{fmt::Write as _, fs, path::Path};

use super::{
    DESCRIPTION, Interface, ModelError, OnnxFile, TensorFacts, TensorKind, merge,
    versions::{self, Chosen},
    written::Written,
};
use crate::{
    model::{Axis, Shape},
    tensor::DataType,
};

/// Most classes for which names are suggested.
const MOST_LABELS: usize = 10;

/// What the ONNX file says, or that of the newest version in a folder: as a `model.toml`. An HTTP endpoint says nothing, so it is what the
/// folder's `model.toml` says of it.
///
/// # Errors
/// When the file cannot be used, or the folder has none.
pub fn inspect(path: &Path) -> Result<String, ModelError> {
    if !path.is_dir() {
        return Ok(description(&path.display().to_string(), &OnnxFile::read(path)?));
    }
    if let Some(text) = endpoint(path) {
        return Ok(text);
    }
    let chosen = versions::choose(path, &Written::default())?;
    let no_model = || ModelError::NoModel { folder: path.to_owned() };
    let Chosen { version, file, broken_versions, .. } = chosen.ok_or_else(no_model)?;
    let broken = broken_versions.iter().map(|broken| format!("# {broken}: {}\n", broken.error));
    let text = description(&version.onnx_file.display().to_string(), &file);
    Ok(broken.chain([text]).collect())
}

/// The table `[http]` in the folder's `model.toml`, if there is one.
fn endpoint(folder: &Path) -> Option<String> {
    let path = folder.join(DESCRIPTION);
    let written = Written::parse(&fs::read_to_string(&path).ok()?).ok()?;
    let endpoint = written.http?;
    let max_batch = written.max_batch.unwrap_or_default();
    let takes = match max_batch {
        0 => "each job has a call of its own; above 0, the server takes a JSON array with this many values",
        _ => "the server takes a JSON array with this many values",
    };
    let mut text = comment(&format!("What {} says.", path.display()));
    let _ = write!(
        text,
        "\n# The model takes any JSON value, and what the server answers is the result. It says nothing of its inputs.\n\n\
         max_batch = {max_batch}    # {takes}\n\n[http]\nurl = {}\nmethod = {}\nconnect_timeout_ms = {}\n",
        quoted(&endpoint.url),
        quoted(&endpoint.method),
        endpoint.connect_timeout().as_millis()
    );
    let _ = match &endpoint.probe {
        Some(path) => writeln!(text, "probe = {}", quoted(path)),
        None => writeln!(text, "# probe = \"/health\"    # without it, a probe only connects"),
    };
    let names =
        endpoint.headers.keys().map(|name| format!("headers: {name}\n")).map(|line| comment(&line) + "\n");
    Some(text + &names.collect::<String>())
}

/// A `model.toml` that says what the file says. Comments name the file.
fn description(path: &str, file: &OnnxFile) -> String {
    let sets: Vec<_> = file.opsets.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let operators: Vec<_> = file.operators.iter().map(String::as_str).collect();
    let heading = [
        format!("What {path} says."),
        format!("Operator sets: {}", sets.join(", ")),
        format!("Operators: {}", operators.join(", ")),
        String::new(),
        format!(
            "A folder with the file alone is a complete model. To change something, save this as {DESCRIPTION} there."
        ),
    ];
    Interface::of_onnx(file).description(&heading)
}

impl Interface {
    /// A `model.toml` that says the same, with comments on what may be added. It begins with these lines as comments.
    #[must_use]
    pub fn description(&self, heading: &[String]) -> String {
        let mut text: String = heading.iter().map(|line| format!("{}\n", comment(line))).collect();
        let derived = || merge::derived_max_batch(self.inputs.iter().chain(self.served_outputs()));
        let max_batch = self.max_batch.unwrap_or_else(derived);
        let why = match max_batch {
            0 => {
                "not all tensors have a variable first axis: shapes are whole, and each job has its own call"
            }
            _ => {
                "most rows of a job; the first axis of each tensor counts rows, and is not part of the shapes below"
            }
        };
        let _ = write!(text, "\nmax_batch = {max_batch}    # {why}\n");
        text.push_str(
            "# sample_file = \"sample.json\"    # valid `data`; otherwise Tepal derives a sample\n",
        );
        for facts in &self.inputs {
            table(&mut text, "inputs", facts, max_batch);
            if let TensorKind::Tensor { datatype, .. } = facts.kind {
                bounds(&mut text, datatype);
            }
        }
        let first = self.served_outputs().next().map(|facts| &facts.name);
        for facts in &self.outputs {
            table(&mut text, "outputs", facts, max_batch);
            if let (true, TensorKind::Tensor { datatype, axes: Some(axes) }) =
                (first == Some(&facts.name), &facts.kind)
            {
                labels(&mut text, *datatype, &without_batch(axes, max_batch));
            }
        }
        text
    }
}

/// A table for an input or output; a comment if it cannot be served.
fn table(text: &mut String, kind: &str, facts: &TensorFacts, max_batch: usize) {
    let name = quoted(&facts.name);
    let (datatype, axes) = match &facts.kind {
        TensorKind::Tensor { datatype, axes } => (Some(datatype), axes.as_ref()),
        TensorKind::Unknown => (None, None),
        TensorKind::Maps(words) | TensorKind::Other(words) => {
            let left_out = format!("Left out of the {kind}: {name} is {words}, not a tensor.");
            let _ = write!(text, "\n{}\n", comment(&left_out));
            return;
        }
    };
    let _ = write!(text, "\n[[{kind}]]\nname = {name}\n");
    let _ = match datatype {
        Some(datatype) => writeln!(text, "datatype = \"{}\"", datatype.as_str()),
        None => writeln!(text, "# datatype = \"FP32\"    # the model does not say it: write it here"),
    };
    let names =
        facts.named_shape.iter().map(|names| format!("    {}", comment(&format!("the model says {names}"))));
    let _ = match axes {
        Some(axes) => {
            let shape: Shape = without_batch(axes, max_batch).iter().copied().collect();
            writeln!(text, "shape = {shape}{}", names.collect::<String>())
        }
        None => writeln!(
            text,
            "# shape = [-1, 3]    # the model does not say it: write it here; -1 is any length"
        ),
    };
}

fn without_batch(axes: &[Axis], max_batch: usize) -> Vec<Axis> {
    axes.iter().skip(usize::from(max_batch > 0)).copied().collect()
}

fn bounds(text: &mut String, datatype: DataType) {
    if !matches!(datatype, DataType::Bool | DataType::Bytes) {
        text.push_str("# greater_than = 0.0    # a bound of all values\n# less_than = 10.0\n");
    }
}

/// Suggests names of classes, if the output can be one number for each.
fn labels(text: &mut String, datatype: DataType, axes: &[Axis]) {
    let Some((Axis::Fixed(classes), before)) = axes.split_last() else { return };
    let is_vector = before.iter().all(|axis| *axis == Axis::Fixed(1));
    if is_vector && (2..=MOST_LABELS).contains(classes) && datatype != DataType::Bytes {
        let names: Vec<_> = (0..*classes).map(|class| format!("\"class {class}\"")).collect();
        let _ = writeln!(text, "# labels = [{}]    # names of the classes", names.join(", "));
    }
}

/// A string of TOML. Those of JSON are, if DEL is escaped (toml.io/en/v1.0.0#string).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A comment of one line.
fn comment(text: &str) -> String {
    let line = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    "# ".chars().chain(line).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            Model,
            onnx_file::tests::{FLOAT, Facts, INT64, STRING, file, other_output},
        },
        *,
    };

    /// The model in a folder with this ONNX file and perhaps a description.
    fn load(onnx: &[u8], description: Option<&str>) -> Model {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("m");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), onnx).unwrap();
        description.iter().for_each(|text| std::fs::write(folder.join("model.toml"), text).unwrap());
        Model::load(models.path(), "m").unwrap()
    }

    fn description_of(onnx: &[u8]) -> String {
        description("model.onnx", &OnnxFile::parse(onnx).unwrap())
    }

    #[test]
    fn a_printed_description_describes_the_same_model() {
        let whole: [Facts; 2] = [("x", FLOAT, Some(&[1, 3, -1])), ("\u{7f} \"q\"\n", STRING, Some(&[]))];
        let rows: [Facts; 2] = [("ids", INT64, Some(&[-1, -1])), ("mask", INT64, Some(&[-1, -1]))];
        let outputs: [Facts; 2] = [("scores", FLOAT, Some(&[-1, 3])), ("label", STRING, Some(&[-1]))];
        for inputs in [whole, rows] {
            let onnx = file(&inputs, &outputs);
            let text = description_of(&onnx);
            let (bare, described) = (load(&onnx, None), load(&onnx, Some(&text)));
            let facts = |model: &Model| format!("{model:?}").replace(&bare.name, "m");
            let without_path = |model: Model| facts(&Model { onnx_file: None, ..model });
            assert_eq!(without_path(described), without_path(bare.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_said_of_an_endpoint_is_printed_without_secrets() {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("m");
        std::fs::create_dir(&folder).unwrap();
        let written = "[http]\nurl = \"http://127.0.0.1:1/\"\nheaders.authorization = \"Bearer secret\"\n";
        std::fs::write(folder.join("model.toml"), written).unwrap();
        let text = inspect(&folder).unwrap();
        assert!(!text.contains("secret") && text.contains("# headers: authorization\n"), "{text}");
        let model = Model::load(models.path(), "m").unwrap();
        std::fs::write(folder.join("model.toml"), &text).unwrap();
        let printed = Model::load(models.path(), "m").unwrap();
        assert_eq!((printed.max_batch, printed.is_opaque), (model.max_batch, true), "{text}");
        assert_eq!(printed.endpoint.unwrap().url, model.endpoint.unwrap().url);
    }

    #[test]
    fn what_is_commented_out_is_valid_too() {
        let onnx = file(&[("x", FLOAT, Some(&[-1, 2]))], &[("p", FLOAT, Some(&[-1, 3]))]);
        let text = description_of(&onnx);
        let lines = text.lines().filter(|line| !line.contains("sample_file"));
        let lines =
            lines.map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line));
        let model = load(&onnx, Some(&lines.collect::<Vec<_>>().join("\n")));
        assert_eq!(model.output.labels, ["class 0", "class 1", "class 2"]);
        assert_eq!((model.inputs[0].greater_than, model.inputs[0].less_than), (Some(0.0), Some(10.0)));
    }

    #[test]
    fn outputs_that_cannot_be_served_are_left_out_with_the_reason() {
        let onnx = other_output(&[("x", FLOAT, Some(&[-1, 2]))], &[("label", INT64, Some(&[-1]))]);
        let text = description_of(&onnx);
        let expected = "# Left out of the outputs: \"other\" is a sequence (each element is a map from INT64 to FP32), not \
                        a tensor.";
        assert!(text.contains(expected), "{text}");
        let model = load(&onnx, Some(&text));
        assert_eq!(model.outputs().map(|output| output.name.as_str()).collect::<Vec<_>>(), ["label"]);
    }

    #[test]
    fn a_missing_shape_is_left_for_the_user_to_write() {
        let onnx = file(&[("x", FLOAT, Some(&[-1, 2]))], &[("y", FLOAT, None)]);
        let text = description_of(&onnx);
        assert!(text.contains("# shape = [-1, 3]    # the model does not say it"), "{text}");
        let written = text.replace("# shape = [-1, 3] ", "shape = [-1, 3] ");
        assert_eq!(load(&onnx, Some(&written)).output.shape.to_string(), "[-1, 3]");
    }
}
