//! Configurations, shapes and policies.

use whittle_kivi::{
    Arithmetic, Bits, Config, Error, GroupSize, HeadDim, LayerBits, Policy, Prefill, Rounding,
    Shape, Window, value_group,
};

fn named() -> [(&'static str, Config, f64); 6] {
    [
        ("kivi_2", Config::kivi_2(), 3.0),
        ("kivi_4", Config::kivi_4(), 5.0),
        ("small", Config::small(), 2.5),
        ("compact", Config::compact(), 3.0),
        ("balanced", Config::balanced(), 3.5),
        ("safe", Config::safe(), 5.0),
    ]
}

fn argument<T: std::fmt::Debug>(result: Result<T, Error>) -> (&'static str, String, String) {
    match result {
        Err(Error::Argument {
            argument,
            expected,
            found,
        }) => (argument, expected, found),
        other => panic!("{other:?}"),
    }
}

#[test]
fn named_configurations_are_valid_and_take_the_bits_of_their_names() -> Result<(), Error> {
    for (name, config, bits) in named() {
        config.validate()?;
        for head_dim in [64, 128, 256] {
            assert_eq!(
                config.bits(HeadDim::new(head_dim)?),
                bits,
                "{name} at {head_dim}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_paper_configurations_are_the_papers() {
    let paper = Config::kivi_2();
    assert_eq!(paper.window, Window::SawTooth { residual_len: 128 });
    assert_eq!(
        (paper.group_size, paper.sink_len, paper.rounding),
        (GroupSize::G32, 0, Rounding::Half)
    );
    assert_eq!(
        (paper.clip_search, paper.rotate_values, paper.prefill),
        (false, false, Prefill::Exact)
    );
    assert_eq!((paper.key_bits, paper.value_bits), (Bits::Two, Bits::Two));
    assert_eq!(
        Config::kivi_4(),
        paper.with_key_bits(Bits::Four).with_value_bits(Bits::Four)
    );
}

#[test]
fn our_configurations_differ_from_balanced_in_what_their_names_say() {
    let balanced = Config::balanced();
    assert_eq!(
        (balanced.key_bits, balanced.value_bits, balanced.sink_len),
        (Bits::Three, Bits::Two, 4)
    );
    assert_eq!(balanced.window, Window::Sliding { residual_len: 128 });
    assert!(balanced.clip_search && balanced.rotate_values);
    assert_eq!(
        (balanced.prefill, balanced.rounding),
        (Prefill::Streaming, Rounding::Native)
    );
    let two = balanced.with_key_bits(Bits::Two);
    assert_eq!(Config::small(), two.with_group_size(GroupSize::G64));
    assert_eq!(
        Config::compact(),
        two.with_window(Window::Sliding { residual_len: 64 })
    );
    let four = balanced
        .with_key_bits(Bits::Four)
        .with_value_bits(Bits::Four);
    assert_eq!(
        Config::safe(),
        four.with_clip_search(false).with_rotate_values(false)
    );
}

#[test]
fn each_switch_changes_one_field() {
    let config = Config::balanced();
    let changed = [
        (
            config.with_sink_len(1),
            Config {
                sink_len: 1,
                ..config
            },
        ),
        (
            config.with_rounding(Rounding::Half),
            Config {
                rounding: Rounding::Half,
                ..config
            },
        ),
        (
            config.with_prefill(Prefill::Exact),
            Config {
                prefill: Prefill::Exact,
                ..config
            },
        ),
        (
            config.with_arithmetic(Arithmetic::Int8),
            Config {
                arithmetic: Arithmetic::Int8,
                ..config
            },
        ),
    ];
    for (with, expected) in changed {
        assert_eq!(with, expected);
        assert_ne!(with, config);
    }
}

#[test]
fn bits_count_metadata_of_value_groups_and_padding() -> Result<(), Error> {
    let compact = Config::compact();
    // 80 channels have no group of 32: five groups of 16 cost 32 more bits for each 16 elements.
    assert_eq!(compact.value_group(HeadDim::new(80)?), 16);
    assert_eq!(compact.key_bits_per_element(HeadDim::new(80)?), 3.0);
    assert_eq!(compact.value_bits_per_element(HeadDim::new(80)?), 4.0);
    // The high plane of 3-bit keys holds 32 channels a chunk: 80 are padded to 96.
    let balanced = Config::balanced();
    assert_eq!(
        balanced.key_bits_per_element(HeadDim::new(80)?),
        2.0 + 96.0 / 80.0 + 1.0
    );
    assert_eq!(balanced.bits(HeadDim::new(80)?), (4.2 + 4.0) / 2.0);
    Ok(())
}

#[test]
fn a_value_group_is_the_largest_divisor_in_sixteens_up_to_the_group_size() -> Result<(), Error> {
    for head_dim in (16..=1024).step_by(16) {
        for group in [
            GroupSize::G16,
            GroupSize::G32,
            GroupSize::G64,
            GroupSize::G128,
        ] {
            let expected = (1..=8)
                .map(|i| 16 * i)
                .filter(|size| head_dim % size == 0 && *size <= group.get())
                .max();
            assert_eq!(
                Some(value_group(HeadDim::new(head_dim)?, group)),
                expected,
                "{head_dim} {group:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn bad_sizes_are_errors_that_name_argument_expectation_and_finding() {
    for bad in [0, 8, 15, 17, 1032, 1040, usize::MAX] {
        let (name, expected, found) = argument(HeadDim::new(bad));
        assert_eq!(
            (name, expected.as_str()),
            ("head_dim", "a multiple of 16 from 16 to 1024")
        );
        assert_eq!(found, bad.to_string());
        assert_eq!(argument(GroupSize::new(bad)).0, "group_size");
    }
    for good in (16..=1024).step_by(16) {
        assert_eq!(HeadDim::new(good).map(HeadDim::get).ok(), Some(good));
    }
    for good in [16, 32, 64, 128] {
        assert_eq!(GroupSize::new(good).map(GroupSize::get).ok(), Some(good));
    }
    let message = HeadDim::new(8).expect_err("too small").to_string();
    assert_eq!(
        message,
        "head_dim: expected a multiple of 16 from 16 to 1024, found 8"
    );
}

#[test]
fn bad_windows_and_clip_search_in_f16_are_errors() {
    let paper = Config::kivi_2();
    for residual_len in [0, 1, 33, 100] {
        let (name, expected, found) = argument(
            paper
                .with_window(Window::SawTooth { residual_len })
                .validate(),
        );
        assert_eq!(
            (name, found),
            ("window.residual_len", residual_len.to_string())
        );
        assert!(expected.contains("32"), "{expected}");
    }
    for residual_len in [0, 1, 33, 100] {
        assert!(
            paper
                .with_window(Window::Sliding { residual_len })
                .validate()
                .is_ok()
        );
    }
    assert_eq!(
        argument(paper.with_clip_search(true).validate()).0,
        "clip_search"
    );
}

#[test]
fn shapes_need_heads_that_divide() -> Result<(), Error> {
    let shape = Shape {
        layers: 30,
        query_heads: 9,
        kv_heads: 3,
        head_dim: HeadDim::new(64)?,
    };
    shape.validate()?;
    assert_eq!(shape.group(), 3);
    assert_eq!(
        argument(Shape { layers: 0, ..shape }.validate()).0,
        "layers"
    );
    assert_eq!(
        argument(
            Shape {
                kv_heads: 0,
                ..shape
            }
            .validate()
        )
        .0,
        "kv_heads"
    );
    assert_eq!(
        argument(
            Shape {
                query_heads: 0,
                ..shape
            }
            .validate()
        )
        .0,
        "query_heads"
    );
    let (name, expected, found) = argument(
        Shape {
            query_heads: 10,
            ..shape
        }
        .validate(),
    );
    assert_eq!(
        (name, expected.as_str(), found.as_str()),
        ("query_heads", "a multiple of kv_heads = 3", "10")
    );
    Ok(())
}

#[test]
fn a_policy_gives_each_layer_its_bits_and_the_rest_of_the_configuration() -> Result<(), Error> {
    let shape = Shape {
        layers: 2,
        query_heads: 1,
        kv_heads: 1,
        head_dim: HeadDim::new(64)?,
    };
    let config = Config::compact();
    let uniform = Policy::uniform(config);
    uniform.validate(&shape)?;
    assert_eq!(
        (uniform.layer(0), uniform.layer(1)),
        (Some(config), Some(config))
    );
    let bits = |key_bits, value_bits| LayerBits {
        key_bits,
        value_bits,
    };
    let layers = vec![bits(Bits::Four, Bits::Three), bits(Bits::Two, Bits::Two)];
    let mixed = Policy::layers(config, layers.clone());
    mixed.validate(&shape)?;
    let first = config
        .with_key_bits(Bits::Four)
        .with_value_bits(Bits::Three);
    assert_eq!(
        (mixed.layer(0), mixed.layer(1), mixed.layer(2)),
        (Some(first), Some(config), None)
    );
    assert_eq!(mixed.config(), &config);
    let short = Policy::layers(config, layers[1..].to_vec());
    assert_eq!(argument(short.validate(&shape)).0, "policy.layers");
    let broken = Policy::uniform(Config::kivi_2().with_clip_search(true));
    assert_eq!(argument(broken.validate(&shape)).0, "clip_search");
    Ok(())
}
