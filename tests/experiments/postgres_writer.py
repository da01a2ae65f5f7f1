"""Program that adds requests to a ledger, and adds them again until they are there.

python postgres_writer.py LEDGER LEDGER_DIR NAME COUNT

Prints "ready", and a line for every request: the number of its entry, or why it could not be written this time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.files import sha256


def write(ledger: Ledger, name: str) -> int:
    """Add a request of one sample and one person, as ``request add`` does, unless it is there."""
    sample, person = sha256(f"sample {name}".encode())[:32], sha256(f"person {name}".encode())[:32]
    body: dict[str, Any] = {
        "request_id": name,
        "received": "2026-01-01",
        "due": "2026-02-01",
        "samples": {"count": 1, "sha256": sha256(bytes.fromhex(sample))},
        "persons": {"count": 1, "sha256": sha256(person.encode())},
        "missing": 0,
        "list": name,
    }
    with ledger.store.writing() as writer:
        for entry in writer.entries():
            if entry.content.get("request_id") == name:
                return int(entry.content["seq"])
        seq = int(writer.append("add", body)["seq"])
        writer.add_samples(seq, {bytes.fromhex(sample): None})
        writer.add_persons(seq, [person])
        writer.add_clear_ids(seq, [(name, "sample")])
    return seq


def main() -> None:
    """Write them."""
    ledger, name, count = Ledger(sys.argv[1], Path(sys.argv[2])), sys.argv[3], int(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        for _ in range(300):
            try:
                print(write(ledger, f"{name}-{number}"), flush=True)
                break
            except UserError as error:
                print(f"not now: {error}", flush=True)
                time.sleep(0.1)


if __name__ == "__main__":
    main()
