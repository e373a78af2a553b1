"""Every key that is taken has its effect: those of cluster.toml without a restart, those of service.toml in the container."""
import http.client
import json
import os
import signal
import socket
import threading
import time

from orca import APP, DAEMONS, docker, wait_for

WEB = f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
health = "/healthz"
[service.env]
TEXT = "one"
[service.deploy]
min_ready = "200ms"
"""


def settings(cluster, text="", cluster_keys=""):
    """Deploys cluster.toml anew."""
    (cluster.infra / "cluster.toml").write_text(f'[cluster]\nname = "test"\n{cluster_keys}\n{text}\n')
    return cluster.ctl("-C", str(cluster.infra), "deploy")


def pids(cluster):
    return [cluster.pid(d) for d in DAEMONS]


def test_log_level_reaches_every_daemon_also_one_that_is_restarted(cluster):
    before = pids(cluster)
    settings(cluster, cluster_keys='log_level = "debug"')
    for daemon in DAEMONS:
        wait_for(lambda d=daemon: "level=debug" in cluster.log(d), message=f"{daemon} logs more")
    settings(cluster, cluster_keys='log_level = "error"')
    for daemon in DAEMONS:
        wait_for(lambda d=daemon: "level=error" in cluster.log(d), message=f"{daemon} logs less")
    assert pids(cluster) == before
    sizes = {d: len(cluster.log(d)) for d in DAEMONS}
    settings(cluster, '[policy]\nallow_caps = ["NET_ADMIN"]', 'log_level = "error"')
    assert {d: len(cluster.log(d)) for d in DAEMONS} == sizes
    for daemon in DAEMONS:
        size = len(cluster.log(daemon))
        cluster.kill(daemon)
        wait_for(lambda d=daemon, n=size: 'msg="log level" level=error' in cluster.log(d)[n:], message=f"{daemon} hears it again")
    cluster.wait_healthy()
    settings(cluster)
    for daemon in DAEMONS:
        wait_for(lambda d=daemon: cluster.log(d).rstrip().count('msg="log level" level=info'), message=f"{daemon} is back at info")


def node(cluster):
    return cluster.api("GET", "/api/v1/nodes").json()["nodes"][0]


def test_node_ttl_says_when_a_silent_node_is_unreachable(cluster):
    settings(cluster, cluster_keys='node_ttl = "1h"')
    before = node(cluster)
    cluster.kill("agent")
    wait_for(lambda: cluster.log("apiserver").count("agent said hello") == 2)
    assert (node(cluster)["state"], node(cluster)["since"]) == ("ready", before["since"])
    agent = cluster.kill("agent", signal.SIGSTOP)
    try:
        wait_for(lambda: "peer is gone" in cluster.log("apiserver").split("agent said hello")[-1])
        assert node(cluster)["state"] == "ready"
        settings(cluster, cluster_keys='node_ttl = "200ms"')
        wait_for(lambda: node(cluster)["state"] == "unreachable", 2)
        assert node(cluster)["reason"] == "agent is not connected"
    finally:
        os.kill(agent, signal.SIGCONT)
    wait_for(lambda: node(cluster)["state"] == "ready")


def asks(address, port, timeout=2):
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    connection.request("GET", "/api/v1/health")
    return connection, connection.getresponse().read()


def test_api_listen_opens_and_closes_addresses_and_keeps_what_is_connected(cluster):
    other, third = cluster.address.rsplit(".", 1)[0] + ".250", cluster.address.rsplit(".", 1)[0] + ".251"
    settings(cluster, f'[api]\nlisten = ["{cluster.address}:{cluster.ports["api"]}", "{other}:7001", "[::1]:{cluster.ports["api"] + 1000}"]')
    kept, body = wait_for(lambda: asks(other, 7001))
    assert b'"ok"' in body
    assert b'"ok"' in asks("::1", cluster.ports["api"] + 1000)[1]
    settings(cluster, f'[api]\nlisten = ["{other}:7001", "{third}:7002"]')
    wait_for(lambda: asks(third, 7002))
    kept.request("GET", "/api/v1/health")
    assert b'"ok"' in kept.getresponse().read()
    assert socket.socket(socket.AF_INET6).connect_ex(("::1", cluster.ports["api"] + 1000)) != 0
    # A port that is taken is said, kills nothing, and is had as soon as it is free.
    with socket.create_server((other, 7003)):
        settings(cluster, f'[api]\nlisten = ["{other}:7003", "{third}:7002"]')
        wait_for(lambda: any(e["kind"] == "api.not_listening" and "7003" in e["message"] for e in cluster.api("GET", "/api/v1/events").json()["events"]))
        assert f"{other}:7003: Address already in use" in cluster.ctl("status").stdout
        assert b'"ok"' in asks(third, 7002)[1]
        kept.request("GET", "/api/v1/health")
        assert b'"ok"' in kept.getresponse().read()
        assert socket.socket().connect_ex((other, 7001)) != 0
    wait_for(lambda: asks(other, 7003))
    assert cluster.api("GET", "/api/v1/status").json()["problems"] == []
    # Also after a restart; and without `listen` only the node's own address is left.
    cluster.kill("apiserver")
    wait_for(lambda: asks(third, 7002))
    settings(cluster)
    wait_for(lambda: socket.socket().connect_ex((third, 7002)) != 0)
    cluster.ctl("status")


def page(cluster, port, host="web.test"):
    connection = http.client.HTTPConnection(cluster.address, port, timeout=2)
    connection.request("GET", "/", headers={"Host": host})
    answer = connection.getresponse()
    return connection, answer.status, answer.read()


def closed(cluster, port):
    with socket.socket() as s:
        return s.connect_ex((cluster.address, port)) != 0


def test_http_port_moves_the_proxies_and_keeps_what_is_connected(cluster):
    old = cluster.ports["http"]
    cluster.deploy("shop", WEB)
    proxy = cluster.pid("proxy")
    kept, status, _ = page(cluster, old)
    assert status == 200
    settings(cluster, "[proxy]\nhttp_port = 8181")
    assert wait_for(lambda: page(cluster, 8181))[1] == 200
    wait_for(lambda: closed(cluster, old))
    kept.request("GET", "/", headers={"Host": "web.test"})
    answer = kept.getresponse()
    assert (answer.status, answer.read()) == (200, b"one\n")
    # It is remembered: without a master, too.
    cluster.kill("apiserver", signal.SIGSTOP)
    try:
        assert cluster.kill("proxy") == proxy
        assert wait_for(lambda: page(cluster, 8181))[1] == 200
    finally:
        cluster.kill("apiserver", signal.SIGCONT)
    # A port that is taken: the old one goes on, and it is said; as soon as it is free it is had.
    with socket.create_server((cluster.address, 8182)):
        settings(cluster, "[proxy]\nhttp_port = 8182")
        wait_for(lambda: "n1: the proxy can't listen on port 8182" in cluster.ctl("status").stdout)
        assert page(cluster, 8181)[1] == 200
        assert any(e["kind"] == "proxy.not_listening" for e in cluster.api("GET", "/api/v1/events").json()["events"])
    assert wait_for(lambda: page(cluster, 8182))[1] == 200
    wait_for(lambda: cluster.api("GET", "/api/v1/status").json()["problems"] == [])
    settings(cluster)
    assert wait_for(lambda: page(cluster, old))[1] == 200
    wait_for(lambda: closed(cluster, 8182))
    assert cluster.running("shop/web")


EVERYTHING = """
[[service]]
name = "web"
image = "{app}"
entrypoint = ["/app"]
command = ["--serve", "all"]
user = "1000:1001"
workdir = "/srv/work"
port = 8080
host_port = 18080
extra_ports = ["18022:22", "18053:53/udp"]
domains = ["web.test", "www.web.test"]
routes = ["/api/*"]
strip_prefix = true
health = "/healthz"
network = "other"
aliases = ["backend"]
restart = "on-failure"
stop_signal = "SIGINT"
stop_grace = "2500ms"
pull = "if-absent"
labels = {{ team = "web" }}
caps = ["NET_ADMIN"]
devices = ["/dev/null:/dev/nil:r"]
privileged = true
mounts = ["./services/shop/conf:/conf", "{host}:/host:ro"]
[service.env]
SAYS = "$${{not.a.reference}} and ${{env.ORCA_TEST_SAYS}}"
[service.resources]
memory = "64Mi"
memory_request = "32Mi"
cpu = 0.5
pids = 64
[service.deploy]
min_ready = "200ms"
[[service.volumes]]
source = "data"
target = "/data"
read_only = true
driver = "local"
options = {{ type = "tmpfs", device = "tmpfs", o = "size=1m" }}
[service.proxy]
timeout = "1s"
max_body = "1Ki"
"""

POLICY = """
[policy]
allow_privileged = true
allow_caps = ["NET_ADMIN"]
allow_devices = ["/dev/null"]
allow_host_paths = ["{host}"]
[logs]
max_size = "1Mi"
max_files = 2
"""


def ask(cluster, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection(cluster.address, cluster.ports["http"], timeout=10)
    connection.request(method, path, body=body, headers={"Host": "www.web.test", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_every_key_of_a_service_has_its_effect(cluster, tmp_path):
    tmp_path.chmod(0o755)  # the service is no root
    (tmp_path / "host.txt").write_text("host\n")
    conf = cluster.infra / "services/shop/conf"
    conf.mkdir(parents=True)
    (conf / "a.txt").write_text("a\n")
    settings(cluster, POLICY.format(host=tmp_path))
    cluster.env["ORCA_TEST_SAYS"] = "that"
    cluster.deploy("shop", EVERYTHING.format(app=APP, host=tmp_path))
    (c,) = cluster.running("shop/web")
    config, host = c["Config"], c["HostConfig"]
    assert (config["Entrypoint"], config["Cmd"], config["User"], config["WorkingDir"]) == (["/app"], ["--serve", "all"], "1000:1001", "/srv/work")
    assert (config["StopSignal"], config["StopTimeout"], config["Labels"]["team"]) == ("SIGINT", 3, "web")
    assert "SAYS=${not.a.reference} and that" in config["Env"]
    assert (host["Memory"], host["MemoryReservation"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 32 << 20, 500000000, 64)
    assert host["CapAdd"] in (["NET_ADMIN"], ["CAP_NET_ADMIN"]) and host["Privileged"] is True
    assert host["Devices"] == [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"}]
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": str(1 << 20), "max-file": "2", "compress": "false"}}
    published = {port: [(b["HostIp"], b["HostPort"]) for b in to] for port, to in host["PortBindings"].items()}
    assert published == {f"{inside}": [(cluster.address, outside)] for inside, outside in (("8080/tcp", "18080"), ("22/tcp", "18022"), ("53/udp", "18053"))}
    mounts = {m["Destination"]: m for m in c["Mounts"]}
    assert not any(mounts[where]["RW"] for where in ("/data", "/host", "/conf"))
    volume = json.loads(docker("volume", "inspect", mounts["/data"]["Name"]))[0]
    assert (volume["Driver"], volume["Options"]) == ("local", {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    network = c["NetworkSettings"]["Networks"][f"orca-{cluster.id[:8]}-shop.other"]
    assert {"web", "backend"} <= set(network["Aliases"])
    # Through the proxy: names, paths, limits; and past it, on the node's own port.
    assert ask(cluster, "/api/env?SAYS") == (200, "${not.a.reference} and that\n")
    assert ask(cluster, "/api/file?/conf/a.txt") == (200, "a\n")
    assert ask(cluster, "/api/file?/host/host.txt") == (200, "host\n")
    assert ask(cluster, "/env?SAYS")[0] == 404
    assert ask(cluster, "/api/", "POST", b"x" * 1000)[0] == 200
    assert ask(cluster, "/api/", "POST", b"x" * 2000)[0] == 413
    assert ask(cluster, "/api/slow?3000")[0] == 504
    direct = http.client.HTTPConnection(cluster.address, 18080, timeout=2)
    direct.request("GET", "/env?SAYS")
    assert direct.getresponse().status == 200
    # Its signal, its grace: the app doesn't hear SIGINT, and is killed when the time is over; on-failure lets it go.
    began = time.monotonic()
    cluster.ctl("stop", "web")
    wait_for(lambda: not cluster.containers("shop/web"))
    assert 2.4 < time.monotonic() - began < 8


def reason(cluster, name):
    return wait_for(lambda: cluster.instances(name)[0]["reason"], message=f"{name} says why")


def test_placement_keys_decide(cluster):
    nodes = '[[node]]\nname = "n1"\nlabels = { zone = "eu" }\n[[node.gpus]]\nvendor = "nvidia"\ncount = 2\nmodel = "A100"\nvram_min = 24000\n'
    settings(cluster, nodes)

    def one(name, placement="", resources=""):
        return f'[[service]]\nname = "{name}"\nimage = "{APP}"\nport = 8080\n{resources}\n[service.deploy]\nmin_ready = "0s"\n[service.placement]\n{placement}\n'

    cluster.deploy("shop", one("near", 'labels = { zone = "eu" }\nspread = "zone"\nnode = "n1"') + one("far", 'node = "n2"') + one("us", 'labels = { zone = "us" }')
                   + one("apart", 'avoid = ["near"]') + one("three", resources="[service.resources.gpu]\ncount = 3\nvendor = \"nvidia\"")
                   + one("other", resources="[service.resources.gpu]\nmodel = \"H100\"") + one("big", resources="[service.resources.gpu]\nvram_min = 48000"),
                   "--no-wait")
    wait_for(lambda: len(cluster.running("shop/near")) == 1)
    wait_for(lambda: "avoid: shop/near is here" in reason(cluster, "apart"))
    assert "node: wants n2" in reason(cluster, "far")
    assert "labels: wants zone=us, has eu" in reason(cluster, "us")
    assert "gpu: needs 3, 2 free" in reason(cluster, "three")
    assert "gpu: none that matches" in reason(cluster, "other")
    assert "gpu: none that matches" in reason(cluster, "big")


def test_pull_never_and_always(cluster):
    def one(name, image, pull):
        return f'[[service]]\nname = "{name}"\nimage = "{image}"\npull = "{pull}"\n[service.deploy]\nmin_ready = "0s"\n'

    cluster.deploy("shop", one("absent", "orca-test/absent:1", "never") + one("here", APP, "never") + one("always", APP, "always"), "--no-wait")
    wait_for(lambda: len(cluster.running("shop/here")) == 1)
    wait_for(lambda: 'pull = "never"' in reason(cluster, "absent"))
    wait_for(lambda: cluster.instances("always")[0]["state"] in ("failed", "pulling"))
    assert not cluster.containers("shop/always")


def test_trusted_proxies_are_believed_without_a_restart(cluster):
    cluster.deploy("shop", WEB.replace('"web.test"', '"www.web.test"'))
    header = {"X-Forwarded-For": "203.0.113.9"}
    assert "203.0.113.9" not in ask(cluster, "/headers", **header)[1]
    settings(cluster, '[proxy]\ntrusted_proxies = ["127.0.0.0/8"]')
    wait_for(lambda: "203.0.113.9" in ask(cluster, "/headers", **header)[1])


def test_prune_goes_without_names(cluster):
    cluster.deploy("shop", WEB)
    done = cluster.ctl("-C", str(cluster.infra), "--yes", "deploy", "web", "--prune", check=False)
    assert done.returncode == 2 and "without names" in done.stderr
    cluster.write("shop", "")
    done = cluster.ctl("-C", str(cluster.infra), "deploy", "--prune", check=False)  # nobody is there to confirm it
    assert done.returncode != 0
    assert len(cluster.running("shop/web")) == 1
    cluster.ctl("-C", str(cluster.infra), "--yes", "deploy", "--prune")
    wait_for(lambda: not cluster.containers("shop/web"))


def test_rollout_keys_hold_their_budget_and_stop_where_they_say(cluster):
    def text(says, extra=""):
        budget = 'max_unavailable = 1\nmax_surge = 0\nauto_rollback = false\ntimeout = "5s"\n'
        return WEB.replace('"one"', f'"{says}"').replace("[service.deploy]\n", "[service.deploy]\n" + budget).replace("port = 8080\n", "port = 8080\nreplicas = 3\n") + extra

    cluster.deploy("shop", text("one"))
    most, least, over = 0, 3, threading.Event()

    def count():
        nonlocal most, least
        while not over.is_set():
            all_of_it = cluster.instances("web")
            ready = [i for i in all_of_it if i["ready"]]
            most, least = max(most, len([i for i in all_of_it if i["state"] != "stopping"])), min(least, len(ready))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        cluster.deploy("shop", text("two"))
    finally:
        over.set()
        counting.join()
    assert most <= 3 and least >= 2
    done = cluster.deploy("shop", text("three").replace("[service.env]", '[service.env]\nREADY_AFTER_MS = "600000"'), check=False)
    assert done.returncode == 1
    assert cluster.service("web")["rollout"]["state"] == "failed"
    assert len([i for i in cluster.instances("web") if i["revision"] == 2 and i["ready"]]) == 2


def test_the_nodes_own_network(cluster):
    settings(cluster, "[policy]\nallow_host_network = true")
    text = WEB.replace("port = 8080", 'port = 18190\nnetwork = "host"').replace("[service.env]", '[service.env]\nPORT = "18190"')
    cluster.deploy("shop", text)
    assert cluster.containers("shop/web")[0]["HostConfig"]["NetworkMode"] == "host"
    assert cluster.instances("web")[0]["address"] == cluster.address
    assert wait_for(lambda: cluster.get("web.test")).text == "one\n"
    cluster.deploy("shop", text.replace('"one"', '"two"'))  # its port is the node's: the old one goes first
    wait_for(lambda: cluster.get("web.test").text == "two\n")


def test_a_remembered_port_that_is_another_s_at_the_start(cluster):
    settings(cluster, "[proxy]\nhttp_port = 8183")
    wait_for(lambda: not closed(cluster, 8183))
    cluster.stop()
    with socket.create_server((cluster.address, 8183)):
        cluster.start()
        assert wait_for(lambda: page(cluster, cluster.ports["http"]))[1] == 404
        wait_for(lambda: "n1: the proxy can't listen on port 8183" in cluster.ctl("status").stdout)
    assert wait_for(lambda: page(cluster, 8183))[1] == 404
    wait_for(lambda: closed(cluster, cluster.ports["http"]))
