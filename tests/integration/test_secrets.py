"""Secrets: set, listed without values, in the environment and as files, missing, newer than what runs, forgotten, sealed anew."""
import base64
import concurrent.futures
import http.client
import io
import json
import os
import pathlib
import pty
import random
import subprocess
import tarfile
import threading
import time

from orca import APP, BIN, Cluster, docker, wait_for

SERVICE = f"""
[[service]]
name = "web"
image = "{APP}"
pull = "never"
port = 8080
secret_files = ["CERT", "GLOBAL"]
user = "1234"
[service.env]
URL = "postgres://u:${{secrets.DB}}@db/x$${{y}}"
"""


def set_secret(c, name, value, *args):
    done = subprocess.run([str(BIN / "orcactl"), "secrets", "set", name, *args], input=value, capture_output=True, env=c.env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def state(c, service="web"):
    return next(s for s in c.api("GET", "/api/v1/status").json()["services"] if s["name"] == service)


def the_container(c):
    return wait_for(lambda: (c.running("shop/web") or [None])[0], message="running")


def env_of(container):
    return dict(e.split("=", 1) for e in container["Config"]["Env"])


def files_of(container):
    source = next(m["Source"] for m in container["Mounts"] if m["Destination"] == "/run/secrets")
    return pathlib.Path(source)


def test_from_missing_to_forgotten(cluster):
    c = cluster
    c.deploy("shop", SERVICE, "--no-wait")
    wait_for(lambda: state(c)["status"] == "pending" and "is missing" in state(c)["last_error"], message="pending")
    assert "secret shop/DB is missing: orcactl secrets set DB --project shop" in state(c)["last_error"]
    assert any("secret shop/DB is missing" in i["reason"] and i["state"] == "pending" for i in c.instances("web"))
    assert "secret shop/DB is missing" in c.ctl("explain", "web").stdout
    assert any(e["kind"] == "instance.waiting" for e in c.api("GET", "/api/v1/events").json()["events"])

    set_secret(c, "DB", b"global-one\n")
    set_secret(c, "DB", b"p\xc3\xa4ss wort\n", "-p", "shop")  # the project's own goes first
    set_secret(c, "CERT", bytes(range(256)), "--project", "shop")  # binary
    wait_for(lambda: "secret shop/GLOBAL is missing" in state(c)["last_error"])
    c.ctl("secrets", "set", "GLOBAL", "of-all")
    wait_for(lambda: state(c)["status"] == "running", message="runs once the last one is set")

    container = the_container(c)
    assert env_of(container)["URL"] == "postgres://u:p\u00e4ss wort@db/x${y}"
    folder = files_of(container)
    assert (folder / "CERT").read_bytes() == bytes(range(256))
    assert (folder / "GLOBAL").read_bytes() == b"of-all"
    assert [(p.name, p.stat().st_mode & 0o777, p.stat().st_uid) for p in sorted(folder.iterdir())] == [("CERT", 0o400, 1234), ("GLOBAL", 0o400, 1234)]
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True).stdout.strip() == "tmpfs"
    mount = next(m for m in container["Mounts"] if m["Destination"] == "/run/secrets")
    assert not mount["RW"]

    listed = {(s["project"], s["name"]): s for s in c.api("GET", "/api/v1/secrets").json()["secrets"]}
    assert listed[("shop", "DB")]["used_by"] == ["shop/web"] and listed[(None, "DB")]["used_by"] == []
    assert listed[("shop", "CERT")]["version"] == 1 and listed[("shop", "CERT")]["updated_by"] == "admin"
    assert "of-all" not in json.dumps(list(listed.values())) and "DB" in c.ctl("secrets", "list").stdout

    # a new value changes no revision and restarts nothing; redeploy takes it up
    before = c.service("web")["service"]
    assert before["secrets_newer"] is False
    assert b"value already" in set_secret(c, "GLOBAL", b"of-all").stdout
    set_secret(c, "GLOBAL", b"of-all-2")
    wait_for(lambda: state(c)["secrets_newer"])
    assert "shop/web: secrets newer than the running instance" in c.ctl("status").stdout
    assert c.service("web")["service"]["revision"] == before["revision"] and the_container(c)["Id"] == container["Id"]
    c.ctl("redeploy", "web")
    wait_for(lambda: the_container(c)["Id"] != container["Id"] and not state(c)["secrets_newer"] and state(c)["status"] == "running", 40)
    wait_for(lambda: not folder.exists(), message="the files of the old container are gone")
    container = the_container(c)
    assert (files_of(container) / "GLOBAL").read_bytes() == b"of-all-2"

    # forgotten, and set again: it is not taken for the one that went
    c.ctl("secrets", "rm", "GLOBAL", "--yes")
    assert c.api("GET", "/api/v1/secrets/GLOBAL").status == 404
    set_secret(c, "GLOBAL", b"of-all-3")
    wait_for(lambda: state(c)["secrets_newer"])
    folder = files_of(the_container(c))
    c.ctl("rm", "web", "--purge", "--yes")
    wait_for(lambda: not folder.parent.exists(), message="no files are left, nor the folder around them")


