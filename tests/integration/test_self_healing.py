"""Crashes, crash loops, failing probes; every daemon killed in turn; two clusters on one Docker."""
import json
import os
import signal
import time

import pytest
from orca import APP, DAEMONS, Cluster, Loop, busybox_image, docker, wait_for

WEB = f"""
[[service]]
name = "web"
image = "{APP}"
port = 8080
domain = "web.test"
env = {{ TEXT = "one" }}
[service.deploy]
min_ready = "100ms"
[service.readiness]
path = "/healthz"
interval_secs = 1
failure_threshold = 1
"""


def test_a_crashed_container_is_started_again_at_once(cluster):
    cluster.deploy("shop", WEB)
    before = cluster.containers("shop/web")[0]
    os.kill(before["State"]["Pid"], 9)
    after = wait_for(lambda: [c for c in cluster.running("shop/web") if c["State"]["Pid"] not in (0, before["State"]["Pid"])])[0]
    assert after["Id"] == before["Id"]
    wait_for(lambda: cluster.get("web.test").status == 200)
    assert wait_for(lambda: cluster.instances("web")[0]["restarts"]) == 1


def test_a_crash_loop_backs_off_and_is_named(cluster):
    cluster.write("shop", f'[[service]]\nname = "bad"\nimage = "{APP}"\nenv = {{ EXIT_AFTER_MS = "10", EXIT_CODE = "7" }}\n[service.deploy]\nauto_rollback = false\n')
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    instance = wait_for(lambda: next((i for i in cluster.instances("bad") if i["restarts"] >= 4), None))
    assert instance["exit_code"] == 7
    status = wait_for(lambda: (lambda s: s if "backoff" in s.lower() or "crash" in s.lower() else None)(cluster.ctl("status").stdout + cluster.ctl("ps").stdout))
    assert "bad" in status
    restarts = cluster.instances("bad")[0]["restarts"]
    time.sleep(2)
    assert cluster.instances("bad")[0]["restarts"] <= restarts + 3


@pytest.mark.parametrize("policy,code,again", [("never", 3, False), ("on-failure", 0, False), ("on-failure", 3, True)])
def test_restart_policies(cluster, policy, code, again):
    cluster.write("shop", f'[[service]]\nname = "job"\nimage = "{APP}"\nrestart = "{policy}"\nenv = {{ EXIT_AFTER_MS = "300", EXIT_CODE = "{code}" }}\n')
    cluster.ctl("-C", str(cluster.infra), "deploy", "--no-wait")
    wait_for(lambda: cluster.containers("shop/job") and cluster.instances("job")[0]["exit_code"] == code and not cluster.running("shop/job"))
    time.sleep(1)
    assert bool(cluster.instances("job")[0]["restarts"]) == again


def test_failing_readiness_takes_it_out_of_the_routes_and_back(cluster):
    cluster.deploy("shop", WEB)
    before = cluster.containers("shop/web")[0]["State"]["Pid"]
    cluster.get("web.test", "/unhealthy")
    wait_for(lambda: cluster.get("web.test").status == 503)
    address = cluster.instances("web")[0]["address"]
    import http.client
    direct = http.client.HTTPConnection(address, 8080, timeout=5)
    direct.request("GET", "/healthy")
    direct.getresponse().read()
    direct.close()
    wait_for(lambda: cluster.get("web.test").status == 200)
    assert cluster.containers("shop/web")[0]["State"]["Pid"] == before


def test_failing_liveness_restarts_it(cluster):
    cluster.deploy("shop", WEB.replace("[service.readiness]", "[service.liveness]").replace("failure_threshold = 1", "failure_threshold = 2"))
    before = cluster.containers("shop/web")[0]["State"]["Pid"]
    cluster.get("web.test", "/unhealthy")
    wait_for(lambda: cluster.running("shop/web") and cluster.running("shop/web")[0]["State"]["Pid"] != before)
    wait_for(lambda: "liveness" in json.dumps(cluster.service("web")) or "liveness" in cluster.ctl("events").stdout)


def test_a_slow_starter_is_not_killed(cluster):
    spec = WEB.replace("env = { TEXT", 'env = { READY_AFTER_MS = "3000", TEXT').replace("[service.readiness]", "[service.startup]").replace(
        "failure_threshold = 1", "failure_threshold = 30") + '[service.liveness]\npath = "/healthz"\ninterval_secs = 1\nfailure_threshold = 1\n'
    cluster.deploy("shop", spec)
    assert cluster.instances("web")[0]["restarts"] == 0


