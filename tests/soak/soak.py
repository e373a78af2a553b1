"""A soak: a cluster of one node is deployed to, scaled, rolled, broken and killed at random, with a model beside it that says how it must be once it is
left alone. `tests/soak/soak.py --minutes 30 [--seed N]`; the same seed gives the same wishes (not the same timing).

Every round does a handful of random things, then waits for quiet: every service as the model has it (instances, version, secrets, answers through the
proxy), nothing else there (containers, networks), every run of a job once. All the time requests go to what must answer, and readers of events and of a
log miss nothing (clients.py). At the end everything is removed, and what each daemon holds (memory, descriptors, threads), Docker has (containers,
networks), the agent keeps in files and the store in keys is compared with what it was after the first rounds. Exit 0: clean."""
import argparse
import base64
import contextlib
import http.client
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from clients import Events, Log, Requests, Sessions, Started  # noqa: E402
from orca import APP, BIN, DAEMONS, Cluster, docker, wait_for  # noqa: E402

NAMES = ["api", "web", "cron", "mail", "shop", "auth"]
IMAGE = f"orca-test/soak:{os.getpid()}"  # the test's service, with a shell beside it
SHELL = '"/bin/busybox", "sh", "-c"'
STEADY = "steady.test"
QUIET_WITHIN = 90.0      # seconds from the last disturbance to the model's state
WARM_UP_ROUNDS = 4       # allocators and caches have their size by then
GROWTH = 3 << 20         # bytes of a daemon's own memory beyond what it had then; noise of allocators, not a leak of minutes
DESCRIPTORS = 6          # open connections that come and go
KEY_IN_USE = "/secrets/key"  # says under which key secrets are sealed
BOUNDS = {"/history/": 10200, "/audit/": 10100}  # keys that are there on purpose (5,000 of each of two writers; 10,000), trimmed now and then
REMEMBERED = 512         # bytes that a daemon which holds such a key may have of it
REMEMBERING = ("store", "apiserver", "scheduler")
GONE = ("/services/", "/instances/", "/instance-status/", "/rollouts/", "/revisions/", "/revision-status/", "/files/", "/jobs/", "/job-runs/", "/job-state/", "/secrets/")

# What is left alone from the beginning to the end, whatever happens to the daemons: a service that counts in its log, and jobs.
WORK = f"""[[service]]
name = "steady"
image = "{IMAGE}"
pull = "never"
port = 8080
domain = "{STEADY}"
env = {{ TEXT = "steady", LOG_LINES = "99999999", LOG_KBPS = "1" }}
[service.readiness]
path = "/healthz"
interval_secs = 1
[service.deploy]
min_ready = "50ms"

[[job]]
name = "tick"
image = "{IMAGE}"
pull = "never"
entrypoint = [{SHELL}]
command = ['test "$SECRET" && /bin/busybox sleep 0.2']
schedule = "*/3 * * * * *"
overlap = "allow"
history = 60
env = {{ SECRET = "${{secrets.JOB}}" }}

[[job]]
name = "code"
image = "{IMAGE}"
pull = "never"
entrypoint = [{SHELL}]
command = ["exit 7"]
history = 10
"""


