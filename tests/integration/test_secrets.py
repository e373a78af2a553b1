"""Secrets: set, listed without values, in the environment and as files, missing, newer than what runs, forgotten, sealed anew."""
import base64
import concurrent.futures
import json
import os
import pathlib
import random
import signal
import subprocess
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
    assert "secret DB is missing: orcactl secrets set DB" in state(c)["last_error"]
    assert any("secret DB is missing" in i["reason"] and i["state"] == "pending" for i in c.instances("web"))
    assert "secret DB is missing" in c.ctl("explain", "web").stdout
    assert any(e["kind"] == "instance.waiting" for e in c.api("GET", "/api/v1/events").json()["events"])

    set_secret(c, "DB", b"global-one\n")
    set_secret(c, "DB", b"p\xc3\xa4ss wort\n", "-p", "shop")  # the project's own goes first
    set_secret(c, "CERT", bytes(range(256)), "--project", "shop")  # binary
    wait_for(lambda: "secret GLOBAL is missing" in state(c)["last_error"])
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
    wait_for(lambda: not folder.exists(), message="no files are left")
