//! Checks the tensors of a request against the description.

use super::{InputSpec, InputTensor, JobInput, Model, description::MOST_ELEMENTS, shape::elements_of};
use crate::tensor::{
    DataType, Element, InputError, InputErrors, MOST_ERRORS,
    bounds::Bounds,
    bytes,
    open_inference::{Form, Given},
    pointer::Pointer,
    with_element,
};

impl Model {
    /// The tensors that a request has at this place, as the input of a job. Nothing is converted.
    ///
    /// # Errors
    /// What is wrong, at most [`MOST_ERRORS`](crate::tensor::MOST_ERRORS).
    pub fn check_tensors(&self, given: Vec<Given>, at: Pointer<'_>) -> Result<JobInput, Vec<InputError>> {
        self.check_has_tensors(at)?;
        let mut checker = Checker { model: self, rows: None, errors: InputErrors::default() };
        let ordered = checker.in_order(given, at);
        for (input, given) in self.inputs.iter().zip(&ordered) {
            match given {
                Some((index, given)) => checker.tensor(input, given, at.element(*index)),
                None => checker.errors.add(at, "missing", format!("lacks the input `{}`", input.name)),
            }
        }
        let rows = checker.rows.unwrap_or(1);
        let tensors = ordered
            .into_iter()
            .flatten()
            .map(|(_, Given { tensor, .. })| InputTensor { shape: tensor.shape, data: tensor.data });
        checker.errors.or(JobInput { rows, tensors: tensors.collect() })
    }
}

impl Model {
    /// Content without a structure as the input of a job, if the model has one input, of one element of BYTES, or is opaque. Only an opaque
    /// model learns the content type.
    #[must_use]
    pub fn raw_input(&self, content_type: &str, content: &[u8]) -> Option<JobInput> {
        if self.is_opaque {
            return self.read_bytes(content_type, content);
        }
        let input = self.only_bytes()?;
        let batch = self.has_batch_axis().then_some(1);
        let mut data = Vec::with_capacity(bytes::LENGTH + content.len());
        bytes::append(&mut data, content)?;
        let shape = batch.into_iter().chain(input.shape.with_length(1)).collect();
        Some(JobInput { rows: 1, tensors: vec![InputTensor { shape, data }] })
    }

    /// Whether [`Model::raw_input`] makes an input of content.
    #[must_use]
    pub fn takes_raw(&self) -> bool {
        if self.is_opaque { !self.takes_only_json() } else { self.only_bytes().is_some() }
    }

    fn only_bytes(&self) -> Option<&InputSpec> {
        match self.inputs.as_slice() {
            [input] if input.datatype == DataType::Bytes && input.shape.fewest_elements() == 1 => Some(input),
            _ => None,
        }
    }

    /// Checks the names of outputs that a request has at this place.
    ///
    /// # Errors
    /// Names that no output has, and repeated ones, at most [`MOST_ERRORS`].
    pub fn check_output_names(&self, names: &[String], at: Pointer<'_>) -> Result<(), Vec<InputError>> {
        self.check_has_tensors(at)?;
        let mut errors = InputErrors::default();
        for (index, name) in names.iter().enumerate() {
            if errors.is_full() {
                break;
            }
            if names[..index].contains(name) {
                errors.add(at.element(index), "repeated", "must name each output only once");
            } else if self.outputs().all(|output| output.name != *name) {
                let known = self.outputs().map(|output| format!("`{}`", output.name));
                let known = known.collect::<Vec<_>>().join(", ");
                let detail = format!("is not an output of the model; its outputs are {known}");
                errors.add(at.element(index), "unknown_value", detail);
            }
        }
        errors.or(())
    }
}

/// A tensor, and its index in the request.
type Placed = (usize, Given);

struct Checker<'a> {
    model: &'a Model,
    /// The length of the batch axis of the first tensor.
    rows: Option<usize>,
    errors: InputErrors,
}

