"""What befalls a store's folder: a second store, an unclean machine, flipped bits, a newer format, a full disk, garbage on the port."""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess

import pytest
from orca import BIN, Cluster, wait_for
from test_store_crash import Store


@pytest.fixture
def store():
    with Cluster(start=False) as cluster:
        s = Store(cluster)
        try:
            start(s)
            yield s
        finally:
            s.close()


def start(s):
    s.start()
    wait_for(lambda: s.ctl("status", "--timeout", "1", check=False).returncode in (0, 1))


def fill(s, n, size=100):
    s.ctl("bench", "--total", str(n), "--outstanding", "64", "--value-size", str(size))


def state(s):
    return {kv["key"]: (kv["value"], kv["mod_revision"], kv["version"]) for kv in json.loads(s.ctl("range", "", "--prefix", "-o", "json").stdout)["kvs"]}


def log_text(s):
    return (s.cluster.run / "log/store.log").read_text()


def fails_to_start(s):
    before = len(log_text(s))
    s.start()
    assert s.process.wait(20) != 0
    return log_text(s)[before:]


def test_a_second_store_is_told_who_has_the_folder(store):
    second = subprocess.run([str(BIN / "orca-store"), "-c", store.toml], capture_output=True, text=True, check=False, timeout=20)
    assert second.returncode == 1
    assert str(store.process.pid) in second.stderr
    store.ctl("put", "/still", "here")


def test_after_an_unclean_machine_the_map_is_made_anew(store):
    fill(store, 3000)
    before = state(store)
    store.kill()
    mark = pathlib.Path(store.dir()) / "mark"
    mark.write_text("boot 00000000-0000-0000-0000-000000000000 running\n")
    # The map as a power cut leaves it: some pages old, some new, some torn.
    data = pathlib.Path(store.dir()) / "kv/data.mdb"
    with open(data, "r+b") as f:
        for page in range(2, 40, 3):
            f.seek(page * 4096 + 512)
            f.write(os.urandom(2048))
    start(store)
    assert "went down without a clean stop" in log_text(store)
    assert state(store) == before
    store.kill(signal.SIGTERM)
    store.verify()


def test_a_flipped_bit_in_the_map_is_found_and_mended(store):
    store.ctl("put", "/precious", "this very value of ours")
    fill(store, 500)
    before = state(store)
    store.kill()
    data = pathlib.Path(store.dir()) / "kv/data.mdb"
    with open(data, "r+b") as f:
        content = f.read(64 << 20)
        at = content.find(b"this very value of ours")
        assert at > 0
        while at > 0:
            f.seek(at + 4)
            f.write(bytes([content[at + 4] ^ 0x10]))
            at = content.find(b"this very value of ours", at + 1)
    damaged = store.ctl("verify", store.dir(), check=False)
    assert damaged.returncode == 1 and "/precious" in damaged.stdout
    start(store)
    store.ctl("range", "/precious", "--timeout", "2", check=False)  # the store sees it, says so, and ends
    assert store.process.wait(10) == 1
    assert "/precious" in log_text(store)
    start(store)
    assert state(store) == before


def test_a_flipped_bit_in_the_log_is_named_and_never_skipped(store):
    for i in range(5):
        store.ctl("put", f"/k/{i}", f"the value with number {i}")
    store.kill()
    segment = sorted((pathlib.Path(store.dir()) / "log").glob("*.log"))[0]
    content = segment.read_bytes()
    at = content.find(b"the value with number 2")
    assert at > 0
    with open(segment, "r+b") as f:
        f.seek(at + 3)
        f.write(bytes([content[at + 3] ^ 1]))
    said = fails_to_start(store)
    assert segment.name in said and "code=corrupt" in said
    damaged = store.ctl("verify", store.dir(), check=False)
    assert damaged.returncode == 1 and segment.name in damaged.stdout
    segment.write_bytes(content)
    start(store)
    assert state(store)["/k/2"][0] == "the value with number 2"


def test_a_log_of_a_newer_version_is_refused_by_name(store):
    store.ctl("put", "/a", "1")
    store.kill()
    data = pathlib.Path(store.dir()) / "kv"
    for name in ("data.mdb", "lock.mdb"):
        (data / name).unlink()
    segment = sorted((pathlib.Path(store.dir()) / "log").glob("*.log"))[0]
    content = bytearray(segment.read_bytes())
    # The version stands behind the 8 bytes of magic; the checksum of the header may be asked first: either way it is not read on.
    content[8:12] = struct.pack("<I", 99)
    segment.write_bytes(content)
    said = fails_to_start(store)
    assert "newer" in said or "format" in said or "header" in said
    assert segment.name in said


def test_garbage_on_the_port_does_no_harm(store):
    host, port = store.cluster.address, store.cluster.ports.get("store", 6882)
    for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" + b"\x00" * 54 + os.urandom(1000), b""):
        with socket.create_connection((host, port), timeout=5) as s:
            s.sendall(junk)
    store.ctl("put", "/a", "1")
    assert store.process.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_refuses_writes_and_comes_back(store):
    store.kill(signal.SIGTERM)
    folder = store.dir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    ballast = pathlib.Path(folder) / "ballast"
    try:
        start(store)
        store.ctl("put", "/before", "the disk was full")
        with open(ballast, "wb") as f, pytest.raises(OSError):
            while True:
                f.write(b"\0" * 65536)
                f.flush()
        value = "v" * 60000
        refused = None
        for i in range(400):
            done = store.ctl("put", f"/fill/{i}", value, "--timeout", "3", check=False)
            if done.returncode:
                refused = done.stderr
                break
        assert refused and "no_space" in refused, refused
        assert store.ctl("range", "/before").stdout == "/before\nthe disk was full\n"
        assert "refused" in store.ctl("status", check=False).stdout
        ballast.unlink()
        wait_for(lambda: store.ctl("put", "/after", "there is room", "--timeout", "2", check=False).returncode == 0, 20)
        assert store.process.poll() is None
        assert store.kill(signal.SIGTERM) == 0
        store.verify()
    finally:
        store.close()
        subprocess.run(["umount", folder], check=True)
