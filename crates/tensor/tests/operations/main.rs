//! Every operation against an f64 oracle on `ndarray`, over awkward shapes and layouts.

mod cat;
mod csr;
mod dtype;
mod elementwise;
mod gather;
mod matmul;
mod norm;
mod oracle;
mod product;
mod random;
mod reduce;
mod rope;
mod softmax;
mod sort;
mod tensor;
mod threads;
mod view;
