"""Who follows something and stops reading, is cut off, or has a pipe that nobody empties: ended within a limit, on every route and verb that goes on,
and the apiserver and the agent hold what they held before."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest
from orca import APP, BIN, Cluster, wait_for

SPEC = f"""[[service]]
name = "web"
image = "{APP}"
port = 8080
env = {{ LOG_LINES = "200000", LOG_LEN = "500" }}
[service.deploy]
min_ready = "0s"
[[service]]
name = "never"
image = "{APP}"
port = 8080
env = {{ START_DELAY_MS = "100000000" }}
readiness = {{ path = "/", interval_secs = 1 }}
[service.deploy]
timeout = "10m"
[[job]]
name = "long"
image = "{APP}"
schedule = "0 0 1 1 *"
"""
LONG_TASK = '{"image": "%s", "env": {"START_DELAY_MS": "100000000"}}' % APP
# method, path, body
STREAMS = [
    ("GET", "/api/v1/services/web/logs?follow=true", None), ("GET", "/api/v1/services/web/logs", None), ("GET", "/api/v1/events?follow=true&since=0", None), ("GET", "/api/v1/audit?follow=true&since=24h", None),
    ("GET", "/api/v1/jobs/long?run=1&wait=true", None), ("POST", "/api/v1/jobs/long/run?wait=true", None), ("POST", "/api/v1/tasks?wait=true", LONG_TASK),
    ("POST", "/api/v1/services/web/restart", None), ("GET", "/api/v1/openapi.json", None),
]
DAEMONS = ("apiserver", "agent", "scheduler", "store")


def descriptors(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@contextlib.contextmanager
def nothing_held(c, timeout, growth=40 << 20):
    pids = {d: c.pid(d) for d in DAEMONS}
    before = {d: (descriptors(p), resident(p)) for d, p in pids.items()}
    yield
    assert {d: c.pid(d) for d in DAEMONS} == pids
    for d, pid in pids.items():
        # A container that came meanwhile has its own few in the agent.
        wait_for(lambda d=d, pid=pid: descriptors(pid) <= before[d][0] + 6, timeout, message=f"{d}: {before[d][0]} descriptors before, {descriptors(pid)} now")
        assert resident(pid) - before[d][1] < growth, f"{d} grew"


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        c.deploy("shop", SPEC, "--no-wait")
        wait_for(lambda: c.running("shop/web"))
        c.api("POST", "/api/v1/jobs/long/run")
        yield c


def ask(c, method, path, body, size=4096):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    s.settimeout(10)
    s.connect((c.address, c.ports["api"]))
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}" if body else "\r\n"
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {c.token()}\r\n{more}".encode())
    return s


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    s.close()


@pytest.mark.parametrize("method,path,body", STREAMS)
def test_a_connection_that_is_cut(cluster, method, path, body):
    with nothing_held(cluster, 25):
        held = [ask(cluster, method, path, body) for _ in range(5)]
        time.sleep(0.5)
        for s in held[:3]:
            reset(s)
        for s in held[3:]:
            s.close()


def test_readers_that_stopped_are_ended_by_us(cluster):
    """Their connections stay open and are not read: what has more for them than their kernel takes is ended, without their doing anything."""
    with nothing_held(cluster, 60):
        held = [ask(cluster, method, path, body, 1024) for method, path, body in STREAMS[:4] for _ in range(4)]
        began = time.monotonic()
        assert cluster.api("GET", "/api/v1/status").status == 200 and time.monotonic() - began < 2
        pid, before = cluster.pid("apiserver"), descriptors(cluster.pid("apiserver"))
        wait_for(lambda: descriptors(pid) <= before - 8, 60, message="those of the logs are ended")
        for s in held:
            s.close()


VERBS = [("logs", "-f", "web"), ("events", "-f"), ("audit", "-f"), ("exec", "web", "--", "/app"), ("job", "run", "long"), ("top",), ("status", "-w"), ("run", "-e", "START_DELAY_MS=100000000", APP), ("deploy",)]


def start(c, args, **more):
    return subprocess.Popen([str(BIN / "orcactl"), "-C", str(c.infra), *args], env=c.env, cwd=c.dir, stderr=subprocess.DEVNULL, **more)


@pytest.mark.parametrize("args", VERBS, ids=lambda a: " ".join(a[:2]))
def test_a_verb_that_is_ended_with_a_full_pipe(cluster, args):
    with nothing_held(cluster, 25):
        verbs = [start(cluster, args, stdout=subprocess.PIPE) for _ in range(3)]
        time.sleep(1)
        began = time.monotonic()
        verbs[0].send_signal(signal.SIGTERM)
        verbs[1].send_signal(signal.SIGINT)
        for verb in verbs[:2]:
            verb.wait(10)
        verbs[2].kill()
        verbs[2].wait(5)
        assert time.monotonic() - began < 10
        for verb in verbs:
            verb.stdout.close()


@pytest.mark.parametrize("args", VERBS[:3], ids=lambda a: " ".join(a[:2]))
def test_a_verb_whose_reader_has_gone(cluster, args):
    with nothing_held(cluster, 25):
        verb = start(cluster, args, stdout=subprocess.PIPE)
        os.read(verb.stdout.fileno(), 1)
        verb.stdout.close()
        for n in range(200):  # something to write
            if verb.poll() is not None:
                break
            cluster.api("POST", "/api/v1/services/web/scale", {"replicas": 1 + n % 2})
            time.sleep(0.1)
        verb.wait(5)


def test_an_exec_whose_command_is_over_goes_when_told(cluster):
    """Its last output waits for a pipe that nobody empties."""
    before = cluster.log("apiserver").count("exit code 1 ")
    verb = start(cluster, ("exec", "web", "-e", "LOG_LINES=2000", "-e", "START_DELAY_MS=1000", "--", "/app"), stdout=subprocess.PIPE)  # 1 MB, then it can't listen
    wait_for(lambda: cluster.log("apiserver").count("exit code 1 ") > before, 10)
    time.sleep(0.5)
    assert verb.poll() is None
    verb.send_signal(signal.SIGTERM)
    verb.wait(5)
    verb.stdout.close()
