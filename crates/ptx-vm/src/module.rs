//! What a PTX file holds: variables and entries, checked and decoded.

use crate::error::{Error, Result};
use crate::op::{Instruction, Operand, Slot, Space, Type};
use crate::{decode, parse};
use whittle_tensor::kernel::{ArgKind, Kernel};

/// A PTX module.
#[derive(Debug)]
pub struct Module {
    pub(crate) version: (u32, u32),
    pub(crate) target: u32,
    pub(crate) variables: Vec<Variable>,
    pub(crate) entries: Vec<Entry>,
}

impl Module {
    /// Reads a module, checks it and decodes its entries.
    ///
    /// # Errors
    /// [`Error::Parse`] for what an assembler refuses, [`Error::Unsupported`] for what this machine does not know,
    /// [`Error::Limit`] for a text beyond 8 MiB, 2^20 statements, names and initial values, 65,535
    /// registers of one file, 64 nested blocks, 1 MiB of initial values.
    pub fn parse(text: &str) -> Result<Self> {
        decode::module(&parse::module(text)?)
    }

    /// `.version`, major and minor.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target` as a number: 80 of `sm_80`.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// All variables, of the module and of every entry, parameters too.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry by name.
    ///
    /// # Errors
    /// [`Error::Signature`] if there is none.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| Error::Signature {
                kernel: name.to_owned(),
                expected: "an entry of this name".to_owned(),
                found: format!(
                    "{:?}",
                    self.entries.iter().map(|e| &e.name).collect::<Vec<_>>()
                ),
            })
    }
}

/// A variable in memory.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub space: Space,
    /// Its alignment in bytes, a power of two.
    pub align: u32,
    /// Its size in bytes; 0 for dynamic shared memory.
    pub bytes: u64,
    /// Parameters: the offset among the entry's parameters.
    pub offset: u32,
    /// The initial bytes, from the start; the rest of a variable in global or constant space is zeros.
    pub data: Vec<u8>,
    /// Addresses of variables among the initial bytes.
    pub pointers: Vec<Pointer>,
    /// `.extern .shared`: its size is set at launch.
    pub dynamic: bool,
    /// The line of its declaration.
    pub line: u32,
}

/// An address among the initial bytes of a variable, 8 bytes wide.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    /// Where it stands, in bytes.
    pub at: u64,
    /// The variable whose address it is.
    pub variable: u16,
    /// Bytes beyond.
    pub offset: i64,
}

/// A parameter of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type; `.b8` for an array of bytes.
    pub ty: Type,
    /// Its size in bytes.
    pub bytes: u32,
    /// Where it stands among the parameters, in bytes.
    pub offset: u32,
}

/// A kernel.
#[derive(Debug)]
pub struct Entry {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) operands: Vec<Operand>,
    pub(crate) narrow: Vec<String>,
    pub(crate) wide: Vec<String>,
    pub(crate) predicates: Vec<String>,
    pub(crate) constants: Constants,
    pub(crate) variables: Vec<u16>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
}

/// Registers that hold constants, written in all lanes before the first instruction.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    /// Narrow registers.
    pub narrow: Vec<(Slot, u32)>,
    /// Wide registers.
    pub wide: Vec<(Slot, u64)>,
    /// Predicates.
    pub predicates: Vec<(Slot, bool)>,
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line of its declaration.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Its parameters, in order.
    pub fn signature(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Its instructions.
    pub fn code(&self) -> &[Instruction] {
        &self.code
    }

    /// The registers that a range of [`Instruction::reads`] or [`Instruction::writes`] names.
    #[inline(always)]
    pub fn operands(&self, range: &std::ops::Range<u32>) -> &[Operand] {
        &self.operands[range.start as usize..range.end as usize]
    }

    /// Registers of each file, constants and scratch included: narrow, wide, predicates.
    pub fn registers(&self) -> [usize; 3] {
        [self.narrow.len(), self.wide.len(), self.predicates.len()]
    }

    /// The name of a register; constants and scratch have none.
    pub fn register(&self, operand: Operand) -> &str {
        use crate::op::File;
        let names = match operand.file {
            File::Narrow => &self.narrow,
            File::Wide => &self.wide,
            File::Predicate => &self.predicates,
        };
        names.get(operand.slot.index()).map_or("", String::as_str)
    }

    /// The constants among its registers.
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// The variables that it can name in `.shared`, `.local` and `.param`: its own, and those of the module that it uses. They are
    /// indices of [`Module::variables`].
    pub fn variables(&self) -> &[u16] {
        &self.variables
    }

    /// `.maxntid`.
    pub fn max_threads(&self) -> Option<[u32; 3]> {
        self.max_threads
    }

    /// `.reqntid`.
    pub fn required_threads(&self) -> Option<[u32; 3]> {
        self.required_threads
    }

    /// Checks that a declaration has this entry's name and parameters.
    ///
    /// # Errors
    /// [`Error::Signature`] that names the first difference.
    pub fn check(&self, kernel: &Kernel) -> Result<()> {
        let differs = |expected: String, found: String| {
            Err(Error::Signature {
                kernel: kernel.entry().to_owned(),
                expected,
                found,
            })
        };
        if kernel.entry() != self.name {
            return differs(kernel.entry().to_owned(), self.name.clone());
        }
        let declared = kernel.parameters();
        if declared.len() != self.parameters.len() {
            return differs(
                format!("{} parameters", declared.len()),
                self.parameters.len().to_string(),
            );
        }
        for (want, have) in declared.iter().zip(&self.parameters) {
            let ty = match want.kind {
                ArgKind::Ptr | ArgKind::U64 => Type::U64,
                ArgKind::U32 => Type::U32,
                ArgKind::I32 => Type::S32,
                ArgKind::F32 => Type::F32,
            };
            if want.name != have.name || ty != have.ty || have.bytes != ty.bytes() {
                return differs(
                    format!("parameter {} of type {ty:?}", want.name),
                    format!("{} of type {:?}, {} bytes", have.name, have.ty, have.bytes),
                );
            }
        }
        Ok(())
    }
}
