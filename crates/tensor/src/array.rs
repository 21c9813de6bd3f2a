//! Conversions from and to `ndarray`, behind the feature `ndarray`.

use crate::{Error, Layout, Tensor};
use ndarray::{ArrayD, IxDyn};

macro_rules! conversions {
    ($($type:ty),*) => {$(
        /// Without a copy where the array is in row-major order.
        impl From<ArrayD<$type>> for Tensor {
            fn from(array: ArrayD<$type>) -> Self {
                // Arrays keep the product of their sizes below isize::MAX, as this layout wants it.
                let layout = Layout::row_major(array.shape());
                let len = array.len();
                let data = if array.is_standard_layout() {
                    // The array may be a part of its vector that was sliced in place.
                    let (mut data, start) = array.into_raw_vec_and_offset();
                    data.drain(..start.unwrap_or(0));
                    data.truncate(len);
                    data
                } else {
                    array.iter().copied().collect()
                };
                Self::owned::<$type>(data, layout)
            }
        }

        /// A copy in row-major order.
        impl TryFrom<&Tensor> for ArrayD<$type> {
            type Error = Error;

            /// # Errors
            /// [`Error::DType`] where the elements are of another type; on a device whatever its driver says.
            fn try_from(tensor: &Tensor) -> Result<Self, Error> {
                let values = tensor.to_vec::<$type>()?;
                Self::from_shape_vec(IxDyn(tensor.shape()), values)
                    .map_err(|error| Error::shape("to ndarray", error.to_string(), format!("{:?}", tensor.shape())))
            }
        }
    )*};
}

conversions!(f32, f64);
