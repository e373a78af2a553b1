"""`orcactl exec` and the API's WebSocket under it: output, input, terminal, exit codes, and what happens when one of them goes away."""
import fcntl
import hashlib
import os
import pathlib
import pty
import select
import signal
import socket
import ssl
import struct
import subprocess
import termios
import time
import urllib.parse

import orca
import pytest
from websocket import Refused, WebSocket

IMAGE = f"orca-test/exec:run-{os.getpid()}"


@pytest.fixture(scope="module")
def cluster():
    orca.busybox_image(IMAGE, "sh", "cat", "sleep", "stty", "true", "head", "sha256sum", "yes", "id", "pwd")
    try:
        with orca.Cluster() as c:
            c.deploy("shop", f'[[service]]\nname = "box"\nimage = "{IMAGE}"\npull = "never"\n')
            yield c
    finally:
        orca.docker("image", "rm", IMAGE, check=False)


@pytest.fixture(autouse=True)
def nothing_stays(cluster):
    yield
    orca.wait_for(lambda: len(processes(cluster)) == 1, 15, message="no command is left in the container")


def container(c):
    return c.running("shop/box")[0]["Id"]


def processes(c):
    return [line.split(None, 1)[1] for line in orca.docker("top", container(c), "-eo", "pid,args").splitlines()[1:]]


def run(c, *args, **more):
    return subprocess.run([str(orca.BIN / "orcactl"), "exec", *args], capture_output=True, env=c.env, timeout=60, check=False, **more)


