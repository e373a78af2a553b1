"""`orcactl plan` says what a deploy would do: the diff, then what is created and stopped, in order and where; and then the deploy does just that."""
import json
import os
import signal

from orca import APP, Cluster, wait_for

SPEC = """
[[service]]
name = "web"
image = "{image}"
port = 8080
replicas = {replicas}
pull = "never"
depends_on = ["db"]
[service.env]
TEXT = "{text}"
[service.deploy]
min_ready = "0s"

[[service]]
name = "db"
image = "{image}"
port = 8080
pull = "never"
{more}
"""


def spec(replicas=2, text="one", more=""):
    return SPEC.format(image=APP, replicas=replicas, text=text, more=more)


def plan(c, *args):
    return c.ctl("-C", str(c.infra), "plan", *args).stdout


def steps(c):
    return json.loads(plan(c, "-o", "json"))["steps"]


def test_plan_tells_what_deploy_then_does():
    with Cluster() as c:
        c.write("shop", spec())
        wait_for(lambda: steps(c) is not None, message="a scheduler is connected")
        told = steps(c)
        created = [s["instance"] for s in told if s["action"] == "create"]
        assert created[0] == "shop/db.1" and sorted(created[1:]) == ["shop/web.1", "shop/web.2"]
        assert all(s["node"] == "n1" and s["verdicts"][0]["chosen"] for s in told if s["action"] == "create")
        assert any(s["action"] == "wait" and "waiting for" in s["reason"] for s in told)
        assert c.api("GET", "/api/v1/status").json()["services"] == []  # nothing of it has happened

        c.deploy("shop", spec())
        assert sorted(i["id"] for i in c.instances("web")) == ["shop/web.1", "shop/web.2"]
        assert plan(c).startswith("Nothing to do")

        c.write("shop", spec(text="two"))
        text = plan(c)
        assert '-TEXT = "one"' in text and '+TEXT = "two"' in text
        order = [(s["action"], s["instance"]) for s in steps(c)]
        assert order == [("create", "shop/web.3"), ("stop", "shop/web.1"), ("create", "shop/web.4"), ("stop", "shop/web.2")]
        assert "1. + create shop/web.3 on n1" in text

        c.write("shop", spec(more='[service.resources]\nmemory = "900Gi"'))
        text = plan(c)
        assert "! blocked shop/db." in text and "memory: needs 921600 MiB" in text


def test_plan_without_a_scheduler_says_so():
    with Cluster() as c:
        wait_for(lambda: c.ctl("status").returncode == 0)
        c.write("shop", spec())
        pid = c.pid("scheduler")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: steps(c) is None, timeout=30, message="the plan goes without steps")
            text = plan(c)
            assert "is not known" in text and "+ shop/web" in text
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: steps(c), message="a scheduler is connected again")
