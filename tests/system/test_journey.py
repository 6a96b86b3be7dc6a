#!/usr/bin/env python3
"""The user's way through: change records in, out again as flat lines, and nothing lost on it.

    test_journey.py NAME
"""
import os
import random
import subprocess

import lib
from lib import Skip, compare_lines, model_lines, need, need_equal, object_lines, objects_in

STREAM = "orders"


def history(place, count=None):
    """The real history, unpacked; its first `count` lines."""
    packed = os.path.join(lib.SOURCE, "../shared/data/order-changes.ndjson.xz")
    if not os.path.exists(packed):
        raise Skip("the order history is not there")
    data = subprocess.run(["xz", "-dc", packed], check=True, capture_output=True).stdout
    if count:
        data = b"".join(line + b"\n" for line in data.split(b"\n")[:count])
    return place.file("history.ndjson", data)


def read_lines(path):
    with open(path, encoding="utf-8", newline="\n") as f:
        return f.read().split("\n")[:-1]


def put(place, path, name="put"):
    return place.start_weir(name, "--json", "put", STREAM, "--ndjson", "--file", path)


def export(place, directory, *options):
    result = place.weir_json("export", STREAM, "--to", directory, *options)
    need_equal(result["errors"], 0, "records that are no change records")
    return result


def check_all(place, path, *export_options):
    """What is in the stream, and what an export makes of it, is what is in the file."""
    records = read_lines(path)
    compare_lines(place.weir("tail", STREAM, "--from", "oldest", "--until-now").split("\n")[:-1], records,
                  lib.order_of_record)
    directory = place.file(f"out{len(place.processes)}-{len(os.listdir(place.path))}")
    export(place, directory, *export_options)
    compare_lines(object_lines(objects_in(directory)), model_lines(path), lib.order_of_line)
    return len(records)


def everything(place, path):
    place.broker()
    place.weir("create", STREAM, "--shards", "4")
    result = place.weir_json("put", STREAM, "--ndjson", "--file", path)
    need_equal((result["records"], result["failed"], result["bad_lines"]), (len(read_lines(path)), 0, 0), "put")
    return f"{check_all(place, path)} records"


def orders(place):
    "A made-up history put by the command line is read back, and exported as the model flattens it."
    return everything(place, place.orders(600))


def real_history(place):
    "The same with the real one."
    return everything(place, history(place))