def test_exec_probes_run_in_the_container(cluster):
    image = "orca-test/shell:1"
    import subprocess
    tar = subprocess.run(["tar", "-C", "/bin", "-c", "busybox"], capture_output=True, check=True).stdout
    subprocess.run(["docker", "import", "-", image], input=tar, check=True, capture_output=True)
    spec = f"""
[[service]]
name = "sh"
image = "{image}"
command = ["/busybox", "sh", "-c", "sleep 1; echo > /ready; exec /busybox sleep 1000"]
stop_signal = "SIGKILL"
[service.deploy]
min_ready = "100ms"
[service.readiness]
exec = ["/busybox", "test", "-e", "/ready"]
interval_secs = 1
"""
    try:
        cluster.deploy("shop", spec)
        assert cluster.instances("sh")[0]["ready"]
        done = cluster.deploy("shop", spec.replace('"/ready"]', '"/nothing"]').replace('min_ready = "100ms"', 'timeout = "3s"'), check=False)
        assert done.returncode == 1
    finally:
        cluster.ctl("--yes", "rm", "sh", "--purge")
        wait_for(lambda: not cluster.containers("shop/sh"))
        docker("image", "rm", image)


def test_a_probe_that_hangs_does_not_outlive_its_agent(cluster):
    image = "orca-test/hangs:1"
    busybox_image(image, "sh", "sleep")
    spec = f'[[service]]\nname = "sh"\nimage = "{image}"\n[service.deploy]\nmin_ready = "0s"\n[service.readiness]\nexec = ["/bin/sleep", "700"]\ninterval_secs = 60\ntimeout_secs = 50\n'

    def probes():
        return docker("top", cluster.running("shop/sh")[0]["Id"], "-eo", "pid,args").count("sleep 700")

    try:
        cluster.deploy("shop", spec, "--no-wait")
        wait_for(lambda: cluster.running("shop/sh") and probes() == 1, 15, message="the probe hangs")
        cluster.kill("keeper", signal.SIGSTOP)  # it would ask again
        cluster.kill("agent")
        wait_for(lambda: probes() == 0, 15, message="its command is ended")
    finally:
        cluster.kill("keeper", signal.SIGCONT)
        cluster.ctl("--yes", "rm", "sh", "--purge")
        wait_for(lambda: not cluster.containers("shop/sh"))
        docker("image", "rm", image)


def test_every_daemon_killed_in_turn_changes_no_container(cluster):
    cluster.deploy("shop", WEB)
    before = cluster.containers("shop/web")[0]["State"]
    for n, daemon in enumerate(DAEMONS):
        with Loop(cluster, "web.test") as loop:
            time.sleep(0.2)
            killed = cluster.kill(daemon)
            wait_for(lambda d=daemon, k=killed: cluster.pid(d) != k, message=f"{daemon} started again")
            time.sleep(0.5)
        if daemon != "proxy":
            assert loop.failed == [], daemon
        else:
            assert loop.outage() < 1.0
        cluster.wait_healthy()
        after = cluster.containers("shop/web")[0]["State"]
        assert (after["Pid"], after["StartedAt"]) == (before["Pid"], before["StartedAt"]), daemon
        cluster.deploy("other", f'[[service]]\nname = "s{n}"\nimage = "{APP}"\n[service.deploy]\nmin_ready = "100ms"\n')
        assert cluster.running(f"other/s{n}"), daemon


def test_a_node_with_more_to_run_than_one_message_holds(cluster):
    lines = "".join(f'V{n} = "{str(n % 10) * 30000}"\n' for n in range(20))
    spec = f'[[service]]\nname = "large"\nimage = "{APP}"\nreplicas = 20\n[service.env]\n{lines}[service.deploy]\nmin_ready = "100ms"\n'
    cluster.deploy("shop", spec)
    before = sorted((c["Id"], c["State"]["StartedAt"]) for c in cluster.containers("shop/large"))
    assert len(before) == 20
    for daemon in ("agent", "apiserver"):
        killed = cluster.kill(daemon)
        wait_for(lambda d=daemon, k=killed: cluster.pid(d) != k, message=f"{daemon} started again")
        cluster.wait_healthy()
        wait_for(lambda: len(cluster.running("shop/large")) == 20)
        cluster.ctl("scale", "large", "19")
        wait_for(lambda: len(cluster.containers("shop/large")) == 19)
        cluster.ctl("scale", "large", "20")
        wait_for(lambda: len(cluster.running("shop/large")) == 20)
    after = sorted((c["Id"], c["State"]["StartedAt"]) for c in cluster.containers("shop/large"))
    assert len(set(before) & set(after)) == 19  # what was taken away and made again is one of them
    assert "does not fit" not in cluster.log("apiserver")


def test_two_agents_on_one_docker_never_touch_each_others(cluster):
    cluster.deploy("shop", WEB)
    mine = [c["Id"] for c in cluster.containers()]
    with Cluster() as other:
        other.deploy("shop", WEB.replace('"one"', '"other"'))
        assert other.get("web.test").text == "other\n"
        other.kill("agent")
        other.wait_healthy()
        other.ctl("--yes", "rm", "web", "--purge")
        wait_for(lambda: not other.containers())
        bystander = docker("run", "-d", "--network", "none", "--label", f"orca.cluster={other.id}x", APP)
        try:
            other.kill("agent")
            time.sleep(2)
            assert [c["Id"] for c in cluster.containers()] == mine
            assert docker("inspect", "-f", "{{.State.Running}}", bystander) == "true"
        finally:
            docker("rm", "-f", bystander)
    assert cluster.get("web.test").text == "one\n"
