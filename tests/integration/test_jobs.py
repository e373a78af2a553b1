"""What runs to its end: once, on a schedule, on demand; with retries, time limits, overlap; over crashes of the scheduler and the agent."""
import io
import json
import os
import signal
import subprocess
import tarfile
import time

import pytest
from orca import Cluster, docker, wait_for

IMAGE = f"orca-test/job-{os.getpid()}:1"  # one of each worker's own


@pytest.fixture(scope="module", autouse=True)
def image():
    """A shell, and nothing else; gone when the clusters are."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
        for name in ("tmp", "data"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(folder)
    subprocess.run(["docker", "import", "-", IMAGE], input=layer.getvalue(), check=True, capture_output=True)
    yield IMAGE
    docker("rmi", "-f", IMAGE, check=False)


@pytest.fixture(scope="module")
def shared(image):  # noqa: ARG001
    with Cluster() as c:
        yield c


def job(name, script, rules=""):
    return f'[[job]]\nname = "{name}"\nimage = "{IMAGE}"\nentrypoint = ["/bin/busybox", "sh", "-c"]\ncommand = ["{script}"]\nstop_grace = "1s"\n{rules}\n'


def detail(cluster, name, project="shop"):
    return cluster.api("GET", f"/api/v1/jobs/{name}?project={project}").json()


def runs(cluster, name, project="shop"):
    """Oldest first."""
    return list(reversed(detail(cluster, name, project)["job"]["runs"]))


def ended(cluster, name, count=1, timeout=30):
    def look():
        all_runs = runs(cluster, name)
        over = [r for r in all_runs if r["state"] not in ("pending", "running")]
        return over if len(over) >= count else None

    return wait_for(look, timeout, message=f"{count} ended runs of {name}")


def test_a_job_runs_once_per_revision_and_its_exit_code_and_log_are_kept(shared):
    shared.deploy("shop", job("hello", "echo said $WHAT; exit 0", '[job.env]\nWHAT = "one"\n'))
    (run,) = ended(shared, "hello")
    assert run["state"] == "succeeded" and run["exit_code"] == 0 and run["attempts"] == 1 and run["node"] == "n1" and run["by"] == "request"
    wait_for(lambda: "said one" in runs(shared, "hello")[0]["log"], message="the log's end")
    wait_for(lambda: not shared.containers("shop/hello"), message="its container is removed")
    # Again the same: nothing runs.
    reply = json.loads(shared.ctl("-C", str(shared.infra), "deploy", "-o", "json").stdout)
    assert "shop/hello" in json.dumps(reply["plan"] if "plan" in reply else reply)
    time.sleep(0.5)
    assert len(runs(shared, "hello")) == 1
    shared.deploy("shop", job("hello", "echo said $WHAT; exit 0", '[job.env]\nWHAT = "two"\n'))
    second = ended(shared, "hello", 2)[1]
    assert second["run"] == 2 and second["revision"] == 2
    table = shared.ctl("job", "list").stdout
    assert "shop/hello" in table and "succeeded" in table
    history = shared.ctl("job", "history", "hello").stdout
    assert "said two" in history
    kinds = [e["kind"] for e in shared.api("GET", "/api/v1/events?project=shop").json()["events"]]
    assert "job.started" in kinds and "job.succeeded" in kinds and "job.deployed" in kinds


def test_job_run_waits_and_ends_with_the_commands_exit_code(shared):
    shared.deploy("demand", job("code", "echo before the end; exit 42"))
    wait_for(lambda: [r for r in runs(shared, "code", "demand") if r["state"] == "failed"], message="the first run")
    done = shared.ctl("job", "run", "demand/code", check=False)
    assert done.returncode == 42
    assert "before the end" in done.stdout and "failed" in done.stderr
    reply = shared.api("POST", "/api/v1/jobs/code/run?project=demand")
    assert reply.status == 202 and reply.json()["run"] == 3
    assert "job not found" in shared.ctl("job", "run", "nothing", check=False).stderr
    assert shared.api("POST", "/api/v1/jobs/nothing/run").status == 404


def test_what_fails_is_tried_again_and_then_has_failed(shared):
    shared.deploy("tries", job("never", "exit 3", "retries = 2"))
    run = wait_for(lambda: next((r for r in runs(shared, "never", "tries") if r["state"] == "failed"), None), 30, message="failed")
    assert run["attempts"] == 3 and run["exit_code"] == 3
    shared.deploy("tries", job("never", "exit 3", "retries = 2") + job("second", "if [ -e /data/x ]; then exit 0; fi; touch /data/x; exit 1",
                                                                   'retries = 2\nvolumes = ["keep:/data"]'))
    run = wait_for(lambda: next((r for r in runs(shared, "second", "tries") if r["state"] == "succeeded"), None), 30, message="succeeded")
    assert run["attempts"] == 2


def test_what_cannot_be_started_fails_with_the_reason(shared):
    text = job("broken", "exit 0").replace('"/bin/busybox", "sh", "-c"', '"/no/such/program"')
    shared.deploy("broken", text)
    run = wait_for(lambda: next((r for r in runs(shared, "broken", "broken") if r["state"] == "failed"), None), 40, message="failed")
    assert "/no/such/program" in run["reason"] and run["exit_code"] is None


def test_a_run_that_takes_too_long_is_stopped(shared):
    shared.deploy("slow", job("sleeper", "sleep 600", 'timeout = "1s"'))
    run = wait_for(lambda: next((r for r in runs(shared, "sleeper", "slow") if r["state"] == "timed_out"), None), 30, message="timed out")
    assert "timeout" in run["reason"]
    wait_for(lambda: not shared.containers("slow/sleeper"), 30, message="stopped and removed")


def test_a_schedule_of_every_second_runs_each_once_and_is_pruned(shared):
    shared.deploy("tick", job("often", "true", 'schedule = "* * * * * *"\noverlap = "allow"\nhistory = 5'))
    wait_for(lambda: len([r for r in runs(shared, "often", "tick") if r["state"] == "succeeded"]) >= 4, 40, message="runs")
    listed = runs(shared, "often", "tick")
    ticks = [r["scheduled"] for r in listed]
    assert len(set(ticks)) == len(ticks) and all(r["by"] == "schedule" for r in listed)
    wait_for(lambda: runs(shared, "often", "tick")[0]["run"] > 2, 30, message="old runs are forgotten")
    assert len([r for r in runs(shared, "often", "tick") if r["state"] == "succeeded"]) <= 5
    status = shared.api("GET", "/api/v1/jobs?project=tick").json()["jobs"][0]
    assert status["schedule"] == "* * * * * *" and status["next"]
    # Stopped: no ticks.
    assert "stopped" in shared.ctl("job", "stop", "tick/often").stdout
    wait_for(lambda: not shared.containers("tick/often"), message="nothing of it runs")
    last = runs(shared, "often", "tick")[-1]["run"]
    time.sleep(2.2)
    assert runs(shared, "often", "tick")[-1]["run"] == last
    assert shared.api("POST", "/api/v1/jobs/often/run?project=tick").status == 409
    # Pruned with what is no longer written.
    shared.deploy("tick", job("other", "true"), "--prune", "--yes")
    assert shared.api("GET", "/api/v1/jobs/often?project=tick").status == 404
    wait_for(lambda: [j["name"] for j in shared.api("GET", "/api/v1/jobs?project=tick").json()["jobs"]] == ["other"])


@pytest.mark.parametrize("overlap", ["forbid", "replace"])
def test_overlap(shared, overlap):
    name = f"lap-{overlap}"
    shared.deploy(name, job("long", "sleep 600", f'schedule = "* * * * * *"\noverlap = "{overlap}"\nhistory = 100'))
    if overlap == "forbid":
        wait_for(lambda: len([r for r in runs(shared, "long", name) if r["state"] == "skipped"]) >= 2, 30, message="skipped ticks")
        listed = runs(shared, "long", name)
        assert listed[0]["state"] in ("running", "pending") and len([r for r in listed if r["state"] == "running"]) <= 1
    else:
        wait_for(lambda: len([r for r in runs(shared, "long", name) if r["state"] == "stopped"]) >= 2, 30, message="replaced runs")
    assert len([c for c in shared.containers(f"{name}/long") if c["State"]["Running"]]) <= 1
    shared.ctl("job", "rm", f"{name}/long", "--yes")
    wait_for(lambda: not shared.containers(f"{name}/long"), 20, message="its containers are gone")
    assert shared.api("GET", f"/api/v1/jobs/long?project={name}").status == 404


def test_tasks(shared):
    done = shared.ctl("run", IMAGE, "--name", "once", "-e", "A=b c", "-m", "32Mi", "--cpu", "0.5", "--", "/bin/busybox", "sh", "-c", "echo $A; exit 7", check=False)
    assert done.returncode == 7 and "b c" in done.stdout
    assert shared.ctl("run", IMAGE, "--", "/bin/busybox", "true").returncode == 0
    body = {"image": IMAGE, "command": ["/bin/busybox", "sleep", "600"], "memory": "32Mi", "cpu": 0.1, "portBindings": {"80/tcp": "18080"},
            "nodeSelectors": {}, "restartPolicy": "no", "name": "held"}
    reply = shared.api("POST", "/tasks", body)
    assert reply.status == 202 and reply.json()["job"] == "default/held"
    wait_for(lambda: shared.running("default/held"), message="running")
    container = shared.running("default/held")[0]
    assert container["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] == "18080"
    assert container["HostConfig"]["RestartPolicy"]["Name"] in ("no", "") and container["HostConfig"]["Memory"] == 32 << 20
    assert "default/held.1" in shared.ctl("ps").stdout
    assert shared.api("POST", "/api/v1/tasks", body).status == 409
    assert [t["name"] for t in shared.api("GET", "/tasks").json()["tasks"] if t["status"] == "running"] == ["held"]
    assert "default/held" not in shared.ctl("job", "list").stdout
    shared.ctl("job", "rm", "held", "--yes")
    wait_for(lambda: not shared.containers("default/held"), 20, message="gone")


@pytest.mark.parametrize("bad", [
    {"image": IMAGE, "restartPolicy": "always"}, {"image": IMAGE, "privileged": True}, {"image": IMAGE, "portBindings": {"80/tcp": "0"}},
    {"image": IMAGE, "portBindings": {"80/sctp": "80"}}, {"image": IMAGE, "name": "../x"}, {"image": "a b"}, {}, {"image": IMAGE, "command": "sh -c x"},
    {"image": IMAGE, "memory": "1"}, {"image": IMAGE, "cpu": -1}, {"image": IMAGE, "env": {"A B": "c"}}, {"image": IMAGE, "nodeSelectors": []},
    {"image": IMAGE, "mounts": ["/:/host"]}, {"image": IMAGE, "labels": {"orca.cluster": "x"}},
])
def test_hostile_tasks_are_refused(shared, bad):
    reply = shared.api("POST", "/api/v1/tasks", bad)
    assert reply.status in (400, 403, 422), reply.text
    assert reply.json()["error"]


@pytest.mark.parametrize("line, says", [
    ("port = 80", "is of a [[service]]"), ('restart = "always"', "is of a [[service]]"), ("replicas = 2", "is of a [[service]]"),
    ('domain = "x.test"', "is of a [[service]]"), ('schedule = "* * *"', "must be cron"), ('schedule = "0 0 0 30 2 *"', "never happens"),
    ('schedule = "@daily"\ntz = "Mars/Olympus"', "time zone"), ('schedule = "@daily"\ntz = "../../etc/passwd"', "time zone"), ('tz = "UTC"', "without a `schedule`"),
    ("privileged = true", "allow_privileged"), ('mounts = ["/:/host"]', "allow_host_paths"), ('mounts = ["/var/run/docker.sock:/s"]', "allow_host_paths"),
    ('network = "host"', "allow_host_network"), ('caps = ["SYS_ADMIN"]', "allow_caps"), ('devices = ["/dev/kmsg"]', "allow_devices"), ("retries = -1", "between"),
    ('overlap = "never"', "must be one of"), ('timeout = "1ms"', "between"), ("history = 0", "between"),
])
def test_hostile_jobs_are_refused_with_their_place(shared, line, says):
    done = shared.deploy("hostile", f'[[job]]\nname = "x"\nimage = "{IMAGE}"\n{line}\n', "--dry-run", check=False)
    shared.write("hostile", "")
    assert done.returncode == 1
    assert says in done.stderr, done.stderr
    # What only the cluster can judge is told by its place in what was sent.
    assert "services/hostile/service.toml:" in done.stderr or ("allow_" in says and "jobs[" in done.stderr), done.stderr


def test_a_name_is_a_jobs_or_a_services(shared):
    text = f'[[service]]\nname = "both"\nimage = "{IMAGE}"\ncommand = ["/bin/busybox", "sleep", "600"]\n'
    done = shared.deploy("clash", text + job("both", "true"), check=False)
    assert done.returncode == 1 and "as a service and as a job, first at services/clash/service.toml:1:1" in done.stderr
    shared.deploy("clash", job("both", "true"))
    done = shared.deploy("clash", text, check=False)
    shared.write("clash", job("both", "true"))
    assert done.returncode == 1 and "is deployed as a job" in done.stderr


def test_a_job_waits_for_a_node_that_fits(shared):
    shared.deploy("big", job("huge", "true", '[job.resources]\nmemory = "8Ti"\n'))
    run = wait_for(lambda: next((r for r in runs(shared, "huge", "big") if "memory" in r["reason"]), None), message="pending with the reason")
    assert run["state"] == "pending"
    shared.ctl("job", "rm", "big/huge", "--yes")


# ---- crashes


def count_starts(cluster, name):
    """How often its container was started, by Docker's own word."""
    out = docker("events", "--since", "10m", "--until", "0s", "--filter", f"label=orca.cluster={cluster.id}", "--filter", f"label=orca.service={name}", "--filter",
                 "event=start", "--format", "{{.ID}}")
    return len(out.split())


