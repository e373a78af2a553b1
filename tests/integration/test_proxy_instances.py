"""The instances behind orca-proxy: balancing, retries, ejection, time limits; tables that change, drain, restarts."""
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from proxy_util import HOST, PROXY, Closed, Origin, Proxy, answering, echo, free_port, wait_for, with_gateway


def named(n, handler=echo):
    return Origin(handler, name=f"shop/api.{n}")


def route(*origins, options=""):
    return f"route shop/api domain={HOST} {options} " + " ".join(o if isinstance(o, str) else o.to for o in origins)


def dead(n):
    return f"to=shop/api.{n}@127.0.0.1@{free_port()}"


def test_requests_are_spread():
    with named(1) as a, named(2) as b, named(3) as c, Proxy([route(a, b, c)], workers=1) as p:
        for _ in range(60):
            assert p.get().status == 200
        assert all(len(o.requests) == 20 for o in (a, b, c))


def test_the_least_busy_instance_gets_the_request():
    gate = threading.Event()

    def slow(wire, origin):
        while True:
            origin.requests.append(wire.request())
            gate.wait()
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with named(1, slow) as a, named(2) as b, Proxy([route(a, b)], workers=1) as p:
        held = [p.connect() for _ in range(4)]
        for w in held:
            w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        wait_for(lambda: len(a.requests) >= 1)
        for _ in range(20):
            assert p.get().status == 200
        assert len(a.requests) <= 4 and len(b.requests) >= 20
        gate.set()


def test_no_instance_and_a_dead_one():
    with Proxy([route()], workers=1) as p:
        m = p.get()
        assert m.status == 503 and b"no instance of shop/api is ready" in m.body and m.get("Retry-After") == "1"
    with Proxy([route(dead(7))], workers=1) as p:
        m = p.get(headers=[("Accept", "application/json")])
        assert m.status == 502 and "shop/api.7" in m.json()["message"]


def test_what_was_never_sent_is_sent_elsewhere():
    with named(1) as a, Proxy([route(a, dead(2), dead(3))], workers=1) as p:
        for i in range(30):
            assert p.ask("POST", f"/{i}", body=b"x" * 100).status == 200
        assert len(a.requests) == 30


def test_post_is_never_sent_twice_and_get_is():
    def taking(wire, origin):
        origin.requests.append(wire.request())
        wire.close()

    with named(1, taking) as a, named(2, taking) as b, Proxy([route(a, b)], workers=1) as p:
        assert p.ask("POST", "/", body=b"once").status == 502
        assert len(a.requests) + len(b.requests) == 1
        assert p.get().status == 502
        assert len(a.requests) + len(b.requests) == 4, "three attempts at most"


def test_a_partial_answer_is_never_repeated():
    with named(1, answering("HTTP/1.1 200", close=True)) as a, Proxy([route(a)], workers=1) as p:
        assert p.get().status == 502
        assert len(a.requests) == 1


def test_connections_that_end_while_idle_harm_nobody():
    def once(wire, origin):
        origin.requests.append(wire.request())
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with named(1, once) as a, Proxy([route(a)], workers=1) as p:
        for i in range(100):
            assert p.ask("POST" if i % 2 else "GET", "/", body=b"b" if i % 2 else b"").status == 200
        assert len(a.requests) == 100


def test_a_failing_instance_is_ejected_and_comes_back():
    port = free_port()
    with named(1) as a:
        with Proxy([route(a, f"to=shop/api.2@127.0.0.1@{port}")], workers=1) as p:
            for _ in range(20):
                assert p.get().status == 200
            with Origin(echo, name="shop/api.2", port=port) as b:
                time.sleep(0.1)
                assert p.get().status == 200 and not b.requests, "it is out for a second"
                time.sleep(1.2)
                for _ in range(20):
                    assert p.get().status == 200
                assert len(b.requests) >= 8


def test_an_ejection_never_takes_the_last():
    port = free_port()
    with Proxy([route(f"to=shop/api.1@127.0.0.1@{port}")], workers=1) as p:
        for _ in range(10):
            assert p.get().status == 502
        with Origin(echo, port=port):
            assert p.get().status == 200


