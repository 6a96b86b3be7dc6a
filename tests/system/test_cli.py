#!/usr/bin/env python3
"""The command line, as people and as programs use it.

    test_cli.py NAME
"""
import json
import os
import random
import re
import shutil
import signal
import subprocess

import lib
from lib import Skip, need, need_equal

COMMANDS = ["list", "create", "describe", "delete", "retention", "split", "merge", "update-shard-count", "put", "tail",
            "subscribe", "replay", "consumers", "checkpoint", "export", "flatten", "verify", "inspect", "bench",
            "stats", "orders", "completion", "man", "help"]


def streams(place):
    "Streams are made, listed, described, changed and deleted, for people and as JSON."
    place.broker()
    need_equal(place.weir("list"), "", "no streams")
    need_equal(place.weir_json("list"), [], "no streams")
    place.weir("create", "one")
    place.weir("create", "two.b_c-d", "--shards", "3", "--retention", "48h", "--retention-size", "10MiB",
               "--record-max", "2MiB")
    need_equal(place.weir("list"), "one\ntwo.b_c-d\n", "list")
    need_equal(place.weir_json("list"), ["one", "two.b_c-d"], "list")
    d = place.weir_json("describe", "two.b_c-d")
    need_equal([d[k] for k in ("name", "status", "retention_ms", "retention_bytes", "record_bytes_max", "open_shards")],
               ["two.b_c-d", "ACTIVE", 48 * 3600000, 10 << 20, 2 << 20, 3], "describe")
    need_equal([s["id"] for s in d["shards"]], [f"shardId-{i:012}" for i in range(3)], "shard ids")
    need_equal(int(d["shards"][0]["hash_low"]), 0, "lowest hash key")
    need_equal(int(d["shards"][2]["hash_high"]), 2**128 - 1, "highest hash key")
    for low, high in zip(d["shards"][1:], d["shards"]):
        need_equal(int(low["hash_low"]), int(high["hash_high"]) + 1, "hash ranges meet")
    human = place.weir("describe", "two.b_c-d")
    need("shardId-000000000002" in human and "open" in human, f"describe: {human}")

    need_equal(place.weir_json("retention", "one", "7d")["retention_ms"], 7 * 86400000, "retention")
    place.weir("retention", "one", "--size", "1MiB")
    need_equal(place.weir_json("retention", "one"), {"retention_ms": 7 * 86400000, "retention_bytes": 1 << 20},
               "retention")
    place.weir("retention", "one", "--size", "0")
    need_equal(place.weir_json("retention", "one")["retention_bytes"], 0, "retention without a limit")

    place.weir("split", "one", "0")
    place.weir("merge", "one", "shardId-000000000001", "2")
    shards = place.weir_json("describe", "one")["shards"]
    need_equal([(s["open"], s["parent"], s["adjacent_parent"]) for s in shards[-1:]], [(True, 1, 2)], "merged")
    place.weir("update-shard-count", "two.b_c-d", "6")
    need_equal(place.weir_json("describe", "two.b_c-d")["open_shards"], 6, "open shards")

    place.weir("delete", "one")
    need_equal(place.weir_json("list"), ["two.b_c-d"], "list after delete")
    place.weir("create", "one", "--if-missing")
    place.weir("create", "one", "--if-missing")
    need_equal(len(place.weir_json("describe", "one")["shards"]), 1, "a new stream of an old name")


