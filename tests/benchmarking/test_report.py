"""Pages and plots made from files of measurements."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.report.expected import COPY_SHARE, GPUS, expected_ms
from benchmarks.report.growth_plot import draw_growth
from benchmarks.report.page import command_line, write_page
from benchmarks.report.plot import ratio_plot
from pymixunlearn.benchmarking.end_to_end.growth import GrowthRow
from pymixunlearn.benchmarking.ops import Case, Measurement, ResultFile
from pymixunlearn.benchmarking.ops.comparison import compare
from pymixunlearn.benchmarking.rows import write_rows
from pymixunlearn.errors import UserError
from tests.benchmarking.measured import BASE, FASTER, MACHINE, ROWS, UNKNOWN

ROOT = Path(__file__).parents[2]


def test_the_plot_is_a_drawing_with_one_mark_per_ratio() -> None:
    bfloat = [replace(row, dtype="bfloat16") for row in ROWS]
    text = ratio_plot(compare([*ROWS, *bfloat]), "a < b")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    # The legend has one mark of each kind too.
    assert len(root.findall(f"{space}circle")) == 1 + 2
    assert len(root.findall(f"{space}path")) == 1
    labels = [element.text for element in root.findall(f"{space}text")]
    assert "mask_mix grid small" in labels and "a < b" in labels and "float32" in labels and "bfloat16" in labels
    width = float(root.attrib["width"])
    assert all(0 <= float(element.attrib["cx"]) <= width for element in root.findall(f"{space}circle"))


def test_nothing_measured_still_draws() -> None:
    skipped = [replace(UNKNOWN, provider="fused"), UNKNOWN]
    ElementTree.fromstring(ratio_plot(compare(skipped), "nothing"))


def test_the_page_shows_wins_losses_and_what_was_left_out(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    large = replace(UNKNOWN, provider="fused", size="large", reason="may need 90.0 GB of memory, 3.0 GB are free")
    forward = [replace(row, mode="forward") for row in ROWS]
    written = write_page(page, [("the command", [*ROWS, *forward, large])])
    text = page.read_text()
    assert [path.name for path in written] == ["performance.md", "performance-test-processor-plain.svg"]
    assert all(path.stat().st_size < 300_000 for path in written)
    assert "    the command\n" in text and "### Test processor, 2 threads" in text
    assert "| mask_mix | grid | small | float32 | both | 1.25 ms | 1.50 ms | 2.00 ms | **0.50** | - | 4.00 |" in text
    assert "Beside PyTorch: 2 comparisons, median ratio 0.50, from 0.50 to 0.50; lost 2." in text
    assert "- mask_mix-grid-large-float32: skipped, may need 90.0 GB of memory, 3.0 GB are free." in text
    assert "left out by `--no-compile`" in text
    assert "](performance-test-processor-plain.svg)" in text


def test_gpu_columns_are_empty_until_they_are_measured(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"

    def measured(*sources: tuple[str, list[Measurement]]) -> tuple[str, str]:
        write_page(page, sources)
        _, _, expectations = page.read_text().partition("### Expected on GPUs")
        start = "| mask_mix | grid | small | float32 |"
        (line,) = (line for line in expectations.splitlines() if line.startswith(start))
        *_, first_expected, first, second_expected, second, _ = (cell.strip() for cell in line.split("|"))
        assert first_expected.endswith("µs") and second_expected.endswith("µs")
        return first, second

    assert measured(("command", ROWS)) == ("", "")
    gpu = [replace(row, device="NVIDIA H100") for row in ROWS]
    assert measured(("command", ROWS), ("other", gpu)) == ("1.50 ms", "")
    assert "### NVIDIA H100, 2 threads" in page.read_text()


def test_the_rest_of_a_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n\nText.\n")
    write_page(page, [("first", ROWS)])
    once = page.read_text()
    assert once.startswith("# Mine\n\nText.\n")
    page.write_text(once + "\nMore text.\n")
    write_page(page, [("second", ROWS)])
    twice = page.read_text()
    assert twice == once.replace("    first\n", "    second\n") + "\nMore text.\n"
    page.write_text(twice.replace("<!-- bench ops: end -->", ""))
    with pytest.raises(UserError, match="damaged"):
        write_page(page, [("third", ROWS)])


def test_the_command_line_is_that_of_the_rows() -> None:
    assert command_line(ROWS, "a.csv") == "mixunlearn-cli bench ops --threads 2 --no-compile --out a.csv"
    quick = [replace(row, seconds=0.3) for row in (BASE, FASTER)]
    other = [replace(row, seconds=4.0) for row in (BASE, replace(FASTER, provider="compile"))]
    assert "--quick" in command_line(quick, "a.csv")
    assert "--seconds 4 " in command_line(other, "a.csv") and "--no-compile" not in command_line(other, "a.csv")


def test_expected_times_are_bound_by_memory_or_by_arithmetic() -> None:
    gpu = GPUS["H200"]
    loss = Case("mix_contrastive_loss", "grid", "large", "float32")
    assert expected_ms(loss, "both", gpu) == pytest.approx(loss.traffic("both").bytes / (COPY_SHARE * 4.8e12) * 1e3)
    attention = Case("mixblock_attention", "grid", "medium", "float32")
    assert expected_ms(attention, "both", gpu) == pytest.approx(attention.traffic("both").operations / 67e12 * 1e3)


def _growth(grows: str, images: str, forget: int, retain: int) -> GrowthRow:
    return GrowthRow(grows, images, forget, retain, 1, forget // 10, 0.1 * forget, 1000 * retain, "", 1, "")


def test_growth_is_drawn_over_the_set_that_grows(tmp_path: Path) -> None:
    forget = [_growth("forget", "in memory", n, 100) for n in (10, 20, 30)]
    retain = [_growth("retain", images, 10, n) for images in ("streamed", "in memory") for n in (100, 200)]
    (time,) = draw_growth(forget, tmp_path)
    assert time.name == "time-forget.svg" and "100.00 s per 1000 images" in time.read_text()
    (memory,) = draw_growth(retain, tmp_path)
    assert memory.name == "memory-retain.svg" and "images in memory" in memory.read_text()


def _report(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.report", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_writes_a_page_with_its_plot(tmp_path: Path) -> None:
    ResultFile(tmp_path / "rows.csv", MACHINE, BASE.seconds).add(ROWS)
    page = tmp_path / "docs" / "page.md"
    done = _report("ops", str(tmp_path / "rows.csv"), "--page", str(page))
    (plot,) = page.parent.glob("page-*-plain.svg")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"Written: {page}", f"Written: {plot}"]
    assert "--no-compile --out rows.csv" in page.read_text() and f"({plot.name})" in page.read_text()


def test_the_command_draws_growth(tmp_path: Path) -> None:
    write_rows(tmp_path / "growth.csv", [_growth("forget", "in memory", n, 100) for n in (10, 20)])
    done = _report("growth", str(tmp_path / "growth.csv"), "--out", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"Written: {tmp_path / 'time-forget.svg'}\n")


@pytest.mark.parametrize(("name", "message"), [("gone.csv", "cannot be read"), ("notes.csv", "is not a file of meas")])
def test_the_command_refuses_what_holds_no_measurements(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.csv").write_text("a note\n")
    done = _report("ops", str(tmp_path / name), "--page", str(tmp_path / "page.md"))
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "page.md").exists()
