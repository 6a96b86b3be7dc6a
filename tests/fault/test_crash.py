#!/usr/bin/env python3
"""Processes that are killed at any moment: what was acknowledged is there, once, in order.

    test_crash.py NAME               WEIR_CRASH_ROUNDS more rounds; WEIR_SEED the same choices again
"""
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system"))
import lib
from lib import need, need_equal


def kill_under_load(place):
    "kill -9 at any moment: producers and subscribers go on after the restart and nothing is lost or doubled."
    broker = place.broker()
    place.weir("create", "load", "--shards", "4")
    names = ["p0", "p1"]
    producers = [place.produce(name, keys=60, rate=6000, size=random.choice([100, 600])) for name in names]
    follower = place.witness("follow", "follower", "--name", "follower")
    for _ in range(lib.rounds(6)):
        name = random.choice(names)
        place.wait_acked(name, random.choice([1, 50, 1000, 3000]), producers[names.index(name)])
        broker.restart()
    place.wait_acked("p0", 100, producers[0])
    for p in producers:
        p.terminate()
        need_equal(p.result()["failed"], 0, "records refused")
    total = sum(place.acked(name) for name in names)
    lib.wait_until("the follower has all", lambda: int(follower.last_line() or 0) >= total)
    follower.terminate()
    checked = place.check(*names)
    need_equal(checked["records"], total, "records in the stream")
    broker.terminate()
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage")
    return f"{total} records, {lib.rounds(6)} kills"


def kill_with_producers(place):
    "Broker and producers killed in the same moment: what they were told is there; what not, at most once."
    broker = place.broker(settings=["--segment-size=1MiB", "--prewrite=1MiB"])
    place.weir("create", "load", "--shards", "3")
    names = []
    for i in range(lib.rounds(4)):
        now = [f"r{i}p{k}" for k in range(2)]
        producers = [place.produce(name, keys=20, size=random.choice([50, 1500]), rate=8000) for name in now]
        place.wait_acked(now[0], random.choice([1, 200, 4000]), producers[0])
        victims = [broker.process] + producers
        random.shuffle(victims)
        for victim in victims:
            victim.signal(signal.SIGKILL)
        for victim in victims:
            victim.kill()
        broker.start()
        names += now
        place.check(*names)
    broker.terminate()
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage")
    return f"{sum(place.acked(n) for n in names)} acknowledged"


def kill_in_reshard(place):
    "kill -9 while shards are split and merged: the stream stays whole, and keys keep their order."
    broker = place.broker()
    place.weir("create", "load", "--shards", "2")
    producer = place.produce("p", keys=80, rate=4000)
    for i in range(lib.rounds(5)):
        place.wait_acked("p", 400, producer)
        shards = [s["index"] for s in place.weir_json("describe", "load")["shards"] if s["open"]]
        target = random.choice([n for n in range(max(1, (len(shards) + 1) // 2), min(8, 2 * len(shards)) + 1)
                                if n != len(shards)])
        resharding = place.start_weir(f"reshard{i}", "update-shard-count", "load", str(target))
        time.sleep(random.uniform(0, 0.08))
        broker.restart()
        resharding.wait(None)  # done, or the connection was lost: the broker decides which
        lib.wait_until("an active stream", lambda: place.weir_json("describe", "load")["status"] == "ACTIVE")
        whole_ring(place, "load")
    place.wait_acked("p", 400, producer)
    producer.terminate()
    need_equal(producer.result()["failed"], 0, "records refused")
    checked = place.check("p")
    need_equal(checked["records"], place.acked("p"), "records in the stream")
    return f"{checked['records']} records"


def whole_ring(place, stream):
    "Open shards cover every hash key once."
    shards = [s for s in place.weir_json("describe", stream)["shards"] if s["open"]]
    ranges = sorted((int(s["hash_low"]), int(s["hash_high"])) for s in shards)
    need_equal((ranges[0][0], ranges[-1][1]), (0, 2**128 - 1), "the ring's ends")
    for (_, high), (low, _) in zip(ranges, ranges[1:]):
        need_equal(low, high + 1, "open shards meet")


def terminate_under_load(place):
    "SIGTERM under load: exit status 0, all that was acknowledged is there, producers go on after the restart."
    broker = place.broker()
    place.weir("create", "load", "--shards", "3")
    producers = [place.produce(f"p{i}", keys=40, rate=6000) for i in range(2)]
    follower = place.witness("follow", "follower", "--name", "follower")
    for _ in range(lib.rounds(3)):
        place.wait_acked("p0", 1500, producers[0])
        broker.terminate(0)
        status = broker.process.read_err()
        need("stopped" in status, f"the broker says that it stopped: {status[-300:]}")
        broker.start()
    place.wait_acked("p1", 100, producers[1])
    for p in producers:
        p.terminate()
        need_equal(p.result()["failed"], 0, "records refused")
    total = place.acked("p0") + place.acked("p1")
    lib.wait_until("the follower has all", lambda: int(follower.last_line() or 0) >= total)
    follower.terminate()
    need_equal(place.check("p0", "p1")["records"], total, "records in the stream")
    return f"{total} records"


def kill_with_metadata(place):
    "kill -9 between changes of streams and checkpoints: what was answered is there after the restart."
    broker = place.broker()
    for i in range(lib.rounds(4)):
        place.weir("create", f"s{i}", "--shards", "2")
        place.weir("put", f"s{i}", "--key", "k", "--lines", stdin=b"a\nb\nc\n")
        place.weir("checkpoint", "set", f"s{i}", "c", "--from", "latest")
        place.weir("retention", f"s{i}", f"{30 + i}h")
        place.weir("split", f"s{i}", "0")
        if i % 2:
            place.weir("delete", f"s{i - 1}")
        busy = [place.start_weir(f"create{i}.{k}", "create", f"busy{i}.{k}") for k in range(3)]
        time.sleep(random.uniform(0, 0.05))
        broker.restart()
        for process in busy:
            process.wait(None)
        names = place.weir_json("list")
        for k in range(max(0, i - 5), i + 1):
            there = f"s{k}" in names
            need_equal(there, k % 2 == 1 or k == i, f"stream s{k} is there")
            if there:
                d = place.weir_json("describe", f"s{k}")
                need_equal((d["status"], d["retention_ms"], d["open_shards"]), ("ACTIVE", (30 + k) * 3600000, 3),
                           f"s{k}")
                set_there = sum(c["offset"] or 0 for c in place.weir_json("checkpoint", "show", f"s{k}", "c"))
                need_equal(set_there, 3, f"checkpoints of s{k}")
                need_equal(place.weir_json("replay", f"s{k}", "--count-only")["records"], 3, f"records of s{k}")
        for name in names:
            if name.startswith("busy"):
                need_equal(place.weir_json("describe", name)["status"], "ACTIVE", f"a stream made while we struck, {name}")


if __name__ == "__main__":
    lib.main(globals())
