"""Hundreds of specs that would reach what is not theirs, by every way in: refused, with the key named, and nothing of them kept or run."""
import json

import pytest
from hostile_specs import IMAGE, SPECS
from orca import Cluster, wait_for


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as c:
        yield c


def said(answer):
    text = answer.text
    assert not any(ord(ch) < 32 and ch not in "\n" for ch in text), f"a control character in {text!r}"
    return answer.json()


def test_there_are_enough_of_them():
    assert len(SPECS) >= 500


def test_a_deploy_refuses_each(cluster):
    through, unnamed = [], []
    for label, spec, key in SPECS:
        answer = cluster.api("POST", "/api/v1/deploy", {"services": [spec]})
        body = said(answer)
        if answer.status not in (400, 403, 422):
            through.append(label)
        elif key not in json.dumps(body) and "\\u0000" not in json.dumps(spec):  # a NUL is refused as JSON already, by line and column
            unnamed.append((label, key, json.dumps(body)[:200]))
    assert not through, f"{len(through)} got through: {through}"
    assert not unnamed, f"{len(unnamed)} without the key: {unnamed[:20]}"
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []


def test_nor_may_a_dry_run_or_a_good_one_beside_it_help(cluster):
    good = {"name": "good", "project": "shop", "image": IMAGE}
    for label, spec, _ in SPECS[::7]:
        assert cluster.api("POST", "/api/v1/deploy?dry_run=true", {"services": [spec]}).status in (400, 403, 422), label
        assert cluster.api("POST", "/api/v1/deploy", {"services": [good, spec]}).status in (400, 403, 422), label
    assert cluster.api("GET", "/api/v1/status").json()["services"] == []
    assert cluster.containers() == []


# ---- what was let in once, and is no more

OPEN_POLICY = {"policy": {"allow_privileged": True, "allow_host_network": True, "allow_host_paths": ["/"], "allow_caps": [], "allow_devices": []}}
CLOSED_POLICY = {"policy": {"allow_privileged": False}}


def open_policy():
    policy = {**OPEN_POLICY["policy"]}
    for _, spec, _ in SPECS:
        for cap in spec.get("caps", []):
            if cap and cap.isupper() and cap.replace("_", "").isalnum() and cap not in policy["allow_caps"]:
                policy["allow_caps"].append(cap)
        for device in spec.get("devices", []):
            host = device.split(":")[0]
            if host.startswith("/dev/") and ".." not in host and not any(ch.isspace() for ch in host) and host not in policy["allow_devices"]:
                policy["allow_devices"].append(host)
    return {"policy": policy}


def set_policy(cluster, text):
    answer = cluster.api("POST", "/api/v1/deploy", {"cluster": {"cluster": {"name": "test"}, **text}})
    assert answer.status == 200, answer.text


def refused(answer, label, key, failures):
    body = said(answer)
    if answer.status not in (400, 403, 422):
        failures.append((label, answer.status))
    elif key not in json.dumps(body):
        failures.append((label, key, json.dumps(body)[:200]))


@pytest.fixture(scope="module")
def let_in(cluster):
    """Those that a permissive [policy] lets in, with no instance, so that nothing of them ever runs; and then it is taken back."""
    set_policy(cluster, open_policy())
    found = []
    for label, spec, key in SPECS:
        one = {**spec, "replicas": 0}
        if "replicas" not in spec and cluster.api("POST", "/api/v1/deploy?dry_run=true", {"services": [one]}).status == 200:
            found.append((label, {**one, "name": f"h{len(found)}"}, key))
    assert len(found) > 150, len(found)

    def plain(spec, prefix):
        return {"name": prefix + spec["name"], "project": "shop", "image": IMAGE, "replicas": 0}

    def of_job(spec, prefix):
        return {**{k: v for k, v in spec.items() if k != "replicas"}, "name": prefix + spec["name"], "schedule": "0 0 1 1 *"}

    deploy = {"services": [s for _, s, _ in found] + [{**s, "name": "old" + s["name"]} for _, s, _ in found],
              "jobs": [of_job(s, "job") for _, s, _ in found] + [of_job(s, "halted") for _, s, _ in found]}
    answer = cluster.api("POST", "/api/v1/deploy", deploy, timeout=60)
    assert answer.status == 200, answer.text[:2000]
    answer = cluster.api("POST", "/api/v1/deploy", {"services": [plain(s, "old") for _, s, _ in found]}, timeout=60)
    assert answer.status == 200, answer.text[:2000]
    for _, s, _ in found:
        assert cluster.api("POST", f"/api/v1/jobs/halted{s['name']}/stop?project=shop").status == 200
    set_policy(cluster, CLOSED_POLICY)
    return found


def services_and_runs(cluster):
    told = cluster.api("GET", "/api/v1/status").json()
    return [(s["name"], s.get("revision"), s.get("replicas"), s.get("state")) for s in told["services"]]


