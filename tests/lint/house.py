#!/usr/bin/env python3
"""The rules of the house, checked from the includes: no circle among headers, no daemon including another's header, nothing
in common/ beside common/spec including the model, no common/ including a daemon, generated code only through proto/."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = ["orca-store", "orca-apiserver", "orca-scheduler", "orca-agent", "orca-proxy", "orca-keeper", "orca-wasm", "orcactl"]
# Which conversations a library of common/ may speak: the bus its own frame, the store's client the store's.
COMMON_PROTO = {"common/bus": {"bus"}, "common/storec": {"store"}, "common/spec": {"model"}}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def room_of(path):
    top = path.split("/")[0]
    return top if top in ROOMS else None


def folder_of(path):
    return path.rsplit("/", 1)[0]


def main():
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [f for f in files if (ROOT / f).exists()]
    includes = {f: INCLUDE.findall((ROOT / f).read_text()) for f in files}
    faults = []
    for f, targets in includes.items():
        if f.startswith("tests/"):
            continue
        for t in targets:
            generated = re.fullmatch(r"proto/(\w+)\.pb-c\.h", t)
            if not generated and t not in includes:
                faults.append(f"{f}: includes {t}, which is not in the tree (name headers from its root)")
            mine, theirs = room_of(f), room_of(t)
            if theirs and theirs != mine:
                faults.append(f"{f}: includes {t} of another room")
            if f.startswith("common/"):
                if generated and generated[1] not in COMMON_PROTO.get(folder_of(f), set()):
                    faults.append(f"{f}: a library of common/ speaks {generated[1]}.proto")
                if t.startswith("common/spec/") and not f.startswith("common/spec/") and "model.pb-c.h" in str(includes.get(t)):
                    faults.append(f"{f}: includes {t}, which brings the model")
    state = {}

    def visit(f, trail):
        if state.get(f) == "done" or f not in includes:
            return
        if f in trail:
            faults.append("circle of includes: " + " -> ".join(trail[trail.index(f):] + [f]))
            return
        for t in includes[f]:
            visit(t, trail + [f])
        state[f] = "done"

    for f in sorted(includes):
        visit(f, [])
    for fault in sorted(set(faults)):
        print(fault)
    print(f"house: {len(includes)} files, {len(set(faults))} faults")
    if "--count" in sys.argv:
        print(f"{0 if faults else 1} passed, {1 if faults else 0} failed")
    return 1 if faults else 0


sys.exit(main())
