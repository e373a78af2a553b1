"""A peer whose key is good and whose words are not: tests/tools/bus-attack.c as the agent, the proxy, the keeper, the scheduler, the apiserver
of a running cluster, and as nobody. Whatever it says, every daemon lives on as the same process, serves, counts, keeps its size and its log."""
import collections
import json
import pathlib
import re
import subprocess

import pytest
from orca import APP, BIN, DAEMONS, Cluster, wait_for

SPEC = f"""[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
env = {{ TEXT = "one" }}
[service.readiness]
path = "/"
[service.deploy]
min_ready = "100ms"
"""
GROWTH = 50 << 20  # bytes that a daemon may have more in memory after an attack


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        c.deploy("shop", SPEC)
        yield c


class Watch:
    """What must be the same after as before."""

    def __init__(self, c):
        self.c = c
        self.pids = {d: c.pid(d) for d in DAEMONS}
        self.sizes = {d: resident(p) for d, p in self.pids.items()}
        self.files = {d: open_files(p) for d, p in self.pids.items()}
        self.logs = {d: len(c.log(d)) for d in DAEMONS}
        self.container = c.running("shop/web")[0]["Id"]
        self.counters = metrics(c)

    def check(self, counted=(), growth=GROWTH, lines=200):
        c = self.c
        assert wait_for(lambda: c.get("web.test").status == 200, 20)
        c.wait_healthy()
        wait_for(lambda: c.api("GET", "/api/v1/nodes").json()["nodes"][0]["state"] == "ready", 20, message="the node is ready")
        assert {d: c.pid(d) for d in DAEMONS} == self.pids, "a daemon has ended"
        for d, pid in self.pids.items():
            wait_for(lambda d=d, pid=pid: resident(pid) - self.sizes[d] < growth, 10, message=f"{d} grew from {self.sizes[d] >> 20} MiB to {resident(pid) >> 20} MiB")
            wait_for(lambda d=d, pid=pid: open_files(pid) <= self.files[d] + 8, 20, message=f"{d}'s file descriptors come back")
            new = c.log(d)[self.logs[d]:]
            assert len(new.splitlines()) < lines, f"{d} logs a flood"
            assert not re.search(r"[\x00-\x08\x0b-\x1f]", new), f"{d} logs what a peer said as it was said"
            peers = collections.Counter(re.findall(r'msg="refused on the bus".* peer=(\S+)', new))
            assert all(n <= 2 for n in peers.values()), f"{d} names {peers}"
        now = metrics(c)
        for name in counted:
            assert now.get(name, 0) > self.counters.get(name, 0), f"{name} did not grow"
        assert [x["Id"] for x in c.running("shop/web")] == [self.container], "the container was touched"


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def open_files(pid):
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def metrics(c):
    found = {line.split()[0]: float(line.split()[1]) for line in c.api("GET", "/metrics").text.splitlines() if line.startswith("orca_") and "{" not in line}
    told = subprocess.run([str(BIN / "orca-storectl"), "-c", str(c.run / "node.toml"), "-o", "json", "status"], capture_output=True, text=True, timeout=20, check=True)
    return {**found, "store": json.loads(told.stdout)["refused"]}


def endpoint(c, server):
    if server == "agent":
        return f"ipc://{c.run}/run/agent.sock"
    return f"tcp://{c.address}:{c.ports['gateway' if server == 'apiserver' else 'store']}"


