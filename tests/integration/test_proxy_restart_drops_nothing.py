"""A proxy that is restarted: not one connection is refused, and what is in flight ends well in the process that began it."""
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

from proxy_util import HOST, PROXY, Origin, Proxy, Wire, tunnel, wait_for

SECONDS = 5  # of a download, and of what else is long here


def site(wire, origin):
    """/ at once; /slow in pieces over SECONDS; /events without an end; /ws echoes."""
    while True:
        m = wire.request()
        origin.requests.append(m)
        if m.target == "/slow":
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n")
            for _ in range(50):
                wire.send(b"x" * 10000)
                time.sleep(SECONDS / 50)
        elif m.target == "/events":
            wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for n in range(10000):
                text = f"data: {n}\n\n"
                wire.send(f"{len(text):x}\r\n{text}\r\n")
                time.sleep(0.1)
        elif m.target == "/ws":
            tunnel(wire, m)
        else:
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.contextmanager
def supervised(**options):
    """A proxy that is started again whenever it ends, as deploy/local/supervise does it."""
    with Origin(site) as origin, Proxy([f"route shop/api domain={HOST} {origin.to}"], start=False, **options) as p:
        p.start()
        p.stopping, p.starts = False, 1

        def keep():
            while True:
                p.process.wait()
                if p.stopping:
                    return
                p.start(wait=False)
                p.starts += 1

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield p, origin
        finally:
            p.stopping = True
            p.process.send_signal(signal.SIGINT)
            thread.join(20)


def restart(p, signo=signal.SIGTERM):
    before, starts = p.process, p.starts
    before.send_signal(signo)
    wait_for(lambda: p.starts > starts, message="started again")
    return before


