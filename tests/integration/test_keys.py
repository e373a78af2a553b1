"""Every key that is taken has its effect: those of cluster.toml without a restart, those of service.toml in the container."""
import http.client
import os
import signal
import socket

from orca import APP, DAEMONS, wait_for

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
