//! Shapes of a description. Some axes are fixed, others vary from job to job.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One axis of a shape. In files and in metadata, a variable axis is -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Always this long.
    Fixed(usize),
    /// Of any length above 0.
    Variable,
}

impl Axis {
    /// Its length, if it is fixed.
    #[must_use]
    pub fn length(self) -> Option<usize> {
        match self {
            Self::Fixed(length) => Some(length),
            Self::Variable => None,
        }
    }

    /// Whether an axis of this length fits.
    #[must_use]
    pub fn fits(self, length: usize) -> bool {
        match self {
            Self::Fixed(fixed) => fixed == length,
            Self::Variable => true,
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => length.fmt(f),
            Self::Variable => f.write_str("-1"),
        }
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 => Ok(Self::Variable),
            length => usize::try_from(length).map(Self::Fixed).map_err(|_| {
                D::Error::custom(format!("an axis is a length, or -1 for any length; {length} is neither"))
            }),
        }
    }
}

impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(length) => length.serialize(serializer),
            Self::Variable => serializer.serialize_i64(-1),
        }
    }
}

/// The shape of a tensor in a description: without the batch axis, if the model has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Shape(Vec<Axis>);

impl Shape {
    /// The axes, in order.
    #[must_use]
    pub fn axes(&self) -> &[Axis] {
        &self.0
    }

    /// Whether any axis is variable.
    #[must_use]
    pub fn is_variable(&self) -> bool {
        self.0.contains(&Axis::Variable)
    }

    /// Number of elements; `None` if an axis is variable.
    #[must_use]
    pub fn elements(&self) -> Option<usize> {
        (!self.is_variable()).then(|| self.fewest_elements())
    }

    /// Number of elements if each variable axis has the length 1. Of a checked shape, the number does not overflow.
    #[must_use]
    pub fn fewest_elements(&self) -> usize {
        self.with_length(1).fold(1, usize::saturating_mul)
    }

    /// The lengths of the axes if each variable one has this length.
    pub fn with_length(&self, length: usize) -> impl Iterator<Item = usize> {
        self.0.iter().map(move |axis| match axis {
            Axis::Fixed(fixed) => *fixed,
            Axis::Variable => length,
        })
    }

    /// Whether a tensor of these lengths fits.
    #[must_use]
    pub fn fits(&self, lengths: &[usize]) -> bool {
        self.0.len() == lengths.len() && self.0.iter().zip(lengths).all(|(axis, length)| axis.fits(*length))
    }

    /// The same shape behind another axis.
    #[must_use]
    pub fn behind(&self, first: Option<Axis>) -> Self {
        Self(first.into_iter().chain(self.0.iter().copied()).collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (number, axis) in self.0.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            write!(f, "{separator}{axis}")?;
        }
        f.write_str("]")
    }
}

impl FromIterator<Axis> for Shape {
    fn from_iter<T: IntoIterator<Item = Axis>>(axes: T) -> Self {
        Self(axes.into_iter().collect())
    }
}

/// A shape of fixed axes.
impl From<&[usize]> for Shape {
    fn from(lengths: &[usize]) -> Self {
        lengths.iter().map(|length| Axis::Fixed(*length)).collect()
    }
}

/// A shape of fixed axes.
impl<const AXES: usize> From<[usize; AXES]> for Shape {
    fn from(lengths: [usize; AXES]) -> Self {
        Self::from(&lengths[..])
    }
}

/// Number of elements of a tensor with axes of these lengths; `None` if the number overflows.
#[must_use]
pub fn elements_of(lengths: &[usize]) -> Option<usize> {
    lengths.iter().try_fold(1_usize, |elements, length| elements.checked_mul(*length))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shape(axes: Value) -> Shape {
        serde_json::from_value(axes).unwrap()
    }

    #[test]
    fn a_shape_is_written_as_it_is_read() {
        for axes in [json!([-1, 3, 224]), json!([]), json!([7])] {
            assert_eq!(serde_json::to_value(shape(axes.clone())).unwrap(), axes);
        }
        assert_eq!(shape(json!([-1, 3, -1])).to_string(), "[-1, 3, -1]");
        assert_eq!(shape(json!([])).to_string(), "[]");
        assert_eq!(Shape::from([2, 3]), shape(json!([2, 3])));
        let error = serde_json::from_value::<Shape>(json!([3, -2])).unwrap_err().to_string();
        assert_eq!(error, "an axis is a length, or -1 for any length; -2 is neither");
    }

    #[test]
    fn a_variable_axis_fits_any_length_and_a_fixed_one_only_its_own() {
        let image = shape(json!([3, -1, -1]));
        assert!(image.fits(&[3, 640, 480]));
        for other in [&[1, 640, 480][..], &[3, 640], &[3, 640, 480, 1]] {
            assert!(!image.fits(other), "{other:?}");
        }
        assert!(shape(json!([])).fits(&[]));
    }

    #[test]
    fn only_a_fixed_shape_has_a_known_number_of_elements() {
        assert_eq!(Shape::from([2, 3]).elements(), Some(6));
        assert_eq!(Shape::default().elements(), Some(1));
        let text = shape(json!([-1, 4]));
        assert_eq!((text.elements(), text.fewest_elements()), (None, 4));
        assert_eq!(text.behind(Some(Axis::Fixed(2))).to_string(), "[2, -1, 4]");
        assert_eq!((elements_of(&[usize::MAX, 2]), elements_of(&[2, 0])), (None, Some(0)));
    }
}
