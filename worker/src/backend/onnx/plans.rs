//! The plans of a model: its graph, optimised for the shapes of a call.
//!
//! A model whose rows all have one shape needs one plan, in which the number of rows is a symbol. Other models get a plan for each
//! set of input shapes. tract cannot unify a symbol with the lengths that many exporters write into a graph (of 14 public models,
//! 10 fail to load that way), and a plan for fixed lengths is faster: a text detector took 94 ms of CPU time instead of 542 ms. The
//! loaded graph stays in memory, because the plan of a new shape is made from it.

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tepal_shared::{
    model::{Axis, Model, OutputSpec},
    tensor::{Batch, Tensor},
};
use tract_onnx::prelude::{
    DatumType, Framework as _, InferenceFact, InferenceModel, InferenceModelExt as _, IntoRunnable as _,
    TDim, TVec, TractError, TractResult, TypedRunnableModel,
};

use super::{convert, missing, rows};

/// Most plans of a model. A plan holds its own copy of the weights as far as tract rearranges them.
const MOST_PLANS: usize = 8;

pub(super) type Plan = Arc<TypedRunnableModel>;
/// The lengths of the axes of each input.
type Shapes = Vec<Vec<usize>>;
/// A plan that the first caller makes. The others wait for it.
type Pending = Arc<OnceLock<Result<Plan, String>>>;

/// The plans of a loaded model.
pub(super) enum Plans {
    /// One for any number of rows.
    One(Plan),
    /// One for each set of shapes.
    PerShape(Box<PerShape>),
}

/// What a plan knows of an output.
pub(super) struct OutputFact {
    pub(super) datum_type: DatumType,
    /// Lengths of the axes, as metadata prints them.
    pub(super) dims: Vec<String>,
}

/// A graph, and the plans of the shapes that were used last.
pub(super) struct PerShape {
    graph: InferenceModel,
    datum_types: Vec<DatumType>,
    has_batch_axis: bool,
    /// The last one was used last.
    plans: Mutex<Vec<(Shapes, Pending)>>,
    /// What the plan of the sample's shapes knows. `None` if the model does not take them.
    outputs: Option<Plan>,
}

impl Plans {
    pub(super) fn load(path: &Path, model: &Model) -> TractResult<Self> {
        let graph = graph(path, model)?;
        let datum_types = model.inputs.iter().map(|input| datum_type(&input.name, input.datatype));
        let datum_types = datum_types.collect::<TractResult<Vec<_>>>()?;
        let is_variable = model.inputs.iter().any(|input| input.shape.is_variable());
        if model.has_batch_axis()
            && !is_variable
            && let Ok(plan) = plan_for_any_rows(&graph, &datum_types, model)
        {
            return Ok(Self::One(plan));
        }
        let mut plans = PerShape {
            graph,
            datum_types,
            has_batch_axis: model.has_batch_axis(),
            plans: Mutex::default(),
            outputs: None,
        };
        let sample = model.sample_input().map_or_else(Vec::new, |sample| sample.tensors);
        match plans.plan(&plans.shapes(sample.iter().map(|tensor| &tensor.shape[..]))) {
            Ok(plan) => plans.outputs = Some(plan),
            // Other lengths may fit the model.
            Err(_) if is_variable => {}
            Err(error) => return Err(error),
        }
        Ok(Self::PerShape(Box::new(plans)))
    }

    /// Whether calls of all shapes use one plan.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// What is known of the outputs, in the order of the description; nothing without a plan.
    pub(super) fn outputs(&self, model: &Model) -> Vec<OutputFact> {
        let Some(plan) = (match self {
            Self::One(plan) => Some(plan),
            Self::PerShape(plans) => plans.outputs.as_ref(),
        }) else {
            return Vec::new();
        };
        let facts = model.outputs().enumerate().map_while(|(number, output)| {
            let fact = plan.model().output_fact(number).ok()?;
            let dims = dims(&fact.shape, output, model.has_batch_axis());
            Some(OutputFact { datum_type: fact.datum_type, dims })
        });
        facts.collect()
    }

    /// The plan for a batch. A new one is made if there is none for its shapes.
    pub(super) fn plan(&self, batch: &Batch) -> TractResult<Plan> {
        match self {
            Self::One(plan) => Ok(Arc::clone(plan)),
            Self::PerShape(plans) => {
                plans.plan(&plans.shapes(batch.inputs.iter().map(|input| &input.shape[..])))
            }
        }
    }

    /// Runs a batch with its plan. The outputs get these names.
    pub(super) fn run(&self, plan: &Plan, names: &[String], batch: &Batch) -> TractResult<Vec<Tensor>> {
        match self {
            Self::PerShape(plans) if plans.has_batch_axis && batch.rows > 1 => {
                rows::join(rows::split(batch)?.into_iter().map(|row| run(plan, names, &row)))
            }
            _ => run(plan, names, &batch.inputs),
        }
    }
}