def test_nothing_that_was_let_in_can_be_scaled_started_or_made_anew_once_the_policy_is_tightened(cluster, let_in):
    failures = []
    before = services_and_runs(cluster)
    for label, spec, key in let_in:
        name = f"/api/v1/services/{spec['name']}"
        refused(cluster.api("POST", f"{name}/scale?project=shop", {"replicas": 1}), f"scale of {label}", key, failures)
        refused(cluster.api("POST", f"{name}/restart?project=shop"), f"restart of {label}", key, failures)
        refused(cluster.api("POST", f"{name}/redeploy?project=shop"), f"redeploy of {label}", key, failures)
        refused(cluster.api("POST", f"/api/v1/services/old{spec['name']}/rollback?project=shop"), f"rollback to {label}", key, failures)
        refused(cluster.api("POST", f"/api/v1/services/old{spec['name']}/rollback?project=shop&to=1"), f"rollback to 1, {label}", key, failures)
        refused(cluster.api("POST", "/api/v1/deploy", {"services": [spec]}), f"the same deploy of {label}", key, failures)
        refused(cluster.api("POST", "/api/v1/deploy", {"services": [{**spec, "replicas": 2}]}), f"deploy with other replicas of {label}", key, failures)
    assert not failures, f"{len(failures)}: {failures[:20]}"
    assert services_and_runs(cluster) == before and cluster.containers() == []
    for _, spec, _ in let_in:  # to stop it is never refused, to start it again is
        assert cluster.api("POST", f"/api/v1/services/{spec['name']}/stop?project=shop").status == 200
    for label, spec, key in let_in:
        refused(cluster.api("POST", f"/api/v1/services/{spec['name']}/start?project=shop"), f"start of {label}", key, failures)
        refused(cluster.api("POST", f"/api/v1/services/{spec['name']}/restart?project=shop"), f"restart of the stopped {label}", key, failures)
    assert not failures, f"{len(failures)}: {failures[:20]}"
    assert cluster.containers() == []


def test_nor_are_jobs_run_or_resumed(cluster, let_in):
    failures = []
    for label, spec, key in let_in:
        refused(cluster.api("POST", f"/api/v1/jobs/job{spec['name']}/run?project=shop"), f"run of {label}", key, failures)
        refused(cluster.api("POST", f"/api/v1/jobs/halted{spec['name']}/start?project=shop"), f"start of {label}", key, failures)
    assert not failures, f"{len(failures)}: {failures[:20]}"
    assert cluster.containers() == []


def test_what_runs_when_the_policy_is_tightened_goes_on(cluster):
    set_policy(cluster, {"policy": {"allow_caps": ["SYS_TIME"]}})
    spec = {"name": "clock", "project": "shop", "image": IMAGE, "caps": ["SYS_TIME"], "port": 8080, "deploy": {"min_ready": "0s"}}
    assert cluster.api("POST", "/api/v1/deploy", {"services": [spec]}).status == 200
    running = wait_for(lambda: cluster.running("shop/clock"))[0]
    set_policy(cluster, CLOSED_POLICY)
    answer = cluster.api("POST", "/api/v1/services/clock/scale?project=shop", {"replicas": 3})
    assert answer.status == 403 and "caps" in answer.text
    assert [(c["Id"], c["State"]["StartedAt"]) for c in cluster.running("shop/clock")] == [(running["Id"], running["State"]["StartedAt"])]
    assert cluster.api("POST", "/api/v1/services/clock/scale?project=shop", {"replicas": 0}).status == 200  # less is always allowed
    wait_for(lambda: not cluster.running("shop/clock"))


# ---- jobs and tasks

def test_a_job_may_not_have_what_a_service_may_not(cluster):
    failures = []
    before = cluster.api("GET", "/api/v1/jobs").json()["jobs"]
    for label, spec, key in SPECS:
        answer = cluster.api("POST", "/api/v1/deploy", {"jobs": [{**spec, "schedule": "0 0 1 1 *"}]})
        refused(answer, label, "" if "\x00" in json.dumps(spec) or "\\u0000" in json.dumps(spec) else key, failures)
        refused(cluster.api("POST", "/api/v1/deploy", {"jobs": [spec]}), label, "", failures)
    for schedule in ("", "* *", "* * * * * * *", "60 * * * * *", "$(id)", "@reboot", "\n* * * * *", "*/0 * * * *", "9" * 100, "0 0 31 2 *"):
        refused(cluster.api("POST", "/api/v1/deploy", {"jobs": [{"name": "j", "project": "shop", "image": IMAGE, "schedule": schedule}]}), repr(schedule), "schedule", failures)
    for zone in ("../../etc/passwd", "/etc/passwd", "Europe/../../../etc/shadow", "a\nb", "Mars/Olympus", ""):
        refused(cluster.api("POST", "/api/v1/deploy", {"jobs": [{"name": "j", "project": "shop", "image": IMAGE, "schedule": "* * * * *", "tz": zone}]}), repr(zone), "tz", failures)
    assert not failures, f"{len(failures)}: {failures[:20]}"
    assert cluster.api("GET", "/api/v1/jobs").json()["jobs"] == before


