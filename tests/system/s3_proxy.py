"""An S3-compatible store in front of another one, that checks every request and fails on demand.

It verifies AWS Signature Version 4 from the published rules (hmac and hashlib alone), the payload's
hash and MD5, and that a name never gets other bytes than it had. `faults` is a list of what happens
to the next requests, in order; when it is empty requests are served.

    ok                served
    503               SlowDown, nothing is stored
    500 stored        stored, but the answer is an internal error
    swallow           stored, and the connection is closed without an answer
    reset             closed before the body is read
    slow              served, after a pause
"""
import base64
import hashlib
import hmac
import http.client
import http.server
import socketserver
import threading
import time
import urllib.parse

ALLOWED_SKEW_S = 900


def sign(secret, date, region, service, text):
    key = ("AWS4" + secret).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def check_signature(method, target, headers, body, keys):
    """None, or what is wrong with the request as (code, text)."""
    authorization = headers.get("authorization", "")
    if not authorization.startswith("AWS4-HMAC-SHA256 "):
        return "AccessDenied", "no AWS4-HMAC-SHA256 authorization"
    fields = dict(part.strip().split("=", 1) for part in authorization.split(" ", 1)[1].split(","))
    access_key, date, region, service, ending = fields["Credential"].split("/")
    if ending != "aws4_request" or service != "s3":
        return "AuthorizationHeaderMalformed", "the scope is not that of S3"
    if access_key not in keys:
        return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
    stamp = headers.get("x-amz-date", "")
    at = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
    if stamp[:8] != date or abs(at - time.time()) > ALLOWED_SKEW_S:
        return "RequestTimeTooSkewed", f"the request is of {stamp}"
    signed = fields["SignedHeaders"].split(";")
    if signed != sorted(signed) or "host" not in signed:
        return "AccessDenied", "signed headers are not sorted, or host is not among them"
    unsigned = [name for name in headers if name.lower().startswith("x-amz-") and name.lower() not in signed]
    if unsigned:
        return "AccessDenied", f"headers that are not signed: {unsigned}"
    digest = headers.get("x-amz-content-sha256")
    if digest != hashlib.sha256(body).hexdigest():
        return "XAmzContentSHA256Mismatch", "the payload is not what its hash says"
    md5 = headers.get("content-md5")
    if md5 and base64.b64decode(md5) != hashlib.md5(body).digest():
        return "BadDigest", "the payload is not what its MD5 says"

    path, _, query = target.partition("?")
    # Canonical: each byte but the unreserved ones encoded, once, whatever the sender did.
    path = urllib.parse.quote(urllib.parse.unquote_to_bytes(path), safe="/-_.~")
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    query = "&".join(urllib.parse.quote(k, safe="-_.~") + "=" + urllib.parse.quote(v, safe="-_.~") for k, v in pairs)
    lines = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signed)
    canonical = "\n".join([method, path, query, lines, fields["SignedHeaders"], digest])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, f"{date}/{region}/s3/aws4_request",
                      hashlib.sha256(canonical.encode()).hexdigest()])
    if not hmac.compare_digest(sign(keys[access_key], date, region, "s3", text), fields["Signature"]):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, text):
        self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode())

    def hang_up(self):
        self.close_connection = True

    def serve(self):
        proxy = self.server.proxy
        fault = proxy.next_fault(self.command)
        if fault == "reset":
            self.hang_up()
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        wrong = check_signature(self.command, self.path, self.headers, body, proxy.keys)
        if wrong:
            proxy.refusals.append(wrong)
            self.refuse(403, *wrong)
            return
        if fault == "503":
            self.refuse(503, "SlowDown", "Please reduce your request rate.")
            return
        if fault == "slow":
            time.sleep(0.3)
        if self.command == "PUT":
            with proxy.mutex:
                known = proxy.objects.get(self.path)
                if known is not None and known != body:
                    proxy.broken.append(f"{self.path} is put again with other bytes")
                if known is not None and self.headers.get("if-none-match") == "*":
                    self.refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
                    return
                proxy.objects[self.path] = body
        status, headers, answer = proxy.forward(self.command, self.path, self.headers, body)
        if fault == "swallow":
            self.hang_up()
        elif fault == "500 stored":
            self.refuse(500, "InternalError", "We encountered an internal error. Please try again.")
        else:
            self.answer(status, answer, headers)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = serve


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class Proxy:
    """`keys` are access keys with their secrets; `store` is "host:port" of the real store."""

    def __init__(self, store, keys, port=0):
        self.store, self.keys = store, keys
        self.objects, self.refusals, self.broken = {}, [], []
        self.mutex = threading.Lock()
        self.faults = []
        self.requests = 0
        self.server = Server(("127.0.0.1", port), Handler)
        self.server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next_fault(self, method):
        with self.mutex:
            self.requests += 1
            return self.faults.pop(0) if self.faults and method in ("PUT", "HEAD") else "ok"

    def forward(self, method, path, headers, body):
        store = http.client.HTTPConnection(self.store, timeout=60)
        try:
            store.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in ("connection", "expect", "if-none-match"):
                    store.putheader(name, value)
            store.endheaders(body)
            got = store.getresponse()
            answer = got.read()
            kept = [(k, v) for k, v in got.getheaders()
                    if k.lower() in ("etag", "content-type", "last-modified") or k.lower().startswith("x-amz-")]
            if method == "HEAD":
                self_length = got.getheader("content-length")
                return got.status, kept, b"\0" * int(self_length or 0)
            return got.status, kept, answer
        finally:
            store.close()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