class Wanted:
    """What one service must come to."""

    def __init__(self, name):
        self.name, self.version, self.replicas, self.stopped, self.there = name, 0, 1, False, False
        self.secret = 0      # which value of its secrets runs
        self.settled = True  # as wanted when it was looked at last, and left alone since
        self.host = f"{name}.test"

    def count(self):
        return 0 if self.stopped or not self.there else self.replicas

    def toml(self, version, broken=False):
        extra = "EXIT_AFTER_MS = \"1\", EXIT_CODE = \"3\", " if broken else ""
        return f"""[[service]]
name = "{self.name}"
image = "{IMAGE}"
pull = "never"
port = 8080
domain = "{self.host}"
stop_grace = "1s"
replicas = {self.spec_replicas}
secret_files = ["FILE_{self.name}"]
mounts = ["./services/soak/conf:/conf:ro"]
env = {{ {extra}TEXT = "{self.name}-{version}", SECRET = "${{secrets.ENV_{self.name}}}" }}
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
        self.baseline, self.remembered = None, 0
        self.killed_at = 0.0
        self.runs = {"tick": {}, "code": {}}  # by number, as last seen
        self.asked = [1, 1]                   # runs of `code`: surely asked for, and at most (the first is the deploy's)
        self.numbers = 0
        self.requests, self.started, self.sessions = Requests(cluster), Started(cluster.id), Sessions(cluster, rng)

    def begin(self):
        for thread in (self.requests, self.started):
            thread.thread.start()
        conf = self.c.infra / "services/soak/conf"
        conf.mkdir(parents=True)
        (conf / "soak.conf").write_text("a line\n" * 100)
        self.set_secret("JOB", "work", "of the job")
        for s in self.services.values():
            self.set_values(s, 0)
        self.c.deploy("work", WORK)
        self.steady = self.c.running("work/steady")[0]
        self.events, self.log = Events(self.c), Log(self.c, "steady")
        for thread in (self.events, self.log):
            thread.thread.start()
        self.requests.promise(STEADY)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            for args in (("status",), ("ps",), ("job", "list"), *(("explain", f"soak/{s.name}") for s in self.services.values() if s.there), ("events", "-n", "400")):
                print(f"--- orcactl {' '.join(args)}", flush=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    done = self.c.ctl(*args, check=False, timeout=20)
                    print(done.stdout + done.stderr, flush=True)
            for daemon in ("keeper", "agent"):  # what a short time made them miss
                print(f"--- the {daemon}'s log", *self.c.log(daemon).splitlines()[-500:], sep="\n", flush=True)
        self.requests.ending.set()
        self.sessions.cut_all()
        for one in (self.started, getattr(self, "events", None), getattr(self, "log", None)):
            if one:
                one.process.kill()
        for one in (self.requests, self.started, getattr(self, "events", None), getattr(self, "log", None)):
            if one and one.thread.is_alive():
                one.thread.join(15)

    def retried(self, method, path, body=None, ok=(200, 201, 202)):
        """Until it is answered for good: a daemon that was killed a moment ago is back within seconds."""
        last = None
        for _ in range(120):
            with contextlib.suppress(OSError, http.client.HTTPException):
                last = self.c.api(method, path, body, timeout=30)
                if last.status < 500 and last.status != 429:
                    break
            time.sleep(0.25)
        if last is None or last.status not in ok:
            raise AssertionError(f"{method} {path}: {last and (last.status, last.text)}")
        return last

    def set_secret(self, name, project, value):
        self.retried("PUT", f"/api/v1/secrets/{name}?project={project}", {"value": value})

    def set_values(self, s, number):
        self.set_secret(f"ENV_{s.name}", "soak", f"env {s.name} {number}")
        self.set_secret(f"FILE_{s.name}", "soak", f"file {s.name} {number}")

    def state(self, s):
        status = self.retried("GET", "/api/v1/status").json()["services"]
        return next((x for x in status if x["project"] == "soak" and x["name"] == s.name), None)

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

    def hurt(self, s):
        """From here on requests to it may fail, until it was found well again in quiet."""
        self.requests.withdraw(s.host)

    def deploy(self, s):
        self.settled(s)
        version = s.version + 1
        if not s.there:
            s.replicas = s.spec_replicas = self.rng.randint(1, 3)
        self.files(s, s.toml(version))
        self.ctl("-C", str(self.c.infra), "deploy", s.name)
        s.there, s.stopped, s.version = True, False, version

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
            if s.replicas == 0:
                self.hurt(s)
            self.ctl("scale", s.name, str(s.replicas))

    def stop(self, s):
        if s.there and not s.stopped:
            self.hurt(s)
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
            self.hurt(s)
            s.there = False
            self.files()
            self.ctl("rm", "--purge", "--yes", s.name)
            wait_for(lambda: not self.c.containers(f"soak/{s.name}"), QUIET_WITHIN, every=0.1, message=f"{s.name} is gone")
            s.version, s.stopped = s.version + 1, False

    def crash(self, s):
        self.hurt(s)
        running = self.c.running(f"soak/{s.name}") if s.there else []
        for container in running[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(container["State"]["Pid"], 9)

    def tamper(self, s):
        """Somebody removes a container behind the agent's back."""
        self.hurt(s)
        running = self.c.running(f"soak/{s.name}") if s.there else []
        for container in running[:1]:
            docker("rm", "-f", container["Id"], check=False)

    def kill_daemon(self, _):
        daemon, how = self.rng.choice(DAEMONS), self.rng.choice([signal.SIGKILL, signal.SIGTERM])
        self.say(f"  {daemon} {how.name}")
        promised = self.requests.all() if daemon == "proxy" and how == signal.SIGKILL else {}
        self.requests.withdraw(*promised)  # nobody listens until it is back
        self.killed_at = time.monotonic()
        with contextlib.suppress(OSError, ValueError):
            self.c.kill(daemon, how)
        for host in promised:
            wait_for(lambda h=host: self.c.get(h).status == 200, 20, message=f"{host} answers after the proxy's crash")
        self.requests.promise(*promised)

    def calm(self):
        """No daemon was killed lately: what is asked for is answered at once."""
        return time.monotonic() > self.killed_at + 20

    def new_secret(self, s):
        """A new value changes no revision and restarts nothing; redeploy takes it up."""
        if not s.there or s.stopped or s.count() == 0:
            return
        self.settled(s)
        before = self.state(s)
        self.set_values(s, s.secret + 1)
        after = wait_for(lambda: (lambda x: x if x["secrets_newer"] else None)(self.state(s)), QUIET_WITHIN, message=f"{s.name}: secrets newer")
        assert after["revision"] == before["revision"], (before, after)
        assert self.is_as_wanted(s), "a new value restarts nothing"
        s.secret += 1
        self.ctl("redeploy", s.name)
        wait_for(lambda: not self.state(s)["secrets_newer"], QUIET_WITHIN, message=f"{s.name}: redeploy takes the new values up")

    def rotate_key(self, _):
        self.retried("POST", "/api/v1/secrets/rotate-key")

    def job_run(self, _):
        self.asked[1] += 1
        try:
            answer = self.c.api("POST", "/api/v1/jobs/code/run?project=work", timeout=30)
        except (OSError, http.client.HTTPException):
            assert not self.calm()
            return
        if answer.status != 202:
            assert not self.calm(), answer.text
            return
        self.asked[0] += 1
        number = answer.json()["run"]
        wait_for(lambda: self.run_of("code", number)["state"] == "failed", QUIET_WITHIN, every=0.2, message=f"run {number} of code ends")

    def task(self, _):
        self.numbers += 1
        name = f"task-{self.numbers}"
        command = ["/bin/busybox", "sh", "-c", "echo said; exit 5"]
        if self.calm() and self.rng.random() < 0.5:
            done = self.c.ctl("run", IMAGE, "--name", name, "-p", "work", "--", *command, check=False)
            assert done.returncode == 5 and "said" in done.stdout, (done.returncode, done.stdout, done.stderr)
        else:
            self.retried("POST", "/api/v1/tasks", {"image": IMAGE, "name": name, "project": "work", "command": command}, ok=(202, 409))
        run = wait_for(lambda: (lambda r: r if r["state"] not in ("pending", "running") else None)(self.run_of(name, 1)), QUIET_WITHIN, message=f"{name} ends")
        assert (run["state"], run["exit_code"], run["attempts"]) == ("failed", 5, 1), run
        wait_for(lambda: not self.c.containers(f"work/{name}"), QUIET_WITHIN, message=f"{name}'s container is removed")
        assert self.started.of("work", name) == {1: 1}, self.started.of("work", name)

    def token(self, _):
        self.numbers += 1
        name = f"token-{self.numbers}"
        made = self.retried("POST", "/api/v1/tokens", {"name": name, "role": "viewer", "projects": ["soak"]}, ok=(200, 201, 409))
        if made.status != 409:  # made by a request whose answer was lost
            text = made.json()["value"]
            seen = lambda: self.c.api("GET", "/api/v1/status", token=text)  # noqa: E731
            first = wait_for(lambda: (lambda a: a if a.status < 500 else None)(seen()), QUIET_WITHIN, message="a token is taken")
            assert first.status == 200 and {x["project"] for x in first.json()["services"]} <= {"soak"}, first.text
        self.retried("DELETE", f"/api/v1/tokens/{name}", ok=(200, 404))
        if made.status != 409:
            gone = wait_for(lambda: (lambda a: a if a.status < 500 else None)(seen()), QUIET_WITHIN, message="a token is refused")
            assert gone.status in (401, 429), gone.text  # after some wrong ones from this address the next are told to wait; a right one never is

    def exec_once(self, s):
        if not s.there or s.count() == 0:
            return
        self.settled(s)
        data = base64.b64encode(self.rng.randbytes(self.rng.randint(1, 200_000)))
        calm = self.calm() and s.host in self.requests.all()
        done = subprocess.run([str(BIN / "orcactl"), "exec", "-i", s.name, "--", "/bin/busybox", "sh", "-c", "/bin/busybox cat; exit 9"], input=data, env=self.c.env,
                              capture_output=True, timeout=120, check=False)
        assert not calm or (done.returncode == 9 and done.stdout == data), (done.returncode, len(done.stdout), len(data), done.stderr)

    def session(self, s):
        """Clients of long streams come, stand still, and go without a word."""
        name = s.name if s.there else "steady"
        for _ in range(self.rng.randint(1, 3)):
            what = self.rng.choice(["exec", "logs", "events", "audit", "pause", "cut", "cut"])
            if what == "exec":
                self.sessions.more("exec", name, "--", "/bin/busybox", "sh", "-c", "while :; do echo a line; /bin/busybox sleep 0.05; done")
            elif what in ("logs", "events", "audit"):
                self.sessions.more(what, *([name] if what == "logs" else []), "-f")
            else:
                getattr(self.sessions, what)()

    def plan(self, s):
        """It says what would be, and nothing comes of it."""
        if not s.there:
            return
        self.settled(s)
        self.files(s, s.toml(s.version + 1))
        text = self.ctl("-C", str(self.c.infra), "plan", s.name).stdout
        assert f"{s.name}-{s.version + 1}" in text, text
        self.files()
        assert self.is_as_wanted(s), f"{s.name}: a plan changes nothing"

    def look(self, s):
        """Everything that only reads."""
        for args in (("top", "-o", "json"), ("ps",), ("status",), ("nodes",), ("doctor",), ("history", s.name), ("explain", s.name), ("secrets", "list"), ("audit",)):
            self.c.ctl(*args, check=False)

    def bad_request(self, _):
        self.c.api("POST", "/api/v1/deploy", b'{"services":[{"name":"x","image":"y","privileged":true,"project":"soak"}]}')
        self.c.api("GET", "/api/v1/services/none")
        self.c.api("GET", "/api/v1/status", token="wrong")

    THINGS = [(deploy, 6), (scale, 5), (restart, 2), (stop, 1), (start, 3), (crash, 3), (tamper, 1), (remove, 1), (deploy_broken, 1), (kill_daemon, 5), (bad_request, 1),
              (new_secret, 3), (rotate_key, 1), (job_run, 2), (task, 2), (token, 1), (exec_once, 2), (session, 4), (plan, 1), (look, 1)]

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
        made_with = {tuple(e for e in sorted(container["Config"]["Env"]) if e.startswith(("TEXT=", "SECRET="))) for container in running}
        if made_with != ({(f"SECRET=env {s.name} {s.secret}", f"TEXT={s.name}-{s.version}")} if s.count() else set()):
            return False
        if not s.there:
            return True
        answer = self.c.get(s.host)
        if not s.count():
            return answer.status == 503
        secret = self.c.get(s.host, f"/file?/run/secrets/FILE_{s.name}")
        return (answer.status, answer.text.strip()) == (200, f"{s.name}-{s.version}") and (secret.status, secret.text) == (200, f"file {s.name} {s.secret}")

    def check(self):
        for s in self.services.values():
            wait_for(lambda s=s: self.is_as_wanted(s), QUIET_WITHIN, every=0.1, message=f"{s.name}: {s.count()} of version {s.version}")
        status = [x for x in self.retried("GET", "/api/v1/status").json()["services"] if x["project"] == "soak"]
        assert {x["name"] for x in status} == {s.name for s in self.services.values() if s.there}, status
        wanted = {s.name: s.count() for s in self.services.values() if s.there}

        def as_status_says():
            return {x["name"]: x["ready_replicas"] for x in self.c.api("GET", "/api/v1/status").json()["services"] if x["project"] == "soak"} == wanted

        wait_for(as_status_says, QUIET_WITHIN, message=f"status says {wanted}")
        # What was hurt is promised again when it has been well for a moment.
        again = [s for s in self.services.values() if s.count() and s.host not in self.requests.all()]
        if again:
            time.sleep(1.5)
            wait_for(lambda: as_status_says() and all(self.is_as_wanted(s) for s in again), QUIET_WITHIN, message="well, and well a moment later")
            self.requests.promise(*(s.host for s in again))
        self.check_work()
        networks = docker("network", "ls", "-q", "--filter", f"label=orca.cluster={self.c.id}").split()
        assert len(networks) <= 2, networks
        if not any(wanted.values()):
            wait_for(lambda: not [x for x in self.c.containers() if x["Config"]["Labels"]["orca.project"] == "soak"], QUIET_WITHIN, message="no container without a service")

    def run_of(self, job, number):
        """One run as it is now."""
        runs = self.c.api("GET", f"/api/v1/jobs/{job}?project=work").json()["job"]["runs"]
        return next(r for r in runs if r["run"] == number)

    def look_at_runs(self):
        for job, seen in self.runs.items():
            for run in self.retried("GET", f"/api/v1/jobs/{job}?project=work").json()["job"]["runs"]:
                seen[run["run"]] = run

    def check_work(self, ending=False):
        assert not self.requests.failed, "requests failed to what must answer: " + "; ".join(self.requests.failed[:5])
        (steady,) = self.c.containers("work/steady")
        assert [steady["State"][k] for k in ("Pid", "StartedAt")] == [self.steady["State"][k] for k in ("Pid", "StartedAt")], "the steady one was touched"
        assert not self.log.faults and self.log.process.poll() is None, f"the log's reader: {self.log.faults[:5]}, ended: {self.log.process.returncode}"
        self.look_at_runs()
        for job, ended in (("tick", "succeeded"), ("code", "failed")):
            for number, run in sorted(self.runs[job].items()):
                assert run["state"] in (ended, "running", "pending", *(["stopped"] if ending else [])) and run["attempts"] <= 1, (job, run)
                starts = self.started.of("work", job).get(number, 0)
                assert starts <= 1 and (run["state"] != ended or starts == 1), f"{job} run {number} was started {starts} times: {run}"

    def end_work(self):
        """The jobs' whole course, once they are stopped."""
        self.ctl("job", "stop", "work/tick")
        wait_for(lambda: not self.c.containers("work/tick") and not self.c.containers("work/code"), QUIET_WITHIN, message="containers of ended runs are gone")
        self.check_work(ending=True)
        tick, code = self.runs["tick"], self.runs["code"]
        assert sorted(tick) == list(range(1, max(tick) + 1)), f"numbers are left out: {sorted(tick)}"
        assert all(r["state"] in ("succeeded", "stopped") for r in tick.values())
        times = [r["scheduled"] for r in tick.values()]
        assert len(set(times)) == len(times), "two runs for one tick"
        assert self.asked[0] <= max(code) <= self.asked[1], (self.asked, max(code))
        kept = len(self.retried("GET", "/api/v1/jobs/tick?project=work").json()["job"]["runs"])
        assert kept <= 60, f"{kept} runs are remembered"
        tasks = len(self.retried("GET", "/api/v1/tasks?project=work").json()["tasks"])
        assert tasks <= 100, f"{tasks} tasks are remembered"

        def events_are_whole():
            kept = [json.loads(line) for line in self.c.ctl("events", "-o", "json", "--since", "1", "-n", "6000").stdout.splitlines()]
            self.event_fault = self.events.fault(kept)
            return self.event_fault is None

        with contextlib.suppress(AssertionError):
            wait_for(events_are_whole, 10, every=0.5)
        assert self.event_fault is None, self.event_fault
        begun = self.log.next
        wait_for(lambda: self.log.next > begun, 10, message="the log goes on")

    def quiet(self):
        """No session is open, and nothing of one is left in the containers."""
        self.sessions.cut_all()

        def alone():
            return all(len(docker("top", x["Id"], "-eo", "pid", check=False).splitlines()) == 2 for x in self.c.containers()
                       if x["State"]["Running"] and x["Config"]["Labels"]["orca.service"] != "tick")

        wait_for(alone, 30, every=0.2, message="no command of a session is left in a container")

    def storectl(self, *args):
        done = subprocess.run([str(BIN / "orca-storectl"), "-c", str(self.c.run / "node.toml"), *args], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self):
        lines = self.storectl("range", "/", "--prefix", "--keys-only").splitlines()
        found = {}
        for line in lines:
            if line.startswith("/") and not line.startswith(KEY_IN_USE):
                kind = "/" + line.split("/")[1] + ("/" if line.count("/") > 1 else "")
                found[kind] = found.get(kind, 0) + 1
        assert found, "the store says no keys"
        return found

    def holdings(self):
        found = {}
        for d in DAEMONS:
            pid = self.c.pid(d)
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            private = sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith(("Anonymous:", "Swap:")))  # not its files in memory
            found[d] = {"pid": pid, "memory": private, "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "threads": len(os.listdir(f"/proc/{pid}/task"))}
        return found

    @staticmethod
    def bounded(keys):
        return sum(keys.get(kind, 0) for kind in BOUNDS)

    def processes(self):
        """Of this cluster's daemons, with those that only end what they had in hand."""
        mine = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.c.run / "node.toml").encode() in path.read_bytes():
                    mine.append(int(path.parent.name))
        return mine

    def begin_count(self):
        self.quiet()
        self.baseline, self.remembered = self.holdings(), self.bounded(self.keys())

    def round(self, kill):
        for _ in range(self.rng.randint(3, 8)):
            self.disturb(kill)
        self.check()

    def left_in_files(self):
        """Of containers. Content is kept for an hour, for the next one that needs it: it was one file."""
        state = self.c.run / "state/agent"
        assert len(list((state / "content").iterdir())) <= 1
        return [str(p) for p in (state / "mounts").iterdir()] + [str(p) for p in pathlib.Path("/dev/shm").glob(f"orca-{self.c.id[:8]}*")]

    def end(self):
        self.quiet()
        for s in self.services.values():
            self.remove(s)
        self.check()
        self.end_work()
        for name in ["JOB"] + [f"{kind}_{n}" for kind in ("ENV", "FILE") for n in NAMES]:
            self.retried("DELETE", f"/api/v1/secrets/{name}?project={'work' if name == 'JOB' else 'soak'}")
        self.requests.withdraw(STEADY)
        for job in self.retried("GET", "/api/v1/jobs?project=work").json()["jobs"]:
            self.ctl("job", "rm", f"work/{job['name']}", "--yes")
        for task in self.retried("GET", "/api/v1/tasks?project=work").json()["tasks"]:
            self.retried("DELETE", f"/api/v1/jobs/{task['name']}?project=work")
        self.ctl("rm", "--purge", "--yes", "work/steady")
        wait_for(lambda: not self.c.containers(), QUIET_WITHIN, message="no container is left")
        wait_for(lambda: not docker("network", "ls", "-q", "--filter", f"label=orca.cluster={self.c.id}").split(), QUIET_WITHIN, message="networks are gone")
        wait_for(lambda: not self.left_in_files(), QUIET_WITHIN, every=0.5, message=f"the agent keeps no files: {self.left_in_files()}")
        
        def left_in_store():
            return [k for k in self.storectl("range", "/", "--prefix", "--keys-only").splitlines() if k.startswith(GONE) and not k.startswith(KEY_IN_USE)]

        with contextlib.suppress(AssertionError):
            wait_for(lambda: not left_in_store(), QUIET_WITHIN)
        assert not left_in_store(), f"the store still holds {left_in_store()[:20]}"
        wait_for(lambda: len(self.processes()) == len(DAEMONS), 40, every=0.5, message="one process of each daemon")
        for one in (self.events, self.log):
            one.process.kill()
        time.sleep(5)
        faults = []
        now, keys = self.holdings(), self.keys()
        remembered = REMEMBERED * (self.bounded(keys) - self.remembered)
        for d in DAEMONS:
            if now[d]["pid"] != self.baseline[d]["pid"]:
                faults.append(f"{d}: ended by itself")
                continue
            for what, allowed in (("memory", GROWTH + (remembered if d in REMEMBERING else 0)), ("descriptors", DESCRIPTORS), ("threads", 1)):
                grown = now[d][what] - self.baseline[d][what]
                if grown > allowed:
                    faults.append(f"{d}: {what} {self.baseline[d][what]} → {now[d][what]}")
        for kind, limit in BOUNDS.items():
            if keys.get(kind, 0) > limit:
                faults.append(f"the store keeps {keys[kind]} keys of {kind}")
        return faults, now, keys


