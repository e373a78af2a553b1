"""A soak: a cluster of one node is deployed to, scaled, rolled, broken and killed at random, with a model beside it that says how it must be once it is
left alone. `tests/soak/soak.py --minutes 30 [--seed N]`; the same seed gives the same wishes (not the same timing).

Every round does a handful of random things, then waits for quiet: every service as the model has it (instances, version, answers through the proxy), nothing
else there (containers, networks), the store's own checks well. At the end everything is removed, and what each daemon holds (memory, descriptors,
threads), Docker has (containers, networks) and the store keeps (keys) is compared with what it was after the first rounds. Exit 0: clean."""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from orca import APP, BIN, DAEMONS, Cluster, docker, wait_for  # noqa: E402

NAMES = ["api", "web", "cron", "mail", "shop", "auth"]
QUIET_WITHIN = 90.0      # seconds from the last disturbance to the model's state
WARM_UP_ROUNDS = 4       # allocators and caches have their size by then
GROWTH = 3 << 20         # bytes of a daemon's own memory beyond what it had then; noise of allocators, not a leak of minutes
DESCRIPTORS = 6          # open connections that come and go
# Bounded on purpose and larger after a soak than before: history, audit, revisions kept for rollback.
BOUNDED_KEYS = ("/history/", "/audit/", "/revisions/", "/revision-status/", "/files/", "/job-runs/")


class Wanted:
    """What one service must come to."""

    def __init__(self, name):
        self.name, self.version, self.replicas, self.stopped, self.there = name, 0, 1, False, False
        self.history = []  # versions that completed

    def count(self):
        return 0 if self.stopped or not self.there else self.replicas

    def toml(self, version, broken=False):
        extra = "EXIT_AFTER_MS = \"1\", EXIT_CODE = \"3\", " if broken else ""
        return f"""[[service]]
name = "{self.name}"
image = "{APP}"
port = 8080
domain = "{self.name}.test"
stop_grace = "1s"
replicas = {self.spec_replicas}
env = {{ {extra}TEXT = "{self.name}-{version}" }}
[service.readiness]
path = "/healthz"
interval_secs = 1
[service.deploy]
min_ready = "50ms"
timeout = "20s"
"""

    spec_replicas = 1


