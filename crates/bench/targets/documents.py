# For each number on standard input: turns a document into JSON and back so many times, and prints the seconds.
import json
import sys
import time

document = {"rows": [{"name %d" % i: [i, str(i), {"x": i * 1.5, "y": None}]} for i in range(300)]}
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        json.loads(json.dumps(document))
    print(time.perf_counter() - start, flush=True)
