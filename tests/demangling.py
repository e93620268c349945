"""Says where leaktap's demangler and c++filt differ: tests/demangling."""

import pathlib
import re
import sys

folder, show = pathlib.Path(sys.argv[1]), int(sys.argv[2])
rows = list(zip(*((folder / name).read_text().splitlines() for name in ("symbols", "expected", "found"))))


def bare(name):
    """Without what is a matter of spelling: blanks, and brackets about operands."""
    return re.sub(r"[ ()]", "", name)


raw = [row for row in rows if (row[2] == row[0] or "…" in row[2]) and row[1] != row[0]]
same = [row for row in rows if row[1] == row[2]]
spelling = [row for row in rows if row[1] != row[2] and bare(row[1]) == bare(row[2])]
other = [row for row in rows if bare(row[1]) != bare(row[2]) and row not in raw]
print(f"{len(rows)} symbols: {len(same)} the same, {len(spelling)} with other blanks or brackets, {len(other)} else, {len(raw)} raw or cut")
for row in raw[:show] + other[:: max(1, len(other) // show)][:show] if show else []:
    print(*row, "", sep="\n")
sys.exit(bool(raw))
