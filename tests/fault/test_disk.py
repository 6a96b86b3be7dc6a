#!/usr/bin/env python3
"""Disks that lie, fill up or lose power, and directories that are taken.

    test_disk.py NAME
"""
import fcntl
import os
import random
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system"))
import lib
from lib import Skip, need, need_equal

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def power_cut(place):
    "The file system stops like at a power cut, under load: what was acknowledged is there when power is back."
    disk, remount = place.mount_image((128 + 16 * lib.rounds(3)) << 20)
    data = os.path.join(disk, "data")
    # The acknowledgements are written down elsewhere: they must outlive the disk.
    broker = place.broker(data=data, settings=["--segment-size=8MiB", "--prewrite=4MiB"])
    place.weir("create", "load", "--shards", "4")
    names = []
    for i in range(lib.rounds(3)):
        now = [f"r{i}p{k}" for k in range(2)]
        producers = [place.produce(name, keys=40, rate=5000, size=random.choice([80, 700])) for name in now]
        place.wait_acked(now[0], random.choice([20, 500, 3000]), producers[0])
        if i % 2:
            place.weir("split", "load", str(random.choice(open_shards(place))))
        # Not before it is reached: what was acknowledged up to here is what must be there.
        cut(disk)
        for process in producers + [broker.process]:
            process.kill()
        remount()
        broker.start()
        names += now
        place.check(*names)
    broker.terminate()
    need_equal(place.weir_lines("verify", data)[-1]["damaged"], 0, "damage")
    return f"{sum(place.acked(n) for n in names)} acknowledged, {lib.rounds(3)} power cuts"


def open_shards(place):
    return [s["index"] for s in place.weir_json("describe", "load")["shards"] if s["open"]]


def cut(mount_point):
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    except OSError as why:
        raise Skip(f"this kernel does not shut ext4 down: {why}") from None
    finally:
        os.close(fd)


def full_disk(place):
    "A full disk: writes wait, reads go on, and when there is space again the service returns by itself."
    disk, _ = place.mount_image(96 << 20)
    broker = place.broker(data=os.path.join(disk, "data"), settings=["--owners=1"])
    place.weir("create", "load", "--shards", "2")
    ballast = os.path.join(disk, "ballast")
    producer = place.produce("p", keys=20, size=4000, rate=4000)
    place.wait_acked("p", 200, producer)
    with open(ballast, "wb") as f:
        try:
            while True:
                f.write(bytes(1 << 20))
                f.flush()
        except OSError:
            pass
    # What was written beforehand is used up first; then acknowledgements stop.
    stood = lib.wait_until("writes are refused", lambda: refuses(place, broker))
    need(producer.running(), f"the producer goes on trying: {producer.read_err()}")
    acked = place.acked("p")
    need(place.weir_json("replay", "load", "--count-only")["records"] >= acked, "reads go on")
    place.weir("list")
    status, _, err = place.weir("put", "load", "--key", "k", "--data", "x" * 5000, "--retry", "1s", expect=None)
    need(status in (0, 1), f"a put that gives up says so: {status} {err}")
    os.unlink(ballast)
    place.wait_acked("p", 500, producer)
    producer.terminate()
    need_equal(producer.result()["failed"], 0, "records refused for good")
    checked = checked_without_strangers(place)
    broker.terminate()
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage")
    return f"{checked['acked']} records, {stood}"


def refuses(place, broker):
    """What the broker says when it takes no more writes."""
    for line in broker.process.read_err().splitlines():
        if "no space" in line or "no longer takes" in line or "refus" in line:
            return line.split(" ", 1)[-1].strip()
    return None


def checked_without_strangers(place):
    # The one put above has no running number: it is in its own key, which the witness would not know.
    return place.check("p")


def flipped_bit(place):
    "A flipped bit in a segment: verify names the place, the broker starts, tells of the gap and serves the rest."
    broker = place.broker(settings=["--owners=1", "--segment-size=1MiB", "--prewrite=0", "--cache-size=0"])
    place.weir("create", "load", "--shards", "2")
    producer = place.produce("p", keys=20, size=900, count=6000)
    producer.wait()
    broker.terminate()
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage before")
    keep = place.file("sound")
    shutil.copytree(broker.data, keep)
    segments = lib.segments_of(broker.data)
    need(len(segments) > 3, f"{len(segments)} segments")
    for i in range(lib.rounds(4)):
        shutil.rmtree(broker.data)
        shutil.copytree(keep, broker.data)
        path = segments[random.randrange(len(segments) - 1)]
        position = random.randrange(4096, int(os.path.getsize(path) * 0.7))
        flip(path, position)
        name = os.path.relpath(path, broker.data)
        found = place.weir_lines("verify", broker.data, expect=4)
        damages = [f for f in found if f.get("severity") == "damage"]
        if not damages:
            raise lib.Broken(f"'{name}' byte {position}: verify finds nothing")
        need(any(d["file"] == name and d["position"] <= position and
                 (not d["bytes"] or position < d["position"] + d["bytes"]) for d in damages),
             f"'{name}' byte {position}: verify says {damages}")
        need("DAMAGE" in place.weir("verify", broker.data, expect=4), "verify for people")
        broker.start()
        checked = place.check("p", gaps=True)
        need(checked["records"] + checked["lost"] == 6000 and checked["excused"] == checked["lost"],
             f"'{name}' byte {position}: {checked}")
        need(checked["lost"] < 2000, f"one bit costs {checked['lost']} records")
        place.weir("put", "load", "--key", "k", "--data", "the broker takes records")
        broker.terminate()
    return f"{lib.rounds(4)} bits"


