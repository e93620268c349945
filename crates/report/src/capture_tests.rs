use std::fs;

use super::*;
use crate::formats::text::tests::{add, frame, report};
use crate::{FrameId, Hex};

const AGES: Needs = Needs {
    ages: true,
    stacks: false,
};

fn sample() -> Report {
    let mut report = report();
    let frames = [frame("f", "a.c", 1), frame("main", "a.c", 9)];
    add(&mut report, &frames, &[(1.0, 1, 10), (5.0, 2, 20)]);
    report
}

/// What reading `content` from a file says.
fn reading(content: &[u8], ages: bool) -> Result<Vec<Report>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, content).unwrap();
    let error = |error: Error| error.to_string().replace(&path.display().to_string(), "x");
    let stacks = false;
    read(&path, Needs { ages, stacks }).map_err(error)
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let mut whole = sample();
    // As the allocator's own.
    whole.sites[0].allocator = vec![whole.sites[0].frames.remove(0)];
    whole.sites[0].culprit = Some(FrameId(1));
    let reports = [sample(), report(), whole];
    write(&path, &reports).unwrap();
    assert_eq!(read(&path, AGES).unwrap(), reports);
}

/// One that a parser of floats gets wrong in the last bit if it takes the short way.
#[test]
fn times_are_read_to_the_last_bit() {
    let mut exact = sample();
    exact.sites[0].youngest = 0.002_123_414_000_000_000_6;
    let json = serde_json::to_string(&exact).unwrap();
    assert_eq!(reading(json.as_bytes(), false), Ok(vec![exact]));
}

#[test]
fn json_reports_are_read_however_they_are_laid_out() {
    let one = serde_json::to_string(&sample()).unwrap();
    let pretty = serde_json::to_string_pretty(&sample()).unwrap();
    assert_eq!(reading(one.as_bytes(), false), Ok(vec![sample()]));
    let two = format!("\n{pretty}\n{one}\n");
    assert_eq!(reading(two.as_bytes(), false), Ok(vec![sample(), sample()]));
    assert!(
        reading(one.as_bytes(), true)
            .unwrap_err()
            .contains("--older needs a capture")
    );
    let newer = one.replacen('{', "{\"added_later\": [1], ", 1);
    assert_eq!(reading(newer.as_bytes(), false), Ok(vec![sample()]));
}