def records(place):
    "put, tail and replay carry any bytes, and say where each record stands."
    place.broker()
    place.weir("create", "s", "--shards", "2")
    place.weir("put", "s", "--key", "a", "--data", "first")
    place.weir("put", "s", "--key", "a", stdin=b"two\nlines\n")
    place.weir("put", "s", "--key", "b", stdin=bytes(range(256)))
    place.weir("put", "s", "--key", "a", "--lines", stdin=b"x\n\ny")
    place.weir("put", "s", "--ndjson", "--key-field", "who.id", stdin=b'{"who":{"id":7}}\n{"who":{"id":"a"}}\n')
    got = place.weir_lines("tail", "s", "--from", "oldest", "--until-now")
    of_a = [r["data"] for r in got if r["key"] == "a"]
    need_equal(of_a, ["first", "two\nlines\n", "x", "", "y", '{"who":{"id":"a"}}'], "records of a key, in order")
    need_equal([r["data_base64"] for r in got if r["key"] == "b"],
               [lib.base64.b64encode(bytes(range(256))).decode()], "bytes that are no text")
    need_equal([r["data"] for r in got if r["key"] == "7"], ['{"who":{"id":7}}'], "a number as a key")
    need(all(len(r["sequence"]) == 56 and r["sequence"].isdigit() for r in got), "sequence numbers have 56 digits")

    one = got[0]
    shard = str(one["shard"])
    at = place.weir_lines("tail", "s", "--shard", shard, "--from", one["sequence"], "--until-now", "--count", "1")
    need_equal(at, [one], "from a sequence number")
    need_equal(place.weir_lines("tail", "s", "--shard", shard, "--from", f"offset:{one['offset']}", "--until-now")[0], one,
               "from an offset")
    line = place.weir("tail", "s", "--shard", shard, "--from", "oldest", "--count", "1", "--with",
                      "shard,offset,sequence,key")
    need_equal(line.split("\t")[:4], [shard, str(one["offset"]), one["sequence"], one["key"]], "columns")
    counted = place.weir_json("replay", "s", "--count-only")
    need_equal((counted["records"], counted["gaps"]), (len(got), 0), "replay --count-only")
    need(place.weir("replay", "s", "--count-only").startswith(f"{len(got)} records"), "replay for people")

    result = place.weir_json("put", "s", "--key", "c", "--data", "z")
    need_equal((result["records"], result["failed"]), (1, 0), "put as JSON")
    need(re.fullmatch(r"shardId-\d{12} offset \d+ at .*Z\n", place.weir("put", "s", "--key", "c", "--data", "z")),
         "put says where the record went")


def live_tail(place):
    "tail prints what comes while it runs, and a signal ends it in order."
    place.broker()
    place.weir("create", "s")
    place.weir("put", "s", "--key", "k", "--data", "before")
    tail = place.start_weir("tail", "tail", "s")
    lib.wait_until("the tail prints what comes", lambda: put_and_look(place, tail))
    need("before" not in tail.read_out(), "tail begins at the tip")
    tail.signal(signal.SIGINT)
    tail.wait(0)


def put_and_look(place, tail):
    place.weir("put", "s", "--key", "k", "--data", "after")
    return "after" in tail.read_out()


def exit_statuses(place):
    "0 done, 1 refused, 2 wrong usage, 3 no broker; the message names the one thing that is wrong."
    place.broker()
    place.weir("create", "s")

    def refused(status, *args, says="", **options):
        got, out, err = place.weir(*args, expect=None, **options)
        need_equal(got, status, f"weir {' '.join(args)} ({err.strip()}): status")
        need(says in err, f"weir {' '.join(args)} says {err!r}, not {says!r}")
        need_equal(out, "", f"weir {' '.join(args)}: standard output")
        need(len(err.strip().split("\n")) == 1, f"weir {' '.join(args)}: more than one line: {err}")

    refused(1, "describe", "nobody", says="nobody")
    refused(1, "create", "s", says="s")
    refused(1, "delete", "nobody", says="nobody")
    refused(1, "put", "nobody", "--key", "k", "--data", "x", says="nobody")
    refused(1, "tail", "nobody", says="nobody")
    refused(1, "split", "s", "7")
    refused(1, "merge", "s", "0", "0")
    refused(1, "update-shard-count", "s", "9")
    refused(1, "retention", "s", "30m")
    refused(1, "create", "bad name")
    refused(1, "verify", "/nowhere/at/all", says="/nowhere/at/all")
    refused(1, "inspect", "/nowhere/at/all", says="/nowhere/at/all")
    refused(1, "verify", place.default.data, says=str(place.default.process.pid))
    refused(2, "nonsense", says="nonsense")
    refused(2, "create", says="usage")
    refused(2, "create", "s", "--shards", "many", says="many")
    refused(2, "create", "s", "--colour", "blue", says="colour")
    refused(2, "retention", "s", "soon", says="soon")
    refused(2, "tail", "s", "--from", "yonder", says="yonder")
    refused(2, "split", "s", "first", says="first")
    refused(2, "put", "s", "--data", "x", says="--key")
    refused(2, "export", "s", says="--to")
    refused(2, "completion", "tcsh", says="tcsh")
    refused(2, "help", "nonsense", says="nonsense")

    nobody = f"ipc://{place.path}/nobody.sock"
    for args in (["list"], ["put", "s", "--key", "k", "--data", "x"]):
        refused(3, "--broker", nobody, *args)
    # $WEIR_BROKER stands in for --broker.
    run = subprocess.run([os.path.join(lib.BIN, "weir"), "list"], env={**os.environ, "WEIR_BROKER": place.default.url},
                         capture_output=True, check=False, timeout=lib.DEADLINE)
    need_equal((run.returncode, run.stdout), (0, b"s\n"), "$WEIR_BROKER")


