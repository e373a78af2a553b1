"""A changed deploy replaces instances one by one without a failed request; a broken one goes back by itself."""
import subprocess

import pytest
from orca import APP, Loop, wait_for


def spec(text, replicas=3, extra="", env=""):
    return f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
replicas = {replicas}
health = "/healthz"
stop_grace = "2s"
{extra}
[service.env]
TEXT = "{text}"
{env}
[service.deploy]
min_ready = "200ms"
timeout = "20s"
[service.readiness]
path = "/healthz"
interval_secs = 1
"""


def test_a_changed_deploy_rolls_without_a_failed_request(cluster):
    cluster.deploy("shop", spec("one"))
    with Loop(cluster, "web.test", "/slow?5") as loop:
        cluster.deploy("shop", spec("two"))
        wait_for(lambda: len(cluster.containers("shop/web")) == 3)
    assert loop.failed == []
    assert loop.texts == {"one", "two"}
    assert cluster.get("web.test").text == "two\n"


def test_the_same_under_many_connections(cluster):
    cluster.deploy("shop", spec("one"))
    url = f"http://{cluster.address}:{cluster.ports['http']}/"
    with subprocess.Popen(["wrk", "-t1", "-c64", "-d8s", "-H", "Host: web.test", url], stdout=subprocess.PIPE, text=True) as wrk:
        cluster.deploy("shop", spec("two"))
        report, _ = wrk.communicate(timeout=30)
    assert "Non-2xx" not in report and "Socket errors" not in report, report


def test_a_broken_version_is_rolled_back_and_said(cluster):
    cluster.deploy("shop", spec("one"))
    before = sorted(c["Id"] for c in cluster.containers("shop/web"))
    with Loop(cluster, "web.test") as loop:
        done = cluster.deploy("shop", spec("two", env='START_DELAY_MS = "60000"\nEXIT_AFTER_MS = "50"'), check=False)
        assert done.returncode == 1
        wait_for(lambda: sorted(c["Id"] for c in cluster.containers("shop/web")) == before, message="the old instances, and only those")
    assert loop.failed == []
    assert loop.texts == {"one"}
    status = cluster.ctl("status").stdout
    assert "rolled back" in (done.stdout + done.stderr + status).lower().replace("_", " ")
    # A restart is of what runs, not of what has failed.
    cluster.ctl("restart", "web")
    wait_for(lambda: len(now := [c["Id"] for c in cluster.running("shop/web")]) == 3 and not set(now) & set(before), message="three new ones")
    assert cluster.get("web.test").text == "one\n"
    # The same broken version again is tried again, not taken for unchanged; a good one is taken.
    cluster.deploy("shop", spec("three"))
    assert cluster.get("web.test").text == "three\n"


def test_rollback_to_an_earlier_revision(cluster):
    cluster.deploy("shop", spec("one", 1))
    cluster.deploy("shop", spec("two", 1))
    cluster.ctl("rollback", "web")
    wait_for(lambda: cluster.get("web.test").text == "one\n")
    cluster.ctl("rollback", "web", "--to", "2")
    wait_for(lambda: cluster.get("web.test").text == "two\n")


def test_what_binds_a_host_port_is_replaced_stop_first(cluster):
    extra = "host_port = 18443"
    cluster.deploy("shop", spec("one", 1, extra))
    first = cluster.containers("shop/web")[0]
    (bindings,) = first["HostConfig"]["PortBindings"].values()
    assert bindings == [{"HostIp": cluster.address, "HostPort": "18443"}]
    cluster.deploy("shop", spec("two", 1, extra))
    (second,) = cluster.containers("shop/web")
    assert second["Id"] != first["Id"] and cluster.get("web.test").text == "two\n"


def test_recreate_stops_all_before_it_starts_any(cluster):
    recreate = spec("one", 2).replace("[service.deploy]", '[service.deploy]\nstrategy = "recreate"')
    cluster.deploy("shop", recreate)
    old = {c["Id"] for c in cluster.containers("shop/web")}
    cluster.write("shop", recreate.replace('"one"', '"two"'))
    deploy = subprocess.Popen([str(__import__("orca").BIN / "orcactl"), "-C", str(cluster.infra), "deploy"], env=cluster.env, stdout=subprocess.DEVNULL)
    mixed = False
    while deploy.poll() is None:
        running = {c["Id"] for c in cluster.running("shop/web")}
        mixed |= bool(running & old) and bool(running - old)
    assert deploy.returncode == 0 and not mixed
    assert cluster.get("web.test").text == "two\n"


@pytest.mark.parametrize("readiness", ["never", "slow"])
def test_a_version_that_is_not_ready_in_time_fails(cluster, readiness):
    env = 'READY_AFTER_MS = "600000"' if readiness == "never" else 'READY_AFTER_MS = "1500"'
    cluster.deploy("shop", spec("one", 1))
    done = cluster.deploy("shop", spec("two", 1, env=env).replace('timeout = "20s"', 'timeout = "4s"').replace('health = "/healthz"', ""), check=False)
    assert (done.returncode == 1) == (readiness == "never")
    wait_for(lambda: cluster.get("web.test").text == ("one\n" if readiness == "never" else "two\n"))