TASK_KEYS = {"name", "image", "project", "command", "entrypoint", "env", "user", "workdir", "labels"}
BAD_TASKS = [
    *[("portBindings", b) for b in ({"80/tcp": "0"}, {"80/tcp": "70000"}, {"0/tcp": "80"}, {"80/sctp": "80"}, {"80/tcp": "127.0.0.1:80"}, {"80/tcp": "-1"}, {"80/tcp": 1.5},
                                    {"80/tcp": True}, {"80/tcp": [{"HostPort": "22"}]}, {"80/tcp\n": "80"}, {"": "80"}, {"80/tcp": ""}, {"80/tcp": "80 "}, {"80/tcp": "8\x1b0"},
                                    {"99999999999999999999/tcp": "80"}, {"80/tcp": "99999999999999999999"}, {"1/tcp": "80", "2/tcp": "80"},
                                    {f"{n}/tcp": str(n) for n in range(1, 70)}, [], "80:80", 80, ["80:80"])],
    *[("nodeSelectors", s) for s in ([], "a=b", {"": "x"}, {"a b": "x"}, {"a\nb": "x"}, {"orca.node": "x"}, {"a": 1}, {"a": ["x"]}, {"$(id)": "x"}, {"a\x1b": "x"}, {"x" * 200: "y"})],
    *[("restartPolicy", p) for p in ("always", "on-failure", "unless-stopped", {"Name": "always"}, True, "no\n")],
    *[("memory", m) for m in ("-1", "1", -5, "1Pi1", "9" * 40, {}, "64M\n")],
    *[("cpu", c) for c in (-1, "all", 10 ** 9, 0, {}, "0.5")],
    *[("retries", r) for r in (-1, 10 ** 9, "3", 1.5, True)],
    *[("timeout", t) for t in ("0", "-1s", "1", "x", 5, "999999999h", "1s\n")],
    *[("command", c) for c in ("rm -rf /", [1], [["a"]], {"a": 1}, ["${secrets.X}"], ["${env.X}"], ["${x}"])],
    *[("env", e) for e in ("A=B", ["A=B"], {"A": 1}, {"A": "${env.HOME}"}, {"A": "${secrets.../x}"}, {"A": "${"})],
    ("user", "0:0:0"), ("workdir", "x"), ("image", None), ("image", 5), ("name", ["x"]), ("project", {}), ("privileged", True), ("mounts", ["/:/x"]), ("volumes", ["/:/x"]), ("network", "host"),
    ("devices", ["/dev/sda"]), ("caps", ["ALL"]), ("Binds", ["/:/x"]), ("HostConfig", {"Privileged": True}), ("secret_files", ["X"]), ("schedule", "* * * * *"), ("job", {}), ("port", 80),
    ("host_port", 80), ("placement", {"node": "n1"}), ("pid", "host"), ("", "x"), ("a\nb", "x"), ("\x1b[31m", "x"),
]


def test_a_task_may_not_have_it_either(cluster):
    failures = []
    for label, spec, key in SPECS:
        for path in ("/api/v1/tasks", "/tasks")[:1 if set(spec) <= TASK_KEYS else 2]:
            refused(cluster.api("POST", path, spec), label, "" if "\\u0000" in json.dumps(spec) else key, failures)
    for key, value in BAD_TASKS:
        body = {"name": "evil", "project": "shop", "image": IMAGE, key: value}
        # the key in words that can be shown, or where the reader of a [[job]] has it
        word = {"nodeSelectors": "labels", "a\nb": "unknown key", "\x1b[31m": "unknown key", "": "unknown key"}.get(key, key)
        refused(cluster.api("POST", "/tasks", body), f"{key} {value!r}"[:80], word, failures)
    assert not failures, f"{len(failures)}: {failures[:20]}"
    assert cluster.api("GET", "/api/v1/tasks").json()["tasks"] == []
    assert not [c for c in cluster.containers() if c["Config"]["Labels"]["orca.service"] == "evil"]


def test_a_reference_that_only_orcactl_fills_in_is_no_text(cluster):
    for key, value in (("name", "${env.X}"), ("project", "${env.X}"), ("image", "${env.X}"), ("user", "${env.X}"), ("workdir", "${env.X}"), ("command", ["${env.X}"]), ("env", {"A": "${env.X}"}),
                       ("caps", ["${env.X}"]), ("devices", ["/dev/${env.X}"]), ("volumes", [{"source": "${env.X}", "target": "/x"}]), ("volumes", [{"source": "x", "target": "${env.X}"}]),
                       ("network", "${env.X}"), ("domain", "${env.X}"), ("aliases", ["${env.X}"])):
        answer = cluster.api("POST", "/api/v1/deploy", {"services": [{"name": "r", "project": "shop", "image": IMAGE, "port": 80, key: value}]})
        assert answer.status == 400 and key in answer.text, (key, answer.text)
