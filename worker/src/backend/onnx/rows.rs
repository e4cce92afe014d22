//! The rows of a batch as calls of one row each.

use tepal_shared::tensor::{Batch, Tensor, bytes};
use tract_onnx::prelude::{TractError, TractResult};

/// The inputs of each row.
pub(super) fn split(batch: &Batch) -> TractResult<Vec<Vec<Tensor>>> {
    let mut rows: Vec<Vec<Tensor>> = vec![Vec::with_capacity(batch.inputs.len()); batch.rows];
    for input in &batch.inputs {
        let starts = starts(input, batch.rows).ok_or_else(|| {
            TractError::msg(format!("the input `{}` has not as many values as its shape says", input.name))
        })?;
        let shape: Vec<usize> = std::iter::once(1).chain(input.shape.iter().skip(1).copied()).collect();
        for (row, ends) in rows.iter_mut().zip(starts.windows(2)) {
            row.push(Tensor {
                name: input.name.clone(),
                datatype: input.datatype,
                shape: shape.clone(),
                data: input.data[ends[0]..ends[1]].to_vec(),
            });
        }
    }
    Ok(rows)
}

/// Where the data of each row begins, and the end of the last.
fn starts(input: &Tensor, rows: usize) -> Option<Vec<usize>> {
    let elements = input.shape.get(1..)?.iter().product();
    let starts = match input.datatype.width() {
        Some(width) => (0..=rows).map(|row| row * elements * width).collect(),
        None => bytes::parts(&input.data, elements)?,
    };
    (starts.len() == rows + 1 && starts.last() == Some(&input.data.len())).then_some(starts)
}

/// The outputs of all rows, one behind the other.
pub(super) fn join(rows: impl Iterator<Item = TractResult<Vec<Tensor>>>) -> TractResult<Vec<Tensor>> {
    let mut joined: Option<Vec<Tensor>> = None;
    for row in rows {
        match &mut joined {
            None => joined = Some(row?),
            Some(joined) => {
                for (output, row) in joined.iter_mut().zip(row?) {
                    append(output, &row)?;
                }
            }
        }
    }
    Ok(joined.unwrap_or_default())
}

fn append(output: &mut Tensor, row: &Tensor) -> TractResult<()> {
    if output.shape.get(1..) != row.shape.get(1..) {
        return Err(TractError::msg(format!(
            "the output `{}` has shape {:?} for one row and {:?} for another",
            output.name, output.shape, row.shape
        )));
    }
    if let (Some(rows), Some(more)) = (output.shape.first_mut(), row.shape.first()) {
        *rows += more;
    }
    output.data.extend_from_slice(&row.data);
    Ok(())
}
