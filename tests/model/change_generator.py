"""Random change records from a seed: every attribute type, every way of writing JSON."""
import random

OWN = ["event_name", "event_time", "event_time_ms", "_seq", "_shard", "_event_id", "_table"]
PLAIN = ["orderId", "status", "total", "a", "", "eventName", "even", "old", "_", "attr", "customerId"]
PLANES = [(0x20, 0x7f), (0xa0, 0x7ff), (0x800, 0xd7ff), (0xe000, 0xffff), (0x10000, 0x1ffff),
          (0x20000, 0x10ffff)]
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r",
         "\t": "\\t"}
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.blanks = False
        self.escapes = 0.0

    # JSON, written in one of the many ways

    def gap(self):
        return self.r.choice(["", " ", "\t", "\r ", "  "]) if self.blanks else ""

    def text(self, value):
        out = []
        for c in value:
            if c in '"\\' or c < " " or self.r.random() < self.escapes:
                if c in SHORT and self.r.random() < 0.7:
                    out.append(SHORT[c])
                    continue
                units = c.encode("utf-16-be")
                for i in range(0, len(units), 2):
                    out.append("\\u" + self.r.choice([str.lower, str.upper])(units[i:i + 2].hex()))
            else:
                out.append(c)
        return '"' + "".join(out) + '"'

    def object(self, pairs):
        gap = self.gap
        body = ",".join(f"{gap()}{self.text(k)}{gap()}:{gap()}{v}{gap()}" for k, v in pairs)
        return "{" + (body or gap()) + "}"

    def array(self, values):
        return "[" + (",".join(self.gap() + v + self.gap() for v in values) or self.gap()) + "]"

    # Attribute values

    def string(self):
        r = self.r
        length = r.choice([0, 1, 5, 20, 31, 32, 33, 63, 64, 65, 127, 128, 200])
        kind = r.random()
        if kind < 0.5:
            return "".join(r.choice("abcdefghij 0123456789-") for _ in range(length))
        if kind < 0.8:
            return "".join(chr(r.randint(*r.choice(PLANES))) for _ in range(length))
        return "".join(chr(r.randint(0, 0x7f)) for _ in range(length))

    def number(self):
        r = self.r
        digits = "".join(r.choice("0123456789") for _ in range(r.choice([1, 1, 2, 3, 5, 15, 16, 17, 38, 60])))
        whole = digits.lstrip("0") or "0"
        kind = r.random()
        if kind < 0.4:
            text = whole
        elif kind < 0.8:
            text = whole + "." + "".join(r.choice("0123456789") for _ in range(r.choice([1, 2, 4, 20])))
        else:
            text = whole + r.choice("eE") + r.choice(["", "+", "-"]) + str(r.randint(0, 130))
        return r.choice(["", "", "-"]) + text

    def binary(self):
        r = self.r
        text = "".join(r.choice(BASE64) for _ in range(4 * r.choice([0, 1, 3, 20])))
        return text + r.choice(["", "QQ==", "QUI="])

    def set_of(self, make):
        members = [make() for _ in range(self.r.choice([1, 1, 2, 3, 10, 40]))]
        return self.array([self.text(m) for m in members])

    def value(self, depth):
        r = self.r
        kind = r.choice(["S", "S", "S", "N", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL"])
        if depth <= 0 and kind in "ML":
            kind = "S"
        if kind == "S":
            x = self.text(self.string())
        elif kind == "N":
            x = self.text(self.number())
        elif kind == "B":
            x = self.text(self.binary())
        elif kind == "SS":
            x = self.set_of(self.string)
        elif kind == "NS":
            x = self.set_of(self.number)
        elif kind == "BS":
            x = self.set_of(self.binary)
        elif kind == "M":
            x = self.image(depth - 1, r.choice([0, 1, 3]))
        elif kind == "L":
            x = self.array([self.value(depth - 1) for _ in range(r.choice([0, 1, 3]))])
        elif kind == "NULL":
            x = "true"
        else:
            x = r.choice(["true", "false"])
        return self.object([(kind, x)])

    def name(self):
        r = self.r
        kind = r.random()
        if kind < 0.5:
            return r.choice(PLAIN)
        if kind < 0.8:
            return "attr_" * r.choice([0, 0, 1, 2]) + r.choice(["", "", "old_"]) + r.choice(OWN + PLAIN)
        return self.string()

    def image(self, depth, count):
        return self.object([(self.name(), self.value(depth)) for _ in range(count)])

    # Records

    def anything(self, depth=3):
        r = self.r
        kind = r.randrange(7)
        if kind == 0 and depth:
            return self.object([(self.string(), self.anything(depth - 1)) for _ in range(r.randrange(3))])
        if kind == 1 and depth:
            return self.array([self.anything(depth - 1) for _ in range(r.randrange(3))])
        return [self.text(self.string()), self.number(), "null", "true", "false"][kind % 5]

    def record(self):
        r = self.r
        self.blanks = r.random() < 0.3
        self.escapes = r.choice([0, 0, 0, 0.1, 0.5])
        event = r.choice(["INSERT", "MODIFY", "MODIFY", "REMOVE"])
        micro = r.random() < 0.3
        depth = r.choice([0, 2, 4])
        count = r.choice([0, 1, 5, 12])
        top = 253402300799999999 if micro else 253402300799999
        at = r.choice([0, 951782400000, 1473023700123, r.randint(0, top)])
        change = [("ApproximateCreationDateTime", str(at)),
                  ("Keys", self.image(0, r.choice([1, 2]))), ("SizeBytes", "421")]
        if micro or r.random() < 0.2:
            change.insert(1, ("ApproximateCreationDateTimePrecision",
                              self.text("MICROSECOND" if micro else "MILLISECOND")))
        if event != "REMOVE" and r.random() < 0.9:
            change.insert(-1, ("NewImage", self.image(depth, count)))
        if event != "INSERT" and r.random() < 0.9:
            change.insert(-1, ("OldImage", self.image(depth, count)))
        members = [("awsRegion", self.text("us-east-1")), ("eventName", self.text(event)),
                   ("userIdentity", "null"), ("recordFormat", self.text("application/json"))]
        if r.random() < 0.9:
            members.insert(1, ("eventID", self.text(self.string())))
            members.append(("tableName", self.text("Orders")))
        if r.random() < 0.3:
            change.append((r.choice(["unknown", "keys"]), self.anything()))
            members.append((r.choice(["unknown", "Keys"]), self.anything()))
        if r.random() < 0.4:
            r.shuffle(change)
        members += [("dynamodb", self.object(change)), ("eventSource", self.text("aws:dynamodb"))]
        if r.random() < 0.4:
            r.shuffle(members)
        return self.object(members)