def help_texts(place):
    "Every command has help; the man page is sound; completion scripts parse."
    usage = place.weir("help")
    for command in COMMANDS:
        need(f"  {command}" in usage, f"'{command}' is not in the help")
        text = place.weir("help", command)
        need_equal(place.weir(command, "--help"), text, f"{command} --help")
        need(text.startswith(f"usage: weir {command}"), f"help {command}")
    need("Exit status" in usage, "exit statuses are stated")
    need(re.fullmatch(r"weir \d+\.\d+\.\d+\n", place.weir("--version")), "--version")
    page = place.file("weir.1", place.weir("man").encode())
    if shutil.which("mandoc"):
        lint = subprocess.run(["mandoc", "-Tlint", "-Werror", page], capture_output=True, text=True, check=False)
        need_equal((lint.returncode, lint.stdout), (0, ""), "mandoc -Tlint")
    for shell, check in (("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])):
        script = place.file("completion." + shell, place.weir("completion", shell).encode())
        if shutil.which(shell):
            run = subprocess.run(check + [script], capture_output=True, text=True, check=False)
            need_equal((run.returncode, run.stderr), (0, ""), f"{shell} reads its completion")
    completed = subprocess.run(
        ["bash", "-c", f"PATH={lib.BIN}:$PATH; source {place.file('completion.bash')}; COMP_WORDS=(weir cr); COMP_CWORD=1; "
         "_weir; echo ${COMPREPLY[@]}"], capture_output=True, text=True, check=False)
    need_equal(completed.stdout.strip(), "create", f"bash completes 'cr' ({completed.stderr})")


def broker_settings(place):
    "The broker explains, checks and prints its settings; a wrong one is named, with status 2."
    program = os.path.join(lib.BIN, "weir-broker")

    def run(*args, env=None):
        done = subprocess.run([program, *args], capture_output=True, text=True, check=False, timeout=lib.DEADLINE,
                              env={**os.environ, **(env or {})}, cwd=place.path)
        return done.returncode, done.stdout, done.stderr
    need_equal(run("--version")[0], 0, "--version")
    status, text, _ = run("--help")
    need(status == 0 and "--segment-size" in text and "Exit status" in text, "--help")
    status, printed, _ = run("--print-config")
    need_equal(status, 0, "--print-config")
    config = place.file("weir.yaml", printed.encode())
    need_equal(run(f"--config={config}", "--check-config")[0], 0, "its own printed configuration is good")
    good = place.file("good.yaml", b"data: d\nsegment-size: 8MiB\nprewrite: 1MiB\nlisten:\n  - tcp://127.0.0.1:0\n")
    need_equal(run(f"--config={good}", "--check-config")[0], 0, "--check-config")
    need("8MiB" in run(f"--config={good}", "--print-config")[1], "the file's setting")
    need("9MiB" in run(f"--config={good}", "--print-config", env={"WEIR_SEGMENT_SIZE": "9MiB"})[1],
         "the environment goes before the file")
    need("10MiB" in run(f"--config={good}", "--print-config", "--segment-size=10MiB",
                        env={"WEIR_SEGMENT_SIZE": "9MiB"})[1], "a flag goes before the environment")
    for args, says in ((["--segment-size=1"], "segment-size"), (["--segment-size=lots"], "lots"),
                       (["--colour=blue"], "colour"), (["--config=/nowhere.yaml"], "/nowhere.yaml"),
                       (["--listen=gopher://x"], "gopher")):
        status, _, err = run("--check-config", *args)
        need(status == 2 and says in err, f"{args}: status {status}, {err!r}")
    bad = place.file("bad.yaml", b"data: d\nsegment-size: 8MiB\ncolour: blue\n")
    status, _, err = run(f"--config={bad}", "--check-config")
    need(status == 2 and "colour" in err and "3" in err, f"a wrong line in the file: {status} {err!r}")


def broker_reload(place):
    "SIGHUP changes what can be changed; log lines as JSON are JSON."
    config = place.file("weir.yaml", b"log-format: json\nlog-level: warning\n")
    broker = place.broker(settings=[f"--config={config}"])
    lib.write_bytes(config, b"log-format: json\nlog-level: info\n")
    broker.process.signal(signal.SIGHUP)
    lib.wait_until("the broker says that it read its settings again",
                   lambda: "settings read again" in broker.process.read_err())
    broker.terminate()
    for line in broker.process.read_err().splitlines():
        json.loads(line)
    need("stopped" in broker.process.read_err(), "info is on now")


def offline(place):
    "verify walks a whole directory and finds it sound; inspect shows its segments."
    broker = place.broker()
    place.weir("create", "s", "--shards", "4")
    place.weir("put", "s", "--key", "k", "--lines", stdin=b"".join(b"line %d\n" % i for i in range(5000)))
    broker.terminate()
    totals = place.weir_lines("verify", broker.data)[-1]
    need_equal((totals["records"], totals["damaged"]), (5000, 0), "verify")
    need("every checksum and chain holds" in place.weir("verify", broker.data), "verify for people")
    segments = lib.segments_of(broker.data)
    need(segments, "there are segment files")
    seen = 0
    for path in segments:
        need(place.weir("inspect", path, "--records", "--footer"), f"inspect {path}")
        for line in place.weir("--json", "inspect", path, "--records").splitlines():
            seen += "line " in json.dumps(json.loads(line))
    need(seen > 0, "inspect shows the first bytes of records")
    broker.start()
    need_equal(place.weir_json("replay", "s", "--count-only")["records"], 5000, "records after all that")


def checkpoints(place):
    "A subscriber resumes at its checkpoint; show, set and reset; whoever is moved is fenced."
    place.broker()
    place.weir("create", "s")
    place.weir("put", "s", "--key", "k", "--lines", stdin=b"".join(b"%d\n" % i for i in range(100)))
    first = place.weir("subscribe", "s", "mailer", "--count", "40").split()
    need_equal(first, [str(i) for i in range(40)], "the first forty")
    shown = place.weir_json("checkpoint", "show", "s", "mailer")
    need_equal([(c["shard"], c["offset"]) for c in shown], [(0, 40)], "checkpoint show")
    need("40" in place.weir("checkpoint", "show", "s", "mailer"), "checkpoint show for people")
    rest = place.weir("subscribe", "s", "mailer", "--until-now").split()
    need_equal(rest, [str(i) for i in range(40, 100)], "the rest")
    replayed = place.weir("replay", "s", "--from", "offset:10", "--shard", "0", "--count", "3").split()
    need_equal(replayed, ["10", "11", "12"], "replay")
    need_equal(place.weir_json("checkpoint", "show", "s", "mailer")[0]["offset"], 100, "a replay moves no checkpoint")

    place.weir("checkpoint", "set", "s", "mailer", "--shard", "0", "--offset", "95", "--dry-run")
    need_equal(place.weir_json("checkpoint", "show", "s", "mailer")[0]["offset"], 100, "a dry run moves nothing")
    place.weir("checkpoint", "set", "s", "mailer", "--shard", "0", "--offset", "95")
    need_equal(place.weir("subscribe", "s", "mailer", "--until-now").split(), [str(i) for i in range(95, 100)], "set")
    place.weir("checkpoint", "set", "s", "mailer", "--from", "oldest")
    need_equal(len(place.weir("replay", "s", "--from", "checkpoint", "--consumer", "mailer").split()), 100,
               "replay from a checkpoint")
    need_equal(place.weir_json("checkpoint", "show", "s", "mailer")[0]["offset"], 0, "replay left it there")
    beyond, _, err = place.weir("checkpoint", "set", "s", "mailer", "--shard", "0", "--offset", "1000", expect=None)
    need_equal(beyond, 1, f"a checkpoint beyond the end is refused ({err})")

    running = place.start_weir("subscriber", "subscribe", "s", "mailer")
    lib.wait_until("the subscriber reads", lambda: running.read_out().count("\n") == 100)
    need(any(c["name"] == "mailer" and c["connected"] for c in place.weir_json("consumers", "s")), "consumers")
    need("mailer" in place.weir("consumers", "s"), "consumers for people")
    place.weir("checkpoint", "set", "s", "mailer", "--shard", "0", "--offset", "50")
    place.weir("put", "s", "--key", "k", "--data", "new")
    running.wait(1)
    need("taken over" in running.read_err(), f"a fenced subscriber says so: {running.read_err()}")
    need_equal(place.weir_json("checkpoint", "show", "s", "mailer")[0]["offset"], 50, "the stale owner moved nothing")

    old = place.start_weir("old", "subscribe", "s", "mailer")
    lib.wait_until("the old one reads", lambda: old.read_out().count("\n") == 51)
    new = place.start_weir("new", "subscribe", "s", "mailer")
    old.wait(1)
    place.weir("put", "s", "--key", "k", "--data", "newest")
    lib.wait_until("the new one reads", lambda: "newest" in new.read_out())
    new.terminate()
    place.weir("checkpoint", "reset", "s", "mailer")
    need(all(c["offset"] is None for c in place.weir_json("checkpoint", "show", "s", "mailer")), "reset")
    need_equal(len(place.weir("subscribe", "s", "mailer", "--until-now").split()), 102, "from the oldest after a reset")


def replay_range(place):
    "A replay between two moments gives exactly what arrived between them."
    place.broker()
    place.weir("create", "s", "--shards", "2")
    for part in range(6):
        for key in "abc":
            place.weir("put", "s", "--key", key, "--data", f"{key}{part}")
    every = place.weir_lines("replay", "s")
    need_equal(len(every), 18, "records")
    moments = sorted({r["at"] for r in every})
    for low, high in ((1, 4), (0, len(moments) - 1), (2, 3)):
        low, high = moments[low], moments[high]
        want = sorted(r["data"] for r in every if low <= r["at"] < high)
        need_equal(sorted(r["data"] for r in place.weir_lines("replay", "s", "--from", low, "--to", high)), want,
                   f"from {low} to {high}")
    need_equal(place.weir_lines("replay", "s", "--from", "2001-01-01T00:00:00Z", "--to", "2001-01-02T00:00:00Z"), [],
               "a day of long ago")


def resharding(place):
    "Splits, merges and a new shard count under load: acknowledged once, in order per key."
    place.broker()
    place.weir("create", "load", "--shards", "2")
    producers = [place.produce(f"p{i}", keys=50, rate=3000) for i in range(2)]
    follower = place.witness("follow", "follower")
    place.wait_acked("p0", 500, producers[0])
    for _ in range(lib.rounds(6)):
        shards = [s["index"] for s in place.weir_json("describe", "load")["shards"] if s["open"]]
        kind = random.choice(["split", "merge", "count"])
        if kind == "split" or len(shards) < 2:
            place.weir("split", "load", str(random.choice(shards)))
        elif kind == "merge":
            merge_some(place)
        else:
            least, most = (len(shards) + 1) // 2, len(shards) * 2
            place.weir("update-shard-count", "load", str(min(16, random.randint(least, most))))
        place.wait_acked("p1", 300, producers[1])
    for p in producers:
        p.terminate()
    total = place.acked("p0") + place.acked("p1")
    lib.wait_until("the follower has all", lambda: int(follower.last_line() or 0) >= total)
    follower.terminate()
    checked = place.check("p0", "p1")
    need_equal(checked["records"], total, "records in the stream")
    shards = place.weir_json("describe", "load")["shards"]
    return f"{total} records through {len(shards)} shards"


def empty_generations(place):
    "Shards that were closed before anything came: what their children hold still comes behind what their parents do."
    place.broker()
    place.weir("create", "load", "--shards", "2")
    producer = place.produce("p", keys=30, count=8000, size=200)
    producer.wait()
    place.weir("merge", "load", "0", "1")
    place.weir("split", "load", "2")
    place.weir("merge", "load", "3", "4")
    # The same keys go on, with the next numbers.
    place.weir("update-shard-count", "load", "2")
    last = place.produce("q", keys=30, count=200)
    last.wait()
    place.check("p", "q")
    for part in ("a", "b", "c"):
        place.weir("put", "load", "--key", "ordered", "--data", part)
        place.weir("update-shard-count", "load", "1")
        place.weir("update-shard-count", "load", "2")
    got = [r for r in place.weir_lines("tail", "load", "--from", "oldest", "--until-now") if r["key"] == "ordered"]
    need_equal([r["data"] for r in got], ["a", "b", "c"], "records of one key")
    shards = [r["shard"] for r in place.weir_lines("tail", "load", "--from", "oldest", "--until-now")]
    need(max(shards[:100]) <= 1, "the first records are those of the first shards")
    first_of_children = next(i for i, shard in enumerate(shards) if shard > 1)
    need(all(shard > 1 for shard in shards[first_of_children:]), "parents come before what descends from them")


def merge_some(place):
    shards = [s for s in place.weir_json("describe", "load")["shards"] if s["open"]]
    shards.sort(key=lambda s: int(s["hash_low"]))
    i = random.randrange(len(shards) - 1)
    place.weir("merge", "load", str(shards[i]["index"]), str(shards[i + 1]["index"]))


def retention_by_size(place):
    "A shard keeps what its limit allows: old records go, their space comes back, a reader is told of the gap."
    broker = place.broker(settings=["--segment-size=1MiB", "--prewrite=0"])
    place.weir("create", "load", "--shards", "1")
    for _ in range(3):
        producer = place.produce("p", keys=20, size=2000, count=4000)
        producer.wait()
    before = disk_bytes(broker.data)
    place.weir("retention", "load", "--size", "2MiB")
    batch = 64 << 10  # what was put at once goes at once
    lib.wait_until("old records go",
                   lambda: place.weir_json("describe", "load")["shards"][0]["bytes"] <= (2 << 20) + batch)
    shard = place.weir_json("describe", "load")["shards"][0]
    need(0 < shard["oldest"] < 12000, f"the oldest is {shard['oldest']}")
    need_equal(shard["next"], 12000, "the end stays where it is")
    lib.wait_until("space comes back", lambda: disk_bytes(broker.data) < before // 2)
    status, out, err = place.weir("--json", "tail", "load", "--from", "offset:0", "--shard", "0", "--until-now",
                                  expect=None)
    offsets = [json.loads(line)["offset"] for line in out.splitlines()]
    need("gone" in err and status == 0, f"the reader is told: {status} {err!r}")
    need_equal(offsets, list(range(offsets[0], 12000)), "offsets behind the gap")
    broker.restart()
    need(place.weir_json("describe", "load")["shards"][0]["oldest"] >= offsets[0], "a restart revives nothing")


def disk_bytes(path):
    return sum(os.stat(os.path.join(at, name)).st_blocks * 512 for at, _, files in os.walk(path) for name in files)


def bench_and_stats(place):
    "bench measures and says so; stats names each metric with unit and help."
    place.broker()
    place.weir("create", "b")
    lines = place.weir_lines("bench", "b", "--records", "3000", "--size", "200", "--consumers", "2")
    need(lines and all(x["records"] >= 3000 for x in lines), f"bench: {lines}")
    need("records/s" in place.weir("bench", "b", "--records", "1000", "--size", "100"), "bench for people")
    metrics = place.weir_json("stats")
    need(len(metrics) > 10 and all(m["name"] and m["help"] for m in metrics), "stats")
    prefix = metrics[0]["name"][:4]
    need(all(m["name"].startswith(prefix) for m in place.weir_json("stats", prefix)), "stats of a prefix")
    need(metrics[0]["name"] in place.weir("stats"), "stats for people")


def demo(place):
    "The demo runs to its end by itself, and all adds up."
    run = place.start("demo", [os.path.join(lib.BIN, "weir-demo"), "--data", place.file("demo-data")])
    run.wait(0)


if __name__ == "__main__":
    lib.main(globals())
