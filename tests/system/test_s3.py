#!/usr/bin/env python3
"""Export to S3-compatible storage: the same objects as in a directory, whatever the store does.

    test_s3.py NAME            skipped where node or s3rver is missing (cmake/deps.sh test installs it)
"""
import os
import random
import re
import shutil

import lib
import s3_proxy
from lib import Skip, compare_lines, model_lines, need, need_equal, object_lines, objects_in

BUCKET = "exports"
KEYS = {"S3RVER": "S3RVER"}  # s3rver knows no others
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER", "AWS_SESSION_TOKEN": ""}
SUFFIX = "._S3rver_object"


class Store:
    """s3rver with one bucket, on a port of the kernel's choice."""

    def __init__(self, place):
        program = os.path.join(lib.SOURCE, "tests/npm/node_modules/s3rver/bin/s3rver.js")
        if not shutil.which("node") or not os.path.exists(program):
            raise Skip("node or s3rver is missing: cmake/deps.sh test")
        self.directory = place.file("store")
        os.mkdir(self.directory)
        self.process = place.start("s3rver", ["node", program, "-d", self.directory, "-a", "127.0.0.1", "-p", "0",
                                              "--configure-bucket", BUCKET])

        def listening():
            need(self.process.running(), f"s3rver ended: {self.process.read_err()}")
            return re.search(r"listening on (127\.0\.0\.1:\d+)", self.process.read_out())
        self.address = lib.wait_until("s3rver listens", listening).group(1)

    def objects(self, prefix=""):
        root = os.path.join(self.directory, BUCKET)
        return {name[len(prefix):-len(SUFFIX)]: data for name, data in objects_in(root).items()
                if name.startswith(prefix) and name.endswith(SUFFIX)}


def filled(place, count):
    place.broker()
    path = place.orders(count)
    place.weir("create", "orders", "--shards", "3")
    place.weir("put", "orders", "--ndjson", "--file", path)
    return path


def s3_args(endpoint, *more, to=f"s3://{BUCKET}", name="s3"):
    return ["export", "orders", "--to", to, "--endpoint", endpoint, "--name", name, "--interval", "1h", *more]


def s3_equals_directory(place):
    "Objects in the store have the names and bytes of those in a directory, plain and compressed."
    store = Store(place)
    path = filled(place, 500)
    proxy = s3_proxy.Proxy(store.address, KEYS)
    for prefix, more in (("", ["--size", "128KiB"]), ("packed/", ["--size", "128KiB", "--gzip"]), ("a b+c/é/", [])):
        name = f"n{len(prefix)}"
        directory = place.file("as-files-" + name)
        place.weir("export", "orders", "--to", directory, "--name", name + "d", "--interval", "1h", *more)
        result = place.weir_json(*s3_args(proxy.endpoint, *more, to=f"s3://{BUCKET}/{prefix}", name=name), env=CREDENTIALS)
        found = store.objects(prefix)
        if prefix == "":
            found = {k: v for k, v in found.items() if k[0].isdigit()}
        want = objects_in(directory)
        need_equal(sorted(found), sorted(want), f"names below '{prefix}'")
        for key, data in want.items():
            need(found[key] == data, f"'{prefix}{key}' has other bytes than the file")
        need_equal(result["objects"], len(want), "objects reported")
        compare_lines(object_lines(found), model_lines(path), lib.order_of_line)
    need_equal((proxy.refusals, proxy.broken), ([], []), "what the checking store found")
    return f"{proxy.requests} requests"


def s3_faults(place):
    "A store that answers 503, hangs up, loses answers and is slow, and an exporter that is killed: no line missing, none twice."
    store = Store(place)
    path = filled(place, 700)
    proxy = s3_proxy.Proxy(store.address, KEYS)
    kinds = ["ok", "503", "500 stored", "swallow", "reset", "slow"]
    proxy.faults = kinds[1:] + [random.choice(kinds) for _ in range(25)]
    args = s3_args(proxy.endpoint, "--size", "64KiB", "--follow")
    for _ in range(lib.rounds(3)):
        exporter = place.start_weir("exporter", "--quiet", *args, env=CREDENTIALS)
        goal = proxy.requests + random.randrange(2, 9)
        lib.wait_until("requests", lambda want=goal: proxy.requests >= want or not exporter.running())
        need(exporter.running(), f"the exporter ended: {exporter.read_err()}")
        exporter.kill()
        proxy.faults += [random.choice(kinds) for _ in range(3)]
    place.weir(*[a for a in args if a != "--follow"], env=CREDENTIALS)
    compare_lines(object_lines(store.objects()), model_lines(path), lib.order_of_line)
    need_equal((proxy.refusals, proxy.broken), ([], []), "what the checking store found")
    return f"{proxy.requests} requests, {len(store.objects())} objects"


def s3_without_conditions(place):
    "With --unconditional no If-None-Match is sent, and the objects are the same."
    store = Store(place)
    path = filled(place, 200)
    proxy = s3_proxy.Proxy(store.address, KEYS)
    proxy.faults = ["swallow", "500 stored"]
    place.weir(*s3_args(proxy.endpoint, "--unconditional", "--size", "64KiB"), env=CREDENTIALS)
    compare_lines(object_lines(store.objects()), model_lines(path), lib.order_of_line)
    need_equal(proxy.broken, [], "what the checking store found")


def s3_store_down(place):
    "A store that is not there yet holds the export up; it goes on by itself when the store comes."
    store = Store(place)
    path = filled(place, 100)
    port = lib.free_port()
    args = s3_args(f"http://127.0.0.1:{port}")
    exporter = place.start_weir("exporter", *args, env=CREDENTIALS)
    lib.wait_until("it says that the store is not there", lambda: "cannot reach" in exporter.read_err())
    need(exporter.running(), "it goes on trying")
    s3_proxy.Proxy(store.address, KEYS, port=port)
    exporter.wait(0)
    compare_lines(object_lines(store.objects()), model_lines(path), lib.order_of_line)


def s3_refused(place):
    "Wrong credentials, a wrong bucket and a wrong address end the export with a text that says what is wrong."
    store = Store(place)
    filled(place, 20)
    proxy = s3_proxy.Proxy(store.address, KEYS)

    def refused(status, says, endpoint=proxy.endpoint, to=f"s3://{BUCKET}", **env):
        got, out, err = place.weir(*s3_args(endpoint, to=to), expect=None, env={**CREDENTIALS, **env})
        need(got == status and says in err, f"status {got} (want {status}), {err!r} (want {says!r})")
        need("S3RVER" not in err and "secret" not in err, f"the text keeps secrets: {err!r}")
    refused(1, "does not exist in our records", AWS_ACCESS_KEY_ID="AKIDWRONG")
    refused(1, "does not match", AWS_SECRET_ACCESS_KEY="wrong")
    refused(2, "AWS_ACCESS_KEY_ID", AWS_ACCESS_KEY_ID="")
    refused(1, "bucket", to="s3://no-such-bucket")
    refused(2, "Bad_Bucket", to="s3://Bad_Bucket")
    refused(2, "ftp://", endpoint="ftp://127.0.0.1")
    need_equal(sorted({code for code, _ in proxy.refusals}), ["InvalidAccessKeyId", "SignatureDoesNotMatch"],
               "what the checking store refused")


if __name__ == "__main__":
    lib.main(globals())
