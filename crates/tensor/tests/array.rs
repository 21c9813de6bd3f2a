//! Conversions from and to `ndarray`.
#![cfg(feature = "ndarray")]

use ndarray::{ArrayD, IxDyn, Slice};
use whittle_tensor::{Error, Tensor};

#[test]
fn arrays_of_any_layout_become_tensors_and_come_back() {
    for shape in [&[][..], &[0, 3], &[4, 5], &[2, 3, 4]] {
        let len: usize = shape.iter().product();
        let array =
            ArrayD::from_shape_vec(IxDyn(shape), (0..len).map(|i| i as f32).collect()).unwrap();
        let mut layouts = vec![array.clone(), array.clone().reversed_axes()];
        if let Some(&size) = shape.first() {
            let mut sliced = array.clone();
            sliced.slice_axis_inplace(ndarray::Axis(0), Slice::from(size / 2..));
            layouts.push(sliced.clone());
            sliced.invert_axis(ndarray::Axis(0));
            layouts.push(sliced);
        }
        for array in layouts {
            let tensor = Tensor::from(array.clone());
            assert_eq!(tensor.shape(), array.shape());
            assert_eq!(ArrayD::<f32>::try_from(&tensor).unwrap(), array);
            let wide = Tensor::from(array.mapv(f64::from));
            assert_eq!(
                ArrayD::<f64>::try_from(&wide).unwrap(),
                array.mapv(f64::from)
            );
        }
    }
}

#[test]
fn a_row_major_array_is_taken_over_and_views_are_copied_out() {
    let array = ArrayD::<f32>::zeros(IxDyn(&[3, 4]));
    let address = array.as_ptr();
    let tensor = Tensor::from(array);
    assert_eq!(tensor.as_slice::<f32>().unwrap().as_ptr(), address);
    let view = tensor.transpose(0, 1).unwrap();
    assert_eq!(ArrayD::<f32>::try_from(&view).unwrap().shape(), [4, 3]);
    assert!(matches!(
        ArrayD::<f64>::try_from(&tensor),
        Err(Error::DType { .. })
    ));
}
