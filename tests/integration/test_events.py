"""The history: filtered, replayed from a revision, followed over restarts of the apiserver without a gap or a repeat."""
import json
import subprocess
import time

from orca import APP, BIN, wait_for

SPEC = """
[[service]]
name = "{name}"
image = "{image}"
port = 8080
pull = "never"
[service.env]
TEXT = "{text}"
[service.deploy]
min_ready = "0s"
"""


def spec(text, *names):
    return "".join(SPEC.format(name=name, image=APP, text=text) for name in names or ["web"])


def events(c, *args):
    return [json.loads(line) for line in c.ctl("events", "-o", "json", *args).stdout.splitlines()]


def test_filters_and_replay(cluster):
    cluster.deploy("shop", spec("one", "web", "db"))
    everything = events(cluster, "--since", "1h")
    assert [e["revision"] for e in everything] == sorted(e["revision"] for e in everything)
    rollouts = events(cluster, "--kind", "rollout")
    assert rollouts and all(e["kind"].startswith("rollout.") for e in rollouts)
    done = events(cluster, "--kind", "rollout.completed", "--service", "shop/web")
    assert [(e["kind"], e["service"]) for e in done] == [("rollout.completed", "web")]
    assert events(cluster, "--service", "other/web") == [] and events(cluster, "--kind", "roll") == []
    middle = everything[len(everything) // 2]["revision"]
    assert events(cluster, "--since", str(middle)) == [e for e in everything if e["revision"] > middle]


def test_followed_over_restarts_without_gap_or_repeat(cluster):
    cluster.deploy("shop", spec("zero"))
    out = cluster.dir / "events"
    with out.open("w") as to, subprocess.Popen([str(BIN / "orcactl"), "events", "-f", "-o", "json", "--since", "1h"], env=cluster.env, stdout=to) as follower:
        try:
            for n in range(3):
                cluster.deploy("shop", spec(f"text {n}"))
                cluster.kill("apiserver")
                cluster.wait_healthy()
            cluster.deploy("shop", spec("last"))
            last = events(cluster, "--since", "1h")[-1]["revision"]
            wait_for(lambda: any(json.loads(line)["revision"] >= last for line in out.read_text().splitlines()), message="followed to the end")
            time.sleep(0.5)
        finally:
            follower.terminate()
    followed = [json.loads(line) for line in out.read_text().splitlines()]
    whole = [e for e in events(cluster, "--since", "1h") if e["revision"] <= followed[-1]["revision"]]
    assert followed == whole


def test_history_says_who_when_and_what(cluster):
    cluster.deploy("shop", spec("one"))
    cluster.deploy("shop", spec("two"))
    broken = spec("three").replace("[service.deploy]", 'EXIT_AFTER_MS = "50"\n[service.deploy]\ntimeout = "20s"').replace("0s", "2s")
    assert cluster.deploy("shop", broken, check=False).returncode == 1
    told = cluster.api("GET", "/api/v1/services/web/history").json()["revisions"]
    assert [(r["number"], r["state"]) for r in told] == [(3, "rolled back"), (2, "running"), (1, "")]
    assert all(r["created_by"] == "admin" and r["created"] for r in told)
    assert "TEXT" in told[1]["changes"] and "EXIT_AFTER_MS" in told[0]["changes"] and told[2]["changes"] == ""
    text = cluster.ctl("history", "web").stdout
    assert "rolled back" in text and "running" in text and "TEXT" in text
    cluster.ctl("rollback", "web", "--to", "1")
    wait_for(lambda: [r["state"] for r in cluster.api("GET", "/api/v1/services/web/history").json()["revisions"] if r["number"] == 1] == ["running"])
    missing = cluster.ctl("rollback", "web", "--to", "9", check=False)
    assert missing.returncode == 1 and "9" in missing.stderr and "history" in missing.stderr
