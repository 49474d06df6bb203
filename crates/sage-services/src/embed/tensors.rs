//! [`Tensors`]: the numbers of a safetensors file, checked and as 32-bit floats.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::model::{ModelError, ModelFile};

/// The tensors of a file.
pub(crate) struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

/// Rows of numbers, one after the other.
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

#[cfg(feature = "minilm")]
impl Matrix {
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

impl<'a> Tensors<'a> {
    pub(crate) fn of(file: &'a ModelFile) -> Result<Self, ModelError> {
        match SafeTensors::deserialize(&file.bytes) {
            Ok(tensors) => Ok(Self { path: &file.path, tensors }),
            Err(error) => Err(ModelError::malformed(&file.path, format!("it is no safetensors file: {error}"))),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// Two dimensions, neither of them 0.
    pub(crate) fn matrix(&self, name: &str) -> Result<Matrix, ModelError> {
        let tensor = self.tensor(name)?;
        match *tensor.shape() {
            [rows, columns] if rows > 0 && columns > 0 => {
                Ok(Matrix { rows, columns, values: self.floats(name, &tensor)? })
            }
            ref shape => Err(self.wrong(name, format!("has the shape {shape:?} and not [rows, columns]"))),
        }
    }

    #[cfg(feature = "minilm")]
    pub(crate) fn matrix_of(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        let matrix = self.matrix(name)?;
        if (matrix.rows, matrix.columns) == (rows, columns) {
            return Ok(matrix);
        }
        let found = [matrix.rows, matrix.columns];
        Err(self.wrong(name, format!("has the shape {found:?} and not {:?}", [rows, columns])))
    }

    /// One dimension.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name)?;
        if tensor.shape() != [len] {
            return Err(self.wrong(name, format!("has the shape {:?} and not [{len}]", tensor.shape())));
        }
        self.floats(name, &tensor)
    }

    /// One dimension of whole numbers below `limit`.
    pub(crate) fn indices(&self, name: &str, limit: usize) -> Result<Vec<u32>, ModelError> {
        let tensor = self.tensor(name)?;
        let data = tensor.data();
        let indices: Vec<i64> = match tensor.dtype() {
            Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
            Dtype::U32 => data.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes).into()).collect(),
            other => return Err(self.wrong(name, format!("is of {other:?}; I32, I64 and U32 can be read"))),
        };
        if tensor.shape().len() != 1 {
            return Err(self.wrong(name, format!("has the shape {:?} and not one dimension", tensor.shape())));
        }
        let below = |&index: &i64| u32::try_from(index).ok().filter(|&index| (index as usize) < limit);
        indices
            .iter()
            .map(|index| below(index).ok_or_else(|| self.wrong(name, format!("has {index}, of {limit} rows"))))
            .collect()
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'a>, ModelError> {
        self.tensors.tensor(name).map_err(|_| self.wrong(name, "is missing"))
    }

    fn floats(&self, name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, ModelError> {
        let data = tensor.data();
        let floats: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect(),
            other => return Err(self.wrong(name, format!("is of {other:?}; F16, BF16, F32 and F64 can be read"))),
        };
        match floats.iter().position(|float| !float.is_finite()) {
            Some(position) => Err(self.wrong(name, format!("has {} at position {position}", floats[position]))),
            None => Ok(floats),
        }
    }

    pub(crate) fn wrong(&self, name: &str, reason: impl Into<String>) -> ModelError {
        ModelError::Tensor { path: self.path.to_owned(), tensor: name.to_owned(), reason: reason.into() }
    }
}
