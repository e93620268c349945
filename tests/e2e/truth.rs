//! What a fixture states about itself, in comments on the lines that leak.
//!
//! - `//~ LEAK [run|attach] [blocks=N] [bytes=N] [fn=A|B] [frames=inner,outer] [kind=mapping]`:
//!   this line leaks exactly that; `[allocated=N] [allocated_bytes=N]`: of so many in all.
//! - `//~ ANY why`: what this line leaks is the C library's business.
//! - `//~ OUTSIDE [run|attach] module=M|function=F [blocks=N]`: a site with no line of the fixture
//!   is tolerated if one of its frames fits.
//! - `//~ TOTALS [run|attach] name=N ...`: numbers of the report's totals.
//! - `//~ NOTES [run|attach] text`: one of the report's notes has this text.
//! - `//~ MAPS why`: the program itself changes what code is mapped.

use std::fmt;

/// How the program came under leaktap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Run,
    Attach,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Run => "run",
            Mode::Attach => "attach",
        })
    }
}

/// A line of a fixture's source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One line that leaks. What is not stated is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    pub(crate) place: Place,
    pub(crate) blocks: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// How many were allocated there in all.
    pub(crate) allocated: Option<u64>,
    pub(crate) allocated_bytes: Option<u64>,
    /// Allocator functions, one of which the site must name.
    pub(crate) functions: Vec<String>,
    /// Functions of the fixture, innermost first, that the stack must show in this order.
    pub(crate) frames: Vec<String>,
    /// `heap` or `mapping`.
    pub(crate) source: String,
}

/// A site of the language's runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) module: Option<String>,
    pub(crate) function: Option<String>,
    pub(crate) blocks: Option<u64>,
}

/// All that a fixture states for one [`Mode`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) files: Vec<String>,
    pub(crate) leaks: Vec<Leak>,
    pub(crate) any: Vec<Place>,
    pub(crate) outside: Vec<Outside>,
    pub(crate) totals: Vec<(String, u64)>,
    pub(crate) notes: Vec<String>,
    pub(crate) maps_change: bool,
}

impl Truth {
    /// Adds the directives of one source file. Panics on one that cannot be understood.
    pub(crate) fn add(&mut self, file: &str, text: &str, mode: Mode) {
        self.files.push(file.to_owned());
        for (line, text) in (1..).zip(text.lines()) {
            let place = Place {
                file: file.to_owned(),
                line,
            };
            if let Some((_, directive)) = text.split_once("//~ ") {
                let (name, rest) = directive.split_once(' ').unwrap_or((directive, ""));
                self.directive(name, rest, mode, place);
            }
        }
    }

    /// Tolerates sites of the module at `path` that hold no line of the fixture.
    pub(crate) fn tolerate(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or(path).split(".so").next();
        self.outside.push(Outside {
            module: name.map(str::to_owned),
            function: None,
            blocks: None,
        });
    }

    fn directive(&mut self, name: &str, rest: &str, mode: Mode, place: Place) {
        let fields = Fields::of(rest);
        match name {
            "ANY" => self.any.push(place),
            "MAPS" => self.maps_change = true,
            "NOTES" => self.notes.extend(note_of(rest, mode).map(str::to_owned)),
            _ if fields.mode.is_some_and(|only| only != mode) => {}
            "LEAK" => self.leaks.push(leak(&fields, place)),
            "OUTSIDE" => self.outside.push(Outside {
                module: fields.text("module"),
                function: fields.text("function"),
                blocks: fields.number("blocks"),
            }),
            "TOTALS" => self.totals.extend(fields.numbers()),
            _ => panic!("{place}: unknown directive {name}"),
        }
    }
}

/// The text of a note, if it is of `mode`.
fn note_of(rest: &str, mode: Mode) -> Option<&str> {
    match rest.split_once(' ') {
        Some(("run", text)) => (mode == Mode::Run).then_some(text),
        Some(("attach", text)) => (mode == Mode::Attach).then_some(text),
        _ => Some(rest),
    }
}

fn leak(fields: &Fields, place: Place) -> Leak {
    let list = |name, separator| {
        fields
            .text(name)
            .map_or_else(Vec::new, |text| split(&text, separator))
    };
    Leak {
        place,
        blocks: fields.number("blocks"),
        bytes: fields.number("bytes"),
        allocated: fields.number("allocated"),
        allocated_bytes: fields.number("allocated_bytes"),
        functions: list("fn", '|'),
        frames: list("frames", ','),
        source: fields.text("kind").unwrap_or_else(|| "heap".to_owned()),
    }
}

fn split(text: &str, separator: char) -> Vec<String> {
    text.split(separator).map(str::to_owned).collect()
}

/// `attach a=1 b=x`
struct Fields {
    mode: Option<Mode>,
    pairs: Vec<(String, String)>,
}

impl Fields {
    fn of(text: &str) -> Fields {
        let mut fields = Fields {
            mode: None,
            pairs: Vec::new(),
        };
        for word in text.split_whitespace() {
            match (word, word.split_once('=')) {
                (_, Some((name, value))) => fields.pairs.push((name.to_owned(), value.to_owned())),
                ("run", None) => fields.mode = Some(Mode::Run),
                ("attach", None) => fields.mode = Some(Mode::Attach),
                _ => {}
            }
        }
        fields
    }

    fn text(&self, name: &str) -> Option<String> {
        self.pairs
            .iter()
            .find(|pair| pair.0 == name)
            .map(|pair| pair.1.clone())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name).map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text} is no number"))
        })
    }

    fn numbers(&self) -> impl Iterator<Item = (String, u64)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().expect("a number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(text: &str, mode: Mode) -> Truth {
        let mut truth = Truth::default();
        truth.add("x.c", text, mode);
        truth
    }

    #[test]
    fn a_leak_is_on_its_line_with_what_is_stated() {
        let truth = truth(
            "int a;\nmalloc(); //~ LEAK blocks=3 bytes=192 fn=malloc|calloc frames=a,b\n",
            Mode::Run,
        );
        let leak = &truth.leaks[0];
        assert_eq!(leak.place.to_string(), "x.c:2");
        assert_eq!((leak.blocks, leak.bytes), (Some(3), Some(192)));
        assert_eq!(leak.functions, ["malloc", "calloc"]);
        assert_eq!(leak.frames, ["a", "b"]);
        assert_eq!(leak.source, "heap");
    }

    #[test]
    fn a_directive_may_be_for_one_mode_only() {
        let text = "x //~ LEAK attach bytes=1 kind=mapping\ny //~ OUTSIDE run module=libx\n\
                    z //~ TOTALS attach frees=7";
        let attached = truth(text, Mode::Attach);
        assert_eq!((attached.leaks.len(), attached.outside.len()), (1, 0));
        assert_eq!(attached.leaks[0].source, "mapping");
        assert_eq!(attached.totals, [("frees".to_owned(), 7)]);
        let launched = truth(text, Mode::Run);
        assert_eq!(
            (
                launched.leaks.len(),
                launched.outside.len(),
                launched.totals.len()
            ),
            (0, 1, 0)
        );
    }

    #[test]
    fn what_is_left_open_and_noted_is_kept() {
        let truth = truth("a //~ ANY the loader's own\nb //~ NOTES exec", Mode::Run);
        assert_eq!(
            truth.any,
            [Place {
                file: "x.c".to_owned(),
                line: 1
            }]
        );
        assert_eq!(truth.notes, ["exec"]);
    }

    #[test]
    #[should_panic(expected = "unknown directive LEEK")]
    fn a_misspelt_directive_is_an_error() {
        truth("a //~ LEEK blocks=1", Mode::Run);
    }
}