def test_no_answer_in_time():
    def silent(wire, origin):
        origin.requests.append(wire.request())
        time.sleep(5)

    with named(1, silent) as a, Proxy([route(a, options="timeout=300")], workers=1) as p:
        t = time.monotonic()
        m = p.get()
        assert m.status == 504 and 0.25 < time.monotonic() - t < 1.0 and len(a.requests) == 1
        w = p.connect()
        assert p.get(wire=w).status == 504
        assert p.get(host="x.test", wire=w).status == 404, "the client's connection goes on"


def test_no_connection_in_time():
    # A listener whose backlog is full answers no SYN.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(0)
        port = s.getsockname()[1]
        fill = []
        for _ in range(4):
            c = socket.socket()
            c.setblocking(False)
            c.connect_ex(("127.0.0.1", port))
            fill.append(c)
        time.sleep(0.1)
        with named(1) as a, Proxy([route(f"to=shop/api.2@127.0.0.1@{port}", a)], workers=1) as p:
            t = time.monotonic()
            for _ in range(2):
                assert p.get().status == 200
            assert time.monotonic() - t < 4.5


def test_a_request_body_that_never_comes():
    with named(1) as a, Proxy([route(a)], workers=1) as p:
        w = p.connect(timeout=60)
        w.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc")
        w2 = p.connect()
        assert p.get(wire=w2).status == 200
        w.close()
        assert p.get(wire=w2).status == 200


def test_drain_waits_for_requests_and_only_for_them():
    gate = threading.Event()

    def gated(wire, origin):
        while True:
            origin.requests.append(wire.request())
            gate.wait(10)
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    with with_gateway(workers=3) as (p, g), named(1, gated) as old, named(2) as new:
        g.push("version 10", route(old))
        g.wait_ack(10, [])
        w = p.connect()
        w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        wait_for(lambda: old.requests)
        g.push("version 11", route(new))
        g.wait_ack(11, ["shop/api.1"])
        for _ in range(30):
            assert p.get().json()["origin"] == "shop/api.2", "nothing new goes to what drains"
        assert len(old.requests) == 1
        gate.set()
        assert w.answer().body == b"old"
        wait_for(lambda: g.acks()[-1] == (11, []), message="let go of")


def test_idle_connections_to_removed_instances_are_closed():
    closed = threading.Event()

    def watch(wire, origin):
        try:
            echo(wire, origin)
        finally:
            closed.set()

    with with_gateway(workers=2) as (p, g), named(1, watch) as old, named(2) as new:
        g.push("version 5", route(old))
        g.wait_ack(5)
        assert p.get().status == 200 and not closed.is_set()
        g.push("version 6", route(new))
        g.wait_ack(6, [])
        assert closed.wait(2)


def test_no_request_fails_while_tables_change():
    with with_gateway(workers=2) as (p, g):
        origins = [named(i) for i in range(1, 5)]
        g.push("version 1", route(*origins[:2]))
        g.wait_ack(1)
        stop, failures, count = threading.Event(), [], [0]

        def client(method):
            w = p.connect()
            while not stop.is_set():
                m = p.ask(method, "/", body=b"x" if method == "POST" else b"", wire=w)
                count[0] += 1
                if m.status != 200:
                    failures.append(m)

        threads = [threading.Thread(target=client, args=(m,)) for m in ("GET", "POST", "GET", "POST")]
        for t in threads:
            t.start()
        version = 2
        for _ in range(40):
            for pair in ((0, 1), (1, 2), (2, 3), (3, 0)):
                g.push("delta", f"version {version}", route(*(origins[i] for i in pair)))
                version += 1
                time.sleep(0.005)
        g.wait_ack(version - 1)
        stop.set()
        for t in threads:
            t.join()
        assert not failures and count[0] > 200
        for o in origins:
            o.close()


def test_deltas_and_removals():
    with with_gateway(workers=2) as (p, g), named(1) as a:
        g.push("version 1", route(a), f"route shop/web domain=web.test {a.to}")
        g.wait_ack(1)
        assert p.get().status == 200 and p.get(host="web.test").status == 200
        g.push("delta", "version 2", "removed shop/web")
        g.wait_ack(2)
        assert p.get().status == 200 and p.get(host="web.test").status == 404
        g.push("delta", "version 3", f"route shop/web domain=other.test path=/only {a.to}")
        g.wait_ack(3)
        assert p.get("/only", host="other.test").status == 200 and p.get("/", host="other.test").status == 404


