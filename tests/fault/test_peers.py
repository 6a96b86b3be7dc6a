#!/usr/bin/env python3
"""Peers that stop, vanish, or speak something else: the broker lives, and the others notice nothing.

    test_peers.py NAME
"""
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../system"))
import lib
from lib import need, need_equal

MIB = 1 << 20


def connect(url):
    kind, where = url.split("://", 1)
    if kind == "ipc":
        s = socket.socket(socket.AF_UNIX)
        address = where
    else:
        s = socket.socket(socket.AF_INET)
        host, port = where.rsplit(":", 1)
        address = (host, int(port))
    s.connect(address)  # blocks while the queue of a socket is full
    s.settimeout(lib.DEADLINE)
    return s


def close_now(s):
    """With a reset, so that no port waits."""
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    except OSError:
        pass


def settled(broker):
    """Resident memory once the last garbage is closed."""
    return broker.process.rss()


def stopped_subscriber(place):
    "A subscriber that is stopped costs the others nothing; the broker keeps its memory; it catches up when woken."
    broker = place.broker(settings=["--heartbeat=2s"])
    place.weir("create", "load", "--shards", "2")
    stopped = place.witness("follow", "stopped", "--name", "stopped")
    others = [place.witness("follow", f"f{i}", "--name", f"f{i}") for i in range(3)]
    producer = place.produce("p", keys=50, size=1000, rate=4000)
    place.wait_acked("p", 4000, producer)
    lib.wait_until("the subscriber reads", lambda: int(stopped.last_line() or 0) > 1000)
    before = settled(broker)
    stopped.signal(signal.SIGSTOP)
    # Until much more than any credit has gone past it, and it was silent for long enough to be given up.
    silent_until = time.monotonic() + 15
    place.wait_acked("p", 60000, producer)
    lib.wait_until("15 s without it", lambda: time.monotonic() > silent_until)
    acked = place.acked("p")
    for other in others:
        lib.wait_until("the others read on", lambda o=other: int(o.last_line() or 0) >= acked)
    grown = settled(broker) - before
    if not lib.SANITIZED:
        need(grown < 48 * MIB, f"the broker has grown by {grown / MIB:.1f} MiB")
    stopped.signal(signal.SIGCONT)
    producer.terminate()
    total = place.acked("p")
    for process in [stopped] + others:
        lib.wait_until(f"'{process.name}' has all", lambda p=process: int(p.last_line() or 0) >= total)
        process.terminate()
    place.check("p")
    return f"{total} records, broker +{grown / MIB:.1f} MiB, {stopped.result()['reconnects']} reconnects"


def vanished_subscribers(place):
    "Subscribers that are killed, and connections that go silent half-open, are forgotten."
    broker = place.broker(listen="tcp://127.0.0.1:0", settings=["--heartbeat=500ms"])
    place.weir("create", "load", "--shards", "2")
    producer = place.produce("p", keys=50, size=500, rate=3000)
    place.wait_acked("p", 500, producer)
    lost = [place.witness("follow", f"lost{i}", "--name", f"lost{i}") for i in range(5)]
    for process in lost:
        lib.wait_until("it reads", lambda p=process: p.last_line())
    lib.wait_until("they are seen", lambda: len(connected(place)) == 5)
    for process in lost[:3]:
        process.kill()
    for process in lost[3:]:
        process.signal(signal.SIGSTOP)
    lib.wait_until("they are forgotten", lambda: not connected(place))
    place.wait_acked("p", 500, producer)
    for process in lost[3:]:
        process.signal(signal.SIGCONT)
    producer.terminate()
    total = place.acked("p")
    for process in lost[3:]:
        lib.wait_until("the woken ones have all", lambda p=process: int(p.last_line() or 0) >= total)
        process.terminate()
    place.check("p")


def connected(place):
    return {c["name"] for c in place.weir_json("consumers", "load") if c["connected"]}


GREETING = b"\0SP\0\0\x10\0\0"  # SP, PAIR0


def frame(message, ipc=True, announced=None):
    size = len(message) if announced is None else announced
    return (b"\x01" if ipc else b"") + struct.pack(">Q", size) + message


def attacks():
    """(name, bytes to send, piece by piece) without end."""
    while True:
        yield "noise", [os.urandom(random.randrange(1, 5000))]
        yield "HTTP", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
        yield "half a greeting", [GREETING[:random.randrange(8)]]
        yield "another protocol", [b"\0SP\0" + os.urandom(4), frame(b"hello")]
        for announced in (0, 1, 2**31, 2**32 + 5, 2**40, 2**63, 2**64 - 1):
            yield f"{announced} bytes announced", [GREETING, frame(b"x" * 10, announced=announced)]
        yield "noise in a frame", [GREETING, frame(os.urandom(random.randrange(0, 3000)))]
        yield "a frame cut off", [GREETING, frame(os.urandom(500), announced=5000)]
        yield "many frames of noise", [GREETING] + [frame(os.urandom(random.randrange(1, 200))) for _ in range(50)]
        yield "slow bytes", [bytes([b]) for b in GREETING + frame(os.urandom(40))]
        head = bytes([random.randrange(0, 20)]) + os.urandom(47)
        yield "a head that is nearly right", [GREETING, frame(head + os.urandom(random.randrange(0, 300)))]
        yield "zeros", [GREETING, frame(bytes(random.randrange(1, 4000)))]


