"""What the scheduler decides, seen from outside: pending with reasons, dependencies, stop-first, its own death in the middle of a rollout."""
import time

from orca import APP, Loop, wait_for


def spec(name="web", text="one", replicas=1, extra="", tables=""):
    return f"""
[[service]]
name = "{name}"
image = "{APP}"
port = 8080
domain = "{name}.test"
replicas = {replicas}
stop_grace = "1s"
{extra}
[service.env]
TEXT = "{text}"
[service.deploy]
min_ready = "200ms"
timeout = "20s"
[service.readiness]
path = "/healthz"
interval_secs = 1
{tables}
"""


def test_what_fits_nowhere_is_pending_with_a_reason_and_placed_when_it_fits(cluster):
    cluster.write("shop", spec(tables='[service.resources]\nmemory = "900Gi"\n'))
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    instance = wait_for(lambda: next((i for i in cluster.instances("web") if i.get("reason")), None))
    assert "memory: needs 921600 MiB" in instance["reason"]
    explained = cluster.ctl("explain", "web").stdout
    assert "n1" in explained and "memory" in explained
    assert not cluster.containers("shop/web")
    cluster.deploy("shop", spec(tables='[service.resources]\nmemory = "64Mi"\n'))
    assert cluster.get("web.test").text == "one\n"


def test_a_host_port_is_replaced_stop_first(cluster):
    cluster.deploy("shop", spec(extra="host_port = 18080"))
    first = cluster.containers("shop/web")[0]["Id"]
    cluster.deploy("shop", spec(text="two", extra="host_port = 18080"))
    containers = wait_for(lambda: (lambda c: c if len(c) == 1 else None)(cluster.containers("shop/web")))
    assert containers[0]["Id"] != first
    assert cluster.get("web.test").text == "two\n"


def test_dependencies_come_first(cluster):
    api = spec("api", extra='depends_on = ["db"]')
    db = spec("db", tables="").replace('TEXT = "one"', 'TEXT = "db"\nREADY_AFTER_MS = "1500"')
    cluster.write("shop", api + db)
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    reason = wait_for(lambda: next((i["reason"] for i in cluster.instances("api") if i.get("reason")), None))
    assert reason.startswith("waiting for db")
    wait_for(lambda: cluster.get("api.test").status == 200)
    started = {c["Config"]["Labels"]["orca.service"]: c["State"]["StartedAt"] for c in cluster.containers()}
    assert started["db"] < started["api"]


def test_a_rollout_goes_on_after_the_scheduler_was_killed(cluster):
    cluster.deploy("shop", spec(replicas=3))
    with Loop(cluster, "web.test") as loop:
        cluster.write("shop", spec(text="two", replicas=3))
        cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
        for _ in range(6):
            time.sleep(0.3)
            try:
                cluster.kill("scheduler")
            except (OSError, ValueError):
                pass  # it is being started
        wait_for(lambda: cluster.get("web.test").text == "two\n" and len(cluster.running("shop/web")) == 3 and len(cluster.containers("shop/web")) == 3)
        time.sleep(0.5)
        assert sorted(i["revision"] for i in cluster.instances("web")) == [2, 2, 2]
    assert loop.failed == []


def test_scale_and_stop_and_start(cluster):
    cluster.deploy("shop", spec())
    first = cluster.containers("shop/web")[0]["Id"]
    cluster.ctl("scale", "web", "3")
    wait_for(lambda: len(cluster.running("shop/web")) == 3)
    cluster.ctl("scale", "web", "1")
    wait_for(lambda: [c["Id"] for c in cluster.containers("shop/web")] == [first], message="the newest go first")
    cluster.ctl("stop", "web", "-y")
    wait_for(lambda: cluster.containers("shop/web") == [])
    cluster.ctl("start", "web")
    wait_for(lambda: cluster.get("web.test").status == 200)
