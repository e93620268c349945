//! Formats of reports, and what each lists unless it is told.

use clap::ValueEnum;

use super::{Grouping, Order};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    Html,
    Summary,
    Csv,
    Pprof,
    Folded,
    Flamegraph,
    Speedscope,
    Dhat,
    Massif,
    Heaptrack,
    ValgrindXml,
    Junit,
    Sarif,
    Github,
    Gitlab,
    Memcheck,
    /// Of `--print-suppressions`.
    #[value(skip)]
    Suppressions,
}

impl Format {
    /// Which groups come first.
    pub(super) fn sort(self) -> Order {
        match self.is_by_caller() {
            true => Order::Rate,
            false => Order::Bytes,
        }
    }

    /// What makes a group.
    pub(super) fn by(self) -> Grouping {
        match self.is_by_caller() {
            true => Grouping::Caller,
            false => Grouping::Stack,
        }
    }

    /// Tells people where to look: an entry a culprit, what grows first.
    fn is_by_caller(self) -> bool {
        matches!(
            self,
            Format::Text
                | Format::Html
                | Format::Summary
                | Format::Junit
                | Format::Sarif
                | Format::Github
                | Format::Gitlab
        )
    }

    /// Most groups that are listed, if there is a limit.
    pub(super) fn top(self) -> Option<usize> {
        /// As many as somebody may want to read.
        const USUAL: usize = 20;
        (self == Format::Text).then_some(USUAL)
    }

    /// Has what runtimes keep for good, too, without `--verbose`.
    pub(crate) fn has_runtime(self) -> bool {
        // What there was over time has it, too.
        matches!(self, Format::Json | Format::Massif)
    }

    /// Shows several processes as their sum; text after each of them.
    pub(crate) fn has_sum(self) -> bool {
        !matches!(
            self,
            Format::Json | Format::Csv | Format::Speedscope | Format::Junit | Format::Memcheck
        )
    }

    /// Sums are those of all, also of what is not listed.
    pub(crate) fn sums_all(self) -> bool {
        self == Format::Json
    }

    /// Has what has changed since another trace.
    pub(crate) fn has_changes(self) -> bool {
        use Format::{Csv, Flamegraph, Folded, Html, Json, Text};
        matches!(self, Text | Json | Html | Csv | Folded | Flamegraph)
    }

    /// Has source lines, if they are asked for.
    pub(crate) fn has_source(self) -> bool {
        matches!(self, Format::Text | Format::Html)
    }

    /// Shows the stacks of a group, or knows it by them.
    pub(crate) fn has_members(self) -> bool {
        matches!(self, Format::Html | Format::Sarif | Format::Gitlab)
    }

    /// Is no text.
    pub(crate) fn is_binary(self) -> bool {
        self == Format::Pprof
    }
}
