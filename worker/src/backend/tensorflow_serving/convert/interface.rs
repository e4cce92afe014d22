//! Inputs and outputs of a model, from the metadata of TensorFlow Serving.

use std::collections::BTreeMap;

use tepal_proto::tensorflow::{TensorInfo, TensorShapeProto, serving::GetModelMetadataResponse};
use tepal_shared::{
    model::{
        Axis,
        repository::{Interface, TensorFacts, TensorKind},
    },
    tensor::DataType,
};

use super::{ConvertError, signatures};

/// The inputs and outputs of a signature. The server does not order them, so they are sorted by name.
pub(in super::super) fn interface(
    reply: &GetModelMetadataResponse,
    signature: &str,
) -> Result<Interface, ConvertError> {
    let mut signatures = signatures(reply)?;
    let Some(found) = signatures.remove(signature) else {
        // TensorFlow adds one to every model that only initialises it.
        let known = signatures.into_keys().filter(|name| name != "__saved_model_init_op").collect::<Vec<_>>();
        return Err(ConvertError::NoSignature { signature: signature.to_owned(), known: known.join("`, `") });
    };
    let facts = |infos: BTreeMap<String, TensorInfo>| infos.into_iter().map(facts).collect();
    let source = "the model server";
    Ok(Interface { source, max_batch: None, inputs: facts(found.inputs), outputs: facts(found.outputs) })
}

fn facts((name, info): (String, TensorInfo)) -> TensorFacts {
    let dtype = info.dtype().as_str_name();
    let kind = match (DataType::from_tensorflow(dtype), info.encoding) {
        (_, None) => TensorKind::Other("a sparse or composite tensor".to_owned()),
        (None, Some(_)) => TensorKind::Other(format!("a tensor of {dtype}")),
        (Some(datatype), Some(_)) => TensorKind::Tensor { datatype, axes: info.tensor_shape.and_then(axes) },
    };
    TensorFacts { name, kind, named_shape: None }
}

/// `None` if the number of axes is unknown, too.
fn axes(shape: TensorShapeProto) -> Option<Vec<Axis>> {
    let axis = |size: i64| usize::try_from(size).map_or(Axis::Variable, Axis::Fixed);
    (!shape.unknown_rank).then(|| shape.dim.iter().map(|dim| axis(dim.size)).collect())
}