def test_what_depends_on_one_that_waits_waits_with_it(cluster):
    c = cluster
    c.deploy("shop", f"""
[[service]]
name = "db"
image = "{APP}"
port = 8080
[service.env]
DB = "${{secrets.DB}}"
[service.deploy]
min_ready = "0s"

[[service]]
name = "web"
image = "{APP}"
port = 8080
depends_on = ["db"]
[service.deploy]
timeout = "2s"
min_ready = "0s"
""", "--no-wait")
    wait_for(lambda: "is missing" in state(c, "db")["last_error"], message="db waits")
    time.sleep(5)  # more than deploy.timeout
    assert state(c, "web")["status"] == "pending" and "waiting for" in state(c, "web")["last_error"], state(c, "web")
    set_secret(c, "DB", b"hunter2")
    wait_for(lambda: all(state(c, name)["status"] == "running" for name in ("db", "web")), message="both run")


def test_a_reboot_takes_the_files_and_they_come_back(cluster):
    c = cluster
    for name in ("DB", "CERT", "GLOBAL"):
        set_secret(c, name, f"value of {name}".encode())
    c.deploy("shop", SERVICE)
    container = the_container(c)
    folder = files_of(container)
    c.stop()
    docker("kill", container["Id"])
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.parent.rmdir()
    c.start()
    wait_for(lambda: c.running("shop/web"), 40, message="runs again")
    assert the_container(c)["Id"] == container["Id"]
    assert {p.name: (p.read_bytes(), p.stat().st_uid) for p in folder.iterdir()} == {"CERT": (b"value of CERT", 1234), "GLOBAL": (b"value of GLOBAL", 1234)}