impl PerShape {
    /// The shapes of the inputs for one row. The rows of a batch run one by one: otherwise each number of rows would need a plan of
    /// its own. On a CPU, batches hardly make such models faster (a text detector takes 29 ms for one row and 46 ms a row for four).
    fn shapes<'a>(&self, inputs: impl Iterator<Item = &'a [usize]>) -> Shapes {
        let one_row = |shape: &[usize]| {
            let mut shape = shape.to_vec();
            if self.has_batch_axis {
                shape.first_mut().into_iter().for_each(|rows| *rows = 1);
            }
            shape
        };
        inputs.map(one_row).collect()
    }

    /// The plan for inputs of these shapes.
    fn plan(&self, shapes: &Shapes) -> TractResult<Plan> {
        let pending = self.pending(shapes);
        let made = pending.get_or_init(|| self.make(shapes).map_err(|error| format!("{error:#}")));
        made.clone().map_err(|error| {
            // It must not take the place of a plan that works.
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            plans.retain(|(_, other)| !Arc::ptr_eq(other, &pending));
            TractError::msg(format!("the model does not take inputs of the shapes {shapes:?}: {error}"))
        })
    }

    fn pending(&self, shapes: &Shapes) -> Pending {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let known = plans.iter().position(|(others, _)| others == shapes);
        let plan = known.map_or_else(|| (shapes.clone(), Pending::default()), |number| plans.remove(number));
        let pending = Arc::clone(&plan.1);
        if plans.len() >= MOST_PLANS {
            plans.remove(0);
        }
        plans.push(plan);
        pending
    }

    fn make(&self, shapes: &Shapes) -> TractResult<Plan> {
        let shapes = shapes.iter().map(|shape| shape.iter().map(TDim::from).collect());
        optimised(self.graph.clone(), &self.datum_types, shapes)
    }
}

/// The graph of the file, with the inputs and outputs of the description.
fn graph(path: &Path, model: &Model) -> TractResult<InferenceModel> {
    // Exporters write the shapes of intermediate tensors for the batch of their sample, or with a symbol of their own.
    let graph = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .model_for_path(path)?
        .with_input_names(model.inputs.iter().map(|input| input.name.as_str()))?
        .with_outputs_by_name(model.outputs().map(|output| output.name.as_str()))?;
    missing::check(&graph)?;
    Ok(graph)
}

fn plan_for_any_rows(graph: &InferenceModel, datum_types: &[DatumType], model: &Model) -> TractResult<Plan> {
    let rows = TDim::from(graph.symbols.sym("N"));
    let shape = |axes: &[Axis]| {
        let fixed = axes.iter().filter_map(|axis| match axis {
            Axis::Fixed(length) => Some(TDim::from(*length)),
            Axis::Variable => None,
        });
        std::iter::once(rows.clone()).chain(fixed).collect()
    };
    optimised(graph.clone(), datum_types, model.inputs.iter().map(|input| shape(input.shape.axes())))
}

fn optimised(
    mut graph: InferenceModel,
    datum_types: &[DatumType],
    shapes: impl Iterator<Item = TVec<TDim>>,
) -> TractResult<Plan> {
    for (number, (datum_type, shape)) in datum_types.iter().zip(shapes).enumerate() {
        graph = graph.with_input_fact(number, InferenceFact::dt_shape(*datum_type, shape))?;
    }
    graph.into_optimized()?.into_runnable()
}

fn datum_type(input: &str, datatype: tepal_shared::tensor::DataType) -> TractResult<DatumType> {
    convert::datum_type(datatype).ok_or_else(|| {
        let datatype = datatype.as_str();
        TractError::msg(format!("the input `{input}` is {datatype}, which this backend does not have"))
    })
}

/// An axis that only a call decides, above all the batch axis, accepts any length.
fn dims(lengths: &[TDim], output: &OutputSpec, has_batch_axis: bool) -> Vec<String> {
    let described = output.shape.behind(has_batch_axis.then_some(Axis::Variable));
    let is_described = described.axes().len() == lengths.len();
    let dim = |(number, length): (usize, &TDim)| match (is_described, described.axes().get(number)) {
        (true, Some(Axis::Variable)) => "-1".to_owned(),
        _ => length.to_i64().map_or_else(|_| "-1".to_owned(), |length| length.to_string()),
    };
    lengths.iter().enumerate().map(dim).collect()
}

fn run(plan: &Plan, names: &[String], inputs: &[Tensor]) -> TractResult<Vec<Tensor>> {
    let inputs = inputs.iter().map(|input| Ok(convert::to_tract(input)?.into()));
    let inputs = inputs.collect::<TractResult<TVec<_>>>()?;
    let outputs = plan.run(inputs)?;
    names.iter().zip(&outputs).map(|(name, output)| convert::from_tract(name, output)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::tests::negation, *};

    fn shapes(plans: &PerShape) -> Vec<usize> {
        plans.plans.lock().unwrap().iter().map(|(shapes, _)| shapes[0][1]).collect()
    }

    #[test]
    fn the_shapes_that_were_used_last_keep_their_plans() {
        let folder = tempfile::tempdir().unwrap();
        let model = negation(folder.path(), 4, &[Axis::Variable]);
        let Plans::PerShape(plans) = Plans::load(model.onnx_file.as_ref().unwrap(), &model).unwrap() else {
            panic!("one plan for all shapes");
        };
        let use_length = |length| plans.plan(&vec![vec![1, length]]).unwrap();
        let first = use_length(1);
        (2..=MOST_PLANS).for_each(|length| drop(use_length(length)));
        assert!(Arc::ptr_eq(&first, &use_length(1)), "kept");
        drop(use_length(100));
        assert_eq!(shapes(&plans), [3, 4, 5, 6, 7, 8, 1, 100]);
        assert!(!Arc::ptr_eq(&first, &use_length(2)) && Arc::ptr_eq(&first, &use_length(1)));
    }

    #[test]
    fn a_model_whose_rows_have_one_shape_has_one_plan() {
        let folder = tempfile::tempdir().unwrap();
        let model = negation(folder.path(), 4, &[Axis::Fixed(3)]);
        assert!(Plans::load(model.onnx_file.as_ref().unwrap(), &model).unwrap().is_one());
        let model = negation(folder.path(), 0, &[Axis::Fixed(3)]);
        assert!(!Plans::load(model.onnx_file.as_ref().unwrap(), &model).unwrap().is_one());
    }
}
