"""One agent against the real Docker: what it makes, keeps, adopts, restarts and removes."""
import hashlib
import json
import os
import subprocess
import time

from agent_node import IMAGE, Agent, docker, service, wait_for


def pid_and_start(agent, name):
    state = agent.inspect(name)["State"]
    return state["Pid"], state["StartedAt"]


def test_a_container_as_its_spec_says():
    with Agent() as a:
        a.spec('''[[service]]
name = "web"
image = "%s"
command = ["/bin/busybox", "sleep", "1000"]
user = "1000:1000"
workdir = "/tmp"
port = 8080
host_port = 18080
extra_ports = ["18081:81", "18053:53/udp"]
aliases = ["backend"]
stop_signal = "SIGINT"
stop_grace = "3s"
labels = { team = "web" }
[service.env]
PLAIN = "a value"
DOLLAR = "$${x}"
[service.resources]
memory = "64Mi"
cpu = 0.5
pids = 50
''' % IMAGE)
        a.assign("web")
        status = a.status("shop/web.1", phase="running")
        assert status["ready"] and status["address"]
        c = a.inspect(a.name("web"))
        labels = c["Config"]["Labels"]
        assert labels["orca.cluster"] == a.cluster and labels["orca.node"] == "n1" and labels["orca.instance"] == "1" and labels["orca.epoch"] == "1"
        assert labels["team"] == "web" and len(labels["orca.spec"]) == 64
        assert c["Config"]["User"] == "1000:1000" and c["Config"]["WorkingDir"] == "/tmp" and c["Config"]["StopSignal"] == "SIGINT" and c["Config"]["StopTimeout"] == 3
        assert "PLAIN=a value" in c["Config"]["Env"] and "DOLLAR=${x}" in c["Config"]["Env"]
        host = c["HostConfig"]
        assert host["Memory"] == 64 << 20 and host["NanoCpus"] == 500000000 and host["PidsLimit"] == 50 and host["RestartPolicy"]["Name"] in ("", "no")
        assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": str(10 << 20), "max-file": "3", "compress": "false"}}
        assert host["PortBindings"]["8080/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "18080"}]
        assert host["PortBindings"]["53/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "18053"}]
        network = f"orca-{a.cluster[:8]}-shop"
        assert {"web", "backend"} <= set(c["NetworkSettings"]["Networks"][network]["Aliases"])
        image = a.wait(lambda kind, v: kind == "image" and v)
        assert image["image"].startswith("sha256:")
        a.wait(lambda kind, v: kind == "usage" and v["instance"] == "shop/web.1" and v["pids"] >= 1 and v["memory"] > 0)
        a.assign("web", desired="stop")
        a.gone("shop/web.1")
        assert a.containers() == []


def test_agent_restart_keeps_containers():
    with Agent() as a:
        a.spec(service())
        a.assign("web")
        a.status("shop/web.1", phase="running")
        before = pid_and_start(a, a.name("web"))
        for signal in (9, 15):
            code = a.kill(signal)
            assert code == (-9 if signal == 9 else 0)
            mark = a.mark()
            a.start()
            status = a.status("shop/web.1", since=mark)
            # The very first thing said of it after the restart is the truth.
            assert status["phase"] == "running" and status["ready"]
            assert pid_and_start(a, a.name("web")) == before


def test_crash_is_back_and_loop_backs_off():
    with Agent() as a:
        a.spec(service() + service("loop", '["/bin/busybox", "false"]'))
        a.assign("web")
        a.status("shop/web.1", phase="running")
        first = a.inspect(a.name("web"))["Id"]
        docker("kill", a.name("web"))
        status = a.status("shop/web.1", phase="running", restarts=1, timeout=5)
        assert status["container"] == first and status["exit_code"] == 137
        a.assign("loop")
        status = a.status("shop/loop.1", phase="backoff", timeout=30)
        assert status["exit_code"] == 1 and status["next_try_ms"] > 0 and "exit code 1" in status["reason"]
        a.status("shop/loop.1", phase="backoff", restarts=3, timeout=30)
        mark = a.mark()
        a.assign("loop", desired="stop")
        a.gone("shop/loop.1", mark)


def test_restart_policies():
    with Agent() as a:
        a.spec(service("once", '["/bin/busybox", "true"]', 'restart = "never"') + service("good", '["/bin/busybox", "true"]', 'restart = "on-failure"'))
        a.assign("once")
        a.assign("good")
        assert a.status("shop/once.1", phase="exited")["restarts"] == 0
        assert a.status("shop/good.1", phase="exited")["exit_code"] == 0


def test_what_cannot_start_says_why():
    with Agent() as a:
        a.spec(service("bad", '["/no/such/program"]') + service("absent").replace(IMAGE, "orca-test/absent:1").replace("stop_grace", 'pull = "never"\nstop_grace'))
        a.assign("bad")
        a.assign("absent")
        assert "no such file" in a.status("shop/bad.1", phase="failed")["reason"]
        assert "not on this node" in a.status("shop/absent.1", phase="failed")["reason"]
        a.assign("bad", desired="stop")
        a.assign("absent", desired="stop")
        a.gone("shop/bad.1")
        a.gone("shop/absent.1")


def test_new_epoch_replaces_and_unassigned_is_removed():
    with Agent() as a:
        a.spec(service(), 1)
        a.spec(service(command='["/bin/busybox", "sleep", "2000"]'), 2)
        a.assign("web")
        first = a.status("shop/web.1", phase="running")["container"]
        a.assign("web", revision=2, epoch=2)
        second = a.status("shop/web.1", phase="running", epoch=2)
        assert second["container"] != first and len(a.containers()) == 1
        a.send("unassign", "shop", "web", 1)
        wait_for(lambda: a.containers() == [])


def test_removed_by_another_hand_is_made_again():
    with Agent() as a:
        a.spec(service())
        a.assign("web")
        first = a.status("shop/web.1", phase="running")["container"]
        mark = a.mark()
        docker("rm", "-f", a.name("web"))
        second = a.status("shop/web.1", since=mark, phase="running")["container"]
        assert second != first


def test_two_agents_on_one_docker():
    with Agent("n1") as a, Agent("n2", cluster=a.cluster) as b, Agent("n1") as other:
        stranger = docker("run", "-d", "--rm", "--network", "none", IMAGE, "busybox", "sleep", "1000")
        try:
            for agent in (a, b, other):
                agent.spec(service())
                agent.assign("web")
            for agent in (a, b, other):
                agent.status("shop/web.1", phase="running")
            # Each is told that nothing is wanted: each removes its own, and nothing else.
            a.send("unassign", "shop", "web", 1)
            wait_for(lambda: a.containers("--filter", "label=orca.node=n1") == [])
            assert len(b.containers("--filter", "label=orca.node=n2")) == 1 and len(other.containers()) == 1
            assert a.inspect(stranger)["State"]["Running"]
        finally:
            docker("rm", "-f", stranger)


def test_without_master_crashed_ones_restart_and_nothing_is_removed():
    with Agent() as a:
        a.spec(service())
        a.assign("web")
        a.status("shop/web.1", phase="running")
        before = pid_and_start(a, a.name("web"))
        a.stop_master()
        a.kill()
        a.start()
        time.sleep(1)
        assert pid_and_start(a, a.name("web")) == before
        docker("kill", a.name("web"))
        wait_for(lambda: a.inspect(a.name("web"))["State"]["Running"] and pid_and_start(a, a.name("web")) != before)
        mark = a.mark()
        a.start_master(a.port)
        # The new master knows nothing of it, and says all: it is stopped.
        a.wait(lambda kind, v: kind == "hello", since=mark)
        wait_for(lambda: a.containers() == [])


def test_unacknowledged_reports_come_again():
    with Agent() as a:
        a.spec(service())
        a.send("mute")
        a.assign("web")
        wait_for(lambda: len(a.containers("--filter", "status=running")) == 1)
        time.sleep(1)
        assert a.all("status") == []
        a.send("unmute")
        a.status("shop/web.1", phase="running")
        assert [e["kind"] for e in a.all("event")].count("instance.started") == 1
        a.wait(lambda kind, v: kind == "image" and v)


def test_probes_verdicts_and_liveness():
    with Agent() as a:
        a.spec(service(extra='port = 8080\nhealth = "/healthz"'))
        a.send("keeper")
        a.assign("web")
        running = a.status("shop/web.1", phase="running")
        assert not running["ready"]
        target = a.wait(lambda kind, v: kind == "target" and v["instance"] == "shop/web.1" and v)
        assert target["address"] == running["address"] and target["readiness"] and target["liveness"] and target["port"] == 8080
        words = ("verdict", "shop/web.1", target["container"], target["started_ms"])
        a.send(*words, "ready")
        assert a.status("shop/web.1", ready=True)["started"]
        # An agent that restarts remembers, and does not take a ready instance out of the routes.
        a.kill()
        mark = a.mark()
        a.start()
        assert a.status("shop/web.1", since=mark)["ready"]
        assert [s["ready"] for s in a.all("status", mark)] == [True] * len(a.all("status", mark))
        mark = a.mark()
        a.wait(lambda kind, v: kind == "target" and v["instance"] == "shop/web.1" and v, since=0)
        wait_for(lambda: a.all("keeper_up") and len(a.all("keeper_up")) == 2)
        a.send(*words, "dead", "liveness:-no-answer")
        back = a.status("shop/web.1", since=mark, phase="running", restarts=1)
        assert not back["ready"] and back["container"] == target["container"]
        again = a.wait(lambda kind, v: kind == "target" and v["started_ms"] > target["started_ms"] and v)
        # What is late about the run before is not believed.
        a.send(*words, "ready")
        time.sleep(0.3)
        assert not a.all("status")[-1]["ready"]

        # What a probe says is run, and nothing else.
        a.spec(service("cmd", extra='[service.readiness]\nexec = ["/bin/busybox", "echo", "hello"]\n[service.liveness]\nexec = ["/bin/busybox", "time", "/bin/busybox", "sleep", "77"]'))
        a.assign("cmd")
        cmd = a.wait(lambda kind, v: kind == "target" and v["instance"] == "shop/cmd.1" and v)["container"]
        a.send("exec", "shop/cmd.1", cmd, 5000, "/bin/busybox", "echo", "hello")
        assert a.wait(lambda kind, v: kind == "exec" and v) == {"exit_code": 0, "timed_out": False, "output": "hello "}
        mark = a.mark()
        a.send("exec", "shop/cmd.1", cmd, 300, "/bin/busybox", "time", "/bin/busybox", "sleep", "77")
        assert a.wait(lambda kind, v: kind == "exec" and v, since=mark)["timed_out"]
        wait_for(lambda: "sleep 77" not in docker("top", cmd))  # nor what it has started
        for instance, container, *command in (("shop/cmd.1", "f" * 64, "/bin/busybox", "echo", "hello"), ("shop/cmd.1", cmd, "/bin/busybox", "id"),
                                              ("shop/cmd.1", cmd, "/bin/busybox", "echo", "hello", "you"), ("shop/web.1", again["container"], "/bin/busybox", "echo", "hello")):
            mark = a.mark()
            a.send("exec", instance, container, 300, *command)
            a.wait(lambda kind, v: kind == "exec_failed" and v, since=mark)


def test_policy_is_checked_here_too():
    with Agent() as a:
        secret = a.dir / "secret"
        allowed = a.dir / "allowed"
        secret.mkdir()
        allowed.mkdir()
        (allowed / "link").symlink_to(secret)
        a.cluster_toml(f'[cluster]\nname = "t"\n[policy]\nallow_host_paths = ["{allowed}"]\n')
        a.send("full")
        a.spec(service("host", extra='network = "host"') + service("link", extra=f'mounts = ["{allowed}/link:/x"]') +
               service("fine", extra=f'mounts = ["{allowed}:/x"]'))
        for name in ("host", "link", "fine"):
            a.assign(name)
        a.status("shop/fine.1", phase="running")
        assert "allow_host_network" in a.status("shop/host.1", phase="failed")["reason"]
        assert "does not allow" in a.status("shop/link.1", phase="failed")["reason"]
        assert len(a.containers()) == 1


def test_no_link_leads_a_volume_out_of_what_is_allowed(tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "good").mkdir()
    (allowed / "link").symlink_to("/etc")
    (allowed / "up").symlink_to("..")

    def volume(name, device):
        return f'[[service.volumes]]\nsource = "{name}"\ntarget = "/v"\noptions = {{ type = "none", o = "bind", device = "{device}" }}'

    with Agent() as a:
        a.cluster_toml(f'[cluster]\nname = "t"\n[policy]\nallow_host_paths = ["{allowed}"]\n')
        a.send("full")
        for number, path in enumerate((allowed / "link", allowed / "up", f"{allowed}/good/../link"), 1):
            a.spec(service(f"bad{number}", extra=volume(f"v{number}", path)))
            a.assign(f"bad{number}")
            status = a.status(f"shop/bad{number}.1", phase="failed")
            assert "allow_host_paths" in status["reason"] or "policy" in status["reason"], status
        a.spec(service("good", extra=volume("data", allowed / "good")))
        a.assign("good")
        a.status("shop/good.1", phase="running")
        docker("exec", a.name("good"), "/bin/busybox", "touch", "/v/here")
        assert (allowed / "good/here").exists()
        # The volume stays what it was when the spec says something else, or nothing: whoever names it gets no host path by it.
        a.spec(service("other", extra='[[service.volumes]]\nsource = "data"\ntarget = "/v"'))
        a.assign("other")
        assert "another device" in a.status("shop/other.1", phase="failed")["reason"]


def test_volumes_and_infra_files():
    with Agent() as a:
        content = b"greeting = hello\n"
        sha = hashlib.sha256(content).hexdigest()
        (a.dir / "files").mkdir()
        (a.dir / "files" / sha).write_bytes(content)
        a.spec(service("db", '["/bin/busybox", "sh", "-c", "cat /etc/app.conf; busybox touch /data/here; exec busybox sleep 1000"]',
                       '[[service.volumes]]\nsource = "data"\ntarget = "/data"\n[[service.mounts]]\nsource = "./app.conf"\ntarget = "/etc/app.conf"'))
        a.send("file", "db", 1, "/etc/app.conf", "-", sha)
        a.assign("db")
        a.status("shop/db.1", phase="running")
        wait_for(lambda: "hello" in docker("logs", a.name("db")))
        c = a.inspect(a.name("db"))
        mounts = {m["Destination"]: m for m in c["Mounts"]}
        assert mounts["/data"]["Name"] == f"orca-{a.cluster[:8]}-shop.data" and not mounts["/etc/app.conf"]["RW"]
        a.wait(lambda kind, v: kind == "node" and v["volumes"] == ["shop/data"])
        a.assign("db", desired="stop")
        a.gone("shop/db.1")
        assert docker("volume", "ls", "-q", "--filter", f"label=orca.cluster={a.cluster}") == f"orca-{a.cluster[:8]}-shop.data"
        assert not list((a.dir / "state/agent/mounts").iterdir())
        # A file whose content is not what its name says is refused.
        (a.dir / "files" / ("0" * 64)).write_bytes(b"something else")
        a.spec(service("liar", extra='[[service.mounts]]\nsource = "./x"\ntarget = "/x"'))
        a.send("file", "liar", 1, "/x", "-", "0" * 64)
        a.assign("liar")
        assert "not what its name says" in a.status("shop/liar.1", phase="failed")["reason"]


def test_two_agents_with_one_state_folder():
    with Agent() as a:
        a.wait(lambda kind, v: kind == "hello")
        second = subprocess.run([a.agent.args[0], "-c", a.dir / "node.toml"], capture_output=True, text=True, timeout=10, env=os.environ, check=False)
        assert second.returncode == 1 and str(a.agent.pid) in second.stderr, second.stderr


def test_docker_that_answers_nonsense(tmp_path):
    """A Docker that lies: wrong types, giant lengths, cut answers. The agent says so and lives."""
    import socket
    import threading
    path = str(tmp_path / "docker.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(16)
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"Version\":\"20.1\"}",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"",
    ]
    stop = False

    def serve():
        n = 0
        while not stop:
            try:
                c, _ = server.accept()
            except OSError:
                return
            try:
                c.recv(65536)
                c.sendall(answers[n % len(answers)])
            except OSError:
                pass
            c.close()
            n += 1
    threading.Thread(target=serve, daemon=True).start()
    with Agent(docker_socket=path) as a:
        a.spec(service())
        a.assign("web")
        a.wait(lambda kind, v: kind == "node" and not v["docker_ok"] and v["docker_error"])
        time.sleep(2)
        assert a.agent.poll() is None
        stop = True
        server.close()
        assert json.dumps(a.all("status")[-1])
