"""The packages on a machine with systemd: installed, started, restarted daemon by daemon and upgraded, under load."""
import os
import pathlib
import re
import subprocess
import time

import pytest
from orca import APP, DAEMONS, ROOT, wait_for
from systemd_node import SystemdNode

DEBS = pathlib.Path(os.environ.get("ORCA_DEBS", ROOT / "build/deb"))
NEWER = pathlib.Path(os.environ.get("ORCA_DEBS_NEXT", ROOT / "build/deb-next"))
SPEC = f"""[[service]]
name = "web"
image = "{APP}"
port = 8080
replicas = 2
domain = "web.test"
user = "1234:1234"
env = {{ TEXT = "one", PASSWORD = "${{secrets.in_env}}" }}
secret_files = ["in_file"]
[service.readiness]
path = "/healthz"
interval_secs = 1
[service.deploy]
min_ready = "100ms"
"""


SECRETS = {"in_env": "value-of-the-environment-93af", "in_file": "value-of-the-file-c071"}


def deploy(n, spec=SPEC):
    n.write("/root/infra/cluster.toml", f'[cluster]\nname = "test"\n[api]\nlisten = ["{n.address}:6880"]\ntls = true\n')
    for name, value in SECRETS.items():
        n.run("orcactl", "secrets", "set", name, data=value.encode())
    n.write("/root/infra/services/shop/service.toml", spec)
    return n.sh("orcactl -C /root/infra deploy 2>&1", timeout=90)


def answers(n):
    return n.sh(f"curl -s -m 2 -H 'Host: web.test' http://{n.address}/", check=False) == "one"


@pytest.fixture(scope="module")
def node():
    with SystemdNode() as n:
        n.install(DEBS)
        n.load()
        n.sh(f"orcactl init --name n1 --address {n.address}")
        n.sh("systemctl start orca-master.target")
        wait_for(lambda: "ready" in n.sh("orcactl nodes", check=False), 30, every=0.2, message="the node is ready")
        deploy(n)
        wait_for(lambda: answers(n), 20, every=0.1, message="the service answers")
        yield n


