"""A known value is looked for everywhere: it is in the container's environment and its tmpfs file, and nowhere else."""
import base64
import contextlib
import http.client
import os
import pathlib
import re
import subprocess
import time
import uuid

import pytest

from orca import APP, BIN, DAEMONS, wait_for

SERVICE = f"""
[[service]]
name = "web"
image = "{APP}"
pull = "never"
port = 8080
domain = "web.test"
secret_files = ["TYPED"]
[service.env]
A = "x-${{secrets.TYPED}}"
B = "${{secrets.IMPORTED}}"
C = "${{secrets.PASSED}}"
"""


def forms(value):
    """The value, and in each of the ways base64 can hold it; what surrounds it moves it by one or two bytes."""
    raw = value.encode()
    found = {raw, raw.hex().encode()}
    for pad in range(3):
        text = base64.b64encode(b"\0" * pad + raw)
        found.add(text[4 if pad else 0:len(text) // 4 * 4 - 4])
    return found


def written(path):
    """What a file holds, without its holes: the store's map reserves 16 GiB."""
    size = path.stat().st_size
    with path.open("rb") as f:
        at = 0
        while at < size:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            f.seek(start)
            while start < end:
                piece = f.read(min(end - start, 1 << 24))
                if not piece:
                    return
                yield piece
                start += len(piece)
            at = end


def has(pieces, needles):
    tail = b""
    for piece in pieces:
        whole = tail + piece
        for needle in needles:
            if needle in whole:
                return needle
        tail = whole[-256:]
    return None


def memory(pid):
    """All that a process has in memory and may write."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, mode, *rest = line.split()
            if "rw" not in mode or line.rstrip().endswith((".mdb", "[vvar]", "[vsyscall]")):
                continue
            start, end = (int(n, 16) for n in span.split("-"))
            try:
                mem.seek(start)
                while start < end:
                    piece = mem.read(min(end - start, 1 << 22))
                    if not piece:
                        break
                    yield piece
                    start += len(piece)
            except (OSError, ValueError):
                continue


def of_container(c, path):
    """From the container itself: through the proxy it would be traffic in the proxy's memory."""
    connection = http.client.HTTPConnection(c.instances("web")[0]["address"], 8080, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def of_orca(c):
    return {d: c.pid(d) for d in DAEMONS}


def test_a_value_is_nowhere_else(cluster):
    c = cluster
    typed, imported, passed = (f"leak{uuid.uuid4().hex}" for _ in range(3))
    needles = set().union(*(forms(v) for v in (typed, imported, passed)))
    subprocess.run([str(BIN / "orcactl"), "secrets", "set", "TYPED", "-p", "shop"], input=typed.encode(), env=c.env, check=True, timeout=60, capture_output=True)
    subprocess.run([str(BIN / "orcactl"), "secrets", "import", "-f", "-"], input=f"IMPORTED='{imported}'\n".encode(), env=c.env, check=True, timeout=60,
                   capture_output=True)
    assert "in the arguments" in c.ctl("secrets", "set", "PASSED", passed).stderr
    c.deploy("shop", SERVICE)
    container = wait_for(lambda: c.running("shop/web")[0])
    assert {f"A=x-{typed}", f"B={imported}", f"C={passed}"} <= set(container["Config"]["Env"])
    assert of_container(c, "/file?/run/secrets/TYPED").strip() == typed
    c.ctl("secrets", "rotate-key")
    c.ctl("redeploy", "web")
    wait_for(lambda: c.service("web")["service"]["status"] == "running", 40)
    container = wait_for(lambda: c.running("shop/web")[0])
    assert c.api("PUT", "/api/v1/secrets/9bad", {"value": typed}).status == 400
    assert c.api("PUT", "/api/v1/secrets/TYPED?project=shop", {"value": typed, "other": 1}).status == 400
    assert c.api("PUT", "/api/v1/secrets/TYPED?project=shop", f'{{"value": "{typed}", "value": 1}}').status == 400
    for broken in (f'{{"value": {typed}}}', f'{{"value": "x" {typed}', f'{{"{typed}" "x"}}', f'["{typed}"', typed):
        answer = c.api("PUT", "/api/v1/secrets/TYPED?project=shop", broken)
        assert answer.status == 400 and typed not in answer.text, answer.text

    # every answer there is
    paths = [p.replace("{name}", "web") for p, methods in c.api("GET", "/api/v1/openapi.json").json()["paths"].items() if "get" in methods]
    assert "/api/v1/secrets" in paths and len(paths) > 8
    for path in [*paths, "/api/v1/secrets/TYPED?project=shop", "/api/v1/events?limit=1000"]:
        assert not has([c.api("GET", path).body], needles), path
    for verb in (["status", "-o", "json"], ["inspect", "web"], ["inspect", "web", "-o", "json"], ["explain", "web"], ["history", "web", "-o", "json"], ["ps", "-o", "wide"],
                 ["events", "-o", "json"], ["secrets", "list", "-o", "json"], ["-C", str(c.infra), "plan"]):
        done = c.ctl(*verb, check=False)
        assert not has([done.stdout.encode(), done.stderr.encode()], needles), verb

    # every file of the cluster's, every command line and environment but the container's own
    for path in c.dir.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert not has(written(path), needles), path
    inside = {container["State"]["Pid"]}
    found = set()
    for proc in pathlib.Path("/proc").iterdir():
        if not re.fullmatch(r"\d+", proc.name):
            continue
        for what in ("cmdline", "environ"):
            try:
                if has([(proc / what).read_bytes()], needles):
                    found.add((int(proc.name), what))
            except OSError:
                continue
    assert found == {(pid, "environ") for pid in inside}
    files = [p for p in pathlib.Path("/dev/shm").rglob("*") if p.is_file() and has([p.read_bytes()], needles)]
    source = pathlib.Path(next(m["Source"] for m in container["Mounts"] if m["Destination"] == "/run/secrets"))
    assert (source / "TYPED").read_text() == typed and all(f.parent == source for f in files)

    # no core file can be written, and what passed through is wiped
    for daemon, pid in of_orca(c).items():
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size\s+0\s+0\s", limits), daemon
        assert not has(memory(pid), needles), f"in the memory of {daemon}"


def test_nobody_of_the_same_user_reads_its_memory():
    """orcactl waits for a value: its own user can't open its memory (nor take a core of it)."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    tool = "/tmp/orcactl-" + uuid.uuid4().hex
    subprocess.run(["install", "-m", "0755", str(BIN / "orcactl"), tool], check=True)
    try:
        with subprocess.Popen([tool, "secrets", "set", "A"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=65534, group=65534,
                              extra_groups=[], env={"HOME": "/nonexistent", "ORCA_HOME": "/nonexistent"}, cwd="/") as waiting:
            limits = pathlib.Path(f"/proc/{waiting.pid}/limits")
            wait_for(lambda: re.search(r"Max core file size\s+0\s+0\s", limits.read_text()))
            time.sleep(0.1)
            for what in ("mem", "environ", "maps"):
                done = subprocess.run(["head", "-c", "1", f"/proc/{waiting.pid}/{what}"], user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
                assert done.returncode != 0 and b"ermission denied" in done.stderr, what
            waiting.kill()
    finally:
        os.unlink(tool)
