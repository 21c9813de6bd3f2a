//! Kernels: one name, the PTX text that holds it, one declared signature, checked at each launch.

use crate::device::{DevicePtr, Driver};
use crate::{Error, Result};
use std::fmt;

/// A kernel's declaration, made by [`kernels!`](crate::kernels).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    module: &'static str,
    ptx: &'static str,
    entry: &'static str,
    parameters: &'static [Parameter],
}

impl Kernel {
    /// Declares a kernel; [`kernels!`](crate::kernels) writes this call.
    pub const fn new(
        module: &'static str,
        ptx: &'static str,
        entry: &'static str,
        parameters: &'static [Parameter],
    ) -> Self {
        Self {
            module,
            ptx,
            entry,
            parameters,
        }
    }

    /// The name of the PTX module, for messages and for the place where a driver keeps what it has loaded. Two crates may use
    /// one name for two texts.
    pub const fn module(&self) -> &'static str {
        self.module
    }

    /// The module's PTX text, which a driver loads.
    pub const fn ptx(&self) -> &'static str {
        self.ptx
    }

    /// The `.entry` in the PTX text.
    pub const fn entry(&self) -> &'static str {
        self.entry
    }

    /// The parameters, in order.
    pub const fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }

    /// Checks arguments, grid and block, then hands them to the driver: `grid` blocks of `block` threads, `shared` bytes of
    /// dynamic shared memory.
    ///
    /// # Errors
    /// [`Error::Launch`] for arguments that are not the declared ones or an empty grid or block; what the driver says otherwise.
    pub fn launch(
        &self,
        driver: &dyn Driver,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[Arg],
    ) -> Result<()> {
        self.check(args)?;
        if grid.contains(&0) || block.contains(&0) {
            return Err(Error::Launch {
                kernel: self.entry,
                expected: "a grid and a block without zeros".to_owned(),
                found: format!("grid {grid:?} block {block:?}"),
            });
        }
        driver.launch(self, grid, block, shared, args)
    }

    /// Whether `args` are the declared parameters in number and kind.
    ///
    /// # Errors
    /// [`Error::Launch`] that names the first parameter that differs.
    pub fn check(&self, args: &[Arg]) -> Result<()> {
        if args.len() != self.parameters.len() {
            return Err(Error::Launch {
                kernel: self.entry,
                expected: format!("{} arguments", self.parameters.len()),
                found: args.len().to_string(),
            });
        }
        for (at, (parameter, arg)) in self.parameters.iter().zip(args).enumerate() {
            if parameter.kind != arg.kind() {
                return Err(Error::Launch {
                    kernel: self.entry,
                    expected: format!(
                        "argument {at} ({}) of kind {:?}",
                        parameter.name, parameter.kind
                    ),
                    found: format!("{arg:?}"),
                });
            }
        }
        Ok(())
    }
}

/// Everything but the text, which can be long.
impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("module", &self.module)
            .field("entry", &self.entry)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// One declared parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in PTX and in the CPU reference.
    pub name: &'static str,
    /// Its kind.
    pub kind: ArgKind,
}

/// Kinds of kernel arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// Device address, PTX `.u64`.
    Ptr,
    /// PTX `.u32`.
    U32,
    /// PTX `.s32`.
    I32,
    /// PTX `.u64`.
    U64,
    /// PTX `.f32`.
    F32,
}

/// One argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Device address.
    Ptr(DevicePtr),
    /// Unsigned 32-bit integer.
    U32(u32),
    /// Signed 32-bit integer.
    I32(i32),
    /// Unsigned 64-bit integer.
    U64(u64),
    /// Single-precision number.
    F32(f32),
}

impl Arg {
    /// The argument's kind.
    pub const fn kind(&self) -> ArgKind {
        match self {
            Self::Ptr(_) => ArgKind::Ptr,
            Self::U32(_) => ArgKind::U32,
            Self::I32(_) => ArgKind::I32,
            Self::U64(_) => ArgKind::U64,
            Self::F32(_) => ArgKind::F32,
        }
    }
}

/// Declares the kernels of a PTX module: first its name and text, `module "name" in include_str!("ptx/name.ptx");`, then
/// `NAME = "entry"(parameter: Kind, …);`, a doc comment before each. `Kind` is a variant of
/// [`ArgKind`](crate::kernel::ArgKind). The text is any constant expression.
///
/// ```
/// const PTX: &str = "
///     .version 7.0
///     .target sm_70
///     .address_size 64
///     .visible .entry scale_f32(.param .u64 x, .param .u64 y, .param .f32 alpha, .param .u32 n) { ret; }
/// ";
/// whittle_tensor::kernels! {
///     module "scale" in PTX;
///
///     /// `y[i] = alpha · x[i]` for `i < n`.
///     SCALE = "scale_f32"(x: Ptr, y: Ptr, alpha: F32, n: U32);
/// }
/// assert_eq!((SCALE.module(), SCALE.entry()), ("scale", "scale_f32"));
/// assert!(SCALE.ptx().contains(".entry scale_f32("));
/// assert_eq!(SCALE.parameters()[2].name, "alpha");
/// ```
#[macro_export]
macro_rules! kernels {
    (
        module $module:literal in $ptx:expr;
        $($(#[$attribute:meta])* $name:ident = $entry:literal($($parameter:ident: $kind:ident),* $(,)?);)*
    ) => {$(
        $(#[$attribute])*
        pub const $name: $crate::kernel::Kernel = $crate::kernel::Kernel::new(
            $module,
            $ptx,
            $entry,
            &[$($crate::kernel::Parameter {
                name: stringify!($parameter),
                kind: $crate::kernel::ArgKind::$kind,
            }),*],
        );
    )*};
}
