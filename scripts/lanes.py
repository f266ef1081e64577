#!/usr/bin/env python3
"""Builds the test programs by `cargo test --no-run ARGUMENTS` and runs them, some at a time: most of them wait for what they look at.

The ones that took longest the last time begin first. What a program prints is shown when it has ended; those that failed are named at the
end. TEST_LANES says how many run at one time (2).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# No program may take longer, in seconds.
LIMIT = 900
# What a program takes that has never run, in seconds.
UNKNOWN = 20.0
TIMES = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "test-times.json"


def programs(arguments):
    """The folder of its package, its name and its path, of each test program."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", *arguments]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        sys.exit(built.returncode)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            package = Path(message["manifest_path"]).parent
            yield package, f"{package.name}/{message['target']['name']}", message["executable"]


def run(package, name, path):
    """Runs one. Gives its name, its status, what it printed and how long it took."""
    begun = time.monotonic()
    environment = {**os.environ, "CARGO_MANIFEST_DIR": str(package)}
    with tempfile.TemporaryFile() as output:
        # In a session of its own, so that all that it has started ends with it.
        process = subprocess.Popen(
            [path], cwd=package, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"not done within {LIMIT} s"
        output.seek(0)
        printed = output.read().decode(errors="replace")
    return name, status, printed, time.monotonic() - begun


def main():
    try:
        times = json.loads(TIMES.read_text())
    except (OSError, ValueError):
        times = {}
    wanted = sorted(programs(sys.argv[1:]), key=lambda one: -times.get(one[1], UNKNOWN))
    failed = []
    with ThreadPoolExecutor(int(os.environ.get("TEST_LANES", "2"))) as lanes:
        for done in as_completed(lanes.submit(run, *one) for one in wanted):
            name, status, printed, seconds = done.result()
            times[name] = round(seconds, 1)
            print(f"     Running {name} ({seconds:.1f} s)\n{printed}", flush=True)
            if status != 0:
                failed.append(f"{name}: {status}")
    TIMES.write_text(json.dumps(times, indent=1, sort_keys=True))
    if failed:
        print(f"error: {len(failed)} of {len(wanted)} test programs failed:")
        for one in failed:
            print(f"    {one}")
        sys.exit(101)
    print(f"{len(wanted)} test programs passed")


main()