#[test]
fn what_cannot_be_read_is_one_line_that_says_why() {
    let whole = encoded(&[sample()]).unwrap();
    let old = "leaktap-capture 1\n{\"schema\": 1}\n";
    let nothing = seal(b"");
    let foreign = seal(b"{\"schema\": 2}");
    let half = serde_json::to_string(&sample()).unwrap();
    let half = seal(&half.as_bytes()[..half.len() / 2]);
    let raw = checked(b"leaktap-capture 2\n{}".to_vec());
    let cases: &[(&[u8], &str)] = &[
        (b"", "x is not a capture"),
        (b"what is this", "x is not a capture"),
        (b"{}", "x is not a capture"),
        (&[0xff; 4000], "x is not a capture"),
        (b"{\"schema\": 77}", "capture x has version 77"),
        (b"{\"schema\": 1}", "capture x has version 1"),
        (b"{\"schema\": 2}", "capture x is corrupt: missing field"),
        (old.as_bytes(), "capture x has version 1,"),
        (b"leaktap-capture 3\n{}", "capture x has version 3"),
        (b"leaktap-capture \x1b[31m\n", "version \\u{1b}[31m,"),
        (b"leaktap-capture 2", "capture x is corrupt: its checksum"),
        (b"leaktap-capture 2\n", "capture x is corrupt: its checksum"),
        (
            b"leaktap-capture 2\nabc",
            "capture x is corrupt: its checksum",
        ),
        (&raw, "capture x is corrupt: it cannot be decompressed"),
        (&nothing, "capture x is corrupt: it ends before"),
        (&foreign, "capture x is corrupt: missing field"),
        (&half, "capture x is corrupt: EOF"),
        (&whole[..whole.len() / 2], "its checksum is wrong"),
    ];
    for (content, expected) in cases {
        let error = reading(content, false).unwrap_err();
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn a_full_disk_is_told_with_its_remedy() {
    let error = write(Path::new("/dev/full"), &[sample()]).unwrap_err();
    let expected = "cannot write /dev/full: No space left on device \
                    (free some space or choose another place with -o)";
    assert_eq!(error.to_string(), expected);
    let error = write(Path::new("/no/such/folder/x"), &[]).unwrap_err();
    let expected = "cannot write /no/such/folder/x: No such file or directory \
                    (choose another place with -o)";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn no_bit_can_be_changed() {
    let bytes = encoded(&[sample()]).unwrap();
    let path = Path::new("x");
    assert_eq!(parse(path, &bytes, AGES).unwrap(), [sample()]);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let read = parse(path, &changed, AGES);
        assert!(read.is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        let read = parse(path, &bytes[..len], AGES);
        assert!(read.is_err(), "{len} bytes");
    }
}

#[test]
fn what_only_captures_keep_is_missed_in_json() {
    let json = serde_json::to_string(&sample()).unwrap();
    let reading = |ages, stacks| {
        let needs = Needs { ages, stacks };
        parse(Path::new("x"), json.as_bytes(), needs).map_err(|error| error.to_string())
    };
    assert!(reading(false, false).is_ok());
    for (ages, stacks, expected) in [
        (
            true,
            false,
            "does not keep the age of each block: --older needs",
        ),
        (false, true, "does not keep whole stacks: --debug-dir or"),
    ] {
        let error = reading(ages, stacks).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Each number of a module or a frame, and each address.
#[test]
fn numbers_that_lead_to_nothing_are_refused() {
    let spoilt: [fn(&mut Report); 4] = [
        |report| report.sites[0].frames[1] = FrameId(2),
        |report| report.sites[0].allocator = vec![FrameId(u32::MAX)],
        |report| report.sites[0].culprit = Some(FrameId(7)),
        |report| report.modules.clear(),
    ];
    for (number, spoil) in spoilt.into_iter().enumerate() {
        let mut report = sample();
        spoil(&mut report);
        let error = parse(Path::new("x"), &sealed_report(&report), AGES);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("corrupt: there is no "), "{number}: {error}");
    }
    let json = serde_json::to_string(&sample()).unwrap();
    let address = Hex(0x55d0_c0de).to_string();
    for wrong in ["55d0c0de", "0x", "0x-1", "0x+1", "0x10000000000000000", ""] {
        let changed = json.replace(&address, wrong);
        let error = parse(Path::new("x"), changed.as_bytes(), Needs::default());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("an address is hexadecimal"),
            "{wrong}: {error}"
        );
    }
}

fn sealed_report(report: &Report) -> Vec<u8> {
    seal(serde_json::to_string(report).unwrap().as_bytes())
}

/// A few kilobytes that would become gigabytes.
#[test]
fn a_bomb_does_not_go_off() {
    let json = serde_json::to_string(&sample()).unwrap();
    let (begin, end) = json.split_once("\"notes\":[").unwrap();
    let long = 100 << 20;
    let filler = io::repeat(b' ').take(long);
    let lines = format!("{begin}\"notes\":[").into_bytes();
    let lines = lines.chain(filler).chain(end.as_bytes());
    let mut bytes = b"leaktap-capture 2\n".to_vec();
    bytes.extend(compress_to_vec(lines, CompressionLevel::Fastest));
    let bytes = checked(bytes);
    assert!(bytes.len() < 1 << 17, "{}", bytes.len());
    let error = parse(Path::new("x"), &bytes, AGES).unwrap_err().to_string();
    assert!(error.contains("corrupt: EOF"), "{error}");
}
