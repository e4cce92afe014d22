//! Makes a description of what the model says itself and what `model.toml` adds. What contradicts the model is refused.

use std::{path::PathBuf, sync::Arc};

use serde_json::Value;

use super::{
    DESCRIPTION, Interface, TensorFacts, TensorKind, listed,
    written::{Written, WrittenInput, WrittenOutput},
};
use crate::{
    model::{Axis, InputSpec, Model, OutputSpec, Serving, Shape, endpoint::Endpoint, opaque},
    tensor::DataType,
};

/// Most rows of a job if the model has a batch axis and the description has no `max_batch`.
const MAX_BATCH: usize = 1024;

/// Which model is described.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) onnx_file: Option<PathBuf>,
    pub(super) sample: Option<Value>,
}

/// The description of a model, checked.
pub(super) fn describe(
    written: &Written,
    interface: Option<&Interface>,
    identity: Identity,
) -> Result<Model, String> {
    let serving = written.serving()?;
    if let Some(endpoint) = &written.http {
        return opaque_model(written, endpoint, serving, identity);
    }
    let inputs = inputs(written, interface)?;
    let outputs = outputs(written, interface)?;
    if inputs.is_empty() && interface.is_some() {
        return Err(none("inputs", interface));
    }
    let facts: Option<Vec<_>> =
        inputs.iter().map(|input| input.1).chain(outputs.iter().map(|output| output.1)).collect();
    let max_batch = max_batch(written, interface, facts.as_deref())?;
    let reader = Reader { source: interface.map(|interface| interface.source), max_batch };
    let inputs = inputs.iter().map(|(input, facts)| reader.input(input, *facts));
    let inputs = inputs.collect::<Result<_, _>>()?;
    let outputs = outputs.iter().map(|(output, facts)| reader.output(output, *facts));
    let mut outputs = outputs.collect::<Result<Vec<_>, _>>()?.into_iter();
    let output = outputs.next().ok_or_else(|| none("outputs", interface))?;
    let model = Model { max_batch, ..model(written, serving, identity, (inputs, output)) };
    checked(Model { further_outputs: outputs.collect(), ..model })
}

/// An opaque model. With `max_batch`, its server takes that many values in a JSON array.
fn opaque_model(
    written: &Written,
    endpoint: &Endpoint,
    serving: Serving,
    identity: Identity,
) -> Result<Model, String> {
    let model = model(written, serving, identity, (vec![opaque::input()], opaque::output()));
    checked(Model { is_opaque: true, endpoint: Some(Arc::new(endpoint.clone())), ..model })
}

/// A model with this first output and no others. `max_batch` is 0 unless it is written.
fn model(
    written: &Written,
    serving: Serving,
    identity: Identity,
    (inputs, output): (Vec<InputSpec>, OutputSpec),
) -> Model {
    Model {
        name: identity.name,
        version: identity.version,
        server_version: written.server_version(),
        signature: written.signature(),
        onnx_file: identity.onnx_file,
        max_batch: written.max_batch.unwrap_or_default(),
        max_queue_depth: written.max_queue_depth,
        sample: identity.sample,
        large_sample: None,
        inputs,
        output,
        further_outputs: Vec::new(),
        serving,
        is_opaque: false,
        endpoint: None,
        is_pinnable: false,
        other_versions: Vec::new(),
    }
}

fn checked(mut model: Model) -> Result<Model, String> {
    model.check()?;
    model.convert_large_sample();
    Ok(model)
}

/// What is written about each input, with what the model says of it. All inputs of a model are inputs.
fn inputs<'a>(
    written: &Written,
    interface: Option<&'a Interface>,
) -> Result<Vec<(WrittenInput, Option<&'a TensorFacts>)>, String> {
    let Some(interface) = interface.filter(|interface| !interface.inputs.is_empty()) else {
        return Ok(written.inputs.iter().map(|input| (input.clone(), None)).collect());
    };
    let names = written.inputs.iter().map(|input| input.name.as_str());
    check_known("input", names, &interface.inputs, interface.source)?;
    let with_written = |facts: &'a TensorFacts| {
        let found = written.inputs.iter().find(|input| input.name == facts.name).cloned();
        let only_named = || WrittenInput::named(&facts.name);
        (found.unwrap_or_else(only_named), Some(facts))
    };
    Ok(interface.inputs.iter().map(with_written).collect())
}

