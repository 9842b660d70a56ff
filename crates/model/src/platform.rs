//! Platforms, as image configs and indexes state them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An operating system, a processor architecture and its variant, such as `linux/arm/v7`.
///
/// Equal platforms have one spelling: `linux/amd64/v1` reads as `linux/amd64`, `linux/arm64/v8` as
/// `linux/arm64` and `linux/arm` as `linux/arm/v7`, as containerd normalises them
/// (<https://github.com/containerd/platforms/blob/main/database.go>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    architecture: Architecture,
}

/// The processor architectures that Docker's official images are built for, variants included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 32-bit x86.
    I386,
    /// 64-bit Arm, version 8.
    Arm64,
    /// 32-bit Arm, version 5.
    Arm32v5,
    /// 32-bit Arm, version 6.
    Arm32v6,
    /// 32-bit Arm, version 7.
    Arm32v7,
}

/// A text that is not a platform that can be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown platform {0:?}, expected one of linux/amd64, linux/386, linux/arm64, linux/arm/v5, \
     linux/arm/v6, linux/arm/v7"
)]
pub struct PlatformError(String);

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 6] =
        [Self::Amd64, Self::I386, Self::Arm64, Self::Arm32v5, Self::Arm32v6, Self::Arm32v7];

    /// The name that Docker's official images use for it: the value of `IMAGE_ARCH`
    /// (<https://github.com/docker-library/official-images#architectures-other-than-amd64>).
    pub fn image_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::I386 => "i386",
            Self::Arm64 => "arm64v8",
            Self::Arm32v5 => "arm32v5",
            Self::Arm32v6 => "arm32v6",
            Self::Arm32v7 => "arm32v7",
        }
    }

    /// `architecture` and `variant` of an image config and of an index entry.
    fn parts(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Amd64 => ("amd64", None),
            Self::I386 => ("386", None),
            Self::Arm64 => ("arm64", None),
            Self::Arm32v5 => ("arm", Some("v5")),
            Self::Arm32v6 => ("arm", Some("v6")),
            Self::Arm32v7 => ("arm", Some("v7")),
        }
    }
}

impl Platform {
    /// A Linux platform.
    pub fn linux(architecture: Architecture) -> Self {
        Self { architecture }
    }

    /// Reads the fields of an image config or of an index entry.
    ///
    /// # Errors
    /// When no build of archweld's makes images of that platform.
    pub fn from_fields(
        os: &str,
        architecture: &str,
        variant: Option<&str>,
    ) -> Result<Self, PlatformError> {
        let variant = variant.filter(|variant| !variant.is_empty());
        let known = match (os, architecture, variant) {
            ("linux", "amd64", None | Some("v1")) => Architecture::Amd64,
            ("linux", "386", None) => Architecture::I386,
            ("linux", "arm64", None | Some("v8" | "8")) => Architecture::Arm64,
            ("linux", "arm", Some("v5" | "5")) => Architecture::Arm32v5,
            ("linux", "arm", Some("v6" | "6")) => Architecture::Arm32v6,
            ("linux", "arm", None | Some("v7" | "7")) => Architecture::Arm32v7,
            _ => {
                let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
                return Err(PlatformError(format!("{os}/{architecture}{variant}")));
            }
        };
        Ok(Self { architecture: known })
    }

    /// The processor architecture, variant included.
    pub fn architecture(self) -> Architecture {
        self.architecture
    }

    /// The `os` field of an image config and of an index entry.
    pub fn os(self) -> &'static str {
        "linux"
    }

    /// The `architecture` field of an image config and of an index entry.
    pub fn architecture_field(self) -> &'static str {
        self.architecture.parts().0
    }

    /// The `variant` field of an image config and of an index entry.
    pub fn variant_field(self) -> Option<&'static str> {
        self.architecture.parts().1
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || PlatformError(text.to_owned());
        let mut parts = text.splitn(3, '/');
        let (os, architecture) = parts.next().zip(parts.next()).ok_or_else(unknown)?;
        let variant = parts.next();
        if variant == Some("") {
            return Err(unknown());
        }
        Self::from_fields(os, architecture, variant)
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (architecture, variant) = self.architecture.parts();
        write!(f, "{}/{architecture}", self.os())?;
        variant.map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_platforms_have_one_spelling() {
        for (text, spelling, image_name) in [
            ("linux/amd64", "linux/amd64", "amd64"),
            ("linux/amd64/v1", "linux/amd64", "amd64"),
            ("linux/386", "linux/386", "i386"),
            ("linux/arm64", "linux/arm64", "arm64v8"),
            ("linux/arm64/v8", "linux/arm64", "arm64v8"),
            ("linux/arm", "linux/arm/v7", "arm32v7"),
            ("linux/arm/v6", "linux/arm/v6", "arm32v6"),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), spelling);
            assert_eq!(platform.architecture().image_name(), image_name);
            assert_eq!(platform.to_string().parse(), Ok(platform));
        }
    }

    #[test]
    fn refuses_what_no_build_makes() {
        for text in
            ["", "linux", "arm64", "windows/amd64", "linux/amd64/v9", "linux/arm64/", "a/b/c/d"]
        {
            let error = text.parse::<Platform>().unwrap_err();
            assert!(error.to_string().contains("expected one of linux/amd64"), "{error}");
        }
    }
}
