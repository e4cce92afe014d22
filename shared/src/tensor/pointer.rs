//! JSON Pointers (RFC 6901).

use std::fmt::{self, Write as _};

/// The position of a value in a document. Costs nothing until it is formatted.
#[derive(Clone, Copy, Debug)]
pub struct Pointer<'a>(Step<'a>);

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Member(&'a Pointer<'a>, &'a str),
    Element(&'a Pointer<'a>, usize),
}

impl<'a> Pointer<'a> {
    /// The whole document.
    pub const ROOT: Self = Self(Step::Root);

    /// The member of this object with this name.
    #[must_use]
    pub fn member(&'a self, name: &'a str) -> Self {
        Self(Step::Member(self, name))
    }

    /// The element of this list with this index.
    #[must_use]
    pub fn element(&'a self, index: usize) -> Self {
        Self(Step::Element(self, index))
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Step::Root => Ok(()),
            Step::Element(parent, index) => write!(f, "{parent}/{index}"),
            Step::Member(parent, name) => {
                write!(f, "{parent}/")?;
                name.chars().try_for_each(|letter| match letter {
                    '~' => f.write_str("~0"),
                    '/' => f.write_str("~1"),
                    other => f.write_char(other),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let member = Pointer::ROOT.member("a/b~c");
        assert_eq!(member.element(3).member("").to_string(), "/a~1b~0c/3/");
        assert_eq!(Pointer::ROOT.to_string(), "");
    }
}
