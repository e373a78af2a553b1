"""`orcactl explain` and the first line of `orcactl status`: what is wrong and why, for each way in which a service can be not well."""
import os
import signal

from orca import APP, wait_for


def spec(name="web", image=APP, env="", extra="", domain=True, more=""):
    return f"""
[[service]]
name = "{name}"
image = "{image}"
port = 8080
pull = "never"
{f'domain = "{name}.test"' if domain else ''}
{extra}
[service.env]
TEXT = "one"
{env}
[service.deploy]
min_ready = "0s"
{more}
"""


def explain(c, name):
    return c.api("GET", f"/api/v1/services/{name}/explain").json()


def summary(c):
    return c.api("GET", "/api/v1/status").json()["summary"]


def headline(c):
    return c.ctl("status").stdout.splitlines()[0]


def test_a_service_that_is_well(cluster):
    cluster.deploy("shop", spec())
    wait_for(lambda: headline(cluster).startswith("All is well: 1 service, 1 of 1 instance ready"))
    told = wait_for(lambda: (e := explain(cluster, "web")) and all(p["up_to_date"] for p in e["route"]["proxies"]) and e)
    instance = told["instances"][0]
    assert told["route"]["domains"] == ["web.test"] and told["route"]["endpoints"] == 1
    assert instance["receives"] and instance["receives_not"] == "" and instance["last_end"] is None
    assert instance["verdicts"] == [{"node": "n1", "chosen": True, "fits": True, "reason": instance["verdicts"][0]["reason"]}]
    text = cluster.ctl("explain", "web").stdout
    assert "route web.test /* -> 1 of 1 instance" in text and "receives requests" in text and "chosen" in text


def test_pending_for_memory(cluster):
    cluster.deploy("shop", spec(extra="", more='[service.resources]\nmemory = "900Gi"'), "--no-wait")
    wait_for(lambda: headline(cluster).startswith("Not well: shop/web is pending: no node fits: n1: memory: needs"))
    instance = explain(cluster, "web")["instances"][0]
    assert instance["node"] == "" and not instance["receives"] and instance["receives_not"].startswith("it has no node yet: no node fits")
    assert "does not fit" in cluster.ctl("explain", "web").stdout


def test_crash_loop_with_its_last_words(cluster):
    cluster.deploy("shop", spec(env='EXIT_AFTER_MS = "100"\nEXIT_CODE = "3"'), "--no-wait")
    wait_for(lambda: "crash loop" in headline(cluster) or "failed" in headline(cluster), 40)
    told = wait_for(lambda: (i := explain(cluster, "web")["instances"]) and i[0]["last_end"] and i[0]["restarts"] >= 2 and i[0])
    assert "3" in told["last_end"]["by"] or told["last_end"]["exit_code"] == 3
    assert not told["receives"]
    text = cluster.ctl("explain", "web").stdout
    assert "last ended" in text and "restarts)" in text and "receives no requests" in text


def test_not_ready_says_the_probe(cluster):
    cluster.deploy("shop", spec(more='[service.readiness]\ntcp = true\nport = 9\ninterval_secs = 1'), "--no-wait")
    told = wait_for(lambda: (i := explain(cluster, "web")["instances"]) and "readiness" in i[0]["receives_not"] and i[0], 30)
    assert told["receives_not"].startswith("not ready: readiness:") and not told["receives"]
    text = cluster.ctl("explain", "web").stdout
    assert "-> 0 of 1 instance: requests are answered with 503" in text or "no route" in text


def test_waits_for_another_service(cluster):
    cluster.deploy("shop", spec(name="db", domain=False, env='START_DELAY_MS = "60000"', more='[service.readiness]\npath = "/"\ninterval_secs = 1') +
                   spec(name="web", extra='depends_on = ["db"]'), "--no-wait")
    told = wait_for(lambda: (e := explain(cluster, "web")) and e["depends_on"] and not e["depends_on"][0]["satisfied"] and e)
    assert told["depends_on"][0]["service"] == "shop/db"
    assert "waits for shop/db" in cluster.ctl("explain", "web").stdout
    assert explain(cluster, "db")["no_route"].startswith("it has no domain")


def test_node_and_scheduler_away(cluster):
    cluster.deploy("shop", spec())
    agent = cluster.pid("agent")
    os.kill(agent, signal.SIGSTOP)
    try:
        wait_for(lambda: "node n1 is unreachable" in headline(cluster), 30)
    finally:
        os.kill(agent, signal.SIGCONT)
    wait_for(lambda: headline(cluster).startswith("All is well"), 30)
    store = cluster.pid("store")
    os.kill(store, signal.SIGSTOP)
    try:
        wait_for(lambda: "the store is away" in summary(cluster), 30)
    finally:
        os.kill(store, signal.SIGCONT)
    wait_for(lambda: headline(cluster).startswith("All is well"), 40)
