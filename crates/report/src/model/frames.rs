//! Modules, and the frames of stacks.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address or an offset: `"0x1f"` in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl Hex {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        // A sign is none.
        let digits = text
            .strip_prefix("0x")
            .filter(|digits| !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number
            .map(Hex)
            .ok_or_else(|| D::Error::custom("an address is hexadecimal, as in \"0x1f\""))
    }
}

/// The number of a module in [`Report::modules`](crate::Report::modules).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModuleId(pub u32);

/// The number of a frame in [`Report::frames`](crate::Report::frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameId(pub u32);

/// A file that was mapped as code.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Module {
    /// Its path, as the process sees it.
    pub path: String,
    /// What its build id note says, in hexadecimal.
    pub build_id: Option<String>,
    /// Its first byte: offsets are counted from here.
    pub base: Hex,
    /// The address that this byte has in the file: 0 but for programs that are linked to a fixed
    /// place.
    #[serde(default, skip_serializing_if = "Hex::is_zero")]
    pub svma: Hex,
}

/// A function in a stack: one for each call, and one for each that was inlined there.
///
/// Each key has to be there when one is read: else a small file could stand for many frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// The return address, as backtrace(3) has it. None where a group has more than one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub address: Option<Hex>,
    /// The module that it is in.
    #[serde(deserialize_with = "Option::deserialize")]
    pub module: Option<ModuleId>,
    /// Its offset there.
    #[serde(deserialize_with = "Option::deserialize")]
    pub offset: Option<Hex>,
    /// The function.
    #[serde(deserialize_with = "Option::deserialize")]
    pub function: Option<String>,
    /// Its name as a linker has it, where that is mangled; captures only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Its source file.
    #[serde(deserialize_with = "Option::deserialize")]
    pub file: Option<String>,
    /// Its line.
    #[serde(deserialize_with = "Option::deserialize")]
    pub line: Option<u32>,
    /// Inlined into the function of the next frame.
    pub inlined: bool,
    /// The user's own code.
    #[serde(deserialize_with = "Option::deserialize")]
    pub own: Option<bool>,
    /// Found by frame pointer, for want of call frame information.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_frame_pointer: bool,
    /// A signal came before the instruction at `address`: nothing returns there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// A frame, and the module that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// The frame.
    pub frame: &'a Frame,
    /// Its module, if it is in one.
    pub module: Option<&'a Module>,
}

/// What numbers of modules and frames lead to.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// By [`ModuleId`].
    pub modules: &'a [Module],
    /// By [`FrameId`].
    pub frames: &'a [Frame],
}

impl<'a> Tables<'a> {
    /// The module of that number.
    pub fn module(self, ModuleId(id): ModuleId) -> Option<&'a Module> {
        self.modules.get(usize::try_from(id).ok()?)
    }

    /// The frame of that number.
    pub fn frame(self, FrameId(id): FrameId) -> Option<&'a Frame> {
        self.frames.get(usize::try_from(id).ok()?)
    }

    /// The frame of that number, and its module.
    pub fn place(self, id: FrameId) -> Option<Place<'a>> {
        Some(self.of(self.frame(id)?))
    }

    /// All frames, by number, each with its module.
    pub(crate) fn all(self) -> impl Iterator<Item = Place<'a>> {
        self.frames.iter().map(move |frame| self.of(frame))
    }

    fn of(self, frame: &'a Frame) -> Place<'a> {
        let module = frame.module.and_then(|module| self.module(module));
        Place { frame, module }
    }

    /// The frames of a stack, or of a part of it.
    pub fn stack(self, ids: &[FrameId]) -> Vec<Place<'a>> {
        self.places(ids).collect()
    }

    /// The calls of a stack: the frames that are inlined into one another, innermost first.
    pub(crate) fn calls(self, ids: &[FrameId]) -> impl Iterator<Item = &[FrameId]> {
        let is_last = move |id: &FrameId| self.frame(*id).is_none_or(|frame| !frame.inlined);
        ids.split_inclusive(is_last)
    }

    /// As [`Tables::stack`].
    pub(crate) fn places(self, ids: &[FrameId]) -> impl Iterator<Item = Place<'a>> {
        ids.iter().filter_map(move |&id| self.place(id))
    }
}
