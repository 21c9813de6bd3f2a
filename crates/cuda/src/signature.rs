//! What PTX text says of an entry's parameters.

use whittle_tensor::kernel::{Arg, ArgKind};

/// The `.param` types of an entry, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature(Vec<String>);

impl Signature {
    /// Reads the parameters of `.entry name(…)`, or says why they can't be read.
    pub fn read(ptx: &str, name: &str) -> Result<Self, String> {
        let text = without_comments(ptx);
        let list = text
            .split(".entry")
            .skip(1)
            .find_map(|rest| {
                let rest = rest.trim_start().strip_prefix(name)?.trim_start();
                // A name that only begins alike goes on; an entry without parameters may leave out the parentheses.
                match rest.chars().next()? {
                    '(' => rest[1..].split(')').next(),
                    '{' | '.' => Some(""),
                    _ => None,
                }
            })
            .ok_or_else(|| format!("the PTX text has no .entry {name}"))?;
        list.split(',')
            .map(str::trim)
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| kind_of(parameter).map(str::to_owned))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a launch may hand over `args`: the driver reads as many bytes of each as the entry says and can't check them.
    pub fn check(&self, args: &[Arg]) -> Result<(), String> {
        if self.0.len() != args.len() {
            return Err(format!(
                "the entry takes {} arguments, the launch has {}",
                self.0.len(),
                args.len()
            ));
        }
        let wrong = self
            .0
            .iter()
            .zip(args)
            .position(|(kind, arg)| !takes(kind, arg.kind()));
        wrong.map_or(Ok(()), |at| {
            Err(format!(
                "the entry takes {} as argument {at}, the launch has {:?}",
                self.0[at], args[at]
            ))
        })
    }
}

/// The type in `.param .u64 .ptr .global .align 16 x`.
fn kind_of(parameter: &str) -> Result<&str, String> {
    let unreadable = || format!("expected a parameter of 4 or 8 bytes, found `{parameter}`");
    if parameter.contains('[') {
        return Err(unreadable());
    }
    parameter
        .split_whitespace()
        .filter(|word| *word != ".param")
        .find(|word| takes_any(word))
        .ok_or_else(unreadable)
}

fn takes_any(kind: &str) -> bool {
    [ArgKind::Ptr, ArgKind::U32, ArgKind::F32]
        .into_iter()
        .any(|arg| takes(kind, arg))
}

fn takes(kind: &str, arg: ArgKind) -> bool {
    match arg {
        ArgKind::Ptr | ArgKind::U64 => [".u64", ".s64", ".b64"].contains(&kind),
        ArgKind::U32 | ArgKind::I32 => [".u32", ".s32", ".b32"].contains(&kind),
        ArgKind::F32 => [".f32", ".b32"].contains(&kind),
    }
}

/// The text with a space for each comment.
fn without_comments(ptx: &str) -> String {
    let mut text = String::with_capacity(ptx.len());
    let mut rest = ptx;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        text.push_str(&rest[..at]);
        text.push(' ');
        let end = if rest[at..].starts_with("//") {
            rest[at..].find('\n')
        } else {
            rest[at + 2..].find("*/").map(|end| end + 4)
        };
        rest = end.map_or("", |end| &rest[at + end..]);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use whittle_tensor::DevicePtr;

    const PTX: &str = "
        // .entry commented( .param .u32 a )
        .version 7.0
        .target /* the oldest: sm_50 */ sm_80
        .address_size 64
        .visible .entry copy_v4_tail(.param .u32 n) { ret; }
        .visible .entry copy_v4(
            .param .u64 .ptr .global .align 16 src, // where from
            .param .u64 dst,
            .param .f32 alpha, .param .s32 shift, .param .b32 bits
        )
        .maxntid 256
        { ret; }
        .entry nothing { ret; }
        .entry none() .maxntid 32 { ret; }
        .entry block(.param .align 8 .b8 p[16]) { ret; }
    ";

    #[test]
    fn parameters_are_read_past_comments_and_attributes() {
        let read = |name| Signature::read(PTX, name);
        let kinds = [".u64", ".u64", ".f32", ".s32", ".b32"].map(str::to_owned);
        assert_eq!(read("copy_v4"), Ok(Signature(kinds.to_vec())));
        assert_eq!(read("copy_v4_tail"), Ok(Signature(vec![".u32".to_owned()])));
        assert_eq!(read("nothing"), Ok(Signature(Vec::new())));
        assert_eq!(read("none"), Ok(Signature(Vec::new())));
        assert!(
            read("commented")
                .unwrap_err()
                .contains("no .entry commented")
        );
        assert!(read("copy").unwrap_err().contains("no .entry copy"));
        assert!(read("block").unwrap_err().contains("p[16]"));
    }

    #[test]
    fn arguments_that_the_driver_would_misread_are_refused() {
        let signature = Signature::read(PTX, "copy_v4").unwrap();
        let pointer = Arg::Ptr(DevicePtr::new(256));
        let good = [
            pointer,
            Arg::U64(1),
            Arg::F32(1.0),
            Arg::I32(1),
            Arg::U32(1),
        ];
        assert_eq!(signature.check(&good), Ok(()));
        // Bits are anything of four bytes.
        let bits = [pointer, pointer, Arg::F32(1.0), Arg::U32(1), Arg::F32(1.0)];
        assert_eq!(signature.check(&bits), Ok(()));
        assert!(
            signature
                .check(&good[..4])
                .unwrap_err()
                .contains("5 arguments")
        );
        for (at, arg) in [(0, Arg::U32(1)), (2, Arg::U32(1)), (3, pointer)] {
            let mut wrong = good;
            wrong[at] = arg;
            let error = signature.check(&wrong).unwrap_err();
            assert!(error.contains(&format!("argument {at}")), "{error}");
        }
    }
}
