"""Program that kills `request run` again and again at random moments, and looks at the ledger after each.

    python killed_requests.py FOLDER KILLS [SEED]

FOLDER holds photos/ and a model in base/. Every attempt is a process of its own that gets SIGKILL after a random time;
the next one goes on. Prints what went wrong, and last how many kills met a run at work and how many runs there were.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from pymixunlearn.errors import UserError
from pymixunlearn.experiments import DataRequest, ModelRequest, UnlearnInputs
from pymixunlearn.experiments.request.add import run_add
from pymixunlearn.experiments.request.init import run_init
from pymixunlearn.experiments.request.inputs import AddInputs, InitInputs, VerifyLedgerInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.verify import verify_ledger

SERVE = """
import sys
from pathlib import Path
from pymixunlearn import files
from pymixunlearn.experiments.request.inputs import RunInputs
from pymixunlearn.experiments.request.serve import run_requests
from pymixunlearn.experiments.unlearn.figures import Figures
Figures.save = lambda self, folder, **options: files.write_atomically(folder / "losses.svg", b"<svg/>")
print("ready", flush=True)
run_requests(RunInputs(Path(sys.argv[1])))
"""
SETTINGS = {"epochs": 40, "lr": 1e-4, "retrain.epochs": 20}


def served(ledger: Path, seconds: float | None) -> bool:
    """Serve what is pending in a process of its own, killed after some seconds; tell whether it got to its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(ledger)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()  # what is imported until then writes nothing
    if seconds is not None:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    _, complaint = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        print(f"it ended with {process.returncode}: {complaint.decode()}")
    return process.returncode == 0


def main() -> None:
    """Kill, look, and go on."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    ledger, random_ = folder / "killed", random.Random(seed)
    unlearn = UnlearnInputs(
        method="neggrad",
        data=DataRequest(str(folder / "photos")),
        model=ModelRequest(str(folder / "base")),
        device="cpu",
        max_drop=100.0,
        settings=SETTINGS,
    )
    run_init(InitInputs(unlearn, ledger))
    met = number = 0
    longest = 0.0
    while met < kills:
        if not Ledger(ledger).state().pending:
            sample = f"train/{'dark' if number % 2 else 'light'}/{number // 2:02d}.png"
            (folder / "list.csv").write_text(f"file,user\n{sample},ann\n")
            run_add(AddInputs(folder / "list.csv", ledger, "user", f"R-{number}"))
            number += 1
            if not longest:  # the first run tells how long one takes
                started = time.perf_counter()
                served(ledger, None)
                longest = time.perf_counter() - started
                continue
        started = time.perf_counter()
        if served(ledger, random_.uniform(0, longest)):  # it was over before: the next one is killed earlier
            longest = min(longest, time.perf_counter() - started)
        else:
            met += 1
        try:
            faults = [f"{check.subject}: {check.detail}" for check in verify_ledger(VerifyLedgerInputs(ledger=ledger))
                      if not check.holds]  # fmt: skip
        except UserError as error:
            faults = [str(error)]
        for fault in faults:
            print(f"after kill {met}: {fault}", flush=True)
    if not served(ledger, None):
        print("the last run did not get to its end")
    state = Ledger(ledger).state()
    if state.pending or state.open is not None:
        print(f"pending in the end: {state.pending}")
    print(met, sum(1 for _ in (ledger / "runs").iterdir()))


if __name__ == "__main__":
    main()
