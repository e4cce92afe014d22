//! The specification of a model server: names, shapes, the computation, its duration, and the calls that the server knows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tepal_proto::tensorflow::DataType;
use tokio::sync::Semaphore;
use tonic::Code;

/// The second output of a server that has one: the sum of the values of each row, `[N]`.
pub(super) const ROW_SUM: &str = "row_sum";

/// The model itself: from the values of one row, all inputs one after the other, to the values of its output.
pub type Compute = Arc<dyn Fn(&[f32]) -> Vec<f32> + Send + Sync>;

/// What a [`ModelServer`](super::ModelServer) serves. Start from [`ServerSpec::iris`] or [`ServerSpec::toy`]
/// and change what the test is about.
#[derive(Clone)]
pub struct ServerSpec {
    /// The model's name.
    pub model: String,
    /// The only version.
    pub version: i64,
    /// The inputs of the only signature, `serving_default`. They are `DT_FLOAT`, or `DT_STRING` with numbers as text.
    pub inputs: Vec<TensorSpec>,
    /// Its output, `DT_FLOAT`, or `DT_STRING` with numbers as text.
    pub output: TensorSpec,
    /// Whether there is a second output, `row_sum`: the sum of the values of each row.
    pub with_row_sums: bool,
    /// Computes the output of one row; it must return as many values as `output.row_shape` says.
    pub compute: Compute,
    /// Where an answer carries its values.
    pub answer_style: AnswerStyle,
    /// Time that every Predict takes.
    pub call_cost: Duration,
    /// Time that each row adds to it.
    pub row_cost: Duration,
    /// Predict calls that may run at a time; one more is answered with `refusal`.
    pub max_concurrent_calls: usize,
    /// `RESOURCE_EXHAUSTED`, or `UNAVAILABLE` like TensorFlow Serving when its batching queue is full.
    pub refusal: Code,
    /// Calls of any kind that are handled at a time; others wait.
    pub handlers: usize,
    /// Longest request that the gRPC library takes.
    pub max_request_bytes: usize,
    /// How long a connection lives before the server closes it in order.
    pub max_connection_age: Option<Duration>,
    /// Whether GetModelMetadata exists; if not, it is answered `UNIMPLEMENTED`.
    pub with_metadata: bool,
    /// Whether GetModelStatus exists; if not, it is answered `UNIMPLEMENTED`.
    pub with_status: bool,
    /// What is particular to the Open Inference Protocol.
    pub open_inference: OpenInferenceSpec,
}

/// How the server answers calls of the Open Inference Protocol.
#[derive(Clone, Debug)]
pub struct OpenInferenceSpec {
    /// `max_batch_size` in the answer of ModelConfig; `None`: it is answered `UNIMPLEMENTED`, as by MLServer.
    pub max_batch_size: Option<i32>,
    /// Whether ModelMetadata names inputs and outputs.
    pub names_tensors: bool,
    /// Whether floats are answered as FP64.
    pub in_doubles: bool,
    /// What ModelReady fails with for a model that the server lacks, as MLServer does; `None`: it answers false, as Triton does.
    pub unknown_model: Option<Code>,
    /// What ServerReady answers.
    pub is_ready: bool,
}

impl Default for OpenInferenceSpec {
    fn default() -> Self {
        let (max_batch_size, unknown_model) = (None, None);
        Self { max_batch_size, names_tensors: true, in_doubles: false, unknown_model, is_ready: true }
    }
}

/// Name, shape and type of an input or output.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// The name that requests and answers use.
    pub name: String,
    /// Sizes of the axes of one row, without the batch axis.
    pub row_shape: Vec<usize>,
    /// Whether its elements are numbers as text, `DT_STRING`.
    pub is_text: bool,
}

/// Where an answer carries its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerStyle {
    /// In `float_val`, as TensorFlow Serving does by default, or in typed `contents`.
    FloatVal,
    /// In `tensor_content`, or in `raw_output_contents`, as raw little-endian bytes.
    TensorContent,
}

impl ServerSpec {
    /// The iris model as `compose/models/iris` describes it: `input` `[N,4]`, `output` `[N,3]` probabilities.
    /// The weights are not the same, so neither are the probabilities; 147 of the 150 flowers get the right
    /// class.
    #[must_use]
    pub fn iris() -> Self {
        Self::plain("iris", 1, TensorSpec::new("input", &[4]), TensorSpec::new("output", &[3]), iris)
    }