def test_missed_ticks_run_once_and_no_crash_doubles_a_run(cluster):
    cluster.deploy("shop", job("often", "true", 'schedule = "*/2 * * * * *"\nhistory = 200'))
    ended(cluster, "often", 1)
    # The scheduler is away for some ticks, and its lease with it.
    scheduler = cluster.kill("scheduler", signal.SIGSTOP)
    before = runs(cluster, "often")[-1]["run"]
    time.sleep(7)
    assert runs(cluster, "often")[-1]["run"] - before <= 1
    os.kill(scheduler, signal.SIGCONT)
    wait_for(lambda: runs(cluster, "often")[-1]["run"] > before, 30, message="runs again")
    time.sleep(5)
    # One crash after the other.
    for _ in range(3):
        cluster.kill("scheduler")
        time.sleep(2.5)
    wait_for(lambda: len(runs(cluster, "often")) >= 6, 40)
    listed = runs(cluster, "often")
    ticks = [r["scheduled"] for r in listed]
    assert len(set(ticks)) == len(ticks), ticks
    seconds = [time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S")) for t in ticks]
    longest = max(b - a for a, b in zip(seconds, seconds[1:]))
    assert longest >= 4, "ticks were missed"
    assert all(int(s) % 2 == 0 for s in seconds)
    cluster.ctl("job", "stop", "often")
    started = [r for r in runs(cluster, "often") if r["attempts"]]
    assert count_starts(cluster, "often") <= sum(r["attempts"] for r in started)


def test_a_run_goes_on_over_crashes_of_agent_scheduler_and_apiserver(cluster):
    cluster.deploy("shop", job("steady", "echo begun; sleep 12; echo done; exit 5"))
    wait_for(lambda: cluster.running("shop/steady"), message="running")
    container = cluster.running("shop/steady")[0]["Id"]
    for daemon in ("agent", "scheduler", "apiserver"):
        cluster.kill(daemon)
        time.sleep(0.7)
    # An agent that is away for longer than node_ttl, as in its upgrade.
    agent = cluster.kill("agent", signal.SIGSTOP)
    cluster.wait_healthy(40)
    wait_for(lambda: cluster.api("GET", "/api/v1/nodes").json()["nodes"][0]["state"] == "unreachable", 40, message="unreachable")
    os.kill(agent, signal.SIGCONT)
    cluster.wait_healthy(40)
    wait_for(lambda: runs(cluster, "steady")[0]["state"] == "failed", 40, message="it has ended")
    (run,) = runs(cluster, "steady")
    assert run["exit_code"] == 5 and run["attempts"] == 1
    assert count_starts(cluster, "steady") == 1
    assert container
    wait_for(lambda: not cluster.containers("shop/steady"), message="removed")
    wait_for(lambda: "done" in runs(cluster, "steady")[0]["log"], 5, message="log")


def test_stopping_everything_stops_jobs(cluster):
    cluster.deploy("shop", job("forever", "sleep 600", 'schedule = "@yearly"'))
    cluster.ctl("job", "run", "forever", "--no-wait")
    wait_for(lambda: cluster.running("shop/forever"), message="running")
    reply = cluster.api("POST", "/api/v1/stop").json()
    assert "shop/forever" in reply["stopped"]
    wait_for(lambda: not cluster.containers("shop/forever"), 20, message="stopped")
    assert runs(cluster, "forever")[-1]["state"] == "stopped"
    # A deploy starts what was stopped.
    cluster.ctl("-C", str(cluster.infra), "deploy")
    assert detail(cluster, "forever")["job"]["stopped"] is False