def test_counters_are_reported():
    with with_gateway(workers=2) as (p, g), named(1) as a:
        g.push("version 1", route(a))
        g.wait_ack(1)
        for _ in range(25):
            p.get()
        line = wait_for(lambda: next((x for x in g.lines if x.startswith("stats shop/api")), None), 15)
        assert line.split()[2:5] == ["25", "0", "0"] and int(line.split()[6]) > 25 * 100


def test_last_routes_are_served_after_a_kill_without_a_master():
    with with_gateway(workers=2) as (p, g), named(1) as a:
        g.push("version 7", route(a))
        g.wait_ack(7)
        wait_for(lambda: (p.dir / "state/proxy/routes").exists(), message="routes on disk")
        g.stop()
        took = []
        for _ in range(5):
            p.stop(signal.SIGKILL)
            begin = time.monotonic()
            p.start(wait=False)
            while True:
                try:
                    assert p.get().status == 200
                    break
                except (OSError, Closed):
                    assert time.monotonic() - begin < 2
            took.append(time.monotonic() - begin)
        if "san" not in str(PROXY):
            assert min(took) < 1, took  # from the file: nothing is waited for


def test_routes_are_saved_once_the_disk_lets_them():
    with with_gateway(workers=1) as (p, g), named(1) as a:
        blocker = p.dir / "state/proxy/routes.new"
        blocker.mkdir()
        g.push("version 7", route(a))
        g.wait_ack(7)
        wait_for(lambda: "could not be saved" in p.stderr(), message="said that it failed")
        blocker.rmdir()
        wait_for(lambda: (p.dir / "state/proxy/routes").exists(), 20, message="routes on disk")


def test_a_damaged_file_is_refused_and_told():
    with named(1) as a, Proxy([route(a)], workers=1, start=False) as p:
        f = p.dir / "state/proxy/routes"
        data = bytearray(f.read_bytes())
        for at in (0, 15, 20, len(data) - 1):
            broken = bytearray(data)
            broken[at] ^= 1
            f.write_bytes(broken)
            p.start()
            assert p.get().status == 404 and "can't be used" in p.stderr()
            p.stop()
        f.write_bytes(data)
        p.start()
        assert p.get().status == 200


def test_a_second_proxy_says_who_holds_the_folder_and_the_port():
    with named(1) as a, Proxy([route(a)], workers=1) as p:
        done = subprocess.run([PROXY, "-c", p.node], capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 1 and f"pid {p.process.pid}" in done.stderr
        q = Proxy([route(a)], workers=1, start=False)
        q.port = p.port
        q.write_node()
        done = subprocess.run([PROXY, "-c", q.node], capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 1 and "Address already in use" in done.stderr
        q.folder.cleanup()


def test_a_stop_lets_requests_end():
    def slow(wire, origin):
        origin.requests.append(wire.request())
        time.sleep(0.5)
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    with named(1, slow) as a, Proxy([route(a)], workers=2) as p:
        w = p.connect()
        w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        wait_for(lambda: a.requests)
        p.process.send_signal(signal.SIGTERM)
        m = w.answer()
        assert m.body == b"done" and m.get("Connection") == "close"
        begin = time.monotonic()
        p.process.wait(5)
        assert time.monotonic() - begin < 3


def test_ipv6_clients():
    with named(1) as a, Proxy([route(a)], workers=1) as p:
        try:
            s = socket.create_connection(("::1", p.port), 2)
        except OSError:
            pytest.skip("no IPv6 here")
        from proxy_util import Wire
        w = Wire(s)
        w.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        h = dict(w.answer().json()["headers"])
        assert h["X-Forwarded-For"] == "::1" and h["Forwarded"].startswith('for="[::1]"')


@pytest.mark.skipif(os.cpu_count() < 2, reason="needs two cores")
def test_load_over_many_connections():
    with named(1, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as a, Proxy([route(a)], workers=2) as p:
        errors = []

        def client():
            w = p.connect()
            for _ in range(200):
                if p.get(wire=w).body != b"ok":
                    errors.append(1)
            w.close()

        threads = [threading.Thread(target=client) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors
