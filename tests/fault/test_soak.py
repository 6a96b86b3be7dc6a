#!/usr/bin/env python3
"""A broker under mixed load and mixed faults for a given time ($WEIR_SOAK_SECONDS, 15 by default).

Generation after generation: a stream with producers, followers and a subscriber with checkpoints,
and a stream of orders with an export that follows. While they run, something happens every moment:
kill -9, SIGTERM, a reshard, stopped readers, hostile bytes, a second broker, killed exporters. Then
every promise is checked, the streams are deleted, and the next generation begins in the same data
directory.

    test_soak.py soak
"""
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system"))
import lib
import test_peers
from lib import compare_lines, model_lines, need, need_equal, object_lines, objects_in

GENERATION_S = 60


class Generation:
    def __init__(self, place, number, seconds):
        self.place, self.number, self.seconds = place, number, seconds
        self.stream, self.orders = f"load{number}", f"orders{number}"
        place.weir("create", self.stream, "--shards", str(random.choice([1, 2, 5])))
        place.weir("create", self.orders, "--shards", "2")
        self.names = [f"g{number}p{i}" for i in range(2)]
        self.producers = [place.produce(name, stream=self.stream, keys=random.choice([3, 80]), rate=1500,
                                        size=random.choice([60, 400, 2000])) for name in self.names]
        self.followers = [place.witness("follow", f"g{number}f{i}", "--name", f"f{i}", stream=self.stream)
                          for i in range(2)]
        self.history = place.orders(max(40, int(seconds * 60)), seed=number)
        self.directory = place.file(f"out{number}")
        self.exporter = None
        self.exports = 0
        self.start_exporter()
        self.putting = place.start_weir(f"g{number}put", "put", self.orders, "--ndjson", "--file", self.history,
                                        "--rate", "250")
        self.seen = []
        self.subscriber = None
        self.subscribe()

    def start_exporter(self):
        self.exports += 1
        self.exporter = self.place.start_weir(
            f"g{self.number}x{self.exports}", "--quiet", "export", self.orders, "--to", self.directory, "--follow",
            "--size", "64KiB", "--interval", "300ms", "--gzip")

    def subscribe(self):
        name = f"g{self.number}s{len(self.seen)}"
        self.subscriber = self.place.start_weir(name, "--json", "--quiet", "subscribe", self.stream, "reader",
                                                "--every", "100")
        self.seen.append(self.subscriber)

    # ---- what happens ----

    def kill_broker(self):
        self.place.default.restart()

    def stop_broker(self):
        self.place.default.terminate(0)
        self.place.default.start()

    def kill_exporter(self):
        need(self.exporter.running(), f"the exporter ended: {self.exporter.read_err()}")
        self.exporter.kill()
        self.start_exporter()

    def kill_subscriber(self):
        need(self.subscriber.running(), f"the subscriber ended: {self.subscriber.read_err()}")
        self.subscriber.kill()
        self.subscribe()

    def reshard(self):
        stream = random.choice([self.stream, self.orders])
        count = sum(s["open"] for s in self.place.weir_json("describe", stream)["shards"])
        target = random.choice([n for n in range((count + 1) // 2, min(8, 2 * count) + 1) if n != count] or [count])
        if target != count:
            self.place.weir("update-shard-count", stream, str(target))

    def stop_follower(self):
        follower = random.choice(self.followers)
        follower.signal(signal.SIGSTOP)
        self.place.wait_acked(self.names[0], 2000, self.producers[0])
        follower.signal(signal.SIGCONT)

    def be_hostile(self):
        for (_, pieces), _ in zip(test_peers.attacks(), range(40)):
            test_peers.attack(self.place.default.url, pieces, linger=False)

    def second_broker(self):
        other = lib.Broker(self.place, data=self.place.default.data, listen=f"ipc://{self.place.path}/other.sock")
        need_equal(other.wait_ready(other.launch()), None, "a second broker's addresses")

    def look(self):
        for args in (["list"], ["describe", self.stream], ["consumers", self.stream], ["stats"],
                     ["checkpoint", "show", self.stream, "reader"]):
            self.place.weir_json(*args)

    HAPPENINGS = [kill_broker, kill_broker, stop_broker, kill_exporter, kill_subscriber, reshard, reshard, stop_follower,
                  be_hostile, second_broker, look]

    def run(self):
        until = time.monotonic() + self.seconds
        happened = 0
        while time.monotonic() < until:
            random.choice(self.HAPPENINGS)(self)
            happened += 1
            self.place.wait_acked(random.choice(self.names), random.choice([1, 100, 1000]),
                                  self.producers[0] if self.producers[0].running() else self.producers[1])
        return happened

    # ---- what must hold ----

    def check(self):
        for producer in self.producers:
            producer.terminate()
            need_equal(producer.result()["failed"], 0, "records refused")
        total = sum(self.place.acked(name) for name in self.names)
        for follower in self.followers:
            lib.wait_until("a follower has all", lambda f=follower: int(f.last_line() or 0) >= total)
            follower.terminate()
        checked = self.place.check(*self.names, stream=self.stream)
        need_equal(checked["records"], total, "records in the stream")
        self.check_subscriber(total)
        self.putting.wait()
        self.exporter.kill()
        self.place.weir("export", self.orders, "--to", self.directory, "--size", "64KiB", "--gzip")
        compare_lines(object_lines(objects_in(self.directory)), model_lines(self.history), lib.order_of_line)
        self.place.weir("delete", self.stream)
        self.place.weir("delete", self.orders)
        return total

    def check_subscriber(self, total):
        """At least once, over all its lives."""
        def everything():
            seen = set()
            for process in self.seen:
                with open(process.out, "rb") as f:
                    for line in f:
                        if line.endswith(b"}\n"):
                            record = lib.json.loads(line)
                            seen.add((record["shard"], record["offset"]))
            return len(seen) >= total and seen
        lib.wait_until("the subscriber has all", everything)
        need(self.subscriber.running(), f"the subscriber ended: {self.subscriber.read_err()}")
        self.subscriber.terminate(0)


def soak(place):
    "Load and faults of every kind at once; then every promise is checked."
    seconds = float(os.environ.get("WEIR_SOAK_SECONDS") or 15)
    broker = place.broker()
    until, number, records, happened = time.monotonic() + seconds, 0, 0, 0
    while number == 0 or time.monotonic() < until:
        generation = Generation(place, number, max(5, min(GENERATION_S, until - time.monotonic())))
        happened += generation.run()
        records += generation.check()
        number += 1
        print(f"generation {number}: {records} records, {happened} happenings, broker "
              f"{broker.process.rss() / 2**20:.1f} MiB, {len(lib.segments_of(broker.data))} segments", flush=True)
    broker.terminate(0)
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage")
    return f"{records} records, {happened} happenings in {number} generations"


if __name__ == "__main__":
    lib.main(globals())