def killed_broker(place):
    "kill -9 in the middle of a put: the put goes on by itself, and nothing is lost or doubled."
    broker = place.broker()
    path = place.orders(1500)
    count = len(read_lines(path))
    place.weir("create", STREAM, "--shards", "3")
    # Slow enough that it is still at work when we strike.
    putting = place.start_weir("put", "--json", "put", STREAM, "--ndjson", "--file", path, "--batch", "8KiB",
                               "--rate", "4000")
    for part in (1, 2):
        lib.wait_until("records in the stream", lambda share=part: stored(place) > count * share // 4)
        need(putting.running(), "the put was over before the broker was killed")
        broker.restart()
    putting.wait()
    need_equal(putting.result()["records"], count, "records that put says are durable")
    return f"{check_all(place, path)} records"


def stored(place):
    return sum(s["next"] for s in place.weir_json("describe", STREAM)["shards"])


def killed_history(place):
    "The same with the real history, at full speed."
    broker = place.broker()
    path = history(place, 20000)
    place.weir("create", STREAM, "--shards", "2")
    putting = place.start_weir("put", "--json", "put", STREAM, "--ndjson", "--file", path, "--rate", "10000")
    lib.wait_until("records in the stream", lambda: stored(place) > 5000)
    broker.restart()
    putting.wait()
    return f"{check_all(place, path)} records"


def gzip_export(place):
    "Compressed objects hold the same lines, and many small ones the same as a few."
    place.broker()
    path = place.orders(500)
    place.weir("create", STREAM, "--shards", "2")
    place.weir("put", STREAM, "--ndjson", "--file", path)
    want = model_lines(path)
    for name, options in (("packed", ["--gzip"]), ("small", ["--gzip", "--size", "64KiB"]), ("plain", ["--size", "64KiB"])):
        directory = place.file(name)
        export(place, directory, "--name", name, *options)
        found = objects_in(directory)
        need(name == "packed" or len(found) > 4, f"{len(found)} objects of 64 KiB")
        compare_lines(object_lines(found), want, lib.order_of_line)


def export_options(place):
    "Each option of the export changes the lines as the model says."
    place.broker()
    path = place.orders(60)
    place.weir("create", STREAM)
    place.weir("put", STREAM, "--ndjson", "--file", path)
    for i, (ours, models) in enumerate([
            (["--time-ms", "--numbers-as-text"], ["--event-time-ms", "--numbers-as-text"]),
            (["--with-old", "--with", "event_id,table"], ["--with-old", "--event-id", "--table"]),
            (["--remove-old"], ["--remove-old-image"])]):
        directory = place.file(f"with{i}")
        export(place, directory, "--name", f"with{i}", *ours)
        compare_lines(object_lines(objects_in(directory)), model_lines(path, models), lib.order_of_line)
    with open(path, "rb") as f:
        flat = place.weir("flatten", "--with-old", stdin=f.read())
    need_equal(flat.split("\n")[:-1], model_lines(path, ["--with-old"]), "weir flatten")


def not_change_records(place):
    "Records that are no change records go to error objects, with their data, and hold nothing up."
    place.broker()
    path = place.orders(40)
    place.weir("create", STREAM)
    place.weir("put", STREAM, "--ndjson", "--file", path)
    place.weir("put", STREAM, "--key", "stranger", "--data", "not JSON at all")
    place.weir("put", STREAM, "--key", "stranger", "--data", '{"eventName":"INSERT"}')
    directory = place.file("out")
    result = place.weir_json("export", STREAM, "--to", directory)
    need_equal(result["errors"], 2, "errors")
    found = objects_in(directory)
    errors = [lib.json.loads(line) for name, data in found.items() if name.startswith("errors/")
              for line in data.decode().splitlines()]
    raw = sorted(lib.base64_text(e["rawData"]) for e in errors)
    need_equal(raw, sorted(["not JSON at all", '{"eventName":"INSERT"}']), "raw data of errors")
    lines = [line for name, data in found.items() if not name.startswith("errors/")
             for line in data.decode().splitlines()]
    need_equal(sorted(lines), sorted(model_lines(path)), "lines beside the errors")


def export_killed(place):
    "An exporter killed at any moment and started again leaves no line out and writes none twice."
    place.broker()
    path = place.orders(1200)
    count = len(read_lines(path))
    place.weir("create", STREAM, "--shards", "3")
    putting = place.start_weir("put", "put", STREAM, "--ndjson", "--file", path, "--rate", "2500")
    directory = place.file("out")
    options = ["--size", "64KiB", "--interval", "100ms", "--gzip"]
    kills = 0
    while putting.running():
        before = len(objects_in(directory))
        exporter = place.start_weir("export", "--quiet", "export", STREAM, "--to", directory, "--follow", *options)
        goal = before + random.randrange(1, 8)
        lib.wait_until("objects", lambda want=goal: len(objects_in(directory)) >= want or not putting.running()
                       or not exporter.running())
        need(exporter.running(), f"the exporter ended: {exporter.read_err()}")
        exporter.kill()
        kills += 1
    putting.wait()
    need(kills > 2, f"only {kills} kills")
    export(place, directory, *options)
    compare_lines(object_lines(objects_in(directory)), model_lines(path), lib.order_of_line)
    return f"{count} records, {kills} kills"


def export_follows_resharding(place):
    "Splits and merges while an export follows: every line once, keys in order."
    place.broker()
    path = place.orders(800)
    place.weir("create", STREAM, "--shards", "2")
    directory = place.file("out")
    exporter = place.start_weir("export", "--json", "export", STREAM, "--to", directory, "--follow", "--size", "64KiB",
                                "--interval", "200ms")
    putting = place.start_weir("put", "put", STREAM, "--ndjson", "--file", path, "--rate", "3000")
    lib.wait_until("records", lambda: stored(place) > 300)
    place.weir("split", STREAM, "0")
    place.weir("update-shard-count", STREAM, "6")
    lib.wait_until("records", lambda: stored(place) > 1500)
    place.weir("update-shard-count", STREAM, "3")
    putting.wait()
    count = len(read_lines(path))
    lib.wait_until("all lines", lambda: sum(d.count(b"\n") for d in objects_in(directory).values()) >= count)
    exporter.terminate()
    compare_lines(object_lines(objects_in(directory)), model_lines(path), lib.order_of_line)
    return f"{count} records"


if __name__ == "__main__":
    lib.main(globals())
