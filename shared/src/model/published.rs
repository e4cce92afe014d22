//! Descriptions as workers publish them in Redis: JSON.

use super::Model;

/// A published description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// It is not JSON of the expected form.
    #[error("the published description is malformed")]
    Malformed(#[from] serde_json::Error),
    /// It contradicts itself.
    #[error("the published description is inconsistent: {0}")]
    Inconsistent(String),
}

impl Model {
    /// The description as JSON, without files of this machine and without a sample that is too large to show.
    #[must_use]
    pub fn published(&self) -> String {
        // Serialising this type cannot fail: its keys are strings.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads and checks a published description.
    ///
    /// # Errors
    /// When it is malformed or contradicts itself.
    pub fn from_published(text: &str) -> Result<Self, PublishedError> {
        let model: Self = serde_json::from_str(text)?;
        let mut versions = std::iter::once(&model).chain(&model.other_versions);
        versions.try_for_each(Self::check).map_err(PublishedError::Inconsistent)?;
        Ok(model)
    }

    /// Identifies a published description: FNV-1a, 64 bits (draft-eastlake-fnv), hexadecimal.
    #[must_use]
    pub fn fingerprint(published: &str) -> String {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        format!("{:016x}", published.bytes().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn iris() -> Model {
        Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models"), "iris").unwrap()
    }

    #[test]
    fn a_published_description_reads_as_it_was_written() {
        let published = iris().published();
        let read = Model::from_published(&published).unwrap();
        assert_eq!(read.published(), published);
        assert_eq!(read.output.labels, iris().output.labels);
        assert_eq!(read.sample, iris().sample);
        assert!(!published.contains("model.onnx"), "{published}");
    }

    #[test]
    fn what_is_malformed_or_inconsistent_is_refused() {
        let published = iris().published();
        assert!(matches!(Model::from_published("{}"), Err(PublishedError::Malformed(_))));
        let twice = published.replace("\"outputs\"", "\"inputs\"").replacen("[4]", "[0]", 1);
        assert!(matches!(Model::from_published(&twice), Err(PublishedError::Inconsistent(_))), "{twice}");
    }

    #[test]
    fn a_fingerprint_is_that_of_fnv() {
        assert_eq!(Model::fingerprint(""), "cbf29ce484222325");
        assert_eq!(Model::fingerprint("a"), "af63dc4c8601ec8c");
    }
}
