"""What whole-program tests stand on: a place of their own, processes that end with it, and waits
that end by an event.

    def kill_under_load(place):          a test is a function of a Place
        "What it promises."
        broker = place.broker()
        ...

    if __name__ == "__main__":
        lib.main(globals())              test_x.py NAME runs one; ctest has an entry for each

Nothing here judges by the clock. A wait has a deadline so that a hang becomes a failure; how long
something took is never a verdict. What runs is ended by its process id when the test ends, and by
the kernel (setpriv --pdeathsig) when the test itself is killed. Mounts live in a mount namespace of
the test and go with it.
"""
import base64
import collections
import ctypes
import gzip
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

SANITIZED = bool(os.environ.get("WEIR_SANITIZE"))
SOURCE = os.environ.get("WEIR_SOURCE_DIR") or os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BIN = os.environ.get("WEIR_BIN_DIR") or os.path.join(SOURCE, "build/release/bin")
TESTS_BIN = os.path.join(os.path.dirname(BIN), "tests")
DEADLINE = 240 if SANITIZED else 90

sys.path.insert(0, os.path.join(SOURCE, "tests/model"))


class Skip(Exception):
    pass


class Broken(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Broken(text)


def need_equal(got, want, what):
    if got != want:
        raise Broken(f"{what}: {got!r}, not {want!r}")


def wait_until(what, condition, deadline=DEADLINE):
    """Returns condition()'s first true value."""
    limit = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise Broken(f"waited {deadline} s in vain: {what}")
        time.sleep(0.02)


def rounds(few):
    """How often a test with a random moment tries; $WEIR_CRASH_ROUNDS for more."""
    return int(os.environ.get("WEIR_CRASH_ROUNDS") or (few if not SANITIZED else (few + 1) // 2))


def tail_of(path, count=40):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return "".join(collections.deque(f, count))
    except OSError:
        return ""


def write_bytes(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Process:
    def __init__(self, place, name, argv, env=None, stdin=subprocess.DEVNULL, pass_fds=()):
        self.name = name
        self.out = os.path.join(place.logs, name + ".out")
        self.err = os.path.join(place.logs, name + ".err")
        with open(self.out, "ab") as out, open(self.err, "ab") as err:
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--"] + argv, stdin=stdin, stdout=out, stderr=err,
                env={**os.environ, **(env or {})}, pass_fds=pass_fds, cwd=place.path)
        self.pid = self.popen.pid
        place.processes.append(self)

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def kill(self):
        """kill -9, and gone when it returns."""
        if self.running():
            self.popen.kill()
        self.popen.wait(DEADLINE)

    def wait(self, expect=0):
        try:
            status = self.popen.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise Broken(f"'{self.name}' does not end") from None
        if expect is not None and status != expect:
            raise Broken(f"'{self.name}' ended with {status}, not {expect}")
        return status

    def terminate(self, expect=0):
        self.signal(signal.SIGTERM)
        return self.wait(expect)

    def read_out(self):
        with open(self.out, encoding="utf-8", errors="replace") as f:
            return f.read()

    def read_err(self):
        with open(self.err, encoding="utf-8", errors="replace") as f:
            return f.read()

    def last_line(self):
        """The last whole line of its output, cheaply."""
        with open(self.out, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 4096))
            lines = f.read().split(b"\n")
        return lines[-2].decode() if len(lines) > 1 else ""

    def result(self):
        """Its output's last line, as JSON."""
        return json.loads(self.last_line())

    def rss(self):
        """Resident memory, bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise Broken(f"'{self.name}' has no memory")


class Broker:
    """weir-broker with a data directory; start() again after a kill has the same address."""

    # Small, so that segments fill, roll and are sealed within a test.
    SETTINGS = ["--owners=2", "--segment-size=4MiB", "--prewrite=2MiB", "--cache-size=8MiB"]

    def __init__(self, place, data=None, listen=None, settings=()):
        self.place = place
        self.data = data or os.path.join(place.path, "data")
        self.listen = listen or f"ipc://{place.path}/broker.sock"
        self.settings = list(settings)
        self.process = None
        self.addresses = []

    @property
    def url(self):
        return self.addresses[0]

    def argv(self):
        return [os.path.join(BIN, "weir-broker"), f"--data={self.data}", f"--listen={self.listen}",
                *self.SETTINGS, *self.settings]

    def launch(self):
        """Starts it without waiting; returns the descriptor that its addresses come through."""
        ready, theirs = os.pipe()
        try:
            self.process = Process(self.place, "broker", self.argv() + [f"--ready-fd={theirs}"], pass_fds=(theirs,))
        finally:
            os.close(theirs)
        return ready

    def wait_ready(self, ready):
        """Its addresses; None when it ended instead."""
        text, limit = b"", time.monotonic() + DEADLINE
        try:
            while True:
                if not select.select([ready], [], [], max(0, limit - time.monotonic()))[0]:
                    raise Broken("the broker does not become ready")
                piece = os.read(ready, 4096)
                if not piece:
                    break
                text += piece
        finally:
            os.close(ready)
        self.addresses = text.decode().split() or self.addresses
        return self.addresses if text else None

    def start(self):
        if not self.wait_ready(self.launch()):
            raise Broken(f"the broker ended with {self.process.wait(None)} instead of being ready")
        return self

    def kill(self):
        self.process.kill()

    def terminate(self, expect=0):
        self.process.terminate(expect)

    def restart(self):
        self.kill()
        return self.start()


class Place:
    """A fresh directory and all that was started in it."""

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="weir-test-")
        self.logs = os.path.join(self.path, "logs")
        os.mkdir(self.logs)
        self.processes = []
        self.on_exit = []
        self.default = None

    def file(self, name, data=None):
        path = os.path.join(self.path, name)
        if data is not None:
            write_bytes(path, data)
        return path

    def close(self):
        for process in reversed(self.processes):
            process.kill()
        for action in reversed(self.on_exit):
            action()
        shutil.rmtree(self.path, ignore_errors=True)

    def show_logs(self):
        for name in sorted(os.listdir(self.logs)):
            text = tail_of(os.path.join(self.logs, name), 25)[-3000:]
            if text and not name.endswith(".quiet"):
                print(f"---- {name}, the end\n{text}", end="")

    # ---- programs ----

    def start(self, name, argv, **options):
        return Process(self, name, argv, **options)

    def broker(self, **options):
        self.default = Broker(self, **options).start()
        return self.default

    def weir_argv(self, args):
        return [os.path.join(BIN, "weir"), "--broker", self.default.url if self.default else "ipc:///nowhere", *args]

    def weir(self, *args, expect=0, stdin=None, text=True, env=None, cwd=None):
        """Runs the command line to its end; its standard output. `expect` None: (status, out, err)."""
        run = subprocess.run(self.weir_argv(args), input=stdin, capture_output=True, timeout=DEADLINE, check=False,
                             cwd=cwd or self.path, env={**os.environ, **(env or {})})
        out, err = run.stdout, run.stderr.decode(errors="replace")
        if text:
            out = out.decode()
        if expect is None:
            return run.returncode, out, err
        if run.returncode != expect:
            raise Broken(f"weir {' '.join(args)}: status {run.returncode}, not {expect}: {err or out}")
        return out

    def weir_json(self, *args, **options):
        return json.loads(self.weir("--json", *args, **options))

    def weir_lines(self, *args, **options):
        """Output of one JSON object a line."""
        return [json.loads(line) for line in self.weir("--json", *args, **options).splitlines()]

    def start_weir(self, name, *args, **options):
        return self.start(name, self.weir_argv(args), **options)

    # ---- witnesses ----

    def witness(self, verb, name, *args, stream="load"):
        argv = [os.path.join(TESTS_BIN, "witness"), verb, "--broker", self.default.url, "--stream", stream]
        return self.start(name, argv + list(args))

    def acks(self, name):
        return os.path.join(self.logs, name + ".acks.quiet")

    def produce(self, name, stream="load", **options):
        args = ["--name", name, "--acks", self.acks(name)]
        open(self.acks(name), "a").close()  # one that is killed at once was told nothing
        for option, value in options.items():
            args += ["--" + option.replace("_", "-"), str(value)]
        return self.witness("produce", name, *args, stream=stream)

    def acked(self, name):
        """How many acknowledgements a producer has written down."""
        try:
            with open(self.acks(name), "rb") as f:
                return sum(piece.count(b"\n") for piece in iter(lambda: f.read(1 << 20), b""))
        except FileNotFoundError:
            return 0

    def wait_acked(self, name, more, process):
        """Until `more` acknowledgements came beyond those there now."""
        goal = self.acked(name) + more

        def reached():
            if not process.running():
                raise Broken(f"'{name}' ended with {process.popen.returncode}")
            return self.acked(name) >= goal
        wait_until(f"{goal} acknowledgements of '{name}'", reached)

    def check(self, *names, stream="load", gaps=False):
        """Holds the broker to what it acknowledged to these producers; the counts."""
        args = (["--gaps"] if gaps else []) + [self.acks(name) for name in names]
        checker = self.witness("check", f"check-{len(self.processes)}", *args, stream=stream)
        status = checker.wait(None)
        if status:
            raise Broken(f"check of '{stream}': status {status}\n{tail_of(checker.err)}{checker.read_out()}")
        return checker.result()

    def stat(self, name):
        return next(s["value"] for s in self.weir_json("stats", name) if s["name"] == name)

    # ---- change records ----

    def orders(self, count, seed=1):
        """A made-up history; its path."""
        path = self.file(f"orders-{count}-{seed}.ndjson")
        write_bytes(path, self.weir("orders", "--count", str(count), "--seed", str(seed), text=False))
        return path

    # ---- file systems ----

    def mount_image(self, size, name="disk"):
        """A small ext4 of its own, mounted below the place; (mount point, remount function)."""
        if os.geteuid() != 0:
            raise Skip("mounting wants root")
        libc = ctypes.CDLL(None, use_errno=True)
        if not self.on_exit and libc.unshare(0x00020000):  # CLONE_NEWNS
            raise Skip(f"no mount namespace of our own: {os.strerror(ctypes.get_errno())}")
        image, where = self.file(name + ".img"), self.file(name)
        os.mkdir(where)

        def run(*argv):
            return subprocess.run(argv, capture_output=True, text=True, check=False)

        def mount():
            made = run("mount", "-o", "loop", image, where)
            if made.returncode:
                raise Skip(f"mounting an image does not work here: {made.stderr.strip()}")

        def unmount():
            for _ in range(50):
                if run("umount", where).returncode == 0:
                    return
                time.sleep(0.1)  # a killed process's last files are still being closed
            run("umount", "-l", where)

        if run("mount", "--make-rprivate", "/").returncode:
            raise Skip("mounts cannot be made private here")
        with open(image, "wb") as f:
            f.truncate(size)
        made = run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        if made.returncode:
            raise Skip(f"mkfs.ext4: {made.stderr.strip()}")
        self.on_exit.append(unmount)
        mount()

        def remount():
            unmount()
            mount()
        return where, remount


# ---- data directories ----

def segments_of(data):
    """The segment files of a data directory, journal by journal, in order."""
    return sorted(os.path.join(at, name) for at, _, files in os.walk(data) for name in files if name.endswith(".seg"))


# ---- exported objects ----

def objects_in(directory):
    """{name: bytes} of what was published there; compressed ones as they were."""
    found = {}
    for at, folders, files in os.walk(directory):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in files:
            path = os.path.join(at, name)
            with open(path, "rb") as f:
                found[os.path.relpath(path, directory)] = f.read()
    return found


def object_lines(objects):
    """Lines of all objects in the order of shards and offsets; their names must tile each shard."""
    lines, reached = [], {}
    for name in sorted(objects, key=os.path.basename):
        stem, first, limit = os.path.basename(name).split(".")[0].rsplit("-", 2)
        need_equal(int(first), reached.get(stem, int(first)), f"the objects of {stem} have a hole or overlap at")
        reached[stem] = int(limit)
        data = gzip.decompress(objects[name]) if name.endswith(".gz") else objects[name]
        need(data.endswith(b"\n"), f"'{name}' ends within a line")
        here = data.decode().split("\n")[:-1]
        need_equal(len(here), int(limit) - int(first), f"lines in '{name}'")
        lines += here
    return lines


def compare_lines(got, want, key):
    """The same lines, and those of a key in the same order."""
    counted = collections.Counter(got)
    counted.subtract(want)
    missing = [line for line, n in counted.items() if n < 0]
    extra = [line for line, n in counted.items() if n > 0]
    if missing or extra:
        raise Broken(f"{len(got)} lines for {len(want)}; {len(missing)} are missing, such as {missing[:1]}; "
                     f"{len(extra)} are too many, such as {extra[:1]}")
    of_key = collections.defaultdict(list)
    for line in want:
        of_key[key(line)].append(line)
    seen = collections.Counter()
    for line in got:
        k = key(line)
        need_equal(line, of_key[k][seen[k]], f"line {seen[k]} of {k}")
        seen[k] += 1


def model_lines(path, options=()):
    """An independent flattening of the change records in a file."""
    import flatten_model
    opts = flatten_model.parse_options(list(options))
    with open(path, encoding="utf-8", newline="\n") as f:
        return [flatten_model.flatten(line, opts).rstrip("\n") for line in f]


def order_of_line(line):
    return json.loads(line)["orderId"]


def order_of_record(line):
    return json.loads(line)["dynamodb"]["Keys"]["orderId"]["S"]


# ---- the rest ----

def base64_text(text):
    return base64.b64decode(text).decode()



def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main(tests):
    name = sys.argv[1]
    seed = int(os.environ.get("WEIR_SEED") or random.randrange(1 << 32))
    random.seed(seed)
    print(f"{name}: seed {seed} (WEIR_SEED={seed} repeats its choices)")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    place = Place()
    status = 1
    try:
        text = tests[name](place)
        print("holds" + (f": {text}" if text else ""))
        status = 0
    except Skip as why:
        print(f"skipped: {why}")
        status = 77
    except Broken as why:
        print(f"BROKEN: {why}")
        place.show_logs()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        place.show_logs()
    finally:
        keep = os.environ.get("WEIR_KEEP")
        if status == 1 and keep:
            shutil.copytree(place.path, keep, dirs_exist_ok=True, ignore_dangling_symlinks=True,
                            ignore=lambda at, names: [n for n in names if n.endswith(".sock")])
            print(f"kept in {keep}")
        place.close()
    sys.exit(status)
