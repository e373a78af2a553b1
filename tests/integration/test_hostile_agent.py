"""What a broken master, or a store that somebody wrote into, may send to an agent: hundreds of assignments that the API would not have let
through. None of them becomes a container, a network or a volume, and what runs goes on running."""
import subprocess

import pytest
from agent_node import IMAGE, ROOT, Agent, docker, service, wait_for
from hostile_specs import _quote, as_proto, SPECS

PACKED = [(label, spec, key) for label, spec, key in SPECS if as_proto(spec) is not None]


def assignment(spec_text, project, name, number, *, job=False, revision_of=None, image="", epoch=1, node="n1"):
    owner, service_name = revision_of or (project, name)
    return (f"assigned {{ instance {{ project: {_quote(project)} service: {_quote(name)} number: {number} node: {_quote(node)} revision: 1 epoch: {epoch} "
            f"desired: DESIRED_RUN {'job: true' if job else ''} }} "
            f"revision {{ project: {_quote(owner)} name: {_quote(service_name)} number: 1 spec_hash: \"x\" spec {{ {spec_text} {'job { }' if job else ''} }} }} "
            f"{'image: ' + _quote(image) if image else ''} }}")


def push(agent, *assigned, more=""):
    text = "desired { " + " ".join(assigned) + more + " }"
    packed = subprocess.run(["protoc", "--encode=node.Item", "-I.", "proto/node.proto"], input=text.encode(), capture_output=True, cwd=ROOT, check=True, timeout=60)
    agent.specs += 1
    path = agent.dir / f"item{agent.specs}"
    path.write_bytes(packed.stdout)
    agent.send("packed", path)


def nothing_made(agent, containers=0, networks=0):
    label = f"label=orca.cluster={agent.cluster}"
    assert len(agent.containers()) == containers
    assert len(docker("network", "ls", "-q", "--filter", label).split()) == networks
    assert docker("volume", "ls", "-q", "--filter", label).split() == []


def latest(agent):
    found = {}
    for status in agent.all("status"):
        found[status["id"]] = status
    return found


def test_there_are_enough_of_them():
    assert len(PACKED) >= 450, len(PACKED)


@pytest.mark.parametrize("job", [False, True], ids=["services", "jobs"])
def test_each_is_refused_with_its_key(job):
    with Agent() as a:
        a.wait(lambda kind, v: kind == "full")
        wanted, unnamed, sent = {}, 0, []
        for n, (label, spec, key) in enumerate(PACKED):
            if "\\000" in as_proto(spec):
                continue  # not a message at all: below
            name, project = spec["name"], spec["project"]
            if key in ("name", "project"):
                unnamed += 1
            else:
                name = f"h{n}"
                wanted[f"{project}/{name}.1"] = (label, key)
            sent.append(assignment(as_proto({**spec, "name": name}), project, name, 1, job=job))
        push(a, *sent)
        wait_for(lambda: set(wanted) <= set(latest(a)), 30, message="all are judged")
        wrong = {}
        def judged():
            now = latest(a)
            wrong.clear()
            for instance, (label, key) in wanted.items():
                s = now[instance]
                named = key.rstrip("s") in s["reason"] or (job and "service" in s["reason"]) or (key == "domain" and "domains" in s["reason"])
                if s["phase"] != "failed" or not named:
                    wrong[label] = (s["phase"], s["reason"])
            return not wrong
        try:
            wait_for(judged, 15)
        except AssertionError:
            raise AssertionError(f"{len(wrong)}: {list(wrong.items())[:10]}") from None
        said = a.wait(lambda kind, v: kind == "event" and v["kind"] == "node.assignment_refused" and v)
        assert said["message"].startswith(f"{unnamed} "), said
        assert set(latest(a)) == set(wanted), "one without a valid name is reported as an instance"
        nothing_made(a)
        assert not any(ord(ch) < 32 and ch != "\n" for ch in (a.dir / "log").read_text()), "its log has control characters"


def test_what_is_not_a_message_ends_the_conversation_and_nothing_else():
    with Agent() as a:
        a.wait(lambda kind, v: kind == "hello")
        for label, spec, _ in PACKED:
            if "\\000" not in as_proto(spec):
                continue
            mark = a.mark()
            push(a, assignment(as_proto(spec), "shop", "nul", 1))
            a.wait(lambda kind, v: kind == "hello", since=mark, message=f"{label}: said hello again")
        assert a.agent.poll() is None
        nothing_made(a)


