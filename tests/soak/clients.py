"""What goes on beside a soak all the time: requests that must not fail, readers of events and logs that must miss nothing, sessions that are cut off,
and a tally of the containers that Docker started."""
import collections
import contextlib
import http.client
import json
import signal
import subprocess
import threading
import time

from orca import BIN


class Requests:
    """A light loop of requests through the proxy to all hosts that are promised to answer. A failure counts only where the promise held from the
    request's beginning to its end."""

    def __init__(self, cluster):
        self.cluster, self.lock, self.ending = cluster, threading.Lock(), threading.Event()
        self.promises, self.number, self.sent, self.failed = {}, 0, 0, []
        self.thread = threading.Thread(target=self._work, daemon=True)

    def promise(self, *hosts):
        with self.lock:
            for host in hosts:
                if host not in self.promises:
                    self.number += 1
                    self.promises[host] = self.number

    def withdraw(self, *hosts):
        with self.lock:
            for host in hosts:
                self.promises.pop(host, None)

    def all(self):
        with self.lock:
            return dict(self.promises)

    def _work(self):
        while not self.ending.wait(0.02):
            for host, number in self.all().items():
                began = time.time()
                try:
                    answer = self.cluster.get(host, timeout=10)
                    fault = None if answer.status == 200 else f"{answer.status} {answer.text[:200]!r}"
                except (OSError, http.client.HTTPException) as error:
                    fault = repr(error)
                self.sent += 1
                if fault and self.all().get(host) == number:
                    when = time.strftime("%H:%M:%S", time.gmtime(began)) + f".{int(began * 1000) % 1000:03}"
                    self.failed.append(f"{when} {host}: {fault} after {(time.time() - began) * 1000:.0f} ms")


class Started:
    """How often each container was started, by Docker's own word. Its names are of one instance each: one start, or it was started again."""

    def __init__(self, cluster_id):
        self.starts = collections.Counter()
        self.process = subprocess.Popen(["docker", "events", "--filter", f"label=orca.cluster={cluster_id}", "--filter", "event=start", "--format", "{{json .}}"],
                                        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for line in self.process.stdout:
            attributes = json.loads(line)["Actor"]["Attributes"]
            self.starts[attributes["orca.project"], attributes["orca.service"], int(attributes["orca.instance"])] += 1

    def of(self, project, service):
        return {n: count for (p, s, n), count in list(self.starts.items()) if (p, s) == (project, service)}


class Events:
    """`orcactl events -f` from the beginning: at the end it has what the cluster has, each once, in order."""

    def __init__(self, cluster):
        self.lines = []
        self.process = subprocess.Popen([str(BIN / "orcactl"), "events", "-f", "-o", "json", "--since", "1"], stdout=subprocess.PIPE, env=cluster.env)
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def fault(self, kept):
        """kept: what the cluster remembers, oldest first."""
        mine = list(self.lines)
        if self.process.poll() is not None:
            return f"the reader of events ended: {self.process.returncode}"
        for a, b in zip(mine, mine[1:]):
            if b["revision"] < a["revision"]:
                return f"events out of order: {a} {b}"
        oldest = kept[0]["revision"]  # of its revision some may have been trimmed
        theirs = [e for e in kept if e["revision"] > oldest]
        mine = [e for e in mine if e["revision"] > oldest]
        if mine[: len(theirs)] == theirs:
            return None
        n = next((n for n, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
        return f"events differ at {n} of {len(theirs)} and {len(mine)}: kept {theirs[n:n + 2]}, read {mine[n:n + 2]}"


class Log:
    """`orcactl logs -f` of one container that counts: no number missing, none twice."""

    def __init__(self, cluster, name):
        self.next, self.faults = 0, []
        self.process = subprocess.Popen([str(BIN / "orcactl"), "logs", name, "-f"], stdout=subprocess.PIPE, env=cluster.env)
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            if len(words) == 3 and len(words[1]) == 8:
                if int(words[1]) != self.next:
                    self.faults.append((self.next, int(words[1])))
                self.next = int(words[1]) + 1


class Sessions:
    """Clients that stay for a while and are cut off without a word."""

    MOST = 12

    def __init__(self, cluster, rng):
        self.cluster, self.rng, self.open = cluster, rng, []

    def more(self, *args):
        if len(self.open) >= self.MOST:
            self.cut()
        self.open.append(subprocess.Popen([str(BIN / "orcactl"), *args], env=self.cluster.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def pause(self):
        """One reads no more, and goes on later."""
        if self.open:
            process = self.rng.choice(self.open)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.rng.choice([signal.SIGSTOP, signal.SIGCONT]))

    def cut(self):
        if self.open:
            process = self.open.pop(self.rng.randrange(len(self.open)))
            process.kill()
            process.wait()

    def cut_all(self):
        while self.open:
            self.cut()
