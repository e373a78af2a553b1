"""Docker stopped, restarted and killed beneath a node (an engine of the test's own, so that nobody else's is touched)."""
import signal
import time

import pytest
from orca import APP, Cluster, wait_for
from private_docker import PrivateDocker

WEB = f"""
[[service]]
name = "web"
image = "{APP}"
replicas = 2
env = {{ TEXT = "one" }}
[service.deploy]
min_ready = "100ms"
"""


@pytest.fixture
def engine():
    with PrivateDocker() as d:
        d.load()
        yield d


def running(engine):
    return engine.docker("ps", "-q", "--no-trunc").split()


def settled(cluster, engine):
    """Both instances are ready, at the addresses that Docker gave them."""
    said = {i["container_id"][:12]: i["address"] for i in cluster.instances("web") if i["ready"]}
    given = {cid[:12]: engine.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", cid) for cid in running(engine)}
    return len(said) == 2 and said == given


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL])
def test_docker_restarted_beneath(engine, signo):
    with Cluster(docker_socket=engine.socket) as c:
        c.deploy("shop", WEB)
        assert len(running(engine)) == 2
        before = set(engine.docker("ps", "-aq", "--no-trunc").split())
        engine.stop(signo)
        node = wait_for(lambda: next((n for n in c.api("GET", "/api/v1/nodes").json()["nodes"] if n["state"] == "degraded"), None), message="the node says that Docker is away")
        assert node["reason"]
        time.sleep(0.5)
        engine.start()
        wait_for(lambda: len(running(engine)) == 2 and settled(c, engine), 30)
        # No more than there were: adopted, or, where the dying engine left one that can't be started, made anew in its place.
        wait_for(lambda: len(engine.docker("ps", "-aq", "--no-trunc").split()) == len(before))
        wait_for(lambda: "running" in c.ctl("status").stdout)


def test_a_container_removed_behind_its_back_is_made_again(engine):
    with Cluster(docker_socket=engine.socket) as c:
        c.deploy("shop", WEB)
        victim = running(engine)[0]
        engine.docker("rm", "-f", victim)
        wait_for(lambda: len(running(engine)) == 2 and victim not in running(engine))
        wait_for(lambda: settled(c, engine))
