"""What a container, an image, a peer or the whole API says never moves a cursor, sets a title or turns text around on the terminal of who asks: each
verb of orcactl, on a terminal, against an API whose every text is hostile."""
import fcntl
import http.client
import http.server
import json
import os
import pty
import re
import select
import signal
import struct
import termios
import threading
import time

import pytest
from agent_node import make_image
from orca import APP, BIN, ROOT, Cluster, wait_for

# Clears, a title, a bell, DCS and APC, the one-byte forms of C1, backspaces, an overwriting return, marks of direction, what has no width.
EVIL = ("\x1b[2J\x1b[91;7mE1\x1b]0;E2\x07\x1bPE3\x1b\\\x1b_E4\x1b\\\x1bc\u009b31mE5\u0090E6\u009c\u009dE7\u009c\x08\x08\x7f\rE8\u202eE9\u2066\u200f\ufeff\u200b\U000e0041"
        "\x1b[6n\x0e\x0f\x05\x85\x84\u2028\u2029")
NEVER = re.compile("[\x05\x07\x08\x0e\x0f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]|\x1b[\\[]2J\x1b[\\[]91|\x1b[\\[]91;7m|\x1b[\\]PX^_c]|\x1b\\[6n|\rE8")
# Words that orcactl acts on, and numbers as text: hostile too in one of two rounds, good in the other, or it would not get far.
ACTED_ON = {"status", "state", "phase", "action", "code", "role", "started", "created", "ended", "time", "updated", "last_used", "expires", "at", "since", "next", "scheduled", "node_state", "level",
            "severity", "resume", "id", "unit", "sha256", "service", "name", "project", "job", "version"}
SERVICE = f'[[service]]\nname = "web"\nimage = "{APP}"\nport = 8080\ndomain = "web.test"\n[service.deploy]\nmin_ready = "0s"\n'


def poison(value, everything, key=""):
    if isinstance(value, dict):
        return {k: poison(v, everything, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v, everything, key) for v in value]
    if isinstance(value, str) and (everything or key not in ACTED_ON):
        return EVIL + value + EVIL if key not in ACTED_ON else value + EVIL
    return value


