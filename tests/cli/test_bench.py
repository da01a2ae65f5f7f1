"""``mixunlearn-cli bench``: the file grows case by case, and a second call continues it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from pymixunlearn.benchmarking import machine
from pymixunlearn.benchmarking.ops import cases, read_results, rivals
from pymixunlearn.benchmarking.ops.cases import Size

Invoke = Callable[..., Result]
ROOT = Path(__file__).parents[2]
FAST = ("bench", "ops", "--device", "cpu", "--seconds", "0.001", "--no-compile")
TINY = (*FAST, "--case", "*-small-*")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small size and the large copy made so small that they take no time."""
    monkeypatch.setitem(machine._COPY_BYTES, "cpu", 1 << 16)
    monkeypatch.setitem(cases.SIZES, "small", Size(samples=3, classes=5, image=8, side=4, dim=2))


def test_ops_writes_the_rows_and_shows_them(invoke: Invoke) -> None:
    result = invoke(*TINY, "--threads", "1", "--out", "new/rows.csv")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = read_results(Path("new/rows.csv"))
    assert {row.op for row in rows} == set(cases.OPERATORS)
    assert {row.dtype for row in rows} == {"float32", "bfloat16"} and {row.threads for row in rows} == {1}
    assert {row.mode for row in rows} == {"forward", "backward", "both"}
    for text in ("mask_mix-grid-small-float32", "SDPA", "torch.compile is left out.", "new/rows.csv", "18 cases"):
        assert text in result.stdout


def test_the_threads_are_put_back(invoke: Invoke) -> None:
    before = torch.get_num_threads()
    assert invoke(*FAST, "--case", "sharpen-small-float32", "--threads", str(before + 1)).exit_code == 0
    assert torch.get_num_threads() == before


def test_quick_measures_float32_only_and_has_a_file_of_its_own(invoke: Invoke) -> None:
    assert invoke(*TINY, "--quick").exit_code == 0
    rows = read_results(Path("runs/bench-ops-cpu-quick.csv"))
    assert {(row.dtype, row.size) for row in rows} == {("float32", "small")}


def test_a_dtype_of_choice(invoke: Invoke) -> None:
    arguments = ("--dtype", "float64", "--dtype", "float16", "--dtype", "float64")
    assert invoke(*FAST, *arguments, "--case", "mask_mix-*-small-*", "--out", "rows.csv").exit_code == 0
    rows = read_results(Path("rows.csv"))
    assert {row.dtype for row in rows} == {"float64", "float16"} and {row.op for row in rows} == {"mask_mix"}


def test_an_interrupted_run_goes_on(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    real_loss = rivals.real_contrastive_loss

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rivals, "real_contrastive_loss", interrupt)
    result = invoke(*TINY, "--quick", "--out", "rows.csv")
    assert result.exit_code == 130
    assert "Interrupted; the measured cases are saved in rows.csv. To go on: mixunlearn-cli bench ops" in result.stderr
    kept = read_results(Path("rows.csv"))
    assert {row.op for row in kept} == {"sharpen", "sim_loss", "mix_contrastive_loss"}
    monkeypatch.setattr(rivals, "real_contrastive_loss", real_loss)
    result = invoke(*TINY, "--quick", "--out", "rows.csv")
    assert result.exit_code == 0 and "9 cases, 4 of them measured already" in result.stdout
    rows = read_results(Path("rows.csv"))
    assert rows[: len(kept)] == kept and {row.op for row in rows} == set(cases.OPERATORS)


def test_a_mismatch_is_told_and_exits_1(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "sharpen", lambda logits: torch.softmax(logits, dim=-1))
    result = invoke(*TINY, "--quick", "--out", "rows.csv")
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of 9 cases failed: sharpen-small-float32\n"
    assert "sharpen-small-float32 failed: the value of PyTorch differs from the fused one" in result.stdout
    assert {row.status for row in read_results(Path("rows.csv")) if row.op == "sim_loss"} >= {"measured"}


def test_measurements_of_other_settings_are_left_alone(invoke: Invoke) -> None:
    assert invoke(*TINY, "--quick", "--out", "rows.csv").exit_code == 0
    before = Path("rows.csv").read_bytes()
    result = invoke(*TINY, "--seconds", "0.002", "--quick", "--out", "rows.csv")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert "'rows.csv' holds other measurements (seconds is 0.001, not 0.002)" in result.stderr
    assert Path("rows.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench opps", "No such command 'opps'"),
        (
            "bench ops --case maskmix*",
            "--case 'maskmix*' matches none of 45 cases; expected names such as sharpen-small",
        ),
        ("bench ops --quick --case *-large-*", "--case '*-large-*' matches none of 18 cases"),
        ("bench ops --dtype float23", "unknown dtype 'float23'"),
        ("bench ops --threads 0", "0 is not in the range x>=1"),
        ("bench ops --seconds 0", "0.0 is not in the range x>0"),
    ],
)
def test_wrong_usage_exits_2(invoke: Invoke, arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench ops --device cuda:77", "device is 'cuda:77'"),
        ("bench ops --case sharpen-small-* --out notes.csv", "'notes.csv' is not a file of measurements"),
        ("bench report notes.csv", "'bench report' is now 'python -m benchmarks.report ops FILE.csv...'"),
    ],
)
def test_a_run_that_fails_exits_1(invoke: Invoke, arguments: str, message: str) -> None:
    Path("notes.csv").write_text("a note\n")
    result = invoke(*arguments.split())
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line
    assert [path.name for path in Path().iterdir()] == ["notes.csv"]


def test_the_old_report_command_still_makes_a_page_in_a_checkout(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert invoke(*FAST, "--case", "sharpen-small-float32", "--out", "rows.csv").exit_code == 0
    monkeypatch.chdir(ROOT)
    result = invoke("bench", "report", str(tmp_path / "rows.csv"), "--page", str(tmp_path / "page.md"))
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: 'bench report' is now 'python -m benchmarks.report ops FILE.csv...'")
    assert capfd.readouterr().out.startswith(f"Written: {tmp_path / 'page.md'}")
