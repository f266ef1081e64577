"""Stands for systemd's journal, and runs a program that writes to it: python journal.py FILE PROGRAM…

Each entry is written into FILE as a line of JSON. The socket is where the journal's is, in a mount namespace of its own
(run this under `unshare --mount`), so that the machine's journal gets nothing.
"""

import json
import os
import socket
import subprocess
import sys
import threading

PATH = "/run/systemd/journal/socket"
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.makedirs(os.path.dirname(PATH))
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(PATH)


def fields(entry):
    """The journal's own form: KEY=value, or KEY, the length and the value where that has more lines."""
    while entry:
        line, _, rest = entry.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        yield key.decode(), value.decode()
        entry = rest


def listen():
    with open(sys.argv[1], "w") as file:
        while True:
            print(json.dumps(dict(fields(listener.recv(1 << 20)))), file=file, flush=True)


threading.Thread(target=listen, daemon=True).start()
sys.exit(subprocess.run(sys.argv[2:]).returncode)
