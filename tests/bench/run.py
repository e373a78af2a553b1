#!/usr/bin/env python3
"""`make bench`: every figure of the README in one run; tables to the terminal, JSON to build/bench/results.json. Names on the command line choose."""
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests/lib")]
BENCHES = ["deploy", "api", "proxy", "store", "logs", "exec", "upgrade", "footprint"]


def main():
    os.chdir(ROOT)
    own_image = "ORCA_TEST_IMAGE" not in os.environ
    os.environ.setdefault("ORCA_TEST_IMAGE", f"orca-test/bench:run-{os.getpid()}")
    subprocess.run(["tests/run", "prepare"], check=True)
    chosen = sys.argv[1:] or BENCHES
    results = {"machine": {"cores": os.cpu_count(), "kernel": platform.release(), "arch": platform.machine()}}
    failed, began = [], time.monotonic()
    for name in chosen:
        try:
            results[name] = importlib.import_module(f"bench_{name}").main()
        except Exception:  # one bench that fails must not take the others' figures along
            failed.append(name)
            print(f"bench {name} failed:\n{traceback.format_exc()}", file=sys.stderr)
    if own_image:
        subprocess.run(["docker", "image", "rm", os.environ["ORCA_TEST_IMAGE"]], stdout=subprocess.DEVNULL, check=False)
    out = ROOT / "build/bench/results.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nJSON: {out.relative_to(ROOT)} (after {time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