def load(p, seconds, connections=64):
    return subprocess.Popen(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-H", f"Host: {HOST}", f"http://127.0.0.1:{p.port}/"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def assert_unharmed(wrk):
    out = wrk.communicate(timeout=60)[0]
    assert "Socket errors" not in out and "Non-2xx" not in out, out
    assert int(out.split(" requests in")[0].split()[-1]) > 100, out


def begin(p, target, headers=""):
    w = p.connect(timeout=20)
    w.send(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n")
    return w


def children_are_gone(p):
    with open(p.dir / "stderr", encoding="utf-8", errors="replace") as f:
        return all(not os.path.exists(f"/proc/{line.split('process=')[1].split()[0]}") for line in f if "handed over" in line)


def test_restarts_under_load_refuse_and_lose_nothing():
    with supervised(workers=2) as (p, _):
        wrk = load(p, 6)
        slow, events, ws = begin(p, "/slow"), begin(p, "/events"), begin(
            p, "/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
        assert ws.head().status == 101 and events.head().status == 200 and slow.head().get("Content-Length") == "500000"
        stream = events.chunks(None)
        idle = begin(p, "/")
        assert idle.answer().body == b"ok"
        time.sleep(0.5)
        first = p.process
        restart(p)
        # The first process is gone for whoever waits for it; its connections are not.
        idle.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
        last = idle.answer()
        assert last.body == b"ok" and last.get("Connection") == "close"
        for n in range(3):
            time.sleep(0.7)
            restart(p)
            ws.send(b"still %d" % n)
            assert ws.exact(7) == b"still %d" % n
            assert next(stream).startswith(b"data: ")
        assert first.returncode == 0 and p.process.poll() is None
        assert slow.exact(500000) == b"x" * 500000
        ws.close()
        events.close()
        assert_unharmed(wrk)
        wait_for(lambda: children_are_gone(p), message="the processes that drain have ended")
        assert not list((p.dir / "run").glob("*.sock"))


def test_another_number_of_workers_takes_all_sockets():
    with supervised(workers=4) as (p, _):
        for workers in (1, 3):
            p.workers = workers
            wrk = load(p, 2)
            time.sleep(0.5)
            restart(p)
            assert_unharmed(wrk)
            assert "took the sockets of the proxy before this one" in p.stderr()


def test_idle_connections_are_closed_after_a_grace_and_without_a_reset():
    with supervised(workers=1) as (p, _):
        idle = begin(p, "/")
        assert idle.answer().body == b"ok"
        begun = time.monotonic()
        restart(p)
        assert idle.is_closed(10)
        assert 3 < time.monotonic() - begun < 9
        wait_for(lambda: children_are_gone(p), message="the process that drained has ended")


def test_a_second_sigterm_ends_what_drains_and_sigint_waits_in_place():
    with supervised(workers=1) as (p, _):
        events = begin(p, "/events")
        assert events.head().status == 200
        restart(p)
        wait_for(lambda: "handed over" in p.stderr(), message="a child")
        child = int(p.stderr().split("process=")[1].split()[0])
        assert next(events.chunks(None))
        os.kill(child, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(f"/proc/{child}"), message="the child's end")
        with contextlib.suppress(Exception):
            events.rest()


def test_nobody_else_is_given_the_sockets_and_nobody_is_waited_for_long():
    with Origin(site) as origin, Proxy([f"route shop/api domain={HOST} {origin.to}"], workers=1) as p:
        p.process.send_signal(signal.SIGTERM)
        p.process.wait(5)
        path = p.dir / "run/proxy-handover.sock"
        assert oct(path.stat().st_mode & 0o777) == "0o600"
        wait_for(lambda: not path.exists(), message="the offer's end")
        wait_for(lambda: not in_use(p.port), message="the port's end")
        p.start()
        assert p.get().body == b"ok"


def in_use(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_sockets_that_come_from_systemd_are_used(tmp_path):
    """As systemd does it: LISTEN_FDS from descriptor 3 on, FDSTORE=1 to the notify socket. One that nobody wants any more is given back."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(5)
    with Origin(site) as origin, Proxy([f"route shop/api domain={HOST} {origin.to}"], workers=2, start=False) as p:
        kept, other = socket.socket(), socket.socket()
        kept.bind(("127.0.0.1", p.port))
        other.bind(("127.0.0.1", 0))
        kept.listen(128)
        other.listen(128)
        waiting = Wire(socket.create_connection(("127.0.0.1", p.port), 5))  # before there is anybody to accept
        waiting.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")

        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "2"}
        code = "import os,sys; os.environ['LISTEN_PID']=str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"
        as_fds = [kept.fileno(), other.fileno()]
        p.log, p.out = open(p.dir / "stderr", "ab"), open(p.dir / "stdout", "ab")

        def place():
            high = [os.dup2(fd, 200 + i) for i, fd in enumerate(as_fds)]
            for at, fd in enumerate(high):
                os.dup2(fd, 3 + at, inheritable=True)

        p.process = subprocess.Popen(["/usr/bin/python3", "-c", code, str(PROXY), "-c", str(p.node), "--workers", "2"], env=env, stderr=p.log, stdout=p.out,
                                     preexec_fn=place, close_fds=False)
        assert waiting.answer().body == b"ok"
        texts = []
        with contextlib.suppress(TimeoutError):
            while not any("READY=1" in t for t in texts):
                data, fds, *_ = socket.recv_fds(notify, 4096, 4)
                texts.append(data.decode())
                if "FDSTORE=1" in texts[-1]:
                    assert len(fds) == 1 and socket.socket(fileno=fds[0]).getsockname()[1] == p.port
        assert any("FDSTORE=1" in t and "FDNAME=ipv4-7f000001-" in t for t in texts), texts
        assert any("FDSTOREREMOVE=1" in t and f"-{other.getsockname()[1]}" in t for t in texts), texts
        assert f"ipv4-7f000001-{p.port}" in "".join(texts)
        # With systemd there is nobody to be waited for: without connections it ends by itself, at once.
        waiting.close()
        kept.close()
        other.close()
        time.sleep(0.2)
        p.process.send_signal(signal.SIGTERM)
        assert p.process.wait(5) == 0
        assert "handed over" not in p.stderr()
    notify.close()
