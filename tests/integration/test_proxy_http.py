"""What a client and an instance may expect of orca-proxy: messages, bodies, fields, pages."""
import hashlib
import os
import socket
import struct
import threading
import time

import pytest
from proxy_util import HOST, Closed, Origin, Proxy, answering, echo, tunnel, wait_for


@pytest.fixture(scope="module")
def shop():
    with Origin() as o, Proxy([f"route shop/api domain={HOST} domain=shop2.test max_body=50000000 {o.to}",
                               f"route shop/strip domain={HOST} path=/strip/* strip {o.to}"]) as p:
        p.origin = o
        yield p


def serving(handler, options="", **kw):
    """An origin with that handler and a proxy before it, for one test."""
    o = Origin(handler)
    p = Proxy([f"route shop/api domain={HOST} {options} {o.to}"], **kw)
    p.origin = o
    return p


def test_keep_alive_and_reuse_of_connections(shop):
    w = shop.connect()
    before = shop.origin.connections
    for i in range(50):
        m = shop.get(f"/{i}", wire=w)
        assert m.status == 200 and m.json()["start"] == f"GET /{i} HTTP/1.1"
    assert shop.origin.connections - before <= 2
    w.close()


def test_pipelined_requests_are_answered_in_order(shop):
    w = shop.connect()
    n = 200
    w.send("".join(f"GET /{i} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" for i in range(n)))
    for i in range(n):
        assert w.answer().json()["start"] == f"GET /{i} HTTP/1.1"
    w.close()


def test_pipelined_bodies_and_refusals_between(shop):
    w = shop.connect()
    w.send(f"POST /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello"
           f"GET /n HTTP/1.1\r\nHost: nobody.test\r\n\r\n"
           f"POST /b HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
           f"GET /c HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    assert w.answer().json()["size"] == 5
    assert w.answer().status == 404
    assert w.answer().json()["size"] == 3
    assert w.answer().json()["start"] == "GET /c HTTP/1.1"
    w.close()


def test_a_request_in_single_bytes(shop):
    w = shop.connect()
    for b in f"POST /slow HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode():
        w.send(bytes([b]))
    assert w.answer().json()["size"] == 5
    assert w.answer().json()["start"] == "GET /next HTTP/1.1"
    w.close()


def test_http10_without_and_with_keep_alive(shop):
    w = shop.connect()
    w.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")
    m = w.answer()
    assert m.status == 200 and m.get("Connection") == "close" and w.is_closed()
    w = shop.connect()
    for _ in range(3):
        w.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n")
        m = w.answer()
        assert m.status == 200 and m.get("Connection") == "keep-alive"
    w.close()


def test_connection_close_is_honoured(shop):
    w = shop.connect()
    w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
    m = w.answer()
    assert m.status == 200 and m.get("Connection") == "close" and w.is_closed()


def test_head_has_no_body_but_its_length(shop):
    w = shop.connect()
    m = shop.ask("HEAD", "/", wire=w)
    assert m.status == 200 and int(m.get("Content-Length")) > 0
    assert shop.get("/after", wire=w).status == 200
    w.close()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_bodies(status):
    with serving(answering(f"HTTP/1.1 {status} X\r\nETag: \"a\"\r\n\r\n")) as p:
        w = p.connect()
        for _ in range(3):
            m = p.get(wire=w)
            assert m.status == status and m.get("ETag") == '"a"' and m.get("Transfer-Encoding") is None
        assert p.origin.connections == 1


def chunked(data, size):
    return b"".join(b"%x\r\n%s\r\n" % (len(data[i:i + size]), data[i:i + size]) for i in range(0, len(data), size))


@pytest.mark.parametrize("size", [0, 1, 4095, 20000, 65536, 3_000_000])
def test_bodies_of_known_length(shop, size):
    data = os.urandom(size)
    m = shop.ask("PUT", "/x", body=data)
    assert m.json()["size"] == size and m.json()["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size,chunk", [(0, 1), (1, 1), (3000, 1), (100000, 7), (3_000_000, 60000), (1_000_000, 1_000_000)])
def test_chunked_requests(shop, size, chunk):
    data = os.urandom(size)
    w = shop.connect()
    w.send(f"POST /c HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(data, chunk), b"0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\n")
    m = w.answer().json()
    assert m["size"] == size and m["sha256"] == hashlib.sha256(data).hexdigest()
    assert m["trailers"] == [["X-Sum", "7"]], "trailers pass, but none that would change the message"
    assert shop.get("/after", wire=w).status == 200
    w.close()


@pytest.mark.parametrize("size", [0, 1, 5000, 16384, 70000, 2_000_000])
@pytest.mark.parametrize("how", ["length", "chunked", "close"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_answers_of_every_framing(size, how, version):
    data = os.urandom(size)

    def handler(wire, origin):
        while True:
            wire.request()
            if how == "length":
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, data)
            elif how == "chunked":
                wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(data, 30000), b"0\r\nX-End: yes\r\n\r\n")
            else:
                wire.send(b"HTTP/1.1 200 OK\r\n\r\n", data)
                return

    with serving(handler) as p:
        for _ in range(2):
            w = p.connect()
            w.send(f"GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n")
            m = w.answer()
            assert m.body == data
            if how == "length":
                assert m.get("Content-Length") == str(size)
            elif version == "1.1":
                assert m.get("Transfer-Encoding") == "chunked"
            if how == "chunked" and version == "1.1":
                assert m.trailers == [("X-End", "yes")]
            w.close()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_half_an_answer_never_looks_whole(how, version):
    def handler(wire, origin):
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 9\r\n\r\nhalf" if how == "length" else b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"))
        time.sleep(0.2)

    with serving(handler) as p:
        w = p.connect()
        w.send(f"GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n")
        m = w.head()
        with pytest.raises(Closed if m.get("Content-Length") or m.get("Transfer-Encoding") else ConnectionResetError):
            while m.get("Content-Length") or m.get("Transfer-Encoding"):
                w.body(m)
            while w.sock.recv(100):
                pass