def flip(path, position):
    with open(path, "r+b") as f:
        f.seek(position)
        byte = f.read(1)[0]
        f.seek(position)
        f.write(bytes([byte ^ 1 << random.randrange(8)]))


def last_data(path):
    """Behind the last byte of a file that is not zero."""
    with open(path, "rb") as f:
        return len(f.read().rstrip(b"\0"))


def torn_tail(place):
    "The end of the last write is torn off: recovery cuts it, keeps all before it, and takes new records."
    broker = place.broker(settings=["--owners=1", "--prewrite=1MiB"])
    place.weir("create", "load", "--shards", "1")
    producer = place.produce("p", keys=5, count=500)
    producer.wait()
    broker.kill()
    path = lib.segments_of(broker.data)[-1]
    for i in range(lib.rounds(3)):
        end = last_data(path)
        # The head of a group, and garbage or nothing where the rest should be: a write that was cut.
        with open(path, "r+b") as f:
            f.seek((end + 511) // 512 * 512)
            f.write(random.choice([b"WEIRGRP1" + os.urandom(700), os.urandom(3000), bytes(512) + os.urandom(100)]))
        notes = [f for f in place.weir_lines("verify", broker.data) if f.get("severity")]
        need(all(n["severity"] == "note" for n in notes), f"a torn end is no damage: {notes}")
        broker.start()
        need_equal(place.check("p")["records"], 500 + i, "records") if i == 0 else None
        need_equal(place.weir_json("replay", "load", "--count-only")["records"], 500 + i, "records")
        place.weir("put", "load", "--key", "after", "--data", "new")
        broker.kill()
        path = lib.segments_of(broker.data)[-1]
    need_equal(place.weir_lines("verify", broker.data)[-1]["damaged"], 0, "damage")


def second_broker(place):
    "A second broker on a directory is refused, names the first, and disturbs nothing; a killed one's lock is free."
    broker = place.broker()
    place.weir("create", "s")
    other = lib.Broker(place, data=broker.data, listen=f"ipc://{place.path}/other.sock")
    ready = other.launch()
    need_equal(other.wait_ready(ready), None, "the second broker's addresses")
    need_equal(other.process.wait(None), 3, "its exit status")
    said = other.process.read_err()
    need(f"{broker.process.pid}" in said and "starting" in said, f"it names the other's process: {said}")
    place.weir("put", "s", "--key", "k", "--data", "x")
    status, _, err = place.weir("verify", broker.data, expect=None)
    need(status == 1 and str(broker.process.pid) in err, f"verify is refused too: {status} {err}")
    broker.restart()
    need_equal(place.weir_json("replay", "s", "--count-only")["records"], 1, "records")


def strange_directory(place):
    "A directory of something else, or one that cannot be written, is refused with its name."
    strange = place.file("strange")
    os.mkdir(strange)
    lib.write_bytes(os.path.join(strange, "format"), b"this is no data directory\n")
    broker = lib.Broker(place, data=strange)
    need_equal(broker.wait_ready(broker.launch()), None, "addresses")
    need_equal(broker.process.wait(None), 1, "exit status")
    need(strange in broker.process.read_err(), f"it says which: {broker.process.read_err()}")
    with open(os.path.join(strange, "format"), "rb") as f:
        need_equal(f.read(), b"this is no data directory\n", "the strange file")
    taken = lib.Broker(place, data=place.file("other"), listen="tcp://127.0.0.1:0").start()
    busy = lib.Broker(place, data=place.file("third"), listen=taken.url)
    need_equal(busy.wait_ready(busy.launch()), None, "addresses")
    need_equal(busy.process.wait(None), 1, "exit status with a taken address")
    need(taken.url in busy.process.read_err(), f"it says which: {busy.process.read_err()}")


if __name__ == "__main__":
    lib.main(globals())
