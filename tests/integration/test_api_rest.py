"""The API with a real store under it and nothing else: what is answered, refused, streamed and kept, and what happens without the store."""
import ctypes
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import orca
import pytest

_numbers = itertools.count(1)


def curve_pair():
    lib = ctypes.CDLL("libzmq.so.5")
    public, secret = ctypes.create_string_buffer(41), ctypes.create_string_buffer(41)
    assert lib.zmq_curve_keypair(public, secret) == 0
    return public.value.decode(), secret.value.decode()


class Master:
    """orca-store and orca-apiserver, each as its own process, on a loopback address of their own."""

    def __init__(self):
        slot = os.getpid() % 60000 + 1
        self.address = f"127.{20 + next(_numbers) % 60}.{slot >> 8}.{slot & 255 or 1}"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="orca-api-"))
        self.token = "orca_" + secrets.token_hex(16)
        self.daemons = {}
        keys = self.dir / "keys"
        for name in ("keys/apiserver", "state", "run"):
            (self.dir / name).mkdir(parents=True)
        public = {}
        for name in ("store", "apiserver", "scheduler", "agent", "proxy", "keeper", "admin"):
            public[name], secret = curve_pair()
            (keys / f"{name}.pub").write_text(public[name] + "\n")
            (keys / f"{name}.key").write_text(secret + "\n")
            (keys / f"{name}.key").chmod(0o400)
        (keys / "apiserver/first-token").write_text(hashlib.sha256(self.token.encode()).hexdigest())
        (self.dir / "node.toml").write_text(
            f'[node]\nname = "n1"\naddress = "{self.address}"\nrole = "master"\nstate_dir = "{self.dir}/state"\nrun_dir = "{self.dir}/run"\n'
            f'key_dir = "{keys}"\n[cluster]\nid = "apitests"\n'
            f'masters = [{{ name = "n1", address = "{self.address}", key = \'{public["apiserver"]}\', store_key = \'{public["store"]}\' }}]\n')

    def start(self, name):
        log = open(self.dir / f"{name}.log", "ab")
        self.daemons[name] = subprocess.Popen([str(orca.BIN / f"orca-{name}"), "-c", str(self.dir / "node.toml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, name, signo=signal.SIGKILL):
        process = self.daemons.pop(name)
        process.send_signal(signo)
        assert process.wait(10) in (0, -signo)

    def call(self, method, path, body=None, token="", headers=None):
        connection = http.client.HTTPConnection(self.address, 6880, timeout=10)
        head = dict(headers or {})
        if token is not None:
            head["Authorization"] = f"Bearer {token or self.token}"
        try:
            data = json.dumps(body) if isinstance(body, (dict, list)) else body
            connection.request(method, path, body=data, headers=head)
            reply = connection.getresponse()
            return orca.Answer(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def deploy(self, *services, query="", **more):
        return self.call("POST", f"/api/v1/deploy{query}", {"services": list(services), **more})

    def stream(self, path, body=None):
        connection = http.client.HTTPConnection(self.address, 6880, timeout=10)
        connection.request("POST" if body else "GET", path, body=json.dumps(body) if body else None, headers={"Authorization": f"Bearer {self.token}"})
        reply = connection.getresponse()
        assert reply.status == 200 and reply.getheader("Content-Type") == "text/event-stream"
        kind = None
        for raw in reply:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield kind, json.loads(line[6:])

    def close(self):
        for process in self.daemons.values():
            process.kill()
            process.wait(10)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture
def master():
    m = Master()
    try:
        m.start("store")
        m.start("apiserver")
        orca.wait_for(lambda: m.call("GET", "/api/v1/health", token=None).status == 200, message="healthy")
        orca.wait_for(lambda: m.call("GET", "/api/v1/status").status == 200, message="first token")
        yield m
    finally:
        m.close()


def service(name="api", project="shop", image="x:1", **more):
    return {"name": name, "project": project, "image": image, "port": 80, **more}


def test_a_write_is_seen_by_the_next_read(master):
    for i in range(50):
        assert master.deploy(service(image=f"x:{i}")).json()["deployed"] == ["shop/api"]
        status = master.call("GET", "/api/v1/status").json()["services"]
        assert [(s["name"], s["image"], s["revision"]) for s in status] == [("api", f"x:{i}", i + 1)]
    assert len(master.call("GET", "/api/v1/services/api/history").json()["revisions"]) == 50


def test_everything_is_there_after_both_are_killed(master):
    master.deploy(service(replicas=3), service("db"))
    master.call("POST", "/api/v1/services/api/scale", {"replicas": 5})
    before = master.call("GET", "/api/v1/services/api").json()
    master.kill("apiserver")
    master.kill("store")
    master.start("apiserver")
    answer = orca.wait_for(lambda: master.call("GET", "/api/v1/health", token=None), message="it listens without a store")
    assert answer.status == 503 and answer.json()["error"] and answer.headers["Retry-After"]
    answer = master.call("GET", "/api/v1/status")
    assert answer.status == 503 and answer.headers["Retry-After"]
    master.start("store")
    orca.wait_for(lambda: master.call("GET", "/api/v1/health", token=None).status == 200)
    assert master.call("GET", "/api/v1/services/api").json() == before
    assert master.deploy(service(replicas=3), service("db")).json()["unchanged"] == ["shop/api", "shop/db"]


def test_reads_go_on_and_writes_are_refused_while_the_store_is_away(master):
    master.deploy(service())
    master.kill("store")
    orca.wait_for(lambda: master.call("GET", "/api/v1/health", token=None).status == 503)
    assert master.call("GET", "/api/v1/status").json()["services"][0]["name"] == "api"
    answer = master.call("POST", "/api/v1/services/api/stop")
    assert answer.status == 503 and answer.headers["Retry-After"]
    master.start("store")
    orca.wait_for(lambda: master.call("POST", "/api/v1/services/api/stop").status == 200)


def test_many_writers_at_once_lose_nothing(master):
    master.deploy(service(replicas=1))
    errors = []

    def restart():
        for _ in range(10):
            answer = master.call("POST", "/api/v1/services/api/restart")
            if answer.status != 200:
                errors.append(answer.text)

    threads = [threading.Thread(target=restart) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    done = 80 - len([e for e in errors if "conflict" in e])
    assert not [e for e in errors if "conflict" not in e]
    assert master.call("GET", "/api/v1/services/api").json()["service"]["generation"] == 1 + done


def test_a_deploy_is_streamed(master):
    events = master.stream("/api/v1/deploy?wait=true", {"services": [service(replicas=0)]})
    kinds = [(kind, data) for kind, data in events]
    assert [k for k, _ in kinds] == ["plan", "progress", "done"]
    assert kinds[0][1]["deployed"] == ["shop/api"]
    assert kinds[2][1] == {"ok": True, "services": [{"service": "shop/api", "state": "stopped", "reason": ""}]}


def test_events_are_followed_and_resumed(master):
    master.deploy(service())
    follow = master.stream("/api/v1/events?follow=true&since=1h")
    assert next(follow)[1]["kind"] == "service.deployed"
    master.call("POST", "/api/v1/services/api/stop")
    kind, event = next(follow)
    assert kind == "event" and event["kind"] == "service.stopped" and event["actor"] == "admin"
    follow.close()
    master.call("POST", "/api/v1/services/api/start")
    missed = master.call("GET", f"/api/v1/events?since={event['revision']}").json()["events"]
    assert [e["kind"] for e in missed] == ["service.started"]


def test_faults_change_nothing(master):
    answer = master.deploy(service(), service("Bad"), service("web", portt=1, replicas=-4))
    assert answer.status == 400
    paths = {d["path"] for d in answer.json()["details"]}
    assert {"services[1].name", "services[2].portt", "services[2].replicas"} <= paths
    assert master.deploy(service("root", privileged=True)).status == 422
    told = master.call("GET", "/api/v1/status").json()
    assert (told["services"], told["problems"]) == ([], [])
    assert master.call("GET", "/api/v1/events").json()["events"] == []


def test_hostile_requests_are_refused_and_it_lives_on(master):
    assert master.call("POST", "/api/v1/deploy", b"x" * (13 << 20)).status == 413
    assert master.call("POST", "/api/v1/deploy", b"[" * 100000).status == 400
    assert master.call("POST", "/api/v1/deploy", b'{"services":[],"services":[]}').status == 400
    assert master.call("GET", "/api/v1/status", token="x" * 300).status == 401
    assert master.call("GET", "/api/v1/status", token=None).status == 401
    assert master.call("GET", "/api/v1/nothing", token=None).status == 401
    assert master.call("GET", "/api/v1/nothing").status == 404
    assert master.call("PATCH", "/api/v1/services/api").headers["Allow"] == "GET, DELETE"
    assert master.call("GET", "/api/v1/services/%00%ff%fe").status == 404
    assert master.call("GET", "/api/v1/" + "a" * 60000).status in (400, 404, 414, 431)
    assert master.call("GET", "/metrics", token=None).status == 200
    assert master.call("GET", "/metrics", token=None, headers={"X-Forwarded-For": "10.0.0.1"}).status == 401
    for port in (6880, 6881, 6882):
        for garbage in (b"\0" * 1000, os.urandom(5000), b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"POST /api/v1/deploy HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n"):
            with socket.create_connection((master.address, port), 5) as s:
                s.sendall(garbage)
                s.settimeout(0.2)
                try:
                    s.recv(1000)
                except (TimeoutError, ConnectionError):
                    pass
    assert master.call("GET", "/api/v1/status").status == 200
    assert master.daemons["apiserver"].poll() is None and master.daemons["store"].poll() is None


def test_readers_that_stop_reading_hold_nothing(master):
    master.deploy(service())
    stopped = []
    for _ in range(50):
        s = socket.create_connection((master.address, 6880), 5)
        s.sendall(f"GET /api/v1/events?follow=true&since=1h HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {master.token}\r\n\r\n".encode())
        stopped.append(s)
    pid = master.daemons["apiserver"].pid

    def resident():
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

    for i in range(100):
        master.call("POST", "/api/v1/services/api/restart")
    before = resident()
    for i in range(300):
        assert master.call("POST", "/api/v1/services/api/restart").status == 200
    assert resident() - before < 8 << 20
    for s in stopped:
        s.close()
    assert master.call("GET", "/api/v1/status").status == 200


def test_one_token_does_not_take_all_streams(master):
    master.deploy(service())
    open_ones, refused = [], 0
    for _ in range(70):
        connection = http.client.HTTPConnection(master.address, 6880, timeout=10)
        connection.request("GET", "/api/v1/events?follow=true&since=1h", headers={"Authorization": f"Bearer {master.token}"})
        reply = connection.getresponse()
        refused += reply.status == 429
        open_ones += [reply, connection]
    assert refused == 6
    assert master.call("GET", "/api/v1/status").status == 200
    for one in open_ones:
        one.close()
    orca.wait_for(lambda: "\norca_api_streams 0\n" in master.call("GET", "/metrics").text, 40, message="closed streams are given back")


def test_it_ends_cleanly_with_streams_open(master):
    master.deploy(service())
    follow = master.stream("/api/v1/events?follow=true&since=1h")
    next(follow)
    begin = time.monotonic()
    master.kill("apiserver", signal.SIGTERM)
    assert time.monotonic() - begin < 3


def test_the_document_names_every_route(master):
    doc = master.call("GET", "/api/v1/openapi.json", token=None).json()
    assert doc["openapi"] == "3.1.0"
    assert doc["paths"]["/api/v1/deploy"]["post"]["x-permission"] == "deploy"
    assert "image" in json.dumps(doc["components"]["schemas"]["ServiceSpec"])
    answers = {path: set(next(iter(doc["paths"][path].values()))["responses"]) - {"default"} for path in ("/api/v1/status", "/api/v1/jobs/{name}/run", "/api/v1/services/{name}/exec")}
    assert list(answers.values()) == [{"200"}, {"200", "202"}, {"101"}]
