//! What encloses a function in its DWARF: namespaces, types, other functions.

use gimli::{AttributeValue, DwTag, Dwarf, Unit, UnitOffset, UnitRef};

use crate::demangle::demangle;
use crate::lines::Reader;

/// Most steps from a function to what it is a copy of, and outwards from there.
const MOST_STEPS: usize = 32;

/// The scopes of one unit, in the order of its entries.
#[derive(Debug, Default)]
pub(crate) struct Scopes(Vec<Scope>);

#[derive(Debug)]
struct Scope {
    start: usize,
    /// Behind its last child.
    end: usize,
    tag: DwTag,
    /// The one about it.
    parent: Option<usize>,
}

/// Scopes of units, by where those begin, and in which file's DWARF.
pub(crate) type Known = std::collections::HashMap<(usize, usize), Scopes>;

/// The name of the function at `offset`, with those of all that it is in: `shop::Cart::add`.
/// None where there is no more to say than its own name.
pub(crate) fn qualified(
    unit: UnitRef<'_, Reader>,
    offset: UnitOffset,
    known: &mut Known,
) -> Option<String> {
    let name = full_name(unit, offset, known, MOST_STEPS)?;
    name.contains("::").then_some(name)
}

fn full_name(
    unit: UnitRef<'_, Reader>,
    offset: UnitOffset,
    known: &mut Known,
    steps: usize,
) -> Option<String> {
    let steps = steps.checked_sub(1)?;
    let entry = unit.entry(offset).ok()?;
    let linkage = [gimli::DW_AT_linkage_name, gimli::DW_AT_MIPS_linkage_name];
    let linkage = linkage.iter().find_map(|name| entry.attr_value(*name));
    if let Some(name) = linkage.and_then(|value| text(unit, value)) {
        return Some(demangle(&name).unwrap_or(name));
    }
    let origin = [gimli::DW_AT_abstract_origin, gimli::DW_AT_specification];
    let origin = origin.iter().find_map(|name| entry.attr_value(*name));
    match origin {
        Some(AttributeValue::UnitRef(origin)) => full_name(unit, origin, known, steps),
        Some(AttributeValue::DebugInfoRef(origin)) => {
            let (other, origin) = unit_of(unit.dwarf, origin.0)?;
            full_name(UnitRef::new(unit.dwarf, &other), origin, known, steps)
        }
        Some(AttributeValue::DebugInfoRefSup(origin)) => {
            let dwarf = unit.dwarf.sup()?;
            let (other, origin) = unit_of(dwarf, origin.0)?;
            full_name(UnitRef::new(dwarf, &other), origin, known, steps)
        }
        _ => {
            let own = own_name(unit, offset)?;
            Some(within(enclosing(unit, offset, known, steps), own))
        }
    }
}

/// The name of all that is about the entry at `offset`.
fn enclosing(
    unit: UnitRef<'_, Reader>,
    offset: UnitOffset,
    known: &mut Known,
    steps: usize,
) -> Option<String> {
    let steps = steps.checked_sub(1)?;
    let key = (
        std::ptr::from_ref(unit.dwarf).addr(),
        unit.header.offset().0,
    );
    let scopes = known.entry(key).or_insert_with(|| Scopes::of(unit));
    let index = scopes.about(offset.0)?;
    let scope = scopes.0.get(index)?;
    let (tag, start) = (scope.tag, UnitOffset(scope.start));
    if tag == gimli::DW_TAG_subprogram {
        return full_name(unit, start, known, steps);
    }
    let own = match (tag, own_name(unit, start)) {
        (gimli::DW_TAG_namespace, own) => own.unwrap_or("(anonymous namespace)".to_owned()),
        (_, own) => scopes.type_name(unit, index, own),
    };
    Some(within(enclosing(unit, start, known, steps), own))
}

/// The name `own` with that of what it is in.
fn within(scope: Option<String>, own: String) -> String {
    match scope {
        Some(scope) => format!("{scope}::{own}"),
        None => own,
    }
}

fn own_name(unit: UnitRef<'_, Reader>, offset: UnitOffset) -> Option<String> {
    let entry = unit.entry(offset).ok()?;
    text(unit, entry.attr_value(gimli::DW_AT_name)?)
}

fn text(unit: UnitRef<'_, Reader>, value: AttributeValue<Reader>) -> Option<String> {
    let text = unit.attr_string(value).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The unit that has what is at `offset` of `.debug_info`, and where in it.
fn unit_of(dwarf: &Dwarf<Reader>, offset: usize) -> Option<(Unit<Reader>, UnitOffset)> {
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let at = gimli::DebugInfoOffset(offset);
        if let Some(at) = at.to_unit_offset(&header) {
            return Some((dwarf.unit(header).ok()?, at));
        }
    }
    None
}

impl Scopes {
    fn of(unit: UnitRef<'_, Reader>) -> Scopes {
        let mut scopes = Scopes::default();
        // Damaged entries end it: what was found stays.
        let _ = scopes.read(unit);
        scopes
    }

    fn read(&mut self, unit: UnitRef<'_, Reader>) -> Result<(), gimli::Error> {
        let mut entries = unit.entries_raw(None)?;
        // Scopes that the next entry may be in, and their depths.
        let mut open: Vec<(usize, isize)> = Vec::new();
        while !entries.is_empty() {
            let (start, depth) = (entries.next_offset().0, entries.next_depth());
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            while let Some((index, _)) = open.pop_if(|(_, other)| *other >= depth) {
                self.end(index, start);
            }
            if is_scope(abbreviation.tag()) && abbreviation.has_children() {
                let parent = open.last().map(|(index, _)| *index);
                open.push((self.0.len(), depth));
                self.0.push(Scope {
                    start,
                    end: usize::MAX,
                    tag: abbreviation.tag(),
                    parent,
                });
            }
            entries.skip_attributes(abbreviation.attributes())?;
        }
        Ok(())
    }

    fn end(&mut self, index: usize, at: usize) {
        if let Some(scope) = self.0.get_mut(index) {
            scope.end = at;
        }
    }

    /// The innermost about the entry at `offset`.
    fn about(&self, offset: usize) -> Option<usize> {
        let before = self.0.partition_point(|scope| scope.start < offset);
        let mut index = before.checked_sub(1)?;
        while self.0.get(index)?.end <= offset {
            index = self.0.get(index)?.parent?;
        }
        Some(index)
    }

    /// The name of a type. GCC calls a lambda `<lambda(int)>`, clang does not call it anything:
    /// with which of those in a function it is, as symbols have it.
    fn type_name(&self, unit: UnitRef<'_, Reader>, index: usize, own: Option<String>) -> String {
        let lambda = match &own {
            None => Some("lambda"),
            Some(own) => own.strip_prefix('<').and_then(|own| own.strip_suffix('>')),
        };
        let Some(lambda) = lambda else {
            return own.unwrap_or_default();
        };
        let parent = self.0.get(index).map(|scope| scope.parent);
        let earlier = self.0.iter().take(index);
        let same = earlier.filter(|scope| {
            Some(scope.parent) == parent && own_name(unit, UnitOffset(scope.start)) == own
        });
        format!("{{{lambda}#{}}}", same.count() + 1)
    }
}

fn is_scope(tag: DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_namespace
            | gimli::DW_TAG_module
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_interface_type
            | gimli::DW_TAG_subprogram
    )
}
