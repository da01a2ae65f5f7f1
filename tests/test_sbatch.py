"""The script for SLURM, with programs that only say what they were asked for in the place of SLURM's and Ray's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "ray.sbatch"
SAY = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >> "$SAID"\n'
PROGRAMS = {
    "scontrol": SAY + "printf 'one\\ntwo\\nthree\\n'\n",
    "srun": SAY + 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "hostname": "#!/usr/bin/env bash\necho '10.0.0.1 10.0.0.2'\n",
    "ray": SAY + "if [[ $* == *--block ]]; then exec sleep 60; fi\n",
    # It ends once the other machines were asked, and the cluster with it.
    "mixunlearn-cli": SAY
    + 'echo "address $RAY_ADDRESS" >> "$SAID"\n'
    + 'until grep -q "^ray start --address" "$SAID"; do sleep 0.1; done\nexit 3\n',
}
WAITS = SAY + "trap 'exit 130' INT\nwhile :; do sleep 0.1; done\n"


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment of a job on three machines; what programs were asked for goes to the file SAID."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "[one-three]", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **job, "PATH": path, "SAID": str(tmp_path / "said")}


def said(slurm: dict[str, str]) -> list[str]:
    file = Path(slurm["SAID"])
    return file.read_text().splitlines() if file.exists() else []


def wait_for(line: str, slurm: dict[str, str]) -> None:
    """Wait until a program was asked for something; those of other machines run beside the script."""
    deadline = time.monotonic() + 60
    while line not in said(slurm):
        assert time.monotonic() < deadline, f"{line} is not among {said(slurm)}"
        time.sleep(0.05)


def test_the_script_is_a_shell_script() -> None:
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_starts_a_cluster_and_gives_the_command_to_it(slurm: dict[str, str]) -> None:
    # The machines wait a minute if they are not ended, and hold the output open.
    command = ["bash", SCRIPT, "compare", "--seeds", "0"]
    done = subprocess.run(command, env=slurm, check=False, timeout=30, capture_output=True)
    assert done.returncode == 3  # the command's
    size = "--num-cpus 16 --num-gpus 4 --block"
    lines = said(slurm)
    assert f"ray start --head --node-ip-address 10.0.0.1 --port 6379 --include-dashboard false {size}" in lines
    assert f"ray start --address 10.0.0.1:6379 {size}" in lines
    assert any(line.startswith("srun --nodes=2 --ntasks=2 --exclude=one --overlap ray start") for line in lines)
    assert lines[lines.index("mixunlearn-cli compare --seeds 0 --on ray") + 1] == "address 10.0.0.1:6379"


def test_its_time_limit_is_ctrl_c_for_the_command(slurm: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mixunlearn-cli").write_text(WAITS)
    job = subprocess.Popen(["bash", SCRIPT, "audit"], env=slurm)
    wait_for("mixunlearn-cli audit --on ray", slurm)
    time.sleep(0.5)
    job.send_signal(signal.SIGINT)
    assert job.wait(60) == 130
