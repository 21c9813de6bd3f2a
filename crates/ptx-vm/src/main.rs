//! `whittle-ptx-vm run FILE.ptx …`: runs a kernel of a PTX file and prints its counters.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};
use whittle_ptx_vm::{Error, Limits, Schedule, Size, open};
use whittle_tensor::device::{DevicePtr, Driver};
use whittle_tensor::kernel::Arg;

/// Beyond this, [`whittle_ptx_vm::Module::parse`] refuses a text.
const TEXT_BYTES: u64 = 8 << 20;

const USAGE: &str = "\
usage: whittle-ptx-vm run FILE.ptx --entry NAME --grid X[,Y,Z] --block X[,Y,Z] [--shared BYTES]
       [--arch 90] [--schedule in-order|reverse|SEED] [--instructions N] [--seconds N] [--memory BYTES] [--json] [--arg ARG]…

Arguments, in the order of the parameters:
  in:TYPE:PATH         a file of numbers, little-endian; TYPE is f32, f16, bf16, u32, i32, u8 or i8
  out:TYPE:COUNT:PATH  memory that nobody wrote; its bytes go to the file after the run
  inout:TYPE:PATH      a file that is read before and written after
  u32:N  i32:N  u64:N  f32:X";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(shown) => {
            print!("{shown}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A `--arg`, and what is to be done with its memory afterwards.
struct Buffer {
    arg: Arg,
    /// Where its bytes go.
    save: Option<(DevicePtr, usize, PathBuf)>,
}

fn run(args: &[String]) -> Result<String, String> {
    let [command, file, options @ ..] = args else {
        return Err(USAGE.to_owned());
    };
    if command != "run" {
        return Err(format!(
            "expected the command `run`, found `{command}`\n{USAGE}"
        ));
    }
    let (mut entry, mut size, mut json) = (
        None,
        Size {
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
        },
        false,
    );
    let mut limits = Limits::checked(90);
    let mut specs = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == "--json" {
            json = true;
            continue;
        }
        let value = options
            .next()
            .ok_or_else(|| format!("expected a value behind {option}\n{USAGE}"))?;
        match option.as_str() {
            "--entry" => entry = Some(value.as_str()),
            "--grid" => size.grid = triple(option, value)?,
            "--block" => size.block = triple(option, value)?,
            "--shared" => size.shared = number(option, value)?,
            "--arch" => limits.arch = number(option, value)?,
            "--instructions" => limits.instructions = number(option, value)?,
            "--seconds" => limits.seconds = number(option, value)?,
            "--memory" => limits.memory_bytes = number(option, value)?,
            "--schedule" => {
                limits.schedule = match value.as_str() {
                    "in-order" => Schedule::InOrder,
                    "reverse" => Schedule::Reverse,
                    seed => Schedule::Seeded(number(option, seed)?),
                }
            }
            "--arg" => specs.push(value),
            _ => return Err(format!("expected an option, found {option}\n{USAGE}")),
        }
    }
    let entry = entry.ok_or_else(|| format!("expected --entry NAME\n{USAGE}"))?;
    let text = String::from_utf8(read(file, TEXT_BYTES)?)
        .map_err(|error| format!("{file}: expected UTF-8, found {error}"))?;
    let vm = open(limits);
    let buffers: Vec<Buffer> = specs
        .into_iter()
        .map(|spec| buffer(&*vm, spec, limits.memory_bytes))
        .collect::<Result<_, _>>()?;
    let args: Vec<Arg> = buffers.iter().map(|buffer| buffer.arg).collect();
    let report = vm
        .run(&text, file, entry, size, &args)
        .map_err(|error| match error {
            Error::Parse {
                line,
                column,
                expected,
                found,
            } => {
                format!("{file}:{line}:{column}: expected {expected}, found {found}")
            }
            Error::Unsupported { line, what } => format!("{file}:{line}: unsupported {what}"),
            error => error.to_string(),
        })?;
    for (pointer, bytes, path) in buffers.into_iter().filter_map(|buffer| buffer.save) {
        let mut data = vec![0; bytes];
        vm.download(pointer, &mut data)
            .map_err(|error| error.to_string())?;
        write(&path, &data).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(if json {
        report.json() + "\n"
    } else {
        report.to_string()
    })
}

/// Writes a file whole or not at all.
fn write(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    fs::write(&partial, data)?;
    fs::File::open(&partial)?.sync_all()?;
    fs::rename(partial, path)
}

/// The bytes of a file that has at most `most` of them.
fn read(path: &str, most: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let mut data = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(most.saturating_add(1))
        .read_to_end(&mut data)
        .map_err(failed)?;
    if data.len() as u64 > most {
        return Err(format!("{path}: expected at most {most} bytes, found more"));
    }
    Ok(data)
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{option}: expected a number, found {text}"))
}

fn triple(option: &str, text: &str) -> Result<[u32; 3], String> {
    let mut of = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err(format!(
            "{option}: expected up to three sizes, found {text}"
        ));
    }
    for (of, part) in of.iter_mut().zip(parts) {
        *of = number(option, part)?;
    }
    Ok(of)
}

