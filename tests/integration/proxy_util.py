"""An orca-proxy of its own for a test, with a routes file or a played gateway, and origins whose every byte the test decides."""
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ORCA_BIN", ROOT / "build/bin"))
PROXY = BIN / "orca-proxy"
MAKE_ROUTES = BIN.parent / "tests/make-routes"
HOST = "shop.test"


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def wait_for(what, timeout=10.0, every=0.01, message="condition"):
    end = time.monotonic() + timeout
    while True:
        got = what()
        if got:
            return got
        assert time.monotonic() < end, f"{message} not met in {timeout} s"
        time.sleep(every)


class Message:
    """A head and a body as they were on the wire."""

    def __init__(self, start, headers, body=b"", trailers=()):
        self.start, self.headers, self.body, self.trailers = start, headers, body, list(trailers)

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def get(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes more than once: {values}"
        return values[0] if values else None

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def method(self):
        return self.start.split(" ")[0]

    @property
    def target(self):
        return self.start.split(" ")[1]

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.start} {self.headers} {self.body[:200]!r}>"


class Closed(Exception):
    """The peer closed where a message should have begun or gone on."""


class Wire:
    """A socket, with a buffer and just enough HTTP to read what the proxy writes (which is strict)."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def send(self, *parts):
        for p in parts:
            self.sock.sendall(p if isinstance(p, bytes) else p.encode())

    def fill(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionError as error:
            raise Closed(repr(error)) from error
        if not data:
            raise Closed(f"closed; in the buffer: {self.buffer[:200]!r}")
        self.buffer += data

    def exact(self, n):
        parts, have = [self.buffer], len(self.buffer)
        self.buffer = b""
        while have < n:
            self.fill()
            parts.append(self.buffer)
            have += len(self.buffer)
            self.buffer = b""
        data = b"".join(parts)
        self.buffer = data[n:]
        return data[:n]

    def until(self, mark):
        while mark not in self.buffer:
            self.fill()
        data, self.buffer = self.buffer.split(mark, 1)
        return data

    def rest(self):
        """Everything up to the end of the connection."""
        with contextlib.suppress(Closed):
            while True:
                self.fill()
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        return Message(lines[0], headers)

    def chunks(self, m):
        """Yields the chunks of a message; its trailers are set at the end."""
        while True:
            size = int(self.until(b"\r\n"), 16)
            if size == 0:
                break
            yield self.exact(size)
            assert self.exact(2) == b"\r\n"
        while True:
            line = self.until(b"\r\n")
            if not line:
                return
            m.trailers.append(tuple(p.strip() for p in line.decode().split(":", 1)))

    def body(self, m, none=False):
        if none:
            m.body = b""
        elif m.get("Transfer-Encoding"):
            assert m.get("Transfer-Encoding") == "chunked" and m.get("Content-Length") is None
            m.body = b"".join(self.chunks(m))
        elif m.get("Content-Length") is not None:
            m.body = self.exact(int(m.get("Content-Length")))
        elif m.start.startswith("HTTP/"):
            m.body = self.rest()
        return m

    def request(self):
        return self.body(self.head())

    def answer(self, to="GET", interim=False):
        while True:
            m = self.head()
            if m.status >= 200 or m.status == 101 or interim:
                break
        return self.body(m, none=to == "HEAD" or m.status in (204, 304) or m.status < 200)

    def is_closed(self, within=2.0):
        self.sock.settimeout(within)
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def echo(wire, origin):
    """Answers each request with what it was, as JSON, until the connection ends."""
    while True:
        m = wire.request()
        origin.requests.append(m)
        text = json.dumps({"origin": origin.name, "start": m.start, "headers": m.headers, "size": len(m.body), "trailers": m.trailers,
                           "sha256": hashlib.sha256(m.body).hexdigest()}).encode()
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nContent-Type: application/json\r\n\r\n".encode(), b"" if m.method == "HEAD" else text)


def tunnel(wire, upgrade):
    """Takes a request for a WebSocket and gives back whatever comes."""
    accept = base64.b64encode(hashlib.sha1((upgrade.get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    wire.send(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
    while True:
        if not wire.buffer:
            wire.fill()
        data, wire.buffer = wire.buffer, b""
        wire.send(data)


def answering(*parts, close=False):
    """A handler that gives the same bytes to every request."""
    def handler(wire, origin):
        while True:
            origin.requests.append(wire.request())
            wire.send(*parts)
            if close:
                return
    return handler


class Origin:
    """An instance: every connection goes to handler(wire, origin) in a thread of its own."""

    def __init__(self, handler=echo, name="shop/api.1", port=0):
        self.handler, self.name = handler, name
        self.requests, self.connections, self.wires = [], 0, []
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            wire = Wire(sock)
            self.wires.append(wire)
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire):
        try:
            self.handler(wire, self)
        except (Closed, OSError):
            pass
        finally:
            wire.close()

    @property
    def to(self):
        return f"to={self.name}@127.0.0.1@{self.port}"

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for w in self.wires:
            with contextlib.suppress(OSError):
                w.sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Proxy:
    """with Proxy(["route shop/api domain=shop.test to=…"]) as p: p.get("/")"""

    def __init__(self, table=(), workers=2, options=(), masters="", start=True):
        self.folder = tempfile.TemporaryDirectory(prefix="orca-proxy-")
        self.dir = pathlib.Path(self.folder.name)
        self.port = free_port()
        self.workers, self.options = workers, list(options)
        for name in ("state/proxy", "run", "keys"):
            (self.dir / name).mkdir(parents=True)
        self.gateway_port = free_port()
        self.node = self.dir / "node.toml"
        self.masters = masters
        self.write_node()
        self.process = None
        if table:
            self.routes(table)
        if start:
            self.start()

    def write_node(self):
        self.node.write_text(f'''[node]
name = "n1"
address = "127.0.0.1"
role = "master"
state_dir = "{self.dir}/state"
run_dir = "{self.dir}/run"
key_dir = "{self.dir}/keys"
[cluster]
id = "0123456789abcdef"
masters = [{self.masters}]
[ports]
http = {self.port}
gateway = {self.gateway_port}
''')

    def routes(self, table):
        subprocess.run([MAKE_ROUTES, "file", self.dir / "state/proxy/routes"], input="\n".join(table) + "\n", text=True, check=True)

    def start(self, wait=True):
        self.log = open(self.dir / "stderr", "ab")
        self.out = open(self.dir / "stdout", "ab")
        # Under ThreadSanitizer libzmq's own threads look like races: it is not built with it.
        env = {"TSAN_OPTIONS": f"suppressions={pathlib.Path(__file__).resolve().parents[1] / 'lib/tsan.supp'}", **os.environ}
        self.process = subprocess.Popen([PROXY, "-c", self.node, "--workers", str(self.workers), *self.options], stderr=self.log, stdout=self.out, env=env)
        if wait:
            wait_for(self.is_up, message="listening")

    def is_up(self):
        assert self.process.poll() is None, self.stderr()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def stderr(self):
        return (self.dir / "stderr").read_text(errors="replace")

    def stdout(self):
        return (self.dir / "stdout").read_text(errors="replace")

    def connect(self, timeout=10.0, receive_buffer=None):
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(timeout)
        s.connect(("127.0.0.1", self.port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Wire(s)

    def ask(self, method, target, headers=(), body=b"", host=HOST, wire=None):
        w = wire or self.connect()
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"] + [f"{k}: {v}" for k, v in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        w.send("\r\n".join(lines) + "\r\n\r\n", body)
        m = w.answer(method)
        if wire is None:
            w.close()
        return m

    def get(self, target="/", headers=(), host=HOST, wire=None):
        return self.ask("GET", target, headers, host=host, wire=wire)

    def stop(self, sig=signal.SIGINT, timeout=15):
        """Ends it; returns its exit status. Sanitizers' findings make that one that no test expects."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(timeout)
        self.log.close()
        self.out.close()
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        status = self.stop() if self.process else 0
        text = self.stderr() if self.process else ""
        if kind:
            print(text)
        self.folder.cleanup()
        if not kind:
            assert status in (0, -signal.SIGKILL), f"exit status {status}\n{text}"
            assert "Sanitizer" not in text, text


