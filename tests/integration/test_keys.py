"""Every key that is taken has its effect: those of cluster.toml without a restart, those of service.toml in the container."""
import os
import signal

from orca import DAEMONS, wait_for


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
