"""Deploy → running and crash → running, beside Docker's own floor on the same kind of network and beside Swarm, interleaved.

All times end at Docker's own `start` event of the container, read from its event stream. The floor of a deploy is create + start by the Engine
API on a user bridge; of a restart, the start call at the moment of the die event, while Docker still clears away what died."""
import http.client
import json
import os
import queue
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))

from figures import median, quantile, table  # noqa: E402
from orca import APP, Cluster, docker, wait_for  # noqa: E402
from private_docker import PrivateDocker  # noqa: E402


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    """The Engine API by hand: the floor."""

    def __init__(self, path="/run/docker.sock"):
        self.path = path
        self.connection = UnixConnection(path)
        self.events = queue.Queue()
        self.stream = UnixConnection(path, timeout=None)
        self.stream.request("GET", "/v1.41/events?filters=" + json_filter(type=["container"], event=["start", "die"]))
        self.reply = self.stream.getresponse()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        buffer = b""
        while True:
            try:
                piece = self.reply.read1(65536)
            except (OSError, ValueError, AttributeError, http.client.HTTPException):
                return
            if not piece:
                return
            buffer += piece
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line.strip():
                    self.events.put(json.loads(line))

    def call(self, method, path, body=None):
        self.connection.request(method, "/v1.41" + path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        data = reply.read()
        assert reply.status < 400, data
        return json.loads(data) if data.strip() else None

    def wait(self, action, match, timeout=30):
        """The wall time (ns) of the next such event."""
        end = time.monotonic() + timeout
        while True:
            event = self.events.get(timeout=max(0.01, end - time.monotonic()))
            if event["Action"] == action and match(event["Actor"]):
                return event["timeNano"]

    def forget(self):
        while not self.events.empty():
            self.events.get_nowait()


def json_filter(**filters):
    from urllib.parse import quote
    return quote(json.dumps(filters))


def floor_deploy(engine, network, n):
    name = f"orca-floor-{os.getpid()}-{n}"
    body = {"Image": APP, "HostConfig": {"NetworkMode": network, "Memory": 64 << 20}}
    engine.forget()
    began = time.time_ns()
    cid = engine.call("POST", f"/containers/create?name={name}", body)["Id"]
    engine.call("POST", f"/containers/{cid}/start")
    at = engine.wait("start", lambda a: a["ID"] == cid)
    return cid, (at - began) / 1e6


def floor_restart(engine, cid):
    pid = engine.call("GET", f"/containers/{cid}/json")["State"]["Pid"]
    time.sleep(0.3)
    engine.forget()
    os.kill(pid, 9)
    died = engine.wait("die", lambda a: a["ID"] == cid)
    engine.call("POST", f"/containers/{cid}/start")
    return (engine.wait("start", lambda a: a["ID"] == cid) - died) / 1e6


def orca_deploy(engine, cluster, n):
    body = {"services": [{"name": f"b{n}", "project": "bench", "image": APP, "resources": {"memory": "64Mi"}}]}
    engine.forget()
    began = time.time_ns()
    reply = cluster.api("POST", "/api/v1/deploy", body)
    assert reply.status == 200, reply.text
    at = engine.wait("start", lambda a: a["Attributes"].get("orca.service") == f"b{n}")
    return (at - began) / 1e6


def orca_crash(engine, cluster, n):
    (container,) = wait_for(lambda: cluster.running(f"bench/b{n}"))
    time.sleep(0.3)
    engine.forget()
    os.kill(container["State"]["Pid"], 9)
    died = engine.wait("die", lambda a: a["ID"] == container["Id"])
    return (engine.wait("start", lambda a: a["ID"] == container["Id"]) - died) / 1e6


def swarm(rounds):
    """(deploy, crash) times of Swarm on an engine and a network name space of its own."""
    deploys, crashes = [], []
    with PrivateDocker() as d:
        d.docker("swarm", "init", "--advertise-addr", "10.199.0.1")
        d.load()
        d.docker("network", "create", "-d", "overlay", "bench")
        engine = Engine(d.socket)
        for n in range(rounds):
            engine.forget()
            began = time.time_ns()
            engine.call("POST", "/services/create", {"Name": f"s{n}", "TaskTemplate": {"ContainerSpec": {"Image": APP}, "Networks": [{"Target": "bench"}]}})
            mine = lambda a, n=n: a["Attributes"].get("com.docker.swarm.service.name") == f"s{n}"
            deploys.append((engine.wait("start", mine) - began) / 1e6)
            time.sleep(1)
            (cid,) = d.docker("ps", "-q", "--no-trunc", "--filter", f"label=com.docker.swarm.service.name=s{n}").split()
            pid = int(d.docker("inspect", "-f", "{{.State.Pid}}", cid))
            engine.forget()
            os.kill(pid, 9)
            died = engine.wait("die", mine)
            crashes.append((engine.wait("start", mine) - died) / 1e6)
            d.docker("service", "rm", f"s{n}")
    return deploys, crashes


def main(rounds=20, swarm_rounds=3):
    engine = Engine()
    floors, deploys, floor_restarts, crashes = [], [], [], []
    network = f"orca-floor-{os.getpid()}"
    docker("network", "create", network)
    made = []
    try:
        with Cluster() as cluster:
            orca_deploy(engine, cluster, 999)  # makes the project's network
            for n in range(rounds):
                cid, ms = floor_deploy(engine, network, n)
                made.append(cid)
                floors.append(ms)
                deploys.append(orca_deploy(engine, cluster, n))
                floor_restarts.append(floor_restart(engine, cid))
                crashes.append(orca_crash(engine, cluster, n))
                docker("rm", "-f", made.pop())
                cluster.api("DELETE", f"/api/v1/services/b{n}?purge=true")
    finally:
        for cid in made:
            docker("rm", "-f", cid, check=False)
        docker("network", "rm", network, check=False)
    swarm_deploys, swarm_crashes = swarm(swarm_rounds) if swarm_rounds else ([], [])
    def figures(floor, ours, swarms, aim):
        # Docker's own time varies by far more than what is looked for: the difference is of the quickest tenths, which others' load reaches least.
        over = quantile(ours, 0.1) - quantile(floor, 0.1)
        paired = median([a - b for a, b in zip(ours, floor)])
        return {"docker": median(floor), "orca": median(ours), "over_docker": over, "over_docker_paired": paired, "swarm": median(swarms), "aim_over": aim}

    result = {"deploy_ms": figures(floors, deploys, swarm_deploys, 6), "crash_ms": figures(floor_restarts, crashes, swarm_crashes, 10), "rounds": rounds}
    for title, key, sets in (("deploy → running (ms)", "deploy_ms", (floors, deploys, swarm_deploys)), ("crash → running (ms)", "crash_ms", (floor_restarts, crashes, swarm_crashes))):
        f = result[key]
        rows = [[name, *(f"{quantile(values, q):.1f}" for q in (0.1, 0.5, 0.9))] for name, values in zip(("docker", "orca", "swarm"), sets) if values]
        table(title, ["", "p10", "median", "p90"], rows)
        print(f"  orca over docker: {f['over_docker']:+.1f} ms at p10, {f['over_docker_paired']:+.1f} ms by pairs (aim: +{f['aim_over']})")
    return result


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
