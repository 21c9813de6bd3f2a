//! What `open` says on a machine without a driver.

#[test]
fn without_a_driver_the_error_lists_what_was_looked_for() {
    let Err(error) = whittle_cuda::open(0) else {
        // A machine with a GPU; `tests/stand_in.rs` and the GPU folder have more to say there.
        return;
    };
    let message = error.to_string();
    assert!(message.starts_with("cuda:0: open failed: "), "{message}");
    if message.contains("no NVIDIA driver found") {
        for name in ["libcuda.so.1 (", "libcuda.so (", "nvcuda.dll ("] {
            assert!(message.contains(name), "`{message}` does not say `{name}`");
        }
    }
}