def start(c, *args, **more):
    return subprocess.Popen([str(orca.BIN / "orcactl"), "exec", *args], env=c.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def path(*cmd, **query):
    return "/api/v1/services/box/exec?" + urllib.parse.urlencode([("cmd", word) for word in cmd] + list(query.items()))


def connect(c, *cmd, token=None, headers=None, **query):
    return WebSocket(c.address, c.ports["api"], path(*cmd, **query), token or c.token(), headers)


def descriptors(c, daemon):
    return len(list(pathlib.Path(f"/proc/{c.pid(daemon)}/fd").iterdir()))


def resident(c, daemon):
    return int(pathlib.Path(f"/proc/{c.pid(daemon)}/statm").read_text().split()[1]) * 4096


def test_the_commands_own_exit_code_and_both_streams_apart(cluster):
    done = run(cluster, "box", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, b"out\n", b"err\n")
    assert run(cluster, "shop/box", "--", "true").returncode == 0
    kinds = [e for e in cluster.api("GET", "/api/v1/events").json()["events"] if e["kind"].startswith("exec.")]
    assert {"exec.started", "exec.ended"} <= {e["kind"] for e in kinds} and all(e["actor"] == "admin" for e in kinds)
    assert any("exit code 42" in e["message"] for e in kinds)
    assert not any("echo out" in e["message"] for e in kinds), "arguments may be secrets"


def test_what_cannot_be_run(cluster):
    done = run(cluster, "box", "--", "no-such-program")
    assert done.returncode == 127 and b"executable file not found" in done.stdout + done.stderr
    assert run(cluster, "box", "--", "/bin").returncode == 126
    assert run(cluster, "nobox", "--", "true").returncode == 1
    assert run(cluster, "box", "--instance", "99", "--", "true").returncode == 1
    assert run(cluster, "box").returncode == 2
    assert run(cluster, "box", "-it", "--", "sh", stdin=subprocess.DEVNULL).returncode == 2


def test_variables_user_and_folder(cluster):
    done = run(cluster, "box", "-e", "A=1", "--env", "B=2 3", "-u", "7:8", "-w", "/bin", "--", "sh", "-c", 'echo "$A$B"; id -u; id -g; pwd')
    assert done.stdout == b"12 3\n7\n8\n/bin\n", done.stderr


def test_ten_megabytes_through_cat(cluster):
    data = os.urandom(10 << 20)
    done = run(cluster, "-i", "box", "--", "cat", input=data)
    assert done.returncode == 0 and done.stdout == data
    done = run(cluster, "-i", "box", "--", "sha256sum", input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_without_i_there_is_no_stdin(cluster):
    done = run(cluster, "box", "--", "cat", input=b"not for the command")
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_command_that_does_not_read_its_stdin_ends_all_the_same(cluster):
    done = run(cluster, "-i", "box", "--", "sh", "-c", "exec 0<&-; echo hi; exit 3", input=os.urandom(4 << 20))
    assert (done.returncode, done.stdout) == (3, b"hi\n")


class Terminal:
    def __init__(self, c, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(str(orca.BIN / "orcactl"), ["orcactl", "exec", *args], {**c.env, "TERM": "dumb"})
        self.got = b""

    def size(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.fd, text)

    def expect(self, what, timeout=10):
        end = time.monotonic() + timeout
        while what not in self.got:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, (what, self.got)
            self.got += os.read(self.fd, 65536)
        self.got = self.got.split(what, 1)[1]

    def end(self):
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_a_session_on_a_terminal(cluster):
    t = Terminal(cluster, "box", "-it", "--", "sh")
    t.expect(b"# ")
    t.size(40, 100)
    orca.wait_for(lambda: asked_size(t) == b"40 100", 5, 0.2)
    t.size(33, 77)
    orca.wait_for(lambda: asked_size(t) == b"33 77", 5, 0.2)
    t.type(b"sleep 1000\n")
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    t.type(b"\x03")
    orca.wait_for(lambda: "sleep 1000" not in processes(cluster), 5)
    t.type(b"echo still-$((40 + 2))-here\n")
    t.expect(b"still-42-here")
    t.type(b"exit 42\n")
    assert t.end() == 42


def asked_size(t):
    t.type(b"echo S$(stty size)E\n")
    t.expect(b"stty size)E")
    t.expect(b"S")
    end = time.monotonic() + 5
    while b"E" not in t.got and time.monotonic() < end:
        t.got += os.read(t.fd, 65536)
    return t.got.split(b"E")[0]


def test_the_users_terminal_is_as_before_after_a_signal(cluster):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen([str(orca.BIN / "orcactl"), "exec", "-it", "box", "--", "sleep", "1000"], stdin=slave, stdout=slave, stderr=slave, env=cluster.env)
    orca.wait_for(lambda: termios.tcgetattr(slave) != before, 5)
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_without_a_terminal_ctrl_c_ends_it(cluster):
    process = start(cluster, "box", "--", "sleep", "1000")
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


@pytest.mark.parametrize("tty", [False, True])
def test_a_client_that_is_killed_leaves_nothing(cluster, tty):
    before = descriptors(cluster, "agent"), descriptors(cluster, "apiserver")
    if tty:
        t = Terminal(cluster, "box", "-it", "--", "sh", "-c", "sleep 1000; true")
        orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
        os.kill(t.pid, signal.SIGKILL)
        t.end()
    else:
        process = start(cluster, "-i", "box", "--", "sh", "-c", "sleep 1000; true", stdin=subprocess.PIPE)
        orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
        process.kill()
        process.communicate()
    orca.wait_for(lambda: len(processes(cluster)) == 1, 5, message="the command has ended")
    orca.wait_for(lambda: descriptors(cluster, "agent") <= before[0] + 1 and descriptors(cluster, "apiserver") <= before[1] + 1, 10, message="descriptors are given back")


def test_a_command_that_ignores_its_hangup_is_killed(cluster):
    process = start(cluster, "box", "--", "sh", "-c", "trap '' HUP; sleep 1000; sleep 2000")
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    process.kill()
    process.communicate()
    orca.wait_for(lambda: len(processes(cluster)) == 1, 12, message="killed")


def test_a_reader_that_stops_stops_the_command(cluster):
    process = start(cluster, "box", "--", "yes")
    time.sleep(2)
    before = resident(cluster, "agent"), resident(cluster, "apiserver")
    time.sleep(2)
    assert resident(cluster, "agent") - before[0] < 4 << 20 and resident(cluster, "apiserver") - before[1] < 4 << 20
    assert process.stdout.read(1 << 20) == b"y\n" * (1 << 19)
    process.stdout.close()
    assert process.wait(10) == 128 + signal.SIGPIPE
    process.stderr.close()


def test_a_slow_reader_gets_all(cluster):
    process = start(cluster, "box", "--", "head", "-c", "20000000", "/dev/zero")
    total = 0
    while True:
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        total += len(piece)
        if total < 2 << 20:
            time.sleep(0.02)
    assert total == 20000000 and process.wait(10) == 0
    process.stdout.close()
    process.stderr.close()


def test_what_is_left_is_read_long_after_the_command_has_ended(cluster):
    process = start(cluster, "box", "--", "head", "-c", "5000000", "/dev/zero")
    time.sleep(8)
    assert len(process.stdout.read()) == 5000000 and process.wait(10) == 0
    process.stdout.close()
    process.stderr.close()


def test_the_protocol_itself(cluster):
    ws = connect(cluster, "sh", "-c", "cat; echo bad >&2; exit 7", stdin="true")
    assert ws.headers["sec-websocket-protocol"] == "orca.exec.v1"
    ws.send(0, b"hello ")
    ws.send(0, b"world")
    ws.control(eof=True)
    out, err, controls, code = ws.until_end()
    assert (out, err, code) == (b"hello world", b"bad\n", 1000)
    assert controls == [{"started": True}, {"exit": 7}]
    ws.close()


def test_a_message_in_fragments_with_a_ping_between(cluster):
    ws = connect(cluster, "cat", stdin="true")
    ws.send_raw(ws.frame(2, b"\0one ", fin=False) + ws.frame(9, b"are you there") + ws.frame(0, b"two", fin=True))
    ws.control(eof=True)
    out, _, controls, code = ws.until_end()
    assert (out, code, controls[-1]) == (b"one two", 1000, {"exit": 0})
    ws.close()


@pytest.mark.parametrize("name,code,make", [
    ("unmasked", 1002, lambda ws: ws.frame(2, b"\0x", mask=False)),
    ("oversized", 1009, lambda ws: ws.frame(2, b"\0" * 70000)),
    ("huge length", 1009, lambda ws: ws.frame(2, b"\0", length=1 << 62)),
    ("bad opcode", 1002, lambda ws: ws.frame(3, b"\0x")),
    ("bad control opcode", 1002, lambda ws: ws.frame(11, b"")),
    ("reserved bit", 1002, lambda ws: ws.frame(2, b"\0x", rsv=4)),
    ("fragmented control", 1005, lambda ws: ws.frame(9, b"x", fin=False)),
    ("long control", 1005, lambda ws: ws.frame(9, b"x" * 126)),
    ("continuation of nothing", 1002, lambda ws: ws.frame(0, b"x")),
    ("new message inside another", 1002, lambda ws: ws.frame(2, b"\0x", fin=False) + ws.frame(2, b"\0x")),
    ("text", 1003, lambda ws: ws.frame(1, b"hello")),
    ("unknown channel", 1008, lambda ws: ws.frame(2, b"\x07x")),
    ("stdout of ours", 1008, lambda ws: ws.frame(2, b"\x01x")),
    ("empty", 1008, lambda ws: ws.frame(2, b"")),
    ("control that is no JSON", 1008, lambda ws: ws.frame(2, b"\x03{")),
    ("control of the server's", 1008, lambda ws: ws.frame(2, b'\x03{"exit":0}')),
    ("resize to nothing", 1008, lambda ws: ws.frame(2, b'\x03{"resize":[0,99999999]}')),
    ("deep control", 1008, lambda ws: ws.frame(2, b"\x03" + b"[" * 4000)),
])
def test_hostile_frames_end_the_session(cluster, name, code, make):
    ws = connect(cluster, "sleep", "1000", stdin="true")
    ws.receive()
    ws.send_raw(make(ws))
    assert ws.until_end()[3] == code, name
    ws.close()
    assert cluster.api("GET", "/api/v1/status").status == 200


def test_fragments_without_an_end_are_too_long(cluster):
    ws = connect(cluster, "sleep", "1000", stdin="true")
    ws.send_raw(ws.frame(2, b"\0" + b"x" * 30000, fin=False) + ws.frame(0, b"x" * 30000, fin=False) + ws.frame(0, b"x" * 30000, fin=False))
    assert ws.until_end()[3] == 1009
    ws.close()


def test_input_that_was_not_asked_for_is_refused(cluster):
    ws = connect(cluster, "sleep", "1000")
    ws.send(0, b"hello")
    assert ws.until_end()[3] == 1008
    ws.close()


@pytest.mark.parametrize("headers,status", [
    ({"Upgrade": None, "Connection": None}, 426),
    ({"Sec-WebSocket-Version": "8"}, 426),
    ({"Sec-WebSocket-Key": "short"}, 400),
    ({"Sec-WebSocket-Key": None}, 400),
    ({"Sec-WebSocket-Protocol": "chat"}, 400),
    ({"Origin": "https://evil.test"}, 403),
    ({"Origin": "null"}, 403),
    ({"Authorization": "Bearer wrong"}, 401),
    ({"Authorization": None}, 401),
])
def test_handshakes_that_are_refused(cluster, headers, status):
    with pytest.raises(Refused) as refused:
        connect(cluster, "true", headers=headers)
    assert refused.value.status == status


def test_a_page_of_the_apis_own_may_come_in(cluster):
    ws = connect(cluster, "true", headers={"Origin": f"http://{cluster.address}:{cluster.ports['api']}"})
    assert ws.until_end()[2][-1] == {"exit": 0}
    ws.close()


@pytest.mark.parametrize("query", ["", "?cmd=", "?cmd=[1]", '?cmd=["a",{}]', "?cmd=sh&rows=0", "?cmd=sh&cols=x", "?cmd=sh&instance=abc", "?cmd=sh&workdir=relative", "?cmd=sh&env=NOVALUE"])
def test_bad_queries(cluster, query):
    try:
        ws = WebSocket(cluster.address, cluster.ports["api"], "/api/v1/services/box/exec" + query, cluster.token())
        controls = ws.until_end()[2]
        assert "error" in controls[-1], controls
        ws.close()
    except Refused as refused:
        assert refused.status == 400


def test_a_viewer_is_denied_and_a_revoked_token_ends_what_it_opened(cluster):
    made = cluster.api("POST", "/api/v1/tokens", {"name": "watcher", "role": "viewer"})
    if made.status != 200:
        pytest.skip("no tokens to make")
    with pytest.raises(Refused) as refused:
        connect(cluster, "true", token=made.json()["value"])
    assert refused.value.status == 403
    made = cluster.api("POST", "/api/v1/tokens", {"name": "operator", "role": "deployer"})
    ws = connect(cluster, "sleep", "1000", token=made.json()["value"])
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    began = time.monotonic()
    assert cluster.api("DELETE", "/api/v1/tokens/operator").status == 200
    _, _, controls, code = ws.until_end()
    assert code == 1008 and "revoked" in controls[-1]["error"] and time.monotonic() - began < 4
    ws.close()


def test_sessions_are_bounded(cluster):
    open_ones, refused = [], 0
    for _ in range(36):
        try:
            open_ones.append(connect(cluster, "sleep", "1000"))
        except Refused as refusal:
            refused += refusal.status == 429
    assert refused == 4
    for ws in open_ones:
        ws.close()


def test_over_tls_through_the_proxy(cluster):
    c = cluster
    host = next(iter(orca.docker("network", "inspect", "bridge", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", check=False).split()), None)
    if not host:
        pytest.skip("no address of this machine but loopback")
    with socket.socket() as s:
        s.bind((host, 0))
        port = s.getsockname()[1]
    (c.infra / "cluster.toml").write_text(f'[cluster]\nname = "test"\n[api]\nlisten = ["{host}:{port}"]\ntls = true\n')
    c.ctl("-C", str(c.infra), "deploy")
    with socket.socket() as s:
        orca.wait_for(lambda: s.connect_ex((host, port)) == 0, message="the proxy listens")
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert((c.run / "keys/ca.pem").read_text())).hexdigest()
    login = [str(orca.BIN / "orcactl"), "login", f"{host}:{port}", "--ca-hash", pin, "--context", "tls"]
    subprocess.run(login, input=c.token() + "\n", text=True, env=c.env, check=True, capture_output=True)
    data = os.urandom(4 << 20)
    done = run(c, "--context", "tls", "-i", "box", "--", "sh", "-c", "cat; exit 42", input=data)
    assert done.returncode == 42 and done.stdout == data
    process = start(c, "--context", "tls", "box", "--", "sleep", "1000")
    orca.wait_for(lambda: "sleep 1000" in processes(c), 5)
    process.kill()
    process.communicate()
    orca.wait_for(lambda: len(processes(c)) == 1, 10, message="the command has ended")


def test_an_agent_that_dies_is_told(cluster):
    process = start(cluster, "-i", "box", "--", "cat", stdin=subprocess.PIPE)
    orca.wait_for(lambda: "cat" in processes(cluster), 5)
    cluster.kill("agent")
    _, err = process.communicate(timeout=15)
    assert process.returncode == 255 and b"agent of node n1" in err
    orca.wait_for(lambda: run(cluster, "box", "--", "true").returncode == 0, 30, message="it works again")


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("ran", [0, 1])
def test_what_an_agent_left_behind_is_ended(cluster, signo, ran):
    """By the next one, however the first one went, and however little it knew of the command."""
    process = start(cluster, "box", "--", "sh", "-c", "trap '' HUP; sleep 1000; sleep 2000")
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    time.sleep(ran)
    cluster.kill("agent", signo)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 255 and err
    orca.wait_for(lambda: len(processes(cluster)) == 1, 15)
    orca.wait_for(lambda: run(cluster, "box", "--", "true").returncode == 0, 30, message="it works again")
    orca.wait_for(lambda: not list((cluster.run / "state/agent/execs").iterdir()), 5, message="no mark is left")


def test_an_apiserver_that_dies_ends_all(cluster):
    process = start(cluster, "box", "--", "sleep", "1000")
    orca.wait_for(lambda: "sleep 1000" in processes(cluster), 5)
    cluster.kill("apiserver")
    process.communicate(timeout=15)
    assert process.returncode == 255
    orca.wait_for(lambda: len(processes(cluster)) == 1, 15)
    orca.wait_for(lambda: run(cluster, "box", "--", "true").returncode == 0, 30, message="it works again")
    assert cluster.api("GET", "/api/v1/status").status == 200


def test_an_apiserver_ends_cleanly_with_sessions_open(cluster):
    ws = connect(cluster, "sleep", "1000")
    ws.receive()
    before = cluster.kill("apiserver", signal.SIGTERM)
    assert ws.until_end()[3] == 1001
    ws.close()
    orca.wait_for(lambda: not pathlib.Path(f"/proc/{before}").exists(), 5)
    orca.wait_for(lambda: run(cluster, "box", "--", "true").returncode == 0, 30, message="it works again")