def attack(c, role, server, what, *args, timeout=60):
    done = subprocess.run([str(BIN.parent / "tests/bus-attack"), str(c.run / "keys"), role, endpoint(c, server), server, what, *map(str, args)],
                          capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(role, server, what, told)
    return told


REFUSED = {"apiserver": ["orca_bus_refused_malformed_total"], "store": ["store"], "agent": []}
PEERS = [("agent", "apiserver"), ("proxy", "apiserver"), ("keeper", "apiserver"), ("scheduler", "store"), ("apiserver", "store"), ("keeper", "agent")]


@pytest.mark.parametrize("role,server", PEERS)
def test_malformed_frames(cluster, role, server):
    w = Watch(cluster)
    assert attack(cluster, role, server, "frames")["heard"]
    w.check(REFUSED[server])


@pytest.mark.parametrize("role,server", PEERS)
def test_bodies_that_are_no_calls(cluster, role, server):
    w = Watch(cluster)
    told = attack(cluster, role, server, "bodies")
    assert told["heard"] and sum(told["errors"].values()) > 500 and told["errors"]["invalid"] > 0  # the real one may cut us off
    w.check(REFUSED[server])


@pytest.mark.parametrize("role,server", [("agent", "apiserver"), ("apiserver", "store"), ("keeper", "agent")])
def test_bodies_that_grow_when_unpacked(cluster, role, server):
    w = Watch(cluster)
    assert attack(cluster, role, server, "bomb")["heard"]
    w.check(REFUSED[server])


@pytest.mark.parametrize("role,server", [("proxy", "apiserver"), ("scheduler", "store"), ("keeper", "agent")])
def test_oversized_messages(cluster, role, server):
    w = Watch(cluster)
    assert attack(cluster, role, server, "large")["heard"]
    w.check({**REFUSED, "apiserver": ["orca_bus_refused_too_large_total"]}[server])


@pytest.mark.parametrize("role,server,n", [("agent", "apiserver", 50000), ("scheduler", "store", 50000), ("keeper", "agent", 50000)])
def test_floods_of_calls(cluster, role, server, n):
    w = Watch(cluster)
    assert attack(cluster, role, server, "flood", n)["heard"]
    w.check()


@pytest.mark.parametrize("role,server,n", [("agent", "apiserver", 2000), ("scheduler", "store", 5000), ("keeper", "agent", 2000)])
def test_streams_without_credit(cluster, role, server, n):
    w = Watch(cluster)
    told = attack(cluster, role, server, "streams", n)
    assert told["heard"] and told["items"] == 0
    w.check()


@pytest.mark.parametrize("role,server", [("agent", "apiserver"), ("proxy", "apiserver"), ("scheduler", "store"), ("keeper", "agent")])
def test_many_conversations_under_one_key(cluster, role, server):
    w = Watch(cluster)
    attack(cluster, role, server, "hellos", 400)
    w.check()


@pytest.mark.parametrize("role,denied", [("agent", 300), ("proxy", 300), ("keeper", 800)])
def test_another_roles_calls(cluster, role, denied):
    w = Watch(cluster)
    told = attack(cluster, role, "apiserver", "node")
    # The real agent or proxy comes back and cuts us off: then it is unavailable.
    assert told["errors"]["denied"] > 10 and told["errors"]["denied"] + told["errors"].get("unavailable", 0) >= denied
    w.check(["orca_gateway_refused_total"])


def test_what_an_agent_may_say_of_whom(cluster):
    w = Watch(cluster)
    attack(cluster, "agent", "apiserver", "status", "shop/web.1")
    w.check(["orca_gateway_refused_total"])
    status = wait_for(lambda: next((i for i in cluster.instances("web") if i["ready"]), None))
    text = json.dumps(cluster.api("GET", "/api/v1/services/web").json()) + json.dumps(cluster.api("GET", "/api/v1/nodes").json())
    assert len(text) < 100000, "a megabyte of nonsense was kept"
    assert status["node"] == "n1"
    assert [n["name"] for n in cluster.api("GET", "/api/v1/nodes").json()["nodes"]] == ["n1"]


def test_events_without_end(cluster):
    w = Watch(cluster)
    attack(cluster, "agent", "apiserver", "events", 200)
    w.check()
    assert len(cluster.api("GET", "/api/v1/events").text) < 8 << 20


@pytest.mark.parametrize("role", ["scheduler", "apiserver"])
def test_keys_of_others_in_the_store(cluster, role):
    w = Watch(cluster)
    told = attack(cluster, role, "store", "store")
    assert told["errors"].get("denied", 0) > (40 if role == "scheduler" else 10)
    w.check(["store"])
    if role == "scheduler":
        assert [s["name"] for s in cluster.api("GET", "/api/v1/status").json()["services"]] == ["web"]


def test_leases_without_end(cluster):
    w = Watch(cluster)
    attack(cluster, "scheduler", "store", "leases", 5000)
    w.check()


def test_the_agents_own_socket(cluster):
    w = Watch(cluster)
    told = attack(cluster, "keeper", "agent", "ipc", "shop/web.1")
    assert told["errors"].get("not_found", 0) + told["errors"].get("invalid", 0) >= 9
    w.check()


@pytest.mark.parametrize("role,server", [("stranger", "apiserver"), ("stranger", "store"), ("stranger", "agent"), ("agent", "store"), ("proxy", "store"),
                                         ("keeper", "store"), ("agent", "agent")])
def test_keys_that_are_not_listed(cluster, role, server):
    w = Watch(cluster)
    for _ in range(3):
        assert not attack(cluster, role, server, "ping")["heard"]
    w.check({**REFUSED, "apiserver": ["orca_bus_refused_unauthorized_total"]}[server])


@pytest.mark.parametrize("role", ["agent", "proxy", "keeper", "scheduler"])
def test_secrets_are_for_the_agent_of_a_consumer(cluster, role):
    c = cluster
    c.ctl("secrets", "set", "DB", "for-web-alone")
    w = Watch(c)
    told = attack(c, role, "apiserver", "secrets", c.instances("web")[0]["id"])
    assert told["replies"] == 0
    assert told["errors"] == {"denied": 30}
    w.check([])