def test_a_revision_of_another_service_a_wrong_image_and_what_only_bytes_can_say():
    good = f'name: "web" project: "shop" image: {_quote(IMAGE)} command: "/bin/busybox" command: "sleep" command: "1000" '
    cases = {
        "another project's revision": (good, {"revision_of": ("other", "web")}, "name"),
        "another service's revision": (good, {"revision_of": ("shop", "db")}, "name"),
        "a spec of another project": (good.replace('"shop"', '"other"'), {}, "name"),
        "a spec of another name": (good.replace('"web"', '"db"'), {}, "name"),
        "no name in it": (good.replace('name: "web"', ""), {}, "name"),
        "a resolved image that is none": (good, {"image": "-v /:/x"}, "image"),
        "a resolved image with an escape": (good, {"image": "x\x1b[2J"}, "image"),
        "an option twice": (good + 'volumes { source: "d" target: "/d" options { key: "type" value: "tmpfs" } options { key: "device" value: "tmpfs" } '
                            'options { key: "type" value: "none" } options { key: "o" value: "bind" } options { key: "device" value: "/" } }', {}, "volumes"),
        "a variable twice": (good + 'env { key: "A" value: "1" } env { key: "A" value: "2" }', {}, "env"),
        "a label twice": (good + 'labels { key: "a" value: "1" } labels { key: "a" value: "2" }', {}, "labels"),
        "a port out of range": (good + "port: 70000", {}, "port"),
        "an extra port out of range": (good + "extra_ports { host_port: 0 container_port: 99999 }", {}, "extra_ports"),
        "memory beyond all": (good + "resources { memory: 18446744073709551615 }", {}, "resources"),
        "a reference in the image": (good.replace(_quote(IMAGE), '"${env.IMAGE}"'), {}, "image"),
        "a reference in a target": (good + 'mounts { source: "./x" target: "${env.X}" }', {}, "mounts"),
        "a secret in a command": (good + 'command: "${secrets.X}"', {}, "command"),
        "a file out of its mount": (good + f'mounts {{ source: "./x" target: "/x" files {{ path: "../../x" sha256: "{"0" * 64}" }} }}', {}, "mounts"),
        "a file without a hash": (good + 'mounts { source: "./x" target: "/x" files { path: "x" sha256: "../../x" } }', {}, "mounts"),
        "a job with a service's keys": (good + 'aliases: "db"', {"job": True}, "aliases"),
        "a job with a port out of range": (good + "extra_ports { host_port: 1 container_port: 99999 }", {"job": True}, "extra_ports"),
        "a zone that is a path": (good + 'job { tz: "../../etc/passwd" }', {}, "tz"),
    }
    with Agent() as a:
        a.wait(lambda kind, v: kind == "full")
        epoch = 0
        for label, (spec, how, key) in cases.items():
            epoch += 1
            push(a, assignment(spec, "shop", "web", 1, epoch=epoch, **how))
            s = a.status("shop/web.1", epoch=epoch, phase="failed")
            assert key in s["reason"], (label, s["reason"])
            nothing_made(a)
        # And one that is good, to know that all this was not refused for another reason.
        push(a, assignment(good, "shop", "web", 1, epoch=epoch + 1))
        a.status("shop/web.1", epoch=epoch + 1, phase="running")


def test_what_runs_goes_on_while_others_are_refused():
    with Agent() as a:
        a.spec(service())
        a.assign("web")
        a.status("shop/web.1", phase="running")
        before = a.inspect(a.name("web"))["State"]["StartedAt"]
        hostile = assignment(as_proto({"name": "evil", "project": "shop", "image": IMAGE, "privileged": True}), "shop", "evil", 1)
        push(a, hostile, assignment(as_proto({"name": "a/b", "project": "shop", "image": IMAGE}), "shop", "a/b", 1), more=' removed: "../x" removed: "shop/web" removed: ""')
        a.status("shop/evil.1", phase="failed")
        push(a, hostile, assignment(f'name: "web" project: "shop" image: {_quote(IMAGE)}', "shop", "web", 1, node="n2"))
        a.wait(lambda kind, v: kind == "event" and v["kind"] == "node.assignment_refused")
        assert a.inspect(a.name("web"))["State"]["StartedAt"] == before and len(a.containers()) == 1


def test_a_policy_that_is_taken_back_refuses_what_is_made_next_and_touches_nothing_that_runs():
    with Agent() as a:
        a.cluster_toml('[policy]\nallow_caps = ["SYS_TIME"]\n')
        a.spec(service(extra='caps = ["SYS_TIME"]'))
        a.send("full")
        a.assign("web")
        a.status("shop/web.1", phase="running")
        before = a.inspect(a.name("web"))["State"]["StartedAt"]
        a.cluster_toml("[policy]\n")
        a.send("full")
        a.assign("web", 2)
        assert "caps" in a.status("shop/web.2", phase="failed")["reason"]
        assert a.inspect(a.name("web"))["State"]["StartedAt"] == before and len(a.containers()) == 1


def test_a_folder_that_became_a_link_is_not_mounted_when_it_starts_again(tmp_path):
    """Who may write in an allowed path (another container has it, perhaps) puts a link to elsewhere in the place of what was mounted."""
    (tmp_path / "data").mkdir()
    with Agent() as a:
        a.cluster_toml(f'[policy]\nallow_host_paths = ["{tmp_path}"]\n')
        a.spec(service(extra=f'mounts = ["{tmp_path}/data:/mnt"]'))
        a.send("full")
        a.assign("web")
        a.status("shop/web.1", phase="running")
        (tmp_path / "data").rmdir()
        (tmp_path / "data").symlink_to("/etc")
        docker("kill", a.name("web"))
        said = a.wait(lambda kind, v: kind == "status" and v["id"] == "shop/web.1" and "symbolic link" in v["reason"] and v)
        assert str(tmp_path) in said["reason"]
        assert not a.inspect(a.name("web"))["State"]["Running"]
        # What is there is judged when it is made anew, and refused by where it leads; put right, it runs.
        a.assign("web", 1, 1, 2)
        a.wait(lambda kind, v: kind == "status" and v["epoch"] == 2 and "allow_host_paths does not allow /etc" in v["reason"] and v)
        (tmp_path / "data").unlink()
        (tmp_path / "data").mkdir()
        a.assign("web", 1, 1, 3)
        a.status("shop/web.1", epoch=3, phase="running", timeout=40)
