"""Probes against real containers: quick when ready at once, patient with slow starters, restarts what is not alive, unmoved by its own death."""
import time

from orca import APP, Loop, wait_for


def spec(probes, env="", min_ready="0s"):
    return f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
stop_grace = "1s"
[service.env]
TEXT = "one"
{env}
[service.deploy]
min_ready = "{min_ready}"
timeout = "30s"
{probes}
"""


HTTP = '[service.readiness]\npath = "/healthz"\ninterval_secs = 10\n'


def event_times(cluster):
    """Seconds from the log of the agent: when the container started, when it was ready."""
    found = {}
    for line in cluster.log("agent").splitlines():
        for what in ("instance.started", "instance.ready"):
            if f'msg="{what}"' in line and what not in found:
                clock = line.split("T", 1)[1].split("Z", 1)[0].split(":")
                found[what] = int(clock[0]) * 3600 + int(clock[1]) * 60 + float(clock[2])
    return found


def test_ready_at_once_is_seen_at_once(cluster):
    cluster.deploy("shop", spec(HTTP))
    times = event_times(cluster)
    assert times["instance.ready"] - times["instance.started"] < 0.25


def test_ready_later_is_seen_long_before_the_interval(cluster):
    began = time.monotonic()
    cluster.deploy("shop", spec(HTTP, env='READY_AFTER_MS = "700"'))
    assert time.monotonic() - began < 6


def test_tcp_and_exec(cluster):
    cluster.deploy("shop", spec("[service.readiness]\ntcp = true\n"))
    wait_for(lambda: cluster.get("web.test").status == 200, message="the proxy has the route")
    done = cluster.deploy("shop", spec('[service.readiness]\nexec = ["/no-such-program"]\ninterval_secs = 1\nfailure_threshold = 1\n').replace('"30s"', '"4s"'), check=False)
    assert done.returncode == 1
    assert cluster.get("web.test").status == 200  # it has gone back


def test_a_slow_starter_is_not_killed_by_its_liveness_probe(cluster):
    probes = '[service.startup]\npath = "/healthz"\ninterval_secs = 1\nfailure_threshold = 20\n[service.liveness]\npath = "/healthz"\ninterval_secs = 1\nfailure_threshold = 1\n'
    cluster.deploy("shop", spec(probes, env='READY_AFTER_MS = "4000"'))
    assert cluster.instances("web")[0]["restarts"] == 0


def test_what_is_not_alive_is_restarted(cluster):
    cluster.deploy("shop", spec('[service.liveness]\npath = "/healthz"\ninterval_secs = 1\nfailure_threshold = 2\n'))
    pid = cluster.containers("shop/web")[0]["State"]["Pid"]
    cluster.get("web.test", "/unhealthy")
    wait_for(lambda: cluster.running("shop/web") and cluster.running("shop/web")[0]["State"]["Pid"] not in (0, pid))
    wait_for(lambda: cluster.instances("web")[0]["restarts"] == 1)
    assert "liveness" in cluster.log("agent")


def test_the_keeper_dies_and_nobody_notices(cluster):
    cluster.deploy("shop", spec('[service.readiness]\npath = "/healthz"\ninterval_secs = 1\nfailure_threshold = 1\n[service.liveness]\npath = "/healthz"\ninterval_secs = 1\n'))
    before = cluster.containers("shop/web")[0]["State"]
    with Loop(cluster, "web.test") as loop:
        for _ in range(3):
            cluster.kill("keeper")
            time.sleep(1)
    assert loop.failed == []
    after = cluster.containers("shop/web")[0]["State"]
    assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"])
    # And it still sees what happens.
    cluster.get("web.test", "/unhealthy")
    wait_for(lambda: cluster.get("web.test").status == 503 or cluster.instances("web")[0]["restarts"] >= 1)