fn bytes_of(ty: &str) -> Result<usize, String> {
    match ty {
        "f32" | "u32" | "i32" => Ok(4),
        "f16" | "bf16" => Ok(2),
        "u8" | "i8" => Ok(1),
        _ => Err(format!(
            "--arg: expected one of f32, f16, bf16, u32, i32, u8, i8, found {ty}"
        )),
    }
}

/// The memory or number of an argument; `most` bytes of memory there are.
fn buffer(driver: &dyn Driver, spec: &str, most: u64) -> Result<Buffer, String> {
    let (kind, rest) = spec
        .split_once(':')
        .ok_or_else(|| format!("--arg: expected KIND:…, found {spec}"))?;
    let scalar = |arg| Ok(Buffer { arg, save: None });
    match kind {
        "u32" => return scalar(Arg::U32(number("--arg", rest)?)),
        "i32" => return scalar(Arg::I32(number("--arg", rest)?)),
        "u64" => return scalar(Arg::U64(number("--arg", rest)?)),
        "f32" => return scalar(Arg::F32(number("--arg", rest)?)),
        "in" | "out" | "inout" => {}
        _ => {
            return Err(format!(
                "--arg: expected in, out, inout, u32, i32, u64 or f32, found {kind}\n{USAGE}"
            ));
        }
    }
    let (ty, rest) = rest
        .split_once(':')
        .ok_or_else(|| format!("--arg: expected {kind}:TYPE:…, found {spec}"))?;
    let size = bytes_of(ty)?;
    let driver_error = |error: whittle_tensor::Error| error.to_string();
    if kind == "out" {
        let (count, path) = rest
            .split_once(':')
            .ok_or_else(|| format!("--arg: expected out:TYPE:COUNT:PATH, found {spec}"))?;
        let count: usize = number("--arg", count)?;
        let bytes = count
            .checked_mul(size)
            .ok_or_else(|| format!("--arg: {spec} is too large"))?;
        let pointer = driver.alloc(bytes).map_err(driver_error)?;
        return Ok(Buffer {
            arg: Arg::Ptr(pointer),
            save: Some((pointer, bytes, path.into())),
        });
    }
    let data = read(rest, most)?;
    if data.len() % size != 0 {
        return Err(format!(
            "{rest}: expected a multiple of {size} bytes, found {}",
            data.len()
        ));
    }
    let pointer = driver.alloc(data.len()).map_err(driver_error)?;
    driver.upload(pointer, &data).map_err(driver_error)?;
    Ok(Buffer {
        arg: Arg::Ptr(pointer),
        save: (kind == "inout").then(|| (pointer, data.len(), rest.into())),
    })
}