/// The same of each output. If any outputs are written, others are left out.
fn outputs<'a>(
    written: &Written,
    interface: Option<&'a Interface>,
) -> Result<Vec<(WrittenOutput, Option<&'a TensorFacts>)>, String> {
    let interface = interface.filter(|interface| !interface.outputs.is_empty());
    let all = interface.map_or(&[][..], |interface| &interface.outputs);
    if let Some(interface) = interface {
        let names = written.outputs.iter().map(|output| output.name.as_str());
        check_known("output", names, all, interface.source)?;
    }
    if written.outputs.is_empty() {
        return Ok(all.iter().map(|facts| (WrittenOutput::named(&facts.name), Some(facts))).collect());
    }
    let with_facts =
        |output: &WrittenOutput| (output.clone(), all.iter().find(|facts| facts.name == output.name));
    Ok(written.outputs.iter().map(with_facts).collect())
}

fn check_known<'a>(
    kind: &str,
    mut names: impl Iterator<Item = &'a str>,
    known: &[TensorFacts],
    source: &str,
) -> Result<(), String> {
    let unknown = names.find(|name| known.iter().all(|facts| facts.name != *name));
    unknown.map_or(Ok(()), |name| {
        let known: Vec<_> = known.iter().map(|facts| facts.name.clone()).collect();
        Err(format!("it has the {kind} `{name}`, but the {kind}s of {source} are {}", listed(&known)))
    })
}

/// The written number, that of the model, or what the model's axes suggest.
fn max_batch(
    written: &Written,
    interface: Option<&Interface>,
    facts: Option<&[&TensorFacts]>,
) -> Result<usize, String> {
    let known = interface.and_then(|interface| Some((interface.source, interface.max_batch?)));
    match (written.max_batch, known, facts) {
        (Some(max_batch), Some((source, most)), _) if most > 0 && max_batch > most => {
            Err(format!("max_batch is {max_batch} in {DESCRIPTION}, but {most} in {source}"))
        }
        (Some(max_batch), ..) => Ok(max_batch),
        (None, Some((_, most)), _) => Ok(most),
        (None, None, Some(facts)) => Ok(derived_max_batch(facts.iter().copied())),
        (None, None, None) => Err(missing("`max_batch`")),
    }
}

/// The first axis is that of the batch if it is variable in all tensors.
pub(super) fn derived_max_batch<'a>(mut facts: impl Iterator<Item = &'a TensorFacts>) -> usize {
    if facts.all(TensorFacts::has_variable_first_axis) { MAX_BATCH } else { 0 }
}

/// There are no inputs, or no outputs.
fn none(kind: &str, interface: Option<&Interface>) -> String {
    match interface {
        Some(interface) => format!("{} names no {kind}: add {kind} to {DESCRIPTION}", interface.source),
        None => format!("it has no {kind}"),
    }
}

fn missing(what: &str) -> String {
    format!("it must have {what}, since neither an ONNX file nor a model server says that")
}

/// Reads single inputs and outputs.
struct Reader {
    source: Option<&'static str>,
    max_batch: usize,
}

impl Reader {
    fn input(&self, written: &WrittenInput, facts: Option<&TensorFacts>) -> Result<InputSpec, String> {
        let what = format!("input `{}`", written.name);
        let (datatype, shape) = self.tensor(&what, written.datatype, written.shape.as_ref(), facts)?;
        Ok(InputSpec {
            name: written.name.clone(),
            datatype,
            shape,
            features: written.features.clone(),
            greater_than: written.greater_than,
            less_than: written.less_than,
        })
    }

    fn output(&self, written: &WrittenOutput, facts: Option<&TensorFacts>) -> Result<OutputSpec, String> {
        let what = format!("output `{}`", written.name);
        let (datatype, shape) = self.tensor(&what, written.datatype, written.shape.as_ref(), facts)?;
        Ok(OutputSpec {
            name: written.name.clone(),
            datatype,
            shape,
            labels: written.labels.clone(),
            finite: written.finite,
        })
    }