class Gateway:
    """A played node gateway: pushes tables, hears acknowledgements."""

    def __init__(self, proxy, keys):
        self.proxy, self.keys = proxy, keys
        self.lines = []
        self.process = subprocess.Popen([MAKE_ROUTES, "serve", f"tcp://127.0.0.1:{proxy.gateway_port}", keys], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def push(self, *table):
        self.process.stdin.write("\n".join([*table, "."]) + "\n")
        self.process.stdin.flush()

    def acks(self):
        """(version, [draining]) of each acknowledgement."""
        return [(int(line.split()[1]), line.split()[2:]) for line in self.lines if line.startswith("ack ")]

    def wait_ack(self, version, draining=None, timeout=10.0):
        def met():
            return any(v >= version and (draining is None or d == draining) for v, d in self.acks())
        wait_for(met, timeout, message=f"ack of {version} with {draining}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def with_gateway(**options):
    """A proxy whose only master is a played gateway; yields (proxy, gateway)."""
    p = Proxy(start=False, **options)
    made = subprocess.run([MAKE_ROUTES, "keys", p.dir / "keys", "apiserver", "proxy"], capture_output=True, text=True, check=True).stdout
    public = dict(line.split() for line in made.splitlines())["apiserver"]
    p.masters = '{ name = "n1", address = "127.0.0.1", key = "%s", store_key = "%s" }' % (public, public)
    p.write_node()
    g = Gateway(p, p.dir / "keys")
    p.start()
    try:
        with p:
            yield p, g
    finally:
        g.stop()