class Liar(http.server.BaseHTTPRequestHandler):
    """The real API behind it, each text of an answer poisoned."""
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def handle_all(self):
        how = self.server.how
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        if how == "errors" or "Upgrade" in self.headers:
            said = json.dumps({"error": "no " + EVIL, "code": "unprocessable" + EVIL, "details": [{"path": "a" + EVIL, "message": "b" + EVIL}]}, ensure_ascii=False)
            self.send_response_only(422, "no\x1b[2J")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(said.encode())
            return
        if how == "garbage":
            self.send_response_only(500, "no")
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<html>{EVIL}</html>".encode())
            return
        c = self.server.cluster
        connection = http.client.HTTPConnection(c.address, c.ports["api"], timeout=30)
        connection.request(self.command, self.path, body=body, headers={k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type", "accept", "last-event-id")})
        reply = connection.getresponse()
        kind = reply.headers.get("Content-Type", "")
        self.send_response_only(reply.status, "OK")
        self.send_header("Content-Type", kind)
        self.end_headers()
        if "event-stream" in kind:
            while line := reply.readline():
                if line.startswith(b"data: "):
                    try:
                        line = b"data: " + json.dumps(poison(json.loads(line[6:]), how == "all"), ensure_ascii=False).encode() + b"\n"
                    except ValueError:
                        line = line.rstrip(b"\n") + EVIL.replace("\r", "").encode() + b"\n"
                self.wfile.write(line)
                self.wfile.flush()
        else:
            text = reply.read()
            try:
                text = json.dumps(poison(json.loads(text), how == "all"), ensure_ascii=False).encode()
            except ValueError:
                text = text.replace(b"\n", EVIL.encode() + b"\n")
            self.wfile.write(text)
        connection.close()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.handle_all
        raise AttributeError(name)

    def handle(self):
        try:
            super().handle()
        except (OSError, http.client.HTTPException):
            pass


@pytest.fixture(scope="module")
def liar():
    with Cluster() as c:
        c.deploy("shop", SERVICE + '[[job]]\nname = "once"\nimage = "%s"\ncommand = ["/app", "--exit", "3"]\n' % APP)
        (c.dir / "x.env").write_text("A=1\n")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
        server.daemon_threads = True
        server.cluster, server.how = c, "free"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = c.dir / "liar-home"
        (home / "tokens").mkdir(parents=True, mode=0o700)
        home.chmod(0o700)
        (home / "config.json").write_text(json.dumps({"current": "default", "contexts": {"default": {"url": f"http://127.0.0.1:{server.server_port}"}}}))
        (home / "config.json").chmod(0o600)
        (home / "tokens/default").write_text(c.token())
        (home / "tokens/default").chmod(0o400)
        server.home = home
        yield server
        server.shutdown()


def on_terminal(server, *args, seconds=2.5, env=None, program=None):
    """All that a terminal was sent. What goes on is ended after `seconds`."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(server.cluster.dir)
        os.execve(program or str(BIN / "orcactl"), ["orcactl", *args], {**server.cluster.env, "ORCA_HOME": str(server.home), "TERM": "xterm-256color", **(env or {})})
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    said, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    os.close(fd)
    os.waitpid(pid, 0)
    return said


def clean(said, what):
    text = said.decode("utf-8")  # nothing else goes to a terminal
    found = NEVER.search(text)
    assert not found, f"{what}: {text[max(0, found.start() - 60):found.end() + 20]!r}"
    return text


VERBS = [
    ("status",), ("ps",), ("inspect", "web"), ("inspect", "once"), ("explain", "web"), ("explain", "once"), ("history", "web"), ("plan",), ("deploy", "--dry-run"), ("deploy", "--no-wait"), ("deploy",), ("scale", "web", "2"),
    ("stop", "web"), ("start", "web"), ("restart", "web"), ("redeploy", "web"), ("rollback", "web"), ("run", APP, "--", "/app", "--exit", "0"), ("run", "-d", APP), ("job", "list", "--tasks"), ("job", "run", "once"),
    ("job", "history", "once"), ("job", "stop", "once"), ("job", "start", "once"), ("nodes",), ("events",), ("logs", "web"), ("logs", "-t", "web"), ("exec", "web", "--", "/app"), ("exec", "-it", "web", "--", "/app"), ("secrets", "set", "X", "1"),
    ("secrets", "list"), ("secrets", "import", "-f", "x.env"), ("secrets", "rotate-key"), ("secrets", "rm", "X"), ("token", "create", "--name", "t", "--role", "viewer"), ("token", "list"), ("token", "rm", "t"), ("audit",),
    ("top", "--once"), ("doctor",), ("version",), ("context", "list"), ("login", "127.0.0.1:1"), ("context", "use", "\x1b[2Jx"), ("context", "rm", "\x1b[2Jx"), ("rm", "web"), ("rm", "--purge", "nothing"), ("job", "rm", "nothing"),
]
GOES_ON = [("events", "-f"), ("logs", "-f", "web"), ("top",), ("status", "-w"), ("audit", "-f")]
NOT_OF_THE_CLUSTER = {"init", "install-service", "completion", "help"}


def test_each_verb_is_here():
    text = (ROOT / "orcactl/commands.c").read_text()
    verbs = set(re.findall(r'^  \{"([a-z -]+)", "[^"]*", -?\d+, -?\d+, cmd_', text, re.M)) - NOT_OF_THE_CLUSTER
    assert len(verbs) > 35
    missing = [verb for verb in verbs if not any(list(args[:len(verb.split())]) == verb.split() for args in VERBS)]
    assert not missing, missing


@pytest.mark.parametrize("how", ["free", "all", "errors", "garbage"])
def test_nothing_hostile_gets_to_the_terminal(liar, how):
    liar.how, failures, seen = how, [], 0
    infra = str(liar.cluster.infra)
    for args in VERBS:
        said = on_terminal(liar, "-C", infra, *args)
        try:
            text = clean(said, args)
        except (AssertionError, UnicodeDecodeError) as error:
            failures.append(str(error)[:300])
            continue
        seen += "E8" in text or "E9" in text
    for args in GOES_ON:
        said = on_terminal(liar, "-C", infra, *args, seconds=2.5 if how in ("free", "all") else 1)
        try:
            seen += "E8" in clean(said, args)
        except (AssertionError, UnicodeDecodeError) as error:
            failures.append(str(error)[:300])
    liar.how = "free"
    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)
    if how != "garbage":
        assert seen > 15, f"only {seen} verbs have shown anything of what they were told"


def test_nor_as_json(liar):
    """-o json on a terminal has them as \\u escapes; what reads it gets the same text."""
    liar.how, failures = "free", []
    for args in (("status",), ("ps",), ("inspect", "web"), ("explain", "web"), ("history", "web"), ("plan",), ("job", "list"), ("job", "history", "once"), ("nodes",), ("events",), ("token", "list"), ("audit",), ("secrets", "list"),
                 ("top", "--once"), ("doctor",), ("version",)):
        said = on_terminal(liar, "-C", str(liar.cluster.infra), "-o", "json", *args)
        try:
            clean(said, args)
        except (AssertionError, UnicodeDecodeError) as error:
            failures.append(str(error)[:300])
    assert not failures, f"{len(failures)}:\n" + "\n".join(failures)


def test_what_a_container_writes_and_what_it_is_called(liar):
    """Without a liar: a log line, the last words, a task's name and an image's label that are real."""
    c = liar.cluster
    real = type("Real", (), {"cluster": c, "home": c.dir / "home"})()
    text = '"' + "".join(f"\\U{ord(ch):08X}" for ch in EVIL) + '"'
    c.deploy("evil", f'''[[service]]
name = "loud"
image = "{make_image()}"
command = ["/bin/busybox", "echo", {text}]
labels = {{ "x.y" = {text} }}
env = {{ X = {text} }}
[service.deploy]
min_ready = "0s"
timeout = "2s"
''', "--no-wait", check=False)
    wait_for(lambda: any(i["restarts"] for i in c.api("GET", "/api/v1/services/loud?project=evil").json()["instances"]), 20, message="it ends and is started again")
    for args in (("logs", "loud"), ("logs", "-t", "loud"), ("status",), ("ps",), ("explain", "loud"), ("inspect", "loud"), ("events",), ("plan",), ("history", "loud"), ("audit",), ("run", "--", APP + EVIL.replace("\x00", "")),
                 ("run", "--name", "x" + EVIL, APP), ("scale", EVIL, "1"), ("inspect", EVIL), ("logs", EVIL), ("secrets", "rm", EVIL), ("token", "rm", EVIL), ("-C", EVIL, "status"), ("--context", EVIL, "status"), (EVIL,), ("status", EVIL),
                 ("status", "--" + EVIL), ("exec", "loud", "--", EVIL), ("events", "--since", EVIL), ("events", "--kind", EVIL), ("job", EVIL), ("rollback", "web", "--to", EVIL), ("deploy", EVIL)):
        said = on_terminal(real, *(("-C", str(c.infra)) if args[0] in ("plan", "deploy") else ()), *args)
        clean(said, args)