    /// Type and shape of an input or output.
    fn tensor(
        &self,
        what: &str,
        datatype: Option<DataType>,
        shape: Option<&Shape>,
        facts: Option<&TensorFacts>,
    ) -> Result<(DataType, Shape), String> {
        let (Some(facts), Some(source)) = (facts, self.source) else {
            let datatype = datatype.ok_or_else(|| missing(&format!("the datatype of {what}")))?;
            let shape = shape.ok_or_else(|| missing(&format!("the shape of {what}")))?;
            return Ok((datatype, shape.clone()));
        };
        let (known, axes) = match &facts.kind {
            TensorKind::Tensor { datatype, axes } => (*datatype, axes.as_deref()),
            TensorKind::Unknown => match datatype {
                Some(datatype) => (datatype, None),
                None => {
                    return Err(format!(
                        "{source} does not say the type of {what}: add its datatype to {DESCRIPTION}"
                    ));
                }
            },
            TensorKind::Maps(words) => {
                let written = datatype.zip(shape.cloned());
                return written.ok_or_else(|| maps(what, words, source));
            }
            TensorKind::Other(words) => return Err(no_tensor(what, words, source)),
        };
        if let Some(other) = datatype.filter(|datatype| *datatype != known) {
            let (other, known) = (other.as_str(), known.as_str());
            return Err(format!("{what} is {other} in {DESCRIPTION}, but {known} in {source}"));
        }
        let shape = match (axes, shape) {
            (Some(axes), written) => {
                self.narrowed(what, self.of_a_row(what, axes, source)?, written, source)?
            }
            (None, Some(shape)) => shape.clone(),
            (None, None) => {
                return Err(format!(
                    "{source} does not say the shape of {what}: add its shape to {DESCRIPTION}"
                ));
            }
        };
        Ok((known, shape))
    }

    /// The axes without that of the batch.
    fn of_a_row(&self, what: &str, axes: &[Axis], source: &str) -> Result<Shape, String> {
        match axes {
            axes if self.max_batch == 0 => Ok(axes.iter().copied().collect()),
            [Axis::Variable, row @ ..] => Ok(row.iter().copied().collect()),
            _ => {
                let whole: Shape = axes.iter().copied().collect();
                Err(format!(
                    "max_batch is {}, but {what} has no batch axis in {source}, its shape is {whole}: set max_batch to 0",
                    self.max_batch
                ))
            }
        }
    }

    /// The shape with the axes that are written. They may fix variable ones.
    fn narrowed(
        &self,
        what: &str,
        known: Shape,
        written: Option<&Shape>,
        source: &str,
    ) -> Result<Shape, String> {
        let Some(written) = written else { return Ok(known) };
        let narrows = |(known, written): (&Axis, &Axis)| *known == Axis::Variable || known == written;
        let pairs = || known.axes().iter().zip(written.axes());
        if known.axes().len() == written.axes().len() && pairs().all(narrows) {
            return Ok(written.clone());
        }
        let of = if self.max_batch == 0 { "" } else { " without the batch axis" };
        Err(format!("{what} has the shape {written} in {DESCRIPTION}, but {known}{of} in {source}"))
    }
}

/// What to do with an output of maps, as scikit-learn's converter writes it by default.
fn maps(what: &str, words: &str, source: &str) -> String {
    format!(
        "{what} is {words} in {source}, not a tensor: export the model with zipmap=False (of skl2onnx or onnxmltools), or add its \
         datatype and shape to {DESCRIPTION} and run the model with onnxruntime, or list only other outputs there"
    )
}

/// Why an input or output that is no tensor of our types cannot be used, and what to do.
fn no_tensor(what: &str, words: &str, source: &str) -> String {
    let fix = match what.starts_with("output") {
        true => format!("list only other outputs in {DESCRIPTION}"),
        false => "export the model with inputs of other types".to_owned(),
    };
    format!("{what} is {words} in {source}, which Tepal cannot pass on: {fix}")
}
