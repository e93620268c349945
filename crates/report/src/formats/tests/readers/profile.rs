//! As much of Protocol Buffers, and of pprof's reader.

use std::io::Read;

use flate2::read::GzDecoder;

use super::super::Sums;
use super::text;

/// A field of a message: its number, and what it is.
enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        match key & 7 {
            0 => fields.push(Field::Number(key >> 3, value)),
            2 => {
                let (field, rest) = bytes.split_at(value as usize);
                bytes = rest;
                fields.push(Field::Bytes(key >> 3, field));
            }
            other => panic!("type {other}"),
        }
    }
    fields
}

fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes));
    }
    numbers
}

/// The last two values of all samples; each number leads to something.
pub(in super::super) fn pprof(bytes: &[u8]) -> Sums {
    let mut profile = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut profile).unwrap();
    let all = fields(&profile);
    let of = |wanted: u64| {
        all.iter().filter_map(move |field| match field {
            Field::Bytes(number, bytes) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let texts: Vec<_> = of(6).map(text).collect();
    assert_eq!(texts.first(), Some(&""));
    let ids = |wanted: u64| {
        let ids = of(wanted).map(|bytes| match fields(bytes)[0] {
            Field::Number(1, id) => id,
            _ => panic!("no id"),
        });
        ids.collect::<Vec<_>>()
    };
    let (mappings, locations, functions) = (ids(3), ids(4), ids(5));
    for location in of(4).flat_map(fields) {
        match location {
            Field::Number(2, mapping) => assert!(mappings.contains(&mapping)),
            Field::Bytes(4, line) => {
                let Field::Number(1, function) = fields(line)[0] else {
                    panic!("no function")
                };
                assert!(functions.contains(&function));
            }
            _ => {}
        }
    }
    let types = of(1).count();
    let (mut blocks, mut sum) = (0, 0);
    for sample in of(2).map(fields) {
        for field in sample {
            match field {
                Field::Bytes(1, ids) => {
                    let ids = numbers(ids);
                    assert!(!ids.is_empty() && ids.iter().all(|id| locations.contains(id)));
                }
                Field::Bytes(2, values) => {
                    let values = numbers(values);
                    assert_eq!(values.len(), types);
                    assert!(values.iter().all(|&value| i64::try_from(value).is_ok()));
                    blocks += u128::from(values[types - 2]);
                    sum += u128::from(values[types - 1]);
                }
                _ => {}
            }
        }
    }
    (Some(blocks), Some(sum))
}