impl Checker<'_> {
    /// The tensors in the order of the description.
    fn in_order(&mut self, given: Vec<Given>, at: Pointer<'_>) -> Vec<Option<Placed>> {
        let mut ordered: Vec<Option<Placed>> = vec![None; self.model.inputs.len()];
        for (index, given) in given.into_iter().enumerate() {
            let number = self.model.inputs.iter().position(|input| input.name == given.tensor.name);
            let at = at.element(index);
            let at = at.member("name");
            match number.and_then(|number| ordered.get_mut(number)) {
                Some(place @ None) => *place = Some((index, given)),
                Some(Some(_)) => self.errors.add(at, "repeated", "must name each input only once"),
                None => {
                    let known = self.model.inputs.iter().map(|input| format!("`{}`", input.name));
                    let known = known.collect::<Vec<_>>().join(", ");
                    self.errors.add(
                        at,
                        "unknown_value",
                        format!("is not an input of the model; its inputs are {known}"),
                    );
                }
            }
        }
        ordered
    }

    fn tensor(&mut self, input: &InputSpec, given: &Given, at: Pointer<'_>) {
        let tensor = &given.tensor;
        if tensor.datatype != input.datatype {
            let (expected, given) = (input.datatype.as_str(), tensor.datatype.as_str());
            self.errors.add(at.member("datatype"), "datatype", format!("must be {expected}, not {given}"));
        }
        self.shape(input, &tensor.shape, at.member("shape"));
        if tensor.datatype == input.datatype && self.errors.is_empty() {
            self.bounds(input, given, at);
        }
    }

    fn shape(&mut self, input: &InputSpec, lengths: &[usize], at: Pointer<'_>) {
        let expected = input.shape.behind(self.model.batch_axis());
        let axes = expected.axes().len();
        if lengths.len() != axes {
            let detail = format!("must have {axes} axes, as {expected} says, not {}", lengths.len());
            return self.errors.add(at, "length", detail);
        }
        for (number, (axis, length)) in expected.axes().iter().zip(lengths).enumerate() {
            if !axis.fits(*length) {
                self.errors.add(at.element(number), "out_of_range", format!("must be {axis}, not {length}"));
            }
        }
        if self.model.has_batch_axis()
            && let Some(rows) = lengths.first()
        {
            self.batch_axis(*rows, at.element(0));
        }
        let rows = if self.model.has_batch_axis() { lengths.first().copied().unwrap_or(1) } else { 1 };
        if elements_of(lengths).is_none_or(|all| all / rows.max(1) > MOST_ELEMENTS) {
            self.errors.add(at, "length", format!("has more than {MOST_ELEMENTS} values in a row"));
        }
    }

    fn batch_axis(&mut self, rows: usize, at: Pointer<'_>) {
        let most = self.model.max_batch;
        let first = *self.rows.get_or_insert(rows);
        if rows > most {
            self.errors.add(at, "too_many_rows", format!("must be 1 to {most} rows, not {rows}"));
        } else if rows != first {
            let detail = format!("must be {first}, as in the first input, not {rows}");
            self.errors.add(at, "out_of_range", detail);
        }
    }

    /// Checks that all elements are within their bounds.
    fn bounds(&mut self, input: &InputSpec, given: &Given, at: Pointer<'_>) {
        let bounds = input.allowed().bounds;
        if !bounds.exist() {
            return;
        }
        let data = &given.tensor.data;
        let outside = with_element!(input.datatype, T => outside::<T>(data, bounds), BYTES => Vec::new());
        self.errors.extend(outside.into_iter().map(|(index, element)| {
            let feature =
                index.checked_rem(input.features.len()).and_then(|feature| input.features.get(feature));
            let feature = feature.map_or_else(String::new, |name| format!("{name} "));
            let which = if given.form == Form::Raw { format!("element {index} ") } else { String::new() };
            let detail = format!("{feature}must be {bounds}, but {which}is {element}");
            InputError { pointer: given.place_of(index, at), detail, code: "out_of_range" }
        }));
    }
}

/// The first elements that are not within the bounds, as text.
fn outside<T: Element>(data: &[u8], bounds: Bounds) -> Vec<(usize, String)> {
    let elements = T::all(data).enumerate().filter(|(_, element)| !bounds.contain(element.as_f64()));
    elements.take(MOST_ERRORS).map(|(index, element)| (index, shown(element))).collect()
}

fn shown(element: impl Element) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = element.write_json(&mut text);
    String::from_utf8_lossy(&text).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests;
