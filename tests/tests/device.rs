//! The decoder on a device: the model, the seams and the loop are those of the CPU, the tokens have to be too.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use whittle_llama::cache::PlainStore;
use whittle_llama::sample::{Sampler, generate};
use whittle_llama::tensor_store::TensorStore;
use whittle_llama::{
    Adapter, Decoder, Error, Gguf, KvStore, Safetensors, Span, Tokenizer, Visible, Weights, tiny,
};
use whittle_ptx_vm::{Limits, Vm};
use whittle_tensor::Device;
use whittle_tensor::random::Philox4x32;

/// A virtual machine, and the device that it is.
fn machine() -> (Arc<Vm>, Device) {
    let vm = whittle_ptx_vm::open(Limits::checked(80));
    (vm.clone(), Device::Gpu(vm))
}

fn model() -> (Gguf, Decoder) {
    let gguf = Gguf::from_bytes("tiny.gguf", tiny::gguf(1)).unwrap();
    let decoder = Decoder::load(&gguf, Weights::F32).unwrap();
    (gguf, decoder)
}

fn prompt(gguf: &Gguf) -> Vec<u32> {
    let tokenizer = Tokenizer::from_gguf(gguf).unwrap();
    tokenizer.encode("The capital of France is").unwrap()
}

/// Eight tokens after the prompt, each the likeliest.
fn continued(decoder: &Decoder, store: &mut dyn KvStore, prompt: &[u32]) -> Vec<u32> {
    let sequence = store.sequence().unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    let sampler = Sampler::greedy();
    generate(decoder, store, sequence, prompt, 8, &sampler, &mut go_on).unwrap()
}

#[test]
fn greedy_tokens_on_the_virtual_machine_are_those_of_the_cpu() {
    let (gguf, decoder) = model();
    let (vm, device) = machine();
    let shape = decoder.config().cache_shape();
    let prompt = prompt(&gguf);
    let expected = continued(
        &decoder,
        &mut PlainStore::<f32>::new(shape).unwrap(),
        &prompt,
    );
    assert_eq!(expected.len(), 8);

    let there = decoder.to_device(&device).unwrap();
    let mut store = TensorStore::new(shape, &device).unwrap();
    assert_eq!(continued(&there, &mut store, &prompt), expected);

    // It was the kernels that did it.
    let entries: HashSet<String> = vm
        .reports()
        .into_iter()
        .map(|report| report.kernel)
        .collect();
    for entry in [
        "gather_b128",
        "rms_norm_f32",
        "gemm_f32_nk",
        "gemm_f32_kn",
        "gemv_f32",
        "rope_interleaved_f32",
        "softmax_f32",
        "silu_mul_f32",
    ] {
        assert!(entries.contains(entry), "no {entry} in {entries:?}");
    }
}

/// A seeded adapter of rank 2 for the query projection of the first layer.
fn adapter() -> Adapter {
    let module = "base_model.model.model.layers.0.self_attn.q_proj";
    let len = 4 * 2 * tiny::WIDTH;
    let header = format!(
        r#"{{"{module}.lora_A.weight":{{"dtype":"F32","shape":[2,{0}],"data_offsets":[0,{len}]}},
        "{module}.lora_B.weight":{{"dtype":"F32","shape":[{0},2],"data_offsets":[{len},{1}]}}}}"#,
        tiny::WIDTH,
        2 * len
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let stream = &mut Philox4x32::new(3, 0);
    bytes.extend((0..4 * tiny::WIDTH).flat_map(|_| (stream.next_normal() * 0.1).to_le_bytes()));
    let weights = Safetensors::from_bytes("adapter", bytes).unwrap();
    Adapter::new(
        "adapter",
        r#"{"peft_type":"LORA","r":2,"lora_alpha":4}"#,
        &weights,
    )
    .unwrap()
}

#[test]
fn logits_with_an_adapter_on_the_virtual_machine_are_those_of_the_cpu() {
    let (gguf, decoder) = model();
    let (_, device) = machine();
    let shape = decoder.config().cache_shape();
    let prompt = prompt(&gguf);
    let logits = |decoder: &Decoder, store: &mut dyn KvStore| {
        let sequence = store.sequence().unwrap();
        let hidden = decoder
            .prefill(store, sequence, &prompt, 4, &mut |_| ())
            .unwrap();
        decoder.logits(&hidden).unwrap().to_vec::<f32>().unwrap()
    };
    let apart = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let plain = || PlainStore::<f32>::new(shape).unwrap();
    let base = logits(&decoder, &mut plain());
    let here = decoder.clone().with_adapter(&adapter()).unwrap();
    let expected = logits(&here, &mut plain());
    let there = decoder.to_device(&device).unwrap();
    let there = there.with_adapter(&adapter()).unwrap();
    let found = logits(&there, &mut TensorStore::new(shape, &device).unwrap());
    assert!(apart(&found, &expected) < 1e-3);
    assert!(apart(&base, &expected) > 0.1);
}

#[test]
fn logits_of_a_ragged_batch_on_the_virtual_machine_are_those_of_the_cpu() {
    let (gguf, decoder) = model();
    let (_, device) = machine();
    let shape = decoder.config().cache_shape();
    let prompt = prompt(&gguf);
    let logits = |decoder: &Decoder, store: &mut dyn KvStore| {
        let (a, b) = (store.sequence().unwrap(), store.sequence().unwrap());
        let spans = [(a, prompt.len()), (b, 1)].map(|(sequence, tokens)| Span { sequence, tokens });
        let tokens = [&prompt[..], &[7]].concat();
        let first = decoder
            .forward(store, &spans, &tokens, Visible::Causal)
            .unwrap();
        let second = decoder.step(store, &[(b, 8), (a, 9)]).unwrap();
        let first = decoder.logits(&first).unwrap().to_vec::<f32>().unwrap();
        [first, second.to_vec::<f32>().unwrap()].concat()
    };
    let here = logits(&decoder, &mut PlainStore::<f32>::new(shape).unwrap());
    let there = logits(
        &decoder.to_device(&device).unwrap(),
        &mut TensorStore::new(shape, &device).unwrap(),
    );
    assert_eq!(here.len(), there.len());
    for (i, (here, there)) in here.iter().zip(&there).enumerate() {
        // Logits are below 10; sums of up to 256 products in other orders, through two layers.
        assert!((here - there).abs() < 1e-4, "{i}: {there}, not {here}");
    }
}

#[test]
fn a_store_on_the_host_refuses_rows_that_are_on_a_device() {
    let (gguf, decoder) = model();
    let (_, device) = machine();
    let shape = decoder.config().cache_shape();
    let mut store = PlainStore::<f32>::new(shape).unwrap();
    let sequence = store.sequence().unwrap();
    let there = decoder.to_device(&device).unwrap();
    let error = there
        .prefill(&mut store, sequence, &prompt(&gguf), 8, &mut |_| ())
        .unwrap_err();
    assert!(
        matches!(error, Error::Tensor(whittle_tensor::Error::Device { .. })),
        "{error}"
    );
    assert_eq!(store.len(sequence).unwrap(), 0);
}