def named_user_image():
    """The test image with an /etc/passwd that knows `web`."""
    tag = f"orca-test/user:{os.getpid()}"
    config = json.loads(docker("image", "inspect", APP))[0]["Config"]
    made = docker("create", APP, "x")
    try:
        raw = subprocess.run(["docker", "export", made], capture_output=True, check=True).stdout
    finally:
        docker("rm", made)
    out = io.BytesIO()
    passwd = b"root:x:0:0::/:/bin/false\nwebber:x:1:1::/:\nweb:x:4321:99::/:/bin/false\n"
    with tarfile.open(fileobj=io.BytesIO(raw)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.name != "etc/passwd":
                new.addfile(member, old.extractfile(member) if member.isfile() else None)
        info = tarfile.TarInfo("etc/passwd")
        info.size = len(passwd)
        new.addfile(info, io.BytesIO(passwd))
    command = (config.get("Entrypoint") or []) + (config.get("Cmd") or [])
    subprocess.run(["docker", "import", "--change", f"ENTRYPOINT {json.dumps(command)}", "--change", "USER web", "-", tag], input=out.getvalue(), check=True, capture_output=True)
    return tag


def test_files_belong_to_a_user_that_only_the_image_knows(cluster):
    c = cluster
    tag = named_user_image()
    try:
        set_secret(c, "CERT", b"x")
        text = f"""
[[service]]
name = "web"
image = "{tag}"
pull = "never"
port = 8080
secret_files = ["CERT"]
"""
        c.deploy("shop", text)
        assert [p.stat().st_uid for p in files_of(the_container(c)).iterdir()] == [4321]
        # a passwd that is a link to somewhere is not followed: root's, and that is said
        c.ctl("rm", "web", "--purge", "--yes")
        c.deploy("shop", text.replace('port = 8080', 'port = 8080\nuser = "root:0"'))
        wait_for(lambda: c.running("shop/web"))
        assert [p.stat().st_uid for p in files_of(the_container(c)).iterdir()] == [0]
    finally:
        c.ctl("rm", "web", "--purge", "--yes", check=False)
        wait_for(lambda: not c.containers("shop/web"))
        docker("rmi", "-f", tag)


def test_what_can_not_be_an_environment_says_so(cluster):
    c = cluster
    text = f"""
[[service]]
name = "web"
image = "{APP}"
pull = "never"
[service.env]
X = "a${{secrets.ODD}}"
"""
    set_secret(c, "ODD", b"a\0b")
    c.deploy("shop", text, "--no-wait")
    wait_for(lambda: "secret ODD has a NUL byte: it can only be in secret_files" in state(c)["last_error"])
    set_secret(c, "ODD", b"\xff\xfe")
    c.ctl("redeploy", "web")
    wait_for(lambda: "is not UTF-8 text" in state(c)["last_error"], 40)
    set_secret(c, "ODD", b"even")
    wait_for(lambda: c.running("shop/web"), 40)


def test_refusals(cluster):
    c = cluster
    put = lambda name, body, project="": c.api("PUT", f"/api/v1/secrets/{name}{project}", body)  # noqa: E731
    assert put("A", {"value": "x" * 65537}).status == 413
    assert put("A", {"value_base64": base64.b64encode(b"x" * 65536).decode()}).status == 200
    assert put("A", {"value_base64": "!"}).status == 400
    assert put("A", {"value": 1}).status == 400 and put("A", {}).status == 400
    assert put("A", {"value": "x"}, "?project=Bad_Name").status == 400
    assert put("A" * 128, {"value": "x"}).status == 200
    assert put("A" * 129, {"value": "x"}).status in (400, 404)
    for name in ("1A", "a%2Fb", "a%20b", "%C3%A4", "..", "a%00b", "-a"):
        assert put(name, {"value": "x"}).status in (400, 404), name
    many = {"secrets": {"GOOD": "x", "B AD": "y"}}
    assert c.api("POST", "/api/v1/secrets", many).status == 400 and c.api("GET", "/api/v1/secrets/GOOD").status == 404
    assert c.api("POST", "/api/v1/secrets", {"secrets": {}}).status == 400
    assert c.api("DELETE", "/api/v1/secrets/NONE").status == 404
    assert c.api("GET", "/api/v1/secrets", token=None).status == 401
    # all together are bounded, so that they can be sealed anew at once
    big = {"secrets": {f"BIG{n}": "x" * 65536 for n in range(60)}}
    assert c.api("POST", "/api/v1/secrets?project=shop", big).status == 413
    for text, fault in (("A=1\nA=2\n", "line 2: A was there before"), ("A='x\n", "line 1: its quote is never closed"), ("=x\n", "line 1: want NAME=VALUE"),
                        ('A="\\q"\n', "line 1: after a"), ("", "nothing is in it")):
        (c.dir / "x.env").write_text(text)
        done = c.ctl("secrets", "import", "-f", "x.env", check=False)
        assert done.returncode == 1 and fault in done.stderr, (text, done.stderr)
    (c.dir / "x.env").write_text("# all\nexport ONE = 1 # one\nTWO=\"a\\nb\"\nTHREE='x\ny'\n")
    assert c.ctl("secrets", "import", "-f", "x.env", "-p", "shop").stdout.count("kept") == 3


def test_a_key_that_others_can_read_is_refused():
    with Cluster(start=False) as c:
        key = c.run / "keys/apiserver/master.key"
        config = ["-c", str(c.run / "node.toml")]
        for mode in (0o440, 0o404, 0o600 | 0o020):
            key.chmod(mode)
            done = subprocess.run([str(BIN / "orca-apiserver"), *config], capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode != 0 and "master.key" in done.stderr and "chmod" in done.stderr, done.stderr
        key.chmod(0o600)
        key.write_text("not a key\n")
        done = subprocess.run([str(BIN / "orca-apiserver"), *config], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode != 0 and "not a key" in done.stderr


def test_a_rotation_that_is_killed_loses_nothing(cluster):
    """2,000 secrets, and the apiserver killed at any moment of sealing them anew."""
    c = cluster
    values = {f"S{n:04}": f"v{n}-{random.random()}" for n in range(2000)}
    names = list(values)
    for half in (names[:1000], names[1000:]):
        assert c.api("POST", "/api/v1/secrets", {"secrets": {n: values[n] for n in half}}, timeout=60).status == 200
    refs = "\n".join(f'E{n} = "{"".join("${secrets." + name + "}" for name in names[n:n + 40])}"' for n in range(0, 2000, 40))
    text = f"""
[[service]]
name = "web"
image = "{APP}"
pull = "never"
[service.deploy]
min_ready = "0s"
[service.env]
{refs}
"""
    wanted = {f"E{n}": "".join(values[name] for name in names[n:n + 40]) for n in range(0, 2000, 40)}

    def check():
        """A new container is made of what opens now."""
        def right():
            at = c.running("shop/web")
            return len(at) == 1 and at[0]["Id"] not in seen and at
        container = wait_for(right, 60, message="a new container")[0]
        seen.add(container["Id"])
        env = env_of(container)
        assert {k: env[k] for k in wanted} == wanted

    seen = set()
    c.deploy("shop", text)
    check()
    began = time.monotonic()
    first = c.api("POST", "/api/v1/secrets/rotate-key", timeout=60)
    took = time.monotonic() - began
    assert first.status == 200 and first.json()["resealed"] == 2000
    outcomes = set()
    for n in range(int(os.environ.get("ORCA_CRASHES", "12"))):
        def rotate():
            try:
                c.api("POST", "/api/v1/secrets/rotate-key", timeout=10)
            except (OSError, http.client.HTTPException):
                pass
        thread = threading.Thread(target=rotate)
        thread.start()
        time.sleep(random.random() * took * 1.2)
        c.kill("apiserver")
        thread.join()
        outcomes.add((c.run / "keys/apiserver/master.key.next").exists())
        c.wait_healthy(30)
        assert c.api("PUT", "/api/v1/secrets/NEW", {"value": str(n)}).status == 200
        if n % 4 == 3:
            wait_for(lambda: c.api("POST", "/api/v1/services/web/redeploy").status == 200, 20)
            check()
    assert c.api("POST", "/api/v1/secrets/rotate-key", timeout=60).json()["resealed"] == 2001
    assert not (c.run / "keys/apiserver/master.key.next").exists()
    print("took", took, "left a next key behind:", outcomes)


def test_two_rotations_and_changes_at_once(cluster):
    c = cluster
    stop = time.monotonic() + 4
    lost = []

    def change(n):
        done = 0
        while time.monotonic() < stop:
            status = c.api("PUT", f"/api/v1/secrets/N{n}_{done}", {"value": f"{n}"}).status
            if status == 200:
                done += 1
            elif status not in (409, 429, 503):
                lost.append(status)
        return done

    def rotate(_n):
        good = 0
        while time.monotonic() < stop:
            status = c.api("POST", "/api/v1/secrets/rotate-key", timeout=30).status
            good += status == 200
            if status not in (200, 409, 429, 503):
                lost.append(status)
        return good

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        changed, rotated = pool.map(change, range(4)), pool.map(rotate, range(2))
        changed, rotated = sum(changed), sum(rotated)
    assert not lost and changed and rotated
    assert wait_for(lambda: c.api("POST", "/api/v1/secrets/rotate-key", timeout=30).json().get("resealed")) == changed


def on_a_terminal(c, typed, *args):
    """orcactl on a terminal of its own: what it shows, and its exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(str(BIN / "orcactl"), ["orcactl", *args], c.env)
    shown = b""
    while b"not shown" not in shown:
        shown += os.read(fd, 4096)
    time.sleep(0.2)
    os.write(fd, typed)
    while True:
        try:
            piece = os.read(fd, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(fd)
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_value_is_typed_without_being_seen(cluster):
    c = cluster
    shown, code = on_a_terminal(c, b"hidden words\n", "secrets", "set", "TYPED")
    assert code == 0 and b"Value of TYPED" in shown and b"hidden" not in shown
    assert b"value already" in set_secret(c, "TYPED", b"hidden words").stdout
    shown, code = on_a_terminal(c, b"other\x03", "secrets", "set", "TYPED")
    assert code == 1 and b"other" not in shown
    assert b"value already" in set_secret(c, "TYPED", b"hidden words").stdout
