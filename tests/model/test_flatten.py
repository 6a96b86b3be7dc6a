#!/usr/bin/env python3
"""proto/change and flatten_model.py give the same bytes.

    test_flatten.py random  FLATTEN_LINES [SEED] [RECORDS]   random records under random options
    test_flatten.py history FLATTEN_LINES                    the order history; 77 when it is not there
"""
import os
import random
import subprocess
import sys

import change_generator
import flatten_model

FLAGS = ["--event-time-ms", "--numbers-as-text", "--with-old", "--remove-old-image", "--event-id", "--table"]


def compare(program, records, options):
    """Exits with the first difference."""
    opts = flatten_model.parse_options(options)
    want = [flatten_model.flatten(record, opts).encode() for record in records]
    stdin = "".join(record + "\n" for record in records).encode()
    for extra in ([], ["--portable"]):
        command = [program] + options + extra
        run = subprocess.run(command, input=stdin, capture_output=True)
        got = run.stdout.split(b"\n")
        for i, line in enumerate(want):
            if i >= len(got) or got[i] + b"\n" != line:
                sys.exit(f"{' '.join(command)}\nrecord {i}: {records[i]!r}\nwant {line!r}\n"
                         f"got  {got[i] if i < len(got) else None!r}\n{run.stderr.decode()}")
        if run.returncode or len(got) != len(want) + 1:
            sys.exit(f"{' '.join(command)}: status {run.returncode}, {len(got) - 1} lines for "
                     f"{len(want)}: {run.stderr.decode()}")


def random_records(program, seed, count):
    print(f"seed {seed}")
    choose = random.Random(seed)
    generator = change_generator.Generator(seed)
    for _ in range(20):
        options = [flag for flag in FLAGS if choose.random() < 0.4]
        if choose.random() < 0.5:
            options += ["--seq", "s" + generator.string().replace("\0", ""), "--shard", "shardId-000000000007"]
        compare(program, [generator.record() for _ in range(count // 20)], options)


def history(program):
    path = os.path.join(os.environ["WEIR_SOURCE_DIR"], "../shared/data/order-changes.ndjson.xz")
    if not os.path.exists(path):
        print("skipped: the order history is not there")
        sys.exit(77)
    data = subprocess.run(["xz", "-dc", path], check=True, capture_output=True).stdout
    records = data.decode().rstrip("\n").split("\n")
    compare(program, records, [])
    compare(program, records[::7], ["--with-old", "--event-id", "--table", "--event-time-ms"])
    print(f"{len(records)} records")


def main():
    what, program = sys.argv[1:3]
    if what == "history":
        history(program)
    else:
        seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
        random_records(program, seed, int(sys.argv[4]) if len(sys.argv) > 4 else 2000)


if __name__ == "__main__":
    main()
