//! Bounds of the elements of a tensor.

use std::fmt;

/// Every element must lie between these numbers. A bound excludes NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Every element must be greater than this.
    pub greater_than: Option<f64>,
    /// Every element must be less than this.
    pub less_than: Option<f64>,
}

impl Bounds {
    /// Whether some elements may be outside.
    #[must_use]
    pub fn exist(self) -> bool {
        self.greater_than.is_some() || self.less_than.is_some()
    }

    /// Whether the element is inside.
    #[must_use]
    pub fn contain(self, element: f64) -> bool {
        self.greater_than.is_none_or(|bound| element > bound)
            && self.less_than.is_none_or(|bound| element < bound)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.greater_than, self.less_than) {
            (Some(low), Some(high)) => write!(f, "greater than {low} and less than {high}"),
            (Some(low), None) => write!(f, "greater than {low}"),
            (None, Some(high)) => write!(f, "less than {high}"),
            (None, None) => f.write_str("a number"),
        }
    }
}
