#!/usr/bin/env python3
"""The flat form of change records, by the rules and nothing else: the yardstick for `weir export`.

    flatten_model.py [options] < change-records.ndjson > flat.ndjson

One JSON document a line in, one line out, byte for byte what proto/change writes. It is naive on
purpose: it parses, builds the line as text, and knows nothing of speed. A record that is none stops
it with a traceback.
"""
import argparse
import datetime
import decimal
import json
import sys

OWN_NAMES = {"event_name", "event_time", "event_time_ms", "_seq", "_shard", "_event_id", "_table"}


def pairs_of(text):
    """JSON with objects as lists of pairs, so that names that occur twice stay twice."""
    return json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs))


def member(obj, name):
    """The only member of that name, or None."""
    found = [value for key, value in obj[1] if key == name]
    assert len(found) <= 1, f"{name} occurs twice"
    return found[0] if found else None


def text(value):
    return json.dumps(value, ensure_ascii=False)


def significant_digits(number):
    mantissa = number.lstrip("-").lower().split("e")[0].replace(".", "")
    return len(mantissa.strip("0"))


def number(value, opts):
    assert decimal.Decimal(value).is_finite()
    return text(value) if opts.numbers_as_text and significant_digits(value) > 15 else value


def attribute(value, opts):
    """An attribute value, {"TYPE": …}, as JSON."""
    ((kind, x),) = value[1]
    if kind in ("S", "B"):
        return text(x)
    if kind == "N":
        return number(x, opts)
    if kind == "BOOL":
        return "true" if x else "false"
    if kind == "NULL":
        return "null"
    if kind == "L":
        return "[" + ",".join(attribute(e, opts) for e in x) + "]"
    if kind == "M":
        return "{" + ",".join(text(k) + ":" + attribute(e, opts) for k, e in x[1]) + "}"
    if kind in ("SS", "BS"):
        return "[" + ",".join(text(e) for e in sorted(x)) + "]"
    assert kind == "NS", kind
    by_value = sorted(x, key=lambda n: (decimal.Decimal(n), n))
    return "[" + ",".join(number(n, opts) for n in by_value) + "]"


def safe_name(name, opts):
    """An attribute's name in the line: never one of ours, and never two for one."""
    bare = name
    while bare.startswith("attr_"):
        bare = bare[len("attr_"):]
    if bare in OWN_NAMES or (opts.with_old and bare.startswith("old_")):
        return "attr_" + name
    return name


def event_time(change):
    at = member(change, "ApproximateCreationDateTime")
    micro = member(change, "ApproximateCreationDateTimePrecision") == "MICROSECOND"
    at_us = at if micro else at * 1000
    epoch = datetime.datetime(1970, 1, 1)
    moment = epoch + datetime.timedelta(microseconds=at_us)
    return moment.isoformat(timespec="microseconds" if micro else "milliseconds") + "Z", at_us // 1000


def flatten(line, opts):
    record = pairs_of(line)
    name = member(record, "eventName")
    change = member(record, "dynamodb")
    keys, new, old = (member(change, n) for n in ("Keys", "NewImage", "OldImage"))
    iso, at_ms = event_time(change)

    parts = [("event_name", text(name)), ("event_time", text(iso))]
    if opts.event_time_ms:
        parts.append(("event_time_ms", str(at_ms)))
    if opts.seq is not None:
        parts.append(("_seq", text(opts.seq)))
    if opts.shard is not None:
        parts.append(("_shard", text(opts.shard)))
    if opts.event_id:
        parts.append(("_event_id", text(member(record, "eventID"))))
    if opts.table:
        parts.append(("_table", text(member(record, "tableName"))))

    if name != "REMOVE":
        wanted = new
    else:
        wanted = old if opts.remove_old_image else keys
    source = keys if wanted is None else wanted
    parts += [(safe_name(n, opts), attribute(v, opts)) for n, v in source[1]]
    if opts.with_old and old is not None and source is not old:
        parts += [("old_" + n, attribute(v, opts)) for n, v in old[1]]
    return "{" + ",".join(text(n) + ":" + v for n, v in parts) + "}\n"


def parse_options(args):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("event-time-ms", "numbers-as-text", "with-old", "remove-old-image", "event-id", "table"):
        parser.add_argument("--" + flag, action="store_true")
    parser.add_argument("--seq")
    parser.add_argument("--shard")
    return parser.parse_args(args)


def main():
    opts = parse_options(sys.argv[1:])
    source = open(sys.stdin.fileno(), encoding="utf-8", newline="\n")
    out = open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n")
    for line in source:
        out.write(flatten(line, opts))


if __name__ == "__main__":
    main()