def attack(url, pieces, linger):
    """Sends them and perhaps waits for the broker to close; what it answered is of no interest."""
    s = connect(url)
    try:
        for piece in pieces:
            s.sendall(piece)
        if linger:
            s.settimeout(lib.DEADLINE)
            while s.recv(65536):
                pass
    except OSError:
        pass
    finally:
        close_now(s)


def hostile_bytes(place):
    "Garbage, huge lengths, cut frames and slow handshakes: the broker lives, stays small, and serves whoever is honest."
    tcp = "tcp://127.0.0.1:0"
    broker = place.broker(listen=f"ipc://{place.path}/broker.sock,{tcp}")
    place.weir("create", "load", "--shards", "2")
    producer = place.produce("p", keys=20, rate=1000)
    follower = place.witness("follow", "follower")
    place.wait_acked("p", 500, producer)
    before = settled(broker)
    kinds = {}
    for i, (name, pieces) in enumerate(attacks()):
        if i == 400:
            break
        url = broker.addresses[i % 2]
        if url.startswith("tcp"):
            pieces = [p[1:] if p[:1] == b"\x01" and len(p) > 8 else p for p in pieces]
        attack(url, pieces, linger=False)
        kinds[name] = kinds.get(name, 0) + 1
    # Some that stay and say nothing, or half a thing; the broker must close them, not we.
    held = [threading.Thread(target=attack, args=(broker.addresses[i % 2], pieces, True))
            for i, pieces in enumerate([[], [GREETING[:4]], [GREETING], [GREETING, frame(b"x", announced=2**62)],
                                        [GREETING, frame(b"x" * 9, announced=2**20)], [b"\xff" * 64]])]
    for thread in held:
        thread.daemon = True
        thread.start()
    for thread in held:
        thread.join(lib.DEADLINE)
        need(not thread.is_alive(), "a connection that says nothing is not closed")
    place.wait_acked("p", 500, producer)
    grown = settled(broker) - before
    if not lib.SANITIZED:
        need(grown < 64 * MIB, f"the broker has grown by {grown / MIB:.1f} MiB")
    producer.terminate()
    total = place.acked("p")
    lib.wait_until("the follower has all", lambda: int(follower.last_line() or 0) >= total)
    follower.terminate()
    need_equal(place.check("p")["records"], total, "records")
    broker.terminate()
    return f"{sum(kinds.values())} attacks of {len(kinds)} kinds, broker +{grown / MIB:.1f} MiB"


def many_connections(place):
    "10,000 connects and disconnects, some in the middle of a greeting: nothing of them stays."
    broker = place.broker(listen=f"ipc://{place.path}/broker.sock,tcp://127.0.0.1:0")
    place.weir("create", "load")
    producer = place.produce("p", keys=20, rate=500)

    def some(count):
        for i in range(count):
            s = connect(broker.addresses[i % 2])
            try:
                if i % 3:
                    s.sendall(GREETING[:1 + i % 8])
            except OSError:
                pass
            close_now(s)
    some(1000)
    lib.wait_until("few descriptors", lambda: descriptors(broker) < 100)
    before, files = settled(broker), descriptors(broker)
    some(9000)
    lib.wait_until("the descriptors go", lambda: descriptors(broker) <= files + 10)
    grown = settled(broker) - before
    if not lib.SANITIZED:
        need(grown < 32 * MIB, f"the broker has grown by {grown / MIB:.1f} MiB")
    place.wait_acked("p", 200, producer)
    producer.terminate()
    place.check("p")
    return f"broker +{grown / MIB:.1f} MiB"


def descriptors(broker):
    return len(os.listdir(f"/proc/{broker.process.pid}/fd"))


def too_many_connections(place):
    "More connections than allowed: those that are there go on, and there is room again when some leave."
    broker = place.broker(settings=["--max-connections=10"])
    place.weir("create", "load")
    producer = place.produce("p", keys=20, rate=500)
    place.wait_acked("p", 100, producer)
    held = [place.witness("follow", f"f{i}") for i in range(6)]
    for process in held:
        lib.wait_until("it reads", lambda p=process: p.last_line())
    raw = [connect(broker.url) for _ in range(30)]
    place.wait_acked("p", 300, producer)
    for s in raw:
        close_now(s)
    lib.wait_until("room for one more", lambda: place.weir("list", expect=None)[0] == 0)
    for process in held:
        process.terminate()
    producer.terminate()
    place.check("p")


if __name__ == "__main__":
    lib.main(globals())
