"""SIGKILL of the store at random moments under eight writers: whatever was acknowledged is there, nothing is half there, and
`orca-storectl verify` finds nothing. ORCA_CRASHES=1000 for the long run (default: 12); ORCA_SEED for another order of events."""
import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

from orca import BIN, Cluster, wait_for

TOOLS = BIN.parent / "tests"
WRITERS = 8


class Store:
    """The store of a cluster, alone, started and killed by the test."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.toml = str(cluster.run / "node.toml")
        (cluster.run / "log").mkdir(exist_ok=True)
        self.log = open(cluster.run / "log/store.log", "ab")
        self.process = None

    def start(self):
        self.process = subprocess.Popen([str(BIN / "orca-store"), "-c", self.toml], stderr=self.log)

    def kill(self, signo=signal.SIGKILL):
        self.process.send_signal(signo)
        return self.process.wait(20)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        self.log.close()

    def dir(self):
        text = pathlib.Path(self.toml).read_text()
        return next(line.split('"')[1] for line in text.splitlines() if line.startswith("state_dir")) + "/store"

    def ctl(self, *args, check=True, **kw):
        done = subprocess.run([str(BIN / "orca-storectl"), "-c", self.toml, *args], capture_output=True, text=True, check=False, **kw)
        if check:
            assert done.returncode == 0, f"storectl {args}: {done.stdout}{done.stderr}"
        return done

    def verify(self):
        done = self.ctl("verify", self.dir(), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no faults" in done.stdout

    def all(self, prefix):
        """Every key under a prefix → (value, mod_revision)."""
        reply = json.loads(self.ctl("range", prefix, "--prefix", "-o", "json").stdout)
        assert not reply["more"], "more keys than one answer holds"
        return {kv["key"]: (kv["value"], kv["mod_revision"]) for kv in reply["kvs"]}


def check_all(store, acked):
    for writer in range(WRITERS):
        found = {}
        for part in range(max(acked[writer], default=0) // 10000 + 2):
            found.update(store.all(f"/crash/{writer:02}/{part:06}"))
        for seq, revision in acked[writer].items():
            key = f"/crash/{writer:02}/{seq:010}"
            assert key in found, f"{key} was acknowledged at revision {revision} and is gone"
            assert found[key][1] == revision, f"{key}: acknowledged at revision {revision}, found {found[key][1]}"
            assert int(found[key][0].split()[0]) == seq
        value, revision = store.all(f"/crash/{writer:02}/last")[f"/crash/{writer:02}/last"]
        seq = int(value.split()[0])
        # Both halves of the last transaction, at one revision.
        assert found[f"/crash/{writer:02}/{seq:010}"][1] == revision


def test_sigkill_loses_nothing_acknowledged():
    crashes = int(os.environ.get("ORCA_CRASHES", "12"))
    rng = random.Random(int(os.environ.get("ORCA_SEED", "1")))
    with Cluster(start=False) as cluster:
        store = Store(cluster)
        acked = {w: {} for w in range(WRITERS)}
        writers = None
        try:
            store.start()
            wait_for(lambda: store.ctl("status", check=False).returncode == 0)
            writers = subprocess.Popen([str(TOOLS / "store-writers"), "-c", store.toml, "/crash/", str(WRITERS), "64"], stdout=subprocess.PIPE, text=True)

            def read():
                for line in writers.stdout:
                    writer, seq, revision = map(int, line.split())
                    acked[writer][seq] = revision

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            previous = 0
            for crash in range(crashes):
                # From right after the start (while it reads its log) to well into the writes.
                before = sum(len(a) for a in acked.values())
                time.sleep(rng.choice([0.005, 0.02, 0.05, 0.1]) * (1 + rng.random()))
                store.kill()
                if crash % 10 == 0:
                    store.verify()
                store.start()
                if crash % 4 == 0:
                    wait_for(lambda n=before: sum(len(a) for a in acked.values()) > n, 20, message="a write after the crash")
                    assert sum(len(a) for a in acked.values()) > previous
                    previous = sum(len(a) for a in acked.values())
            writers.terminate()
            writers.wait(10)
            reader.join(10)
            wait_for(lambda: store.ctl("status", check=False).returncode == 0)
            assert sum(len(a) for a in acked.values()) > crashes
            check_all(store, acked)
            # A clean stop, then once more from what is on the disk, without the map: snapshot and log alone make the same state.
            before, revision = store.all("/crash/00/last"), json.loads(store.ctl("status", "-o", "json").stdout)["revision"]
            assert store.kill(signal.SIGTERM) == 0
            store.verify()
            for name in ("data.mdb", "lock.mdb"):
                (pathlib.Path(store.dir()) / "kv" / name).unlink()
            (pathlib.Path(store.dir()) / "mark").unlink()
            store.start()
            wait_for(lambda: store.ctl("status", check=False).returncode == 0)
            assert json.loads(store.ctl("status", "-o", "json").stdout)["revision"] == revision
            assert store.all("/crash/00/last") == before
            check_all(store, acked)
        finally:
            if writers and writers.poll() is None:
                writers.kill()
            store.close()