@contextlib.contextmanager
def shell_image():
    """The tests' service and a shell in one image."""
    layer = io.BytesIO()
    made = docker("create", APP)
    try:
        raw = subprocess.run(["docker", "export", made], capture_output=True, check=True).stdout
    finally:
        docker("rm", made)
    with tarfile.open(fileobj=io.BytesIO(raw)) as old, tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(old.getmember("app"), old.extractfile("app"))
        tar.add("/bin/busybox", "bin/busybox")
    subprocess.run(["docker", "import", "--change", 'CMD ["/app"]', "-", IMAGE], input=layer.getvalue(), check=True, capture_output=True)
    try:
        yield
    finally:
        docker("image", "rm", IMAGE, check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    began = time.monotonic()
    end = began + args.minutes * 60

    def say(what):
        if args.verbose:
            print(f"  {time.strftime('%H:%M:%S', time.gmtime())} {what}", flush=True)

    print(f"soak: seed {args.seed}, {args.minutes:g} minutes", flush=True)
    with shell_image(), Cluster() as c, Soak(c, random.Random(args.seed), say) as soak:
        soak.begin()
        rounds = since = 0
        # Fresh processes would hide a leak, so daemons are killed in the first half only, and counting begins some rounds after that.
        while time.monotonic() < end or not soak.baseline:
            kill = time.monotonic() < began + args.minutes * 30
            since += not kill
            if since > (WARM_UP_ROUNDS if args.minutes > 2 else 1) and not soak.baseline:
                soak.begin_count()
            soak.round(kill)
            rounds += 1
            if rounds % 10 == 0:
                print(f"  {time.monotonic() - began:6.0f} s: {rounds} rounds, {sum(soak.done.values())} disturbances, {soak.requests.sent} requests", flush=True)
        faults, now, keys = soak.end()
    print(json.dumps({"seed": args.seed, "seconds": round(time.monotonic() - began), "rounds": rounds, "disturbances": soak.done, "requests": soak.requests.sent,
                      "runs": {job: len(seen) for job, seen in soak.runs.items()}, "events": len(soak.events.lines), "log_lines": soak.log.next, "keys": keys,
                      "daemons": {d: {**{k: v for k, v in now[d].items() if k != "pid"}, "memory_before": soak.baseline[d]["memory"]} for d in DAEMONS}}, indent=1))
    for fault in faults:
        print(f"soak: {fault}")
    print("soak: clean" if not faults else f"soak: {len(faults)} leaks")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