def test_a_slow_reader_holds_its_sender_and_nobody_else():
    size = 128 << 20  # the kernel's own buffers may hold 36 MB of it
    sent = [0]

    def handler(wire, origin):
        while True:
            m = wire.request()
            if m.target == "/small":
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(65536)
            while sent[0] < size:
                wire.send(block)
                sent[0] += len(block)

    with serving(handler, workers=1) as p:
        w = p.connect(receive_buffer=65536)
        w.send(f"GET /big HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        time.sleep(0.5)
        held = sent[0]
        assert held < size // 2, "the proxy takes no more than its buffers hold"
        assert p.get("/small").body == b"ok"
        with open(f"/proc/{p.process.pid}/status") as f:
            rss = int(next(line for line in f if line.startswith("VmRSS")).split()[1])
        if "san" not in str(p.process.args[0]):
            assert rss < 60000
        assert len(w.answer().body) == size
        w.close()


def test_a_slow_writer_streams():
    got = []

    def handler(wire, origin):
        m = wire.head()
        while len(got) < 4:
            got.append(wire.exact(1000))
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(handler) as p:
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4000\r\n\r\n")
        for i in range(4):
            w.send(b"x" * 1000)
            wait_for(lambda: len(got) == i + 1, 2, message="each piece arrives before the next is sent")
        assert w.answer().status == 200
        w.close()


def test_server_sent_events_arrive_one_by_one():
    go = threading.Semaphore(0)
    ended = threading.Event()

    def handler(wire, origin):
        wire.request()
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for i in range(5):
            go.acquire()
            wire.send(f"data: {i}\n\n")
        try:
            wire.fill()
        except Closed:
            ended.set()

    with serving(handler) as p:
        w = p.connect()
        w.send(f"GET /events HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        m = w.head()
        assert m.get("Content-Type") == "text/event-stream"
        events = w.chunks(m)
        for i in range(5):
            go.release()
            assert next(events) == f"data: {i}\n\n".encode()
        w.close()
        assert ended.wait(3), "a client that leaves takes its stream along"


def test_100_continue_passes_through():
    def handler(wire, origin):
        m = wire.head()
        assert m.get("Expect") == "100-continue"
        wire.send("HTTP/1.1 100 Continue\r\n\r\n")
        wire.body(m)
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{len(m.body):02d}")

    with serving(handler) as p:
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        assert w.answer(interim=True).status == 100
        w.send("0123456789")
        assert w.answer().body == b"10"
        w.close()


def test_100_continue_refused_early():
    with serving(answering("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", close=True), "max_body=1000") as p:
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        assert w.answer(interim=True).status == 413 and w.is_closed()
        assert not p.origin.requests


def test_unasked_100_is_not_passed_on():
    with serving(answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")) as p:
        w = p.connect()
        w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        assert w.answer(interim=True).status == 103
        assert w.answer(interim=True).body == b"x"
        w.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")
        assert w.answer(interim=True).status == 200, "an HTTP/1.0 client knows no 1xx"
        w.close()


def test_answer_before_the_request_is_complete():
    def handler(wire, origin):
        wire.head()
        wire.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        time.sleep(1)

    with serving(handler) as p:
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n", b"x" * 10)
        m = w.answer()
        assert m.status == 403 and m.body == b"no" and m.get("Connection") == "close"
        assert w.is_closed(5)


def websocket_origin(wire, origin):
    m = wire.head()
    origin.requests.append(m)
    tunnel(wire, m)


UPGRADE = (f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")


def test_websocket_tunnel():
    with serving(websocket_origin) as p:
        w = p.connect()
        w.send(UPGRADE, b"early frame")
        m = w.answer()
        assert m.status == 101 and m.get("Upgrade") == "websocket" and m.get("Connection") == "Upgrade"
        assert m.get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert w.exact(11) == b"early frame"
        for _ in range(20):
            data = os.urandom(17)
            w.send(data)
            assert w.exact(17) == data
        big = os.urandom(5_000_000)
        sender = threading.Thread(target=w.send, args=(big,))
        sender.start()
        assert w.exact(len(big)) == big
        sender.join()
        w.sock.shutdown(socket.SHUT_WR)
        assert w.rest() == b""


def test_websocket_with_a_wrong_accept_is_no_tunnel():
    with serving(answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n")) as p:
        w = p.connect()
        w.send(UPGRADE)
        assert w.answer().status == 502


def test_websocket_refused_by_the_instance():
    with serving(answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")) as p:
        w = p.connect()
        w.send(UPGRADE)
        assert w.answer().body == b"no"
        assert p.get(wire=w).status == 403


def test_a_101_that_nobody_asked_for_is_refused():
    with serving(answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")) as p:
        assert p.get().status == 502


def test_other_upgrades_are_not_passed_on(shop):
    m = shop.get("/", headers=[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")])
    names = [k.lower() for k, _ in m.json()["headers"]]
    assert m.status == 200 and "upgrade" not in names and "http2-settings" not in names and "connection" not in names


def headers_seen(shop, headers, host=HOST, target="/"):
    return shop.get(target, headers=headers, host=host).json()["headers"]


def values(headers, name):
    return [v for k, v in headers if k.lower() == name]


def test_forwarding_fields_of_strangers_are_replaced(shop):
    h = headers_seen(shop, [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil"), ("Forwarded", "for=6.6.6.6"),
                            ("X-Real-IP", "6.6.6.6"), ("X_Forwarded_For", "6.6.6.6"), ("X-Forwarded-Port", "1")])
    assert values(h, "x-forwarded-for") == ["127.0.0.1"]
    assert values(h, "x-forwarded-proto") == ["http"]
    assert values(h, "x-forwarded-host") == [HOST]
    assert values(h, "forwarded") == [f'for=127.0.0.1;host="{HOST}";proto=http']
    assert not any("6.6.6.6" in v for _, v in h) and not values(h, "x-forwarded-port")


def test_forwarding_fields_of_trusted_proxies_are_added_to():
    with Origin() as o, Proxy(["trusted 127.0.0.0/8 fd00::/8", f"route shop/api domain={HOST} {o.to}"]) as p:
        h = headers_seen(p, [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=1.2.3.4")])
        assert values(h, "x-forwarded-for") == ["1.2.3.4, 5.6.7.8, 127.0.0.1"]
        assert values(h, "x-forwarded-proto") == ["https"]
        assert values(h, "forwarded") == [f'for=1.2.3.4, for=127.0.0.1;host="{HOST}";proto=http']


def test_hop_by_hop_fields_stay_here(shop):
    h = headers_seen(shop, [("Connection", "keep-alive, X-Secret, Host"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"), ("TE", "trailers"),
                            ("Proxy-Connection", "keep-alive"), ("Proxy-Authorization", "Basic x"), ("X-Kept", "a"), ("x-kept", "b"), ("Cookie", "k=v")])
    names = [k.lower() for k, _ in h]
    for gone in ("connection", "x-secret", "keep-alive", "te", "proxy-connection", "proxy-authorization"):
        assert gone not in names
    assert values(h, "x-kept") == ["a", "b"] and values(h, "cookie") == ["k=v"] and values(h, "host") == [HOST]


def test_answers_fields_pass_unchanged():
    with serving(answering("HTTP/1.1 302 Found\r\nLocation: http://other.test:81/a?b#c\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nServer: mine\r\n"
                           "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n")) as p:
        m = p.get()
        assert m.start == "HTTP/1.1 302 Found" and m.get("Location") == "http://other.test:81/a?b#c"
        assert m.all("Set-Cookie") == ["a=1; Path=/", "b=2"] and m.get("Server") == "mine"
        assert m.get("X-Hop") is None and m.get("Keep-Alive") is None and m.get("Connection") is None


@pytest.mark.parametrize("sent,seen", [
    ("/a/b?x=%2e&y=/../", "/a/b?x=%2e&y=/../"),
    ("/a/../b/./c", "/b/c"),
    ("/%61%2Fb%7e", "/a%2Fb~"),
    ("/a/%2e%2E/b", "/b"),
    ("/a%3db", "/a%3Db"),
    (f"http://{HOST}/abs?q", "/abs?q"),
    (f"http://{HOST}", "/"),
    ("/a/b/..", "/a/"),
    ("//x//y", "//x//y"),
    ("/...", "/..."),
])
def test_request_targets_are_normalised(shop, sent, seen):
    assert shop.get(sent).json()["start"] == f"GET {seen} HTTP/1.1"


@pytest.mark.parametrize("target", ["/..", "/a/../../b", "/%00", "/%zz", "/%2", "/a\\b", "/a#b", "ftp://shop.test/", "http://other.test/", "*", "shop.test:80",
                                    "/%2e%2e/%2e%2e/etc/passwd", "http://user@shop.test/"])
def test_request_targets_that_are_refused(shop, target):
    assert shop.get(target).status == 400


def test_strip_prefix(shop):
    for sent, seen in [("/strip/a?b", "/a?b"), ("/strip", "/"), ("/strip/", "/"), ("/strip//evil.test/x", "/evil.test/x")]:
        assert shop.get(sent).json()["start"] == f"GET {seen} HTTP/1.1"
    assert shop.get("/stripped").json()["start"] == "GET /stripped HTTP/1.1"


def test_hosts(shop):
    for host in ("SHOP.test", f"{HOST}:8080", f"{HOST}.", "shop2.test"):
        assert shop.get(host=host).status == 200
    for host in ("nobody.test", "10.0.0.1", "[::1]", "test"):
        assert shop.get(host=host).status == 404
    for host in ("sh op.test", "a@shop.test", "shop.test:port", "[::1", "shop.test/x", ""):
        assert shop.get(host=host).status == 400


def test_options_star_and_methods(shop):
    assert shop.ask("OPTIONS", "*").json()["start"] == "OPTIONS * HTTP/1.1"
    for method in ("PATCH", "DELETE", "PROPFIND"):
        assert shop.ask(method, "/").json()["start"] == f"{method} / HTTP/1.1"
    assert shop.ask("TRACE", "/").status == 405
    w = shop.connect()
    w.send("CONNECT shop.test:80 HTTP/1.1\r\nHost: shop.test:80\r\n\r\n")
    assert w.answer().status == 405


def test_pages_say_who_answers_in_the_form_that_is_asked_for(shop):
    m = shop.get(host="nobody.test")
    assert m.status == 404 and "orca-proxy on n1" in m.body.decode() and m.get("Content-Type").startswith("text/plain")
    m = shop.get(host="nobody.test", headers=[("Accept", "application/json")])
    assert m.json() == {"status": 404, "error": "Not Found", "message": "no service has this host name", "by": "orca-proxy", "node": "n1"}
    m = shop.get(host="nobody.test", headers=[("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")])
    assert m.get("Content-Type").startswith("text/html") and b"<h1>404 Not Found</h1>" in m.body
    m = shop.ask("HEAD", "/", host="nobody.test")
    assert m.status == 404 and m.body == b""


def test_too_large_bodies():
    with serving(echo, "max_body=1000") as p:
        assert p.ask("POST", "/", body=b"x" * 1000).json()["size"] == 1000
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1001\r\n\r\n", b"x" * 1001)
        assert w.answer().status == 413 and w.is_closed()
        w = p.connect()
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")
        w.send(chunked(b"x" * 600, 600))
        time.sleep(0.1)
        w.send(chunked(b"x" * 600, 600))
        assert w.answer().status == 413 and w.is_closed(5)


def test_too_large_heads(shop):
    w = shop.connect()
    w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX: ", b"x" * 20000, "\r\n\r\n")
    assert w.answer().status == 431 and w.is_closed()
    m = shop.get("/" + "a" * 15000)
    assert m.status == 200 and len(m.json()["start"]) > 15000
    assert shop.get(headers=[(f"X-{i}", "v") for i in range(100)]).status == 200
    w = shop.connect()
    w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n" + "".join(f"X-{i}: v\r\n" for i in range(200)) + "\r\n")
    assert w.answer().status == 431


def test_half_closed_client_gets_its_answer(shop):
    w = shop.connect()
    w.send(f"GET /half HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
    w.sock.shutdown(socket.SHUT_WR)
    assert w.answer().json()["start"] == "GET /half HTTP/1.1" and w.is_closed()


def test_access_log_and_counters():
    import json
    with serving(echo, options="", workers=1) as p:
        pass
    with Origin() as o, Proxy([f"route shop/api domain={HOST} path=/v1/* strip {o.to}"], options=["--access-log", "json"]) as p:
        p.get("/v1/a?b=\"c\"", headers=[("User-Agent", 'x"y\\'), ("Referer", "http://r/")])
        p.get("/nothing")
        wait_for(lambda: p.stdout().count("\n") == 2, message="two lines")
        # Two connections, perhaps of two workers: their lines come in either order.
        lines = sorted((json.loads(line) for line in p.stdout().splitlines()), key=lambda line: line["status"])
        assert lines[0]["target"] == '/v1/a?b="c"' and lines[0]["agent"] == 'x"y\\' and lines[0]["status"] == 200
        assert lines[0]["service"] == "shop/api" and lines[0]["instance"] == "shop/api.1" and lines[0]["bytes_out"] > 100
        assert lines[1]["status"] == 404 and lines[1]["target"] == "/nothing"
    with Origin() as o, Proxy([f"route shop/api domain={HOST} {o.to}"], options=["--access-log", "common"]) as p:
        p.get("/x")
        wait_for(lambda: "\n" in p.stdout(), message="a line")
        assert '"GET /x HTTP/1.1" 200 ' in p.stdout()


def test_reset_clients_in_every_state():
    def handler(wire, origin):
        wire.request()
        time.sleep(0.05)
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        for _ in range(100):
            wire.send(bytes(10000))
            time.sleep(0.001)

    with serving(handler) as p:
        for i in range(60):
            w = p.connect()
            w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n"[: i * 2] if i < 20 else f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
            time.sleep(0.003 * (i % 20))
            w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            w.close()
        w = p.connect()
        w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        assert len(w.answer().body) == 1000000


def test_interim_answers_to_a_client_that_does_not_read_yet():
    """The client's buffers are full when the 103 comes: it must still come whole, and before the answer."""
    big = bytes(6_000_000)

    def handler(wire, origin):
        while True:
            m = wire.request()
            origin.requests.append(m)
            if m.target == "/big":
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big), big)
            else:
                wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3)
                time.sleep(0.05)
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with serving(handler, workers=1) as p:
        w = p.connect(receive_buffer=4096)
        w.send("".join(f"GET {t} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" for t in ("/big", "/hints", "/hints")))
        time.sleep(0.3)
        assert len(w.answer().body) == len(big)
        for _ in range(2):
            m = w.answer(interim=True)
            while m.status == 103:
                m = w.answer(interim=True)
            assert m.status == 200 and m.body == b"ok"
        w.close()