class Soak:
    def __init__(self, cluster, rng, say):
        self.c, self.rng, self.say = cluster, rng, say
        self.services = {n: Wanted(n) for n in NAMES}
        self.done = {}
        self.baseline = None

    # ---- what happens

    def files(self, changed=None, text=None):
        """The infra directory as it stands: one project, one file."""
        parts = []
        for s in self.services.values():
            if changed is s:
                parts.append(text)
            elif s.there:
                parts.append(s.toml(s.version))
        self.c.write("soak", "\n".join(parts))

    def ctl(self, *args, ok=(0,)):
        for _ in range(40):  # an apiserver that was killed a moment ago is back within a second
            done = self.c.ctl(*args, check=False, timeout=120)
            if done.returncode != 3 and "unavailable" not in done.stderr:
                break
            time.sleep(0.25)
        if done.returncode not in ok:
            raise AssertionError(f"orcactl {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def settled(self, s):
        """The next wish for it waits until the last one is done, so that the model need not know how two of them mix."""
        if s.there:
            wait_for(lambda: self.is_as_wanted(s), QUIET_WITHIN, every=0.1, message=f"{s.name} comes to what was wanted before the next wish")

    def deploy(self, s):
        self.settled(s)
        version = s.version + 1
        if not s.there:
            s.replicas = s.spec_replicas = self.rng.randint(1, 3)
        self.files(s, s.toml(version))
        self.ctl("-C", str(self.c.infra), "deploy", s.name)
        s.there, s.stopped, s.version = True, False, version
        s.history.append(version)

    def deploy_broken(self, s):
        if not s.there or s.stopped or s.count() == 0:
            return self.deploy(s)
        self.settled(s)
        self.files(s, s.toml(s.version + 1, broken=True))
        self.ctl("-C", str(self.c.infra), "deploy", s.name, ok=(1,))  # fails, is rolled back by itself
        self.files()
        # The file is the old one again: deploying it makes the good version the wanted one, whatever runs.
        self.ctl("-C", str(self.c.infra), "deploy", s.name)
        return None

    def scale(self, s):
        if s.there and not s.stopped:
            self.settled(s)
            s.replicas = self.rng.randint(0, 4)
            self.ctl("scale", s.name, str(s.replicas))

    def stop(self, s):
        if s.there and not s.stopped:
            self.ctl("stop", s.name)
            s.stopped = True

    def start(self, s):
        if s.there and s.stopped:
            self.ctl("start", s.name)
            s.stopped = False

    def restart(self, s):
        if s.there and not s.stopped:
            self.settled(s)
            self.ctl("restart", s.name)

    def remove(self, s):
        if s.there:
            s.there = False
            self.files()
            self.ctl("rm", "--purge", "--yes", s.name)
            wait_for(lambda: not self.c.containers(f"soak/{s.name}"), QUIET_WITHIN, every=0.1, message=f"{s.name} is gone")
            s.version, s.stopped, s.history = s.version + 1, False, []

    def crash(self, s):
        running = self.c.running(f"soak/{s.name}") if s.there else []
        for container in running[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(container["State"]["Pid"], 9)

    def tamper(self, s):
        """Somebody removes a container behind the agent's back."""
        running = self.c.running(f"soak/{s.name}") if s.there else []
        for container in running[:1]:
            docker("rm", "-f", container["Id"], check=False)

    def kill_daemon(self, _):
        with contextlib.suppress(OSError, ValueError):
            self.c.kill(self.rng.choice(DAEMONS))

    def bad_request(self, _):
        self.c.api("POST", "/api/v1/deploy", b'{"services":[{"name":"x","image":"y","privileged":true,"project":"soak"}]}')
        self.c.api("GET", "/api/v1/services/none")
        self.c.api("GET", "/api/v1/status", token="wrong")

    THINGS = [(deploy, 6), (scale, 5), (restart, 2), (stop, 1), (start, 3), (crash, 4), (tamper, 1), (remove, 1), (deploy_broken, 1), (kill_daemon, 3), (bad_request, 1)]

    def disturb(self, kill):
        things, weights = zip(*[t for t in self.THINGS if kill or t[0] is not Soak.kill_daemon])
        thing = self.rng.choices(things, weights)[0]
        service = self.services[self.rng.choice(NAMES)]
        self.say(f"{thing.__name__} {service.name}")
        try:
            thing(self, service)
        except (OSError, http.client.HTTPException):
            if thing is not Soak.bad_request:  # the only one that may meet a daemon that was just killed
                raise
        self.done[thing.__name__] = self.done.get(thing.__name__, 0) + 1

    # ---- how it must be

    def is_as_wanted(self, s):
        running = self.c.running(f"soak/{s.name}")
        if len(running) != s.count() or len(self.c.containers(f"soak/{s.name}")) != s.count():
            return False
        texts = {e.split("=", 1)[1] for container in running for e in container["Config"]["Env"] if e.startswith("TEXT=")}
        if texts != ({f"{s.name}-{s.version}"} if s.count() else set()):
            return False
        if not s.there:
            return True
        answer = self.c.get(f"{s.name}.test")
        return answer.status == 200 and answer.text.strip() == f"{s.name}-{s.version}" if s.count() else answer.status == 503

    def check(self):
        for s in self.services.values():
            wait_for(lambda s=s: self.is_as_wanted(s), QUIET_WITHIN, every=0.1, message=f"{s.name}: {s.count()} of version {s.version}")
        status = self.c.api("GET", "/api/v1/status").json()["services"]
        assert {x["name"] for x in status} == {s.name for s in self.services.values() if s.there}, status
        wanted = {s.name: s.count() for s in self.services.values() if s.there}
        wait_for(lambda: {x["name"]: x["ready_replicas"] for x in self.c.api("GET", "/api/v1/status").json()["services"]} == wanted, QUIET_WITHIN,
                 message=f"status says {wanted}")
        networks = docker("network", "ls", "-q", "--filter", f"label=orca.cluster={self.c.id}").split()
        assert len(networks) <= 1, networks
        if not any(wanted.values()):
            wait_for(lambda: not self.c.containers(), QUIET_WITHIN, message="no container without a service")

    def storectl(self, *args):
        done = subprocess.run([str(BIN / "orca-storectl"), "-c", str(self.c.run / "node.toml"), *args], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self):
        lines = self.storectl("range", "/", "--prefix", "--keys-only").splitlines()
        found = {}
        for line in lines:
            if line.startswith("/"):
                kind = "/" + line.split("/")[1] + ("/" if line.count("/") > 1 else "")
                found[kind] = found.get(kind, 0) + 1
        assert found, "the store says no keys"
        return found

    def holdings(self):
        found = {}
        for d in DAEMONS:
            pid = self.c.pid(d)
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            private = sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith(("Private_Dirty", "Private_Clean", "Swap:")))
            found[d] = {"pid": pid, "memory": private, "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": len(os.listdir(f"/proc/{pid}/task"))}
        return found

    def begin_count(self):
        self.baseline = self.holdings()

    def round(self, kill):
        for _ in range(self.rng.randint(3, 8)):
            self.disturb(kill)
        self.check()

    def end(self):
        for s in self.services.values():
            self.remove(s)
        self.check()
        wait_for(lambda: not docker("network", "ls", "-q", "--filter", f"label=orca.cluster={self.c.id}").split(), QUIET_WITHIN, message="networks are gone")
        wait_for(lambda: not any(k in self.keys() for k in ("/services/", "/instances/", "/instance-status/", "/rollouts/", "/revisions/", "/revision-status/", "/files/")),
                 QUIET_WITHIN, message="the store holds nothing of the services")
        time.sleep(5)
        faults = []
        now = self.holdings()
        for d in DAEMONS:
            if now[d]["pid"] != self.baseline[d]["pid"]:
                faults.append(f"{d}: ended by itself")
                continue
            for what, allowed in (("memory", GROWTH), ("descriptors", DESCRIPTORS), ("threads", 1)):
                grown = now[d][what] - self.baseline[d][what]
                if grown > allowed:
                    faults.append(f"{d}: {what} {self.baseline[d][what]} → {now[d][what]}")
        keys = self.keys()
        for kind, limit in (("/history/", 10000), ("/audit/", 10000)):
            if keys.get(kind, 0) > limit:
                faults.append(f"the store keeps {keys[kind]} keys of {kind}")
        return faults, now, keys


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    end = began + args.minutes * 60
    print(f"soak: seed {args.seed}, {args.minutes:g} minutes", flush=True)
    with Cluster() as c:
        soak = Soak(c, random.Random(args.seed), (lambda what: print(f"  {time.monotonic() - began:7.1f} {what}", flush=True)) if args.verbose else lambda what: None)
        rounds = since = 0
        # Fresh processes would hide a leak, so daemons are killed in the first half only, and counting begins some rounds after that.
        while time.monotonic() < end or not soak.baseline:
            kill = time.monotonic() < began + args.minutes * 30
            since += not kill
            if since > WARM_UP_ROUNDS and not soak.baseline:
                soak.begin_count()
            soak.round(kill)
            rounds += 1
            if rounds % 10 == 0:
                print(f"  {time.monotonic() - began:6.0f} s: {rounds} rounds, {sum(soak.done.values())} disturbances", flush=True)
        faults, now, keys = soak.end()
    print(json.dumps({"seed": args.seed, "rounds": rounds, "disturbances": soak.done, "keys": keys,
                      "daemons": {d: {**{k: v for k, v in now[d].items() if k != "pid"}, "memory_before": soak.baseline[d]["memory"]} for d in DAEMONS}}, indent=1))
    for fault in faults:
        print(f"soak: {fault}")
    print("soak: clean" if not faults else f"soak: {len(faults)} leaks")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