class Load:
    """with Load(node) as load: …; then load.answered, load.failed (a list of wrk's complaints)"""

    def __init__(self, node, connections=16):
        self.node, self.connections = node, connections
        self.answered, self.failed, self.text = 0, [], ""

    def __enter__(self):
        script = ROOT / "tests/cluster/load.lua"
        self.process = subprocess.Popen(["wrk", "-t1", f"-c{self.connections}", "-d600s", "--timeout", "10s", "-s", script, f"http://{self.node.address}/"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        time.sleep(0.5)
        self.process.send_signal(2)
        self.text = self.process.communicate(timeout=30)[0]
        found = re.search(r"(\d+) requests in", self.text)
        self.answered = int(found.group(1)) if found else 0
        self.failed = re.findall(r"(?:Socket errors|Non-2xx).*", self.text)


def restarts(n, daemon):
    return int(n.sh(f"systemctl show -p NRestarts --value orca-{daemon}"))


def test_all_daemons_run_as_their_own_users(node):
    for daemon in DAEMONS:
        assert node.sh(f"systemctl is-active orca-{daemon}") == "active"
        assert node.sh(f"ps -o user:32= -p {node.pid(daemon)}").strip() == f"orca-{daemon}"
    docker = node.sh("getent group docker").split(":")[2]
    for daemon in DAEMONS:
        groups = re.search(r"Groups:\s*(.*)", node.sh(f"cat /proc/{node.pid(daemon)}/status")).group(1).split()
        assert (docker in groups) == (daemon == "agent"), (daemon, groups)
        capabilities = int(re.search(r"CapBnd:\s*(\w+)", node.sh(f"cat /proc/{node.pid(daemon)}/status")).group(1), 16)
        assert capabilities == {"proxy": 1 << 10, "agent": 1 << 0 | 1 << 5}.get(daemon, 0), (daemon, hex(capabilities))
        assert re.search(r"Max core file size\s+0\s+0", node.sh(f"cat /proc/{node.pid(daemon)}/limits"))


def test_files_have_their_owners(node):
    def owner(path):
        return node.sh(f"stat -c '%a %U %G' {path}")

    assert owner("/etc/orca/keys") == "750 root orca"
    assert owner("/etc/orca/keys/apiserver") == "700 orca-apiserver orca"
    assert owner("/run/orca") == "3770 root orca"
    for name in ("master.key", "ca.key", "first-token"):
        assert owner(f"/etc/orca/keys/apiserver/{name}") == "400 orca-apiserver orca"
    for daemon in DAEMONS:
        assert owner(f"/etc/orca/keys/{daemon}.key") == f"400 orca-{daemon} orca"
    assert owner("/etc/orca/keys/admin.key") == "400 root root"
    assert owner("/var/lib/orca/store") == "700 orca-store orca"
    assert owner("/run/orca/agent.sock") == "660 orca-agent orca"


def test_only_the_apiserver_reaches_master_key(node):
    for daemon in DAEMONS:
        seen = node.sh(f"nsenter -t {node.pid(daemon)} -m setpriv --reuid orca-{daemon} --regid orca --init-groups cat /etc/orca/keys/apiserver/master.key 2>&1 | wc -c", check=False)
        assert (seen == "64") == (daemon == "apiserver"), (daemon, seen)


def test_exposure(node):
    node.copy(ROOT / "tests/lint/units", "/root/units")
    assert node.sh("bash /root/units /lib/systemd/system") == ""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_restart_under_load(node, daemon):
    before = node.containers()
    assert len(before) == 2
    pid = node.pid(daemon)
    with Load(node) as load:
        for _ in range(2):
            node.sh(f"systemctl restart orca-{daemon}")
            time.sleep(1)
    assert node.pid(daemon) not in (0, pid)
    assert node.containers() == before
    assert load.answered > 100 and not load.failed, load.text


@pytest.mark.parametrize("daemon", DAEMONS)
def test_killed_daemon_comes_back(node, daemon):
    before, pid, count = node.containers(), node.pid(daemon), restarts(node, daemon)
    node.sh(f"kill -9 {pid}")
    wait_for(lambda: node.sh(f"systemctl is-active orca-{daemon}", check=False) == "active" and node.pid(daemon) not in (0, pid), 15, every=0.1)
    assert restarts(node, daemon) == count + 1
    assert node.containers() == before
    wait_for(lambda: answers(node), 10, every=0.1)


def test_upgrade_under_load(node):
    before = node.containers()
    pids = {d: node.pid(d) for d in DAEMONS}
    with Load(node, 64) as load:
        said = node.install(NEWER)
    assert "did not come back" not in said, said
    for daemon in DAEMONS:
        assert node.pid(daemon) not in (0, pids[daemon]), daemon
        assert "deleted" not in node.sh(f"readlink /proc/{node.pid(daemon)}/exe")
    started = {d: int(node.sh(f"systemctl show -p ExecMainStartTimestampMonotonic --value orca-{d}")) for d in DAEMONS}
    assert sorted(DAEMONS, key=started.get) == ["store", "apiserver", "scheduler", "agent", "keeper", "proxy"]
    assert node.containers() == before
    assert load.answered > 100 and not load.failed, load.text
    versions = set(node.sh("dpkg-query -W -f '${Version}\\n' 'orca*'").split())
    assert len(versions) == 1 and versions.pop().endswith("-2")


def test_target_stops_and_starts_all(node):
    before = node.containers()
    node.sh("systemctl stop orca-master.target")
    for daemon in DAEMONS:
        wait_for(lambda: node.sh(f"systemctl is-active orca-{daemon}", check=False) == "inactive", 30, every=0.1, message=daemon)
    assert node.containers() == before
    node.sh("systemctl start orca-master.target")
    wait_for(lambda: answers(node), 20, every=0.1)
    assert node.containers() == before


def test_the_sandbox_lets_the_daemons_work(node):
    """What needs more of the machine than a request does, under the units' restrictions."""
    web = f"curl -s -m 5 -H 'Host: web.test' http://{node.address}"
    assert node.sh(f"{web}/env?PASSWORD") == SECRETS["in_env"]
    assert node.sh(f"{web}/file?/run/secrets/in_file") == SECRETS["in_file"]
    assert "no progress" not in node.sh("orcactl status")
    assert "one starting" in node.sh("orcactl logs web --tail 5")
    assert node.sh("orcactl exec web -- /app no-such-way 2>&1 </dev/null; echo $?").endswith("1")
    assert '"ok"' in node.sh(f"curl -s -m 5 --cacert /etc/orca/keys/ca.pem https://{node.address}:6880/api/v1/health")
    assert "web" in node.sh("orcactl top")
    doctor = node.sh("orcactl doctor", check=False)
    assert "✓" in doctor and "✗" not in doctor, doctor
    denied = [line for line in node.sh("journalctl --no-pager -o cat -u 'orca*'").splitlines() if "not permitted" in line or "ermission denied" in line]
    assert not denied, denied


def test_no_secret_lies_about(node):
    secrets = {path: node.sh(f"cat {path}") for path in node.sh("find /etc/orca/keys -name '*.key' -o -name first-token").split()}
    secrets["token"] = node.sh("cat /root/.orca/tokens/default")
    secrets.update(SECRETS)
    text = node.sh("journalctl --no-pager -o cat; cat /proc/*/cmdline | tr '\\0' ' '; orcactl status -o json; orcactl inspect web -o json; orcactl events; orcactl audit; orcactl secrets list")
    for daemon in DAEMONS:
        text += node.sh(f"tr '\\0' '\\n' </proc/{node.pid(daemon)}/environ")
    for path, secret in secrets.items():
        lines = [line for line in secret.splitlines() if line and not line.startswith("-----")]
        assert lines and all(line not in text for line in lines), path
    # As tar sees it: without the gigabytes of holes of the store's map. The files of secrets themselves are on tmpfs.
    everything = "tar -cS --exclude=run/orca/agent-secrets -C / var/lib/orca etc/orca run/orca run/log var/log tmp root 2>/dev/null"
    for name, value in SECRETS.items():
        assert node.sh(f"{everything} | grep -acF {value}", check=False) == "0", name
    assert node.sh(f"{everything} | grep -acF {secrets['token']}") == "1"  # root's own, in ~/.orca: so it does find
    assert node.sh("find / -xdev -name 'core*' -newer /etc/orca/node.toml -size +64k -type f 2>/dev/null", check=False) == ""


def test_without_packages(node):
    """Last: it takes the packages away. State stays on removal; the units that orcactl writes run on with it; purging leaves nothing."""
    before = node.containers()
    node.sh("cp /usr/libexec/orca/* /usr/bin/orcactl /usr/bin/orca-storectl /opt/")
    assert "package" in node.sh("orcactl install-service 2>&1", check=False)
    node.sh("dpkg -r orca-master orca-worker 2>&1")
    assert node.sh("systemctl is-active orca-agent", check=False) != "active"
    assert node.sh("ls /var/lib/orca/store /etc/orca/node.toml")
    assert node.containers() == before
    node.sh("mkdir -p /usr/local/bin /usr/local/libexec/orca && mv /opt/orca-storectl /usr/local/bin/ && mv /opt/orca-* /usr/local/libexec/orca/ && mv /opt/orcactl /usr/local/bin/")
    assert "/usr/local/libexec/orca/orca-agent" in node.sh("/usr/local/bin/orcactl install-service --print")
    node.sh("/usr/local/bin/orcactl install-service --start")
    assert node.sh("systemctl is-enabled orca-master.target") == "enabled"
    wait_for(lambda: answers(node), 20, every=0.1)
    assert node.containers() == before
    node.sh("systemctl disable --now orca-master.target; rm /etc/systemd/system/orca-*; systemctl daemon-reload")
    node.sh("dpkg -P orca-master orca-worker orcactl orca-common 2>&1")
    assert not node.sh("ls -d /var/lib/orca /etc/orca /run/orca", check=False)
    # And on a machine that never had a package: keys first, users after them, each file its owner's in the end.
    node.sh("for d in store apiserver scheduler agent keeper proxy; do userdel orca-$d; done; groupdel orca; rm -rf /root/.orca")
    node.sh(f"/usr/local/bin/orcactl init --name n1 --address {node.address}")
    assert node.sh("stat -c %U /etc/orca/keys/apiserver") == "root"
    node.sh("/usr/local/bin/orcactl install-service --start")
    assert node.sh("stat -c %U /etc/orca/keys/apiserver /etc/orca/keys/apiserver/master.key /etc/orca/keys/store.key").split() == ["orca-apiserver", "orca-apiserver", "orca-store"]
    wait_for(lambda: "ready" in node.sh("/usr/local/bin/orcactl nodes", check=False), 30, every=0.2, message="the node is ready")
