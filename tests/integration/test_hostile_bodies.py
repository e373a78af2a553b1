"""What no client of ours would send, to every route that the OpenAPI document names: refused with a plain answer, and nothing kept, held or changed."""
import http.client
import json
import pathlib
import socket
import time

import pytest
from orca import APP, Cluster, wait_for

GOOD_NAME = "web"
RAW = {
    "deep arrays": b"[" * 100000,
    "deep objects": b'{"a":' * 20000 + b"1" + b"}" * 20000,
    "deep and unclosed in a key": b'{"name":' + b'[{"a":' * 5000,
    "a key twice": b'{"name": "a", "name": "b"}',
    "a key twice, once escaped": b'{"name": "a", "n\\u0061me": "b"}',
    "a key twice, deep": b'{"services": [{"name": "a", "env": {"A": "1", "A": "2"}}]}',
    "NaN": b'{"replicas": NaN}',
    "Infinity": b'{"replicas": Infinity}',
    "-Infinity": b'{"replicas": -Infinity}',
    "an infinite number": b'{"replicas": 1e999}',
    "a number of 100,000 digits": b'{"replicas": ' + b"9" * 100000 + b"}",
    "a fraction of 100,000 digits": b'{"replicas": 0.' + b"9" * 100000 + b"e}",
    "beyond 64 bits": b'{"replicas": 18446744073709551616}',
    "below 64 bits": b'{"replicas": -9223372036854775809}',
    "a number with a zero before it": b'{"replicas": 01}',
    "hexadecimal": b'{"replicas": 0x10}',
    "half a surrogate": b'{"name": "\\ud800"}',
    "the other half": b'{"name": "\\udc00x"}',
    "surrogates the wrong way round": b'{"name": "\\udc00\\ud800"}',
    "half a surrogate as bytes": b'{"name": "\xed\xa0\x80"}',
    "NUL in a key": b'{"na\\u0000me": "x"}',
    "NUL as it is": b'{"name": "a\x00b"}',
    "NUL behind": b'{"name": "a"}\x00',
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "overlong UTF-8": b'{"name": "\xc0\xaf\xe0\x80\xaf"}',
    "beyond Unicode": b'{"name": "\xf4\x90\x80\x80"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "a control character in text": b'{"name": "a\x1b[31mb"}',
    "a line end in text": b'{"name": "a\nb"}',
    "an array": b"[]",
    "null": b"null",
    "a number": b"42",
    "a string": b'"x"',
    "two of them": b"{}{}",
    "something behind": b"{} x",
    "a comma too many": b'{"name": "x",}',
    "a comment": b'{/* */"name": "x"}',
    "single quotes": b"{'name': 'x'}",
    "unclosed": b'{"name": "x"',
    "an unclosed string": b'{"name": "x',
    "a form": b"name=x&replicas=3",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "YAML": b"name: !!python/object/apply:os.system ['id']",
    "many keys": b"{" + b",".join(b'"k%d": 1' % n for n in range(100000)) + b"}",
    "a long key": b'{"' + b"k" * 1000000 + b'": 1}',
}


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        c.deploy("shop", f'[[service]]\nname = "{GOOD_NAME}"\nimage = "{APP}"\nport = 8080\nreplicas = 0\n')
        yield c


