//! Constructors and access.

use crate::oracle::{ALL, array, assert_error, strided};
use whittle_tensor::{DType, Device, Error, Tensor};

#[test]
fn constructors_fill_every_dtype() {
    for dtype in ALL {
        for shape in [&[][..], &[0], &[3, 0, 2], &[2, 5]] {
            let zeros = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
            let full = Tensor::full(shape, 7.0, dtype, &Device::Cpu).unwrap();
            assert_eq!(
                (zeros.shape(), zeros.dtype(), zeros.device()),
                (shape, dtype, &Device::Cpu)
            );
            assert!(
                array(&zeros).iter().all(|&x| x == 0.0) && array(&full).iter().all(|&x| x == 7.0)
            );
            assert_eq!(
                (full.len(), full.is_empty()),
                (shape.iter().product(), shape.contains(&0))
            );
        }
    }
    assert_eq!(Tensor::scalar(5u8).to_scalar::<u8>().unwrap(), 5);
    assert_eq!(Tensor::scalar(5u8).shape(), [0usize; 0]);
}

#[test]
fn shapes_beyond_memory_are_errors() {
    for dtype in ALL {
        assert_error(
            Tensor::zeros(&[usize::MAX, 2], dtype, &Device::Cpu),
            &["zeros", "usize"],
        );
        assert_error(
            Tensor::zeros(&[usize::MAX, 0, 2], dtype, &Device::Cpu),
            &["zeros", "usize"],
        );
        assert_error(
            Tensor::full(&[usize::MAX], 1.0, dtype, &Device::Cpu),
            &["full", "memory"],
        );
    }
    assert_error(
        Tensor::from_vec(vec![0f32; 4], &[usize::MAX, usize::MAX]),
        &["from_vec", "usize"],
    );
    let endless = Tensor::scalar(1f32).broadcast_to(&[usize::MAX]).unwrap();
    assert_error(endless.contiguous(), &["contiguous", "memory"]);
    assert_error(endless.exp(), &["memory"]);
    assert_error(endless.sum(0), &["memory"]);
    assert_error(endless.to_vec::<f32>(), &["to_vec", "memory"]);
    assert_error(
        endless.matmul(&endless),
        &["matmul", &format!("{}", usize::MAX)],
    );
    assert_error(endless.add(&endless), &["add", "memory"]);
    assert_error(Tensor::cat(&[&endless, &endless], 0), &["cat"]);
    assert_error(
        endless.arg_sort(0, whittle_tensor::Order::Ascending),
        &["arg_sort", "u32"],
    );
}

#[test]
fn as_slice_borrows_and_says_why_it_cannot() {
    let x = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]).unwrap();
    assert_eq!(
        x.narrow(0, 1, 2).unwrap().as_slice::<f32>().unwrap(),
        [3.0, 4.0, 5.0, 6.0]
    );
    assert_error(x.as_slice::<f64>(), &["as_slice", "f64", "f32"]);
    let gaps = x.narrow(1, 0, 1).unwrap();
    assert!(matches!(
        gaps.as_slice::<f32>(),
        Err(Error::Layout { op: "as_slice", .. })
    ));
    assert_error(gaps.as_slice::<f32>(), &["as_slice", "[3, 1]"]);
    assert_error(x.to_vec::<u8>(), &["to_vec", "u8", "f32"]);
    assert_error(x.clone().into_vec::<u8>(), &["into_vec", "u8", "f32"]);
    assert_error(x.to_scalar::<f32>(), &["to_scalar", "[3, 2]"]);
    assert_error(
        Tensor::from_vec(vec![0u8; 5], &[2, 3]),
        &["from_vec", "5", "[2, 3]"],
    );
    assert_error(x.device_ptr(), &["device_ptr", "cpu"]);
}

#[test]
fn into_vec_moves_where_it_may_and_copies_where_it_must() {
    let data = vec![1f32, 2.0, 3.0, 4.0];
    let address = data.as_ptr();
    let x = Tensor::from_vec(data, &[2, 2]).unwrap();
    assert_eq!(
        x.as_slice::<f32>().unwrap().as_ptr(),
        address,
        "from_vec takes the vector over"
    );

    let other = x.clone();
    let copy = x.into_vec::<f32>().unwrap();
    assert_ne!(copy.as_ptr(), address, "another tensor holds the storage");
    assert_eq!(
        other.transpose(0, 1).unwrap().into_vec::<f32>().unwrap(),
        [1.0, 3.0, 2.0, 4.0]
    );
    assert_eq!(
        other.narrow(0, 1, 1).unwrap().into_vec::<f32>().unwrap(),
        [3.0, 4.0]
    );
    let moved = other.into_vec::<f32>().unwrap();
    assert_eq!(moved.as_ptr(), address, "the last one gets it back");
}

#[test]
fn storage_bytes_counts_what_a_view_keeps_alive() {
    let x = strided(&[8, 4], DType::F16, 0).contiguous().unwrap();
    let whole = x.storage_bytes();
    assert_eq!(x.narrow(0, 0, 1).unwrap().storage_bytes(), whole);
    assert!(whole >= 8 * 4 * 2);
}

#[test]
fn debug_says_type_shape_and_device() {
    let x = Tensor::zeros(&[2, 3], DType::BF16, &Device::Cpu).unwrap();
    let text = format!("{x:?}");
    assert!(
        text.contains("bf16") && text.contains("[2, 3]") && text.contains("cpu"),
        "{text}"
    );
}