    /// The iris model behind another kind of server: an input `[N,1]` for each feature, answers in
    /// `tensor_content`, four calls at a time, and no GetModelMetadata.
    #[must_use]
    pub fn iris_by_feature() -> Self {
        let features = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
        Self {
            inputs: features.iter().map(|feature| TensorSpec::new(feature, &[1])).collect(),
            answer_style: AnswerStyle::TensorContent,
            max_concurrent_calls: 4,
            with_metadata: false,
            ..Self::iris()
        }
    }

    /// The model of `tests/models/toy`: `x` `[N,2,3]`, `score` `[N,1]`, which is half the sum of the row,
    /// plus 1.
    #[must_use]
    pub fn toy() -> Self {
        let compute = |row: &[f32]| vec![row.iter().sum::<f32>() / 2.0 + 1.0];
        Self::plain("toy", 7, TensorSpec::new("x", &[2, 3]), TensorSpec::new("score", &[1]), compute)
    }

    fn plain<F>(model: &str, version: i64, input: TensorSpec, output: TensorSpec, compute: F) -> Self
    where
        F: Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static,
    {
        Self {
            model: model.to_owned(),
            version,
            inputs: vec![input],
            output,
            with_row_sums: false,
            compute: Arc::new(compute),
            answer_style: AnswerStyle::FloatVal,
            call_cost: Duration::ZERO,
            row_cost: Duration::ZERO,
            max_concurrent_calls: usize::MAX,
            refusal: Code::ResourceExhausted,
            handlers: Semaphore::MAX_PERMITS,
            max_request_bytes: usize::MAX,
            max_connection_age: None,
            with_metadata: true,
            with_status: true,
            open_inference: OpenInferenceSpec::default(),
        }
    }

    /// All outputs.
    pub(super) fn outputs(&self) -> impl Iterator<Item = TensorSpec> {
        let row_sums = self.with_row_sums.then(|| TensorSpec::new(ROW_SUM, &[]));
        std::iter::once(self.output.clone()).chain(row_sums)
    }

    /// Number of values in one row, all inputs together.
    pub(super) fn row_len(&self) -> usize {
        self.inputs.iter().map(TensorSpec::row_len).sum()
    }

    /// How long a Predict of this many rows takes.
    pub(super) fn cost(&self, rows: usize) -> Duration {
        self.call_cost + self.row_cost.mul_f64(rows as f64)
    }
}

impl fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, version, inputs, output, answer_style, .. } = self;
        write!(f, "{model} version {version}, {inputs:?} -> {output:?} in {answer_style:?}")
    }
}

impl TensorSpec {
    /// A tensor with this name and these sizes of one row.
    #[must_use]
    pub fn new(name: &str, row_shape: &[usize]) -> Self {
        Self { name: name.to_owned(), row_shape: row_shape.to_vec(), is_text: false }
    }

    /// The same with numbers as text.
    #[must_use]
    pub fn text(name: &str, row_shape: &[usize]) -> Self {
        Self { is_text: true, ..Self::new(name, row_shape) }
    }

    /// The type of its elements.
    pub(super) fn dtype(&self) -> DataType {
        if self.is_text { DataType::DtString } else { DataType::DtFloat }
    }

    /// The same in the Open Inference Protocol.
    pub(super) fn datatype(&self) -> &'static str {
        if self.is_text { "BYTES" } else { "FP32" }
    }

    /// Number of values in one row.
    pub(super) fn row_len(&self) -> usize {
        self.row_shape.iter().product()
    }
}

/// Softmax regression, one line of weights per class, then the class's bias. Trained with scikit-learn 1.9.1
/// on all 150 rows of `compose/models/iris/iris.csv`: `LogisticRegression(C=10, max_iter=10000)`, rounded to
/// two digits.
const IRIS: [([f32; 4], f32); 3] = [
    ([-0.39, 2.03, -4.28, -2.06], 14.29),
    ([1.04, -0.04, -0.47, -2.28], 3.12),
    ([-0.65, -1.99, 4.75, 4.34], -17.41),
];

fn iris(row: &[f32]) -> Vec<f32> {
    let score = |(weights, bias): ([f32; 4], f32)| {
        weights.iter().zip(row).map(|(weight, value)| weight * value).sum::<f32>() + bias
    };
    softmax(IRIS.map(score))
}

fn softmax(scores: [f32; 3]) -> Vec<f32> {
    let highest = scores.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let exps = scores.map(|score| (score - highest).exp());
    let sum: f32 = exps.iter().sum();
    exps.map(|exp| exp / sum).to_vec()
}