def routes(c, methods):
    document = c.api("GET", "/api/v1/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method.upper() in methods:
                yield method.upper(), path, operation


def bare_state(c):
    told = {}
    for path in ("status", "jobs", "tasks", "tokens", "secrets", "nodes", "cluster/info"):
        told[path] = c.api("GET", f"/api/v1/{path}").json()
    names = {"services": [(s["name"], s["revision"], s["replicas"]) for s in told["status"]["services"]], "jobs": [j["name"] for j in told["jobs"]["jobs"]],
             "tasks": len(told["tasks"]["tasks"]), "tokens": sorted(t["name"] for t in told["tokens"]["tokens"]), "secrets": told["secrets"]["secrets"]}
    return names


def size(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def files(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


class Unharmed:
    def __init__(self, c, growth=40 << 20):
        self.c, self.growth = c, growth

    def __enter__(self):
        c = self.c
        self.pid, self.state = c.pid("apiserver"), bare_state(c)
        self.size, self.files, self.log = size(self.pid), files(self.pid), len(c.log("apiserver"))
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            return
        c = self.c
        assert c.pid("apiserver") == self.pid, "it has ended"
        assert bare_state(c) == self.state, "something has changed"
        wait_for(lambda: files(self.pid) <= self.files + 4, 40, message=f"descriptors come back: {self.files} before, {files(self.pid)} now")
        assert size(self.pid) - self.size < self.growth, f"it grew by {(size(self.pid) - self.size) >> 20} MiB"
        new = c.log("apiserver")[self.log:]
        assert len(new) < 1 << 20 and not any(ord(ch) < 32 and ch != "\n" for ch in new), "its log"


def plain(answer):
    text = answer.body.decode()
    assert not any(ord(ch) < 32 and ch != "\n" for ch in text), f"control characters in {text[:200]!r}"
    assert len(text) < 1 << 20
    return json.loads(text)


def test_every_route_that_takes_a_body_refuses_what_is_none(cluster):
    wrong, seen = [], 0
    for label in ("many keys", "a long key", "deep arrays"):  # what its heap keeps of the largest, it keeps once
        cluster.api("POST", "/api/v1/deploy", RAW[label])
        cluster.api("POST", "/api/v1/tasks", RAW[label])
    with Unharmed(cluster):
        for method, path, operation in routes(cluster, ("POST", "PUT", "PATCH")):
            if "requestBody" not in operation:
                continue
            seen += 1
            where = path.replace("{name}", GOOD_NAME)
            for label, body in RAW.items():
                answer = cluster.api(method, where, body)
                said = plain(answer)
                if answer.status not in (400, 413, 422) or not said.get("code"):
                    wrong.append((method, path, label, answer.status))
            for label, body in (("nothing", b""), ("13 MiB", b" " * (13 << 20))):
                answer = cluster.api(method, where, body)
                plain(answer)
                if answer.status != (413 if label == "13 MiB" else 400):
                    wrong.append((method, path, label, answer.status))
    assert seen >= 7, seen
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"


def test_every_other_route_is_not_moved_by_one(cluster):
    """What takes no body does what it does, or refuses it: never a 5xx, never another's effect."""
    wrong, seen = [], 0
    with Unharmed(cluster):
        for method, path, operation in routes(cluster, ("POST", "PUT", "PATCH", "DELETE", "GET")):
            if "requestBody" in operation:
                continue
            seen += 1
            where = path.replace("{name}", "nothing-there")
            if path.endswith("rotate-key") or path == "/api/v1/stop":
                continue
            for label in ("deep arrays", "NUL as it is", "no UTF-8", "two of them", "half a surrogate"):
                answer = cluster.api(method, where, RAW[label])
                if answer.status >= 500:
                    wrong.append((method, path, label, answer.status))
    assert seen > 30, seen
    assert not wrong, wrong


def test_every_name_in_a_path_that_is_none(cluster):
    names = ["..", "%2e%2e", "%2F", "a%2Fb", "a%00b", "%ff%fe", "a%0d%0aX-Evil:%201", "a%1b[2J", "%25", "%", "%zz", "a b".replace(" ", "%20"), "-", "A", "a" * 300, "a" * 8000, "%E2%80%AE", "$(id)", ";id", "'",
             '%22', "shop%2Fweb", "_", "*", "web%00", "web%20", "web.", "web,web"]
    wrong = []
    with Unharmed(cluster):
        for method, path, operation in routes(cluster, ("POST", "PUT", "DELETE", "GET")):
            if "{name}" not in path:
                continue
            for name in names:
                where = path.replace("{name}", name)
                body = {"value": "x"} if path == "/api/v1/secrets/{name}" and method == "PUT" else {"replicas": 1} if "requestBody" in operation else None
                answer = cluster.api(method, where, body)
                ok = (400, 404, 405, 414, 422, 426, 431) if name != "shop%2Fweb" or method == "GET" else (200, 400, 404)
                if method == "DELETE" and name == "shop%2Fweb":
                    continue
                if "value" in (body or {}) and answer.status == 200:  # a good name of a secret after all
                    cluster.api("DELETE", where)
                    continue
                if answer.status not in ok and not (name == "shop%2Fweb" and answer.status == 200):
                    wrong.append((method, path, name[:30], answer.status))
                if any("Evil" in key for key in answer.headers):
                    wrong.append((method, path, "a header of ours", answer.status))
                if any(b < 32 and b != 10 for b in answer.body):
                    wrong.append((method, path, name[:30], "control characters"))
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"


def test_every_query_that_is_none(cluster):
    values = ["", "-1", "1e9", "99999999999999999999", "%00", "%ff", "%1b[2J", "a%0d%0ab", "..%2f..%2fetc", "x" * 5000, "true", "null", "NaN", "1h1", "-5m", "%E2%80%AE"]
    wrong = []
    with Unharmed(cluster):
        for method, path, operation in routes(cluster, ("GET",)):
            where = path.replace("{name}", GOOD_NAME)
            for parameter in [p["name"] for p in operation.get("parameters", []) if p.get("in") == "query"] + ["unknown"]:
                if parameter in ("follow", "wait"):  # streams are elsewhere
                    continue
                for value in values:
                    answer = cluster.api(method, f"{where}?{parameter}={value}")
                    if answer.status >= 500 or any(b < 32 and b not in (10, 9) for b in answer.body):
                        wrong.append((path, parameter, value[:20], answer.status))
            asked = time.monotonic()
            try:
                answer = cluster.api(method, f"{where}?" + "&".join(f"a{n}=1" for n in range(1000)))
            except (http.client.HTTPException, ConnectionError):
                answer = None  # more than fit into a head: it is closed
            if time.monotonic() - asked > 5 or (answer and answer.status >= 500):
                wrong.append((path, "a thousand of them", time.monotonic() - asked, answer))
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"


# ---- below HTTP

def open_socket(c, timeout=10):
    return socket.create_connection((c.address, c.ports["api"]), timeout=timeout)


def talk(c, data, timeout=10):
    """The statuses of all that is answered until it closes, or is quiet."""
    with open_socket(c, timeout) as s:
        try:
            s.sendall(data)
        except OSError:
            pass
        s.settimeout(2)
        answer = b""
        try:
            while piece := s.recv(65536):
                answer += piece
        except OSError:
            pass
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def head(c, method, path, *more):
    return (f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {c.token()}\r\n" + "".join(line + "\r\n" for line in more) + "\r\n").encode()


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_chunked_bodies(cluster):
    body = b'{"replicas": 0}'
    path = f"/api/v1/services/{GOOD_NAME}/scale"
    with Unharmed(cluster):
        chunked = head(cluster, "POST", path, "Transfer-Encoding: chunked")
        assert talk(cluster, chunked + b"".join(chunk(body[n:n + 1]) for n in range(len(body))) + b"0\r\n\r\n") == [200]
        for label, data in {
            "a size beyond 64 bits": b"ffffffffffffffffff\r\n" + body,
            "a negative size": b"-1\r\n" + body,
            "no size": b"\r\n" + body,
            "no hexadecimal": b"xyz\r\n" + body,
            "a size with spaces": b"f \x00\r\n" + body,
            "no line end": b"f" * 100000,
            "an extension of 1 MB": b"f;" + b"x" * (1 << 20) + b"\r\n" + body,
            "a trailer of 1 MB": chunk(body) + b"0\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        }.items():
            statuses = talk(cluster, chunked + data)
            assert all(400 <= s < 500 for s in statuses), (label, statuses)
        # 13 MiB of one byte each are too large as well.
        assert all(s in (413,) for s in talk(cluster, chunked + chunk(b" " * 65536) * 210 + b"0\r\n\r\n", 30))
        # Both lengths: what one takes for the body the other would take for the next request.
        both = head(cluster, "POST", path, "Transfer-Encoding: chunked", "Content-Length: 5")
        statuses = talk(cluster, both + b"0\r\n\r\n" + head(cluster, "DELETE", f"/api/v1/services/{GOOD_NAME}?purge=true"))
        assert len(statuses) <= 1 and all(400 <= s < 500 for s in statuses), statuses
        for lengths in (("Content-Length: 5", "Content-Length: 6"), ("Content-Length: -1",), ("Content-Length: +5",), ("Content-Length: 5x",), ("Content-Length: 99999999999999999999",),
                        ("Content-Length: 0x5",), ("Transfer-Encoding: gzip",), ("Transfer-Encoding: chunked, identity",), ("Content-Length: 1 ", "Content-Length : 2")):
            statuses = talk(cluster, head(cluster, "POST", path, *lengths) + body)
            assert all(400 <= s < 600 for s in statuses), (lengths, statuses)


def test_ten_thousand_headers_and_heads_that_are_none(cluster):
    with Unharmed(cluster):
        many = head(cluster, "POST", "/api/v1/deploy", *(f"X-{n}: y" for n in range(10000)))
        assert all(s in (400, 413, 431) for s in talk(cluster, many)), "10,000 headers"
        for data in (b"\r\n" * 100000, b"GET " + b"/" * 200000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                     b"GET http://other/api/v1/status HTTP/1.1\r\nHost: other\r\n\r\n", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A" * 100000, b"\x00" * 100000,
                     b"GET /api/v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\x00b\r\n\r\n", b"GET /api/v1/status HTTP/1.1\r\n Host: x\r\n\r\n", b"GET /api/v1/status\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n"):
            statuses = talk(cluster, data)
            assert all(400 <= s < 600 for s in statuses), (data[:40], statuses)


def test_a_body_that_never_comes_or_stops_is_ended(cluster):
    """Connections that say they will send, and do not: closed by the apiserver within its limit, and served are the others meanwhile."""
    held = []
    with Unharmed(cluster):
        for _ in range(50):
            for data in (b"", b"POST /api", head(cluster, "POST", "/api/v1/deploy", "Content-Length: 1000000") + b'{"services": [',
                         head(cluster, "PUT", "/api/v1/secrets/X", "Transfer-Encoding: chunked") + b"ffff\r\nx"):
                s = open_socket(cluster)
                s.sendall(data)
                held.append(s)
        began = time.monotonic()
        assert cluster.api("GET", "/api/v1/status").status == 200 and time.monotonic() - began < 2
        for s in held:
            s.settimeout(max(0.1, began + 45 - time.monotonic()))
            try:
                while s.recv(4096):
                    pass
            except ConnectionError:
                pass
            s.close()
        assert time.monotonic() - began < 45


def test_bodies_without_end_have_a_bounded_share_of_memory(cluster):
    """220 MiB in twenty requests of one token that are never ended: 64 of them are kept; the next is told to wait, another token's is not."""
    large, held, path = 11 << 20, [], "/api/v1/deploy"
    other = cluster.api("POST", "/api/v1/tokens", {"name": "bodies", "role": "deployer"}).json()["value"]
    try:
        pid = cluster.pid("apiserver")
        before = size(pid)
        for _ in range(20):
            s = open_socket(cluster, 30)
            s.sendall(head(cluster, "POST", path, f"Content-Length: {large + 1}") + b" " * large)
            held.append(s)
        assert size(pid) - before < 160 << 20, f"it grew by {(size(pid) - before) >> 20} MiB"
        assert talk(cluster, head(cluster, "POST", path, f"Content-Length: {large}") + b" " * large) == [429]
        theirs = head(cluster, "POST", path, f"Content-Length: {large}").replace(cluster.token().encode(), other.encode())
        assert talk(cluster, theirs + b" " * large) == [400]
    finally:
        for s in held:
            s.close()
        cluster.api("DELETE", "/api/v1/tokens/bodies")
    wait_for(lambda: talk(cluster, head(cluster, "POST", path, f"Content-Length: {large}") + b" " * large) == [400], 20, message="there is room again")


def test_one_that_sends_a_byte_now_and_then_is_ended_as_well(cluster):
    """A head is to be there within a minute, however busy its sender is; an answered connection may wait for its next request as before."""
    slow, began = open_socket(cluster), time.monotonic()
    slow.settimeout(0.1)
    text = b"GET /api/v1/health HTTP/1.1\r\nX-Slow: "
    slow.sendall(text)
    while time.monotonic() - began < 85:
        try:
            slow.sendall(b"x")
            if slow.recv(1) == b"":
                break
        except TimeoutError:
            pass
        except OSError:
            break
        time.sleep(2)
    slow.close()
    assert 55 < time.monotonic() - began < 85
    connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=5)
    for _ in range(3):
        connection.request("GET", "/api/v1/health")
        assert connection.getresponse().read() and connection.sock
        time.sleep(1)
    connection.close()


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(cluster):
    with Unharmed(cluster):
        for method, path, operation in routes(cluster, ("POST", "PUT", "GET")):
            where = path.replace("{name}", GOOD_NAME)
            if path == "/api/v1/stop" or path.endswith(("rotate-key", "start", "restart", "redeploy", "rollback")):
                continue
            for data in (head(cluster, method, where, "Content-Length: 50")[:-10], head(cluster, method, where, "Content-Length: 50") + b"{"):
                s = open_socket(cluster)
                s.sendall(data)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # a reset, not an end
                s.close()
        connection = http.client.HTTPConnection(cluster.address, cluster.ports["api"], timeout=5)
        connection.request("GET", "/api/v1/health")
        assert connection.getresponse().status == 200
        connection.close()
