//! Weights in files of their own. They must be in the folder of the ONNX file: a model must not read other files of the machine
//! (CVE-2022-25882 and CVE-2024-27318 of the package onnx).

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path},
};

use tepal_proto::onnx::{TensorProto, tensor_proto::DataLocation};

/// External weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The tensor names no file.
    #[error("the tensor `{tensor}` is external, but names no file")]
    NoLocation {
        /// Its name.
        tensor: String,
    },
    /// The file would be in another folder.
    #[error("`{location}` is not in the folder of the model")]
    Outside {
        /// What the tensor names.
        location: String,
    },
    /// The file cannot be opened.
    #[error("`{location}` must be beside it ({reason})")]
    Unreadable {
        /// The file.
        location: String,
        /// Why not; it is part of the message.
        reason: io::Error,
    },
    /// The file is too short.
    #[error("`{location}` is incomplete: it has {has} bytes, but needs at least {needs}; copy it again")]
    Incomplete {
        /// The file.
        location: String,
        /// Its bytes.
        has: u64,
        /// The end of the last tensor in it.
        needs: u64,
    },
    /// An offset or a length is no number.
    #[error("the tensor `{tensor}` has the {key} `{value}`, which is no number of bytes")]
    NoNumber {
        /// Its name.
        tensor: String,
        /// `offset` or `length`.
        key: &'static str,
        /// What it has.
        value: String,
    },
}

/// Checks the files of these tensors.
pub(super) fn check<'a>(
    folder: &Path,
    tensors: impl IntoIterator<Item = &'a TensorProto>,
) -> Result<(), ExternalError> {
    let mut files = BTreeMap::<&str, u64>::new();
    for tensor in tensors {
        if tensor.data_location() == DataLocation::External {
            let location = entry(tensor, "location");
            let location =
                location.ok_or_else(|| ExternalError::NoLocation { tensor: tensor.name().to_owned() })?;
            let end = number(tensor, "offset")?.saturating_add(number(tensor, "length")?);
            let needs = files.entry(location).or_default();
            *needs = end.max(*needs);
        }
    }
    files.into_iter().try_for_each(|(location, needs)| check_file(folder, location, needs))
}

fn check_file(folder: &Path, location: &str, needs: u64) -> Result<(), ExternalError> {
    let outside = || ExternalError::Outside { location: location.to_owned() };
    let unreadable = |reason| ExternalError::Unreadable { location: location.to_owned(), reason };
    let is_inside = |step: Component<'_>| matches!(step, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(is_inside) {
        return Err(outside());
    }
    // A link may lead anywhere.
    let file = folder.join(location).canonicalize().map_err(unreadable)?;
    if !file.starts_with(folder.canonicalize().map_err(unreadable)?) {
        return Err(outside());
    }
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(outside());
    }
    let has = metadata.len();
    if has < needs {
        return Err(ExternalError::Incomplete { location: location.to_owned(), has, needs });
    }
    Ok(())
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|entry| entry.key() == key).map(|entry| entry.value())
}

/// A number of bytes; 0 if the tensor does not say it.
fn number(tensor: &TensorProto, key: &'static str) -> Result<u64, ExternalError> {
    let value = entry(tensor, key).unwrap_or("0");
    value.parse().map_err(|_| ExternalError::NoNumber {
        tensor: tensor.name().to_owned(),
        key,
        value: value.to_owned(),
    })
}
