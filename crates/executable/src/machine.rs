//! The processor that an ELF header names.

use std::fmt;

use archweld_model::{Architecture, Platform};

/// The processor that an ELF executable was compiled for.
///
/// The fields are those of the ELF header
/// (<https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>): the kernel compares the
/// same ones before it runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Machine {
    /// `e_machine`.
    code: u16,
    /// Of 64 bits (`EI_CLASS` is `ELFCLASS64`) rather than 32.
    wide: bool,
    /// `EI_DATA` is `ELFDATA2MSB`.
    big_endian: bool,
}

const EM_386: u16 = 3;
const EM_MIPS: u16 = 8;
const EM_PPC: u16 = 20;
const EM_PPC64: u16 = 21;
const EM_S390: u16 = 22;
const EM_ARM: u16 = 40;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const EM_RISCV: u16 = 243;
const EM_LOONGARCH: u16 = 258;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;

impl Machine {
    /// Reads the head of a file; `None` when it is no ELF executable.
    ///
    /// A position-independent executable cannot be told from a shared library by its header: both
    /// count.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let identification = head.strip_prefix(b"\x7fELF")?;
        let wide = match identification.first()? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let big_endian = match identification.get(1)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        let half = |offset: usize| {
            let bytes = head.get(offset..)?.first_chunk::<2>()?;
            Some(if big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
        };
        let executable = matches!(half(16)?, ET_EXEC | ET_DYN);
        executable.then_some(Self { code: half(18)?, wide, big_endian })
    }

    /// Whether a machine of `platform` runs the program with no emulator.
    ///
    /// A 64-bit x86 processor runs 32-bit x86 programs, too; of 64-bit Arm processors many run no
    /// 32-bit Arm program, so none is taken to. The header does not tell the variants of 32-bit Arm
    /// apart.
    pub fn runs_on(self, platform: Platform) -> bool {
        let Self { code, wide, big_endian } = self;
        !big_endian
            && match platform.architecture() {
                Architecture::Amd64 => code == EM_X86_64 || code == EM_386,
                Architecture::I386 => code == EM_386,
                Architecture::Arm64 => code == EM_AARCH64 && wide,
                Architecture::Arm32v5 | Architecture::Arm32v6 | Architecture::Arm32v7 => {
                    code == EM_ARM
                }
            }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, wide, big_endian } = *self;
        let bits = if wide { "64-bit" } else { "32-bit" };
        match code {
            EM_X86_64 if wide => f.write_str("x86-64"),
            EM_X86_64 => f.write_str("x86-64 (x32)"),
            EM_386 => f.write_str("32-bit x86"),
            EM_AARCH64 if wide => f.write_str("AArch64"),
            EM_AARCH64 => f.write_str("AArch64 (ILP32)"),
            EM_ARM => f.write_str("32-bit Arm"),
            EM_RISCV => write!(f, "{bits} RISC-V"),
            EM_PPC | EM_PPC64 => write!(f, "{bits} PowerPC"),
            EM_S390 => write!(f, "{bits} S/390"),
            EM_MIPS => write!(f, "{bits} MIPS"),
            EM_LOONGARCH => write!(f, "{bits} LoongArch"),
            _ => write!(f, "{bits} ELF machine {code}"),
        }?;
        let usually_little = matches!(code, EM_ARM | EM_AARCH64);
        if big_endian && usually_little { f.write_str(", big-endian") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, data: u8, kind: u8, machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\0\0\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes[4] = class;
        bytes[5] = data;
        let (kind, machine) = (u16::from(kind), machine);
        for half in [kind, machine] {
            bytes.extend(if data == 2 { half.to_be_bytes() } else { half.to_le_bytes() });
        }
        bytes
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_program_runs_where_the_kernel_runs_it() {
        let platforms = ["linux/amd64", "linux/386", "linux/arm64", "linux/arm/v5", "linux/arm/v7"]
            .map(platform);
        for (class, data, code, name, runs) in [
            (2, 1, EM_X86_64, "x86-64", [true, false, false, false, false]),
            (1, 1, EM_X86_64, "x86-64 (x32)", [true, false, false, false, false]),
            (1, 1, EM_386, "32-bit x86", [true, true, false, false, false]),
            (2, 1, EM_AARCH64, "AArch64", [false, false, true, false, false]),
            (1, 1, EM_AARCH64, "AArch64 (ILP32)", [false; 5]),
            (2, 2, EM_AARCH64, "AArch64, big-endian", [false; 5]),
            (1, 1, EM_ARM, "32-bit Arm", [false, false, false, true, true]),
            (1, 2, EM_ARM, "32-bit Arm, big-endian", [false; 5]),
            (2, 1, EM_RISCV, "64-bit RISC-V", [false; 5]),
            (2, 2, EM_S390, "64-bit S/390", [false; 5]),
            (2, 1, 9999, "64-bit ELF machine 9999", [false; 5]),
        ] {
            let machine = Machine::of(&header(class, data, 3, code)).unwrap();
            assert_eq!(machine.to_string(), name);
            assert_eq!(platforms.map(|platform| machine.runs_on(platform)), runs, "{name}");
        }
    }

    #[test]
    fn only_a_whole_header_of_an_executable_counts() {
        let whole = header(2, 1, 2, EM_X86_64);
        assert!(Machine::of(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Machine::of(&whole[..length]), None, "{length}");
        }
        for (class, data, kind) in
            [(0, 1, 2), (3, 1, 2), (2, 0, 2), (2, 3, 2), (2, 1, 1), (2, 1, 4)]
        {
            assert_eq!(Machine::of(&header(class, data, kind, EM_X86_64)), None);
        }
    }

    /// The test's own program is native.
    #[test]
    fn reads_the_header_of_a_real_program() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let machine = Machine::of(&program[..64]).unwrap();
        let native = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        assert!(machine.runs_on(platform(native)), "{machine}");
    }
}
