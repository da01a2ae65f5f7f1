"""The file of measurements, and what is made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pymixunlearn.benchmarking import Case, Machine, Measurement, ResultFile, command_line, read_results, write_page
from pymixunlearn.benchmarking.comparison import compare, duration, share, size_of
from pymixunlearn.benchmarking.plot import ratio_plot
from pymixunlearn.benchmarking.results import COLUMNS
from pymixunlearn.errors import UserError

MACHINE = Machine("Test processor", 2, "torch 0.0, compiler gcc 0")
BASE = Measurement(
    op="mask_mix",
    pairing="grid",
    size="small",
    dtype="float32",
    mode="both",
    launch="plain",
    provider="fused",
    status="measured",
    reason="",
    kernel="compiled",
    p20_ms=1.25,
    p50_ms=1.5,
    p80_ms=2.0,
    runs=7,
    ratio=1.0,
    bytes=1000,
    operations=0,
    copy_gb_s=10.5,
    share_of_copy=0.25,
    expected_ms=0.375,
    peak_bytes=2048,
    device=MACHINE.device,
    threads=MACHINE.threads,
    seconds=1.5,
    versions=MACHINE.versions,
)
FASTER = replace(BASE, provider="pytorch", ratio=0.5, p50_ms=0.75, kernel="")
SLOWER = replace(BASE, provider="sdpa", ratio=4.0, p50_ms=6.0, kernel="")
UNKNOWN = replace(
    BASE,
    provider="compile",
    status="skipped",
    reason="left out by --no-compile",
    kernel="",
    p20_ms=None,
    p50_ms=None,
    p80_ms=None,
    runs=0,
    ratio=None,
    share_of_copy=None,
    peak_bytes=None,
)
ROWS = [BASE, FASTER, UNKNOWN, SLOWER]


def test_rows_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_results(path) == ROWS


def test_the_columns_are_the_promised_ones() -> None:
    promised = {"op", "pairing", "dtype", "size", "mode", "launch", "provider", "p20_ms", "p50_ms", "p80_ms", "ratio"}
    assert promised | {"bytes", "share_of_copy", "peak_bytes", "device", "versions"} <= set(COLUMNS)


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    results = ResultFile(path, MACHINE, 1.5)
    assert results.has(BASE.case, ["fused", "pytorch"], ["plain"])
    assert not results.has(BASE.case, ["fused", "compile"], ["plain"])
    assert not results.has(BASE.case, ["fused"], ["plain", "graph"])
    assert not results.has(Case("mask_mix", "zip", "small", "float32"), ["fused"], ["plain"])
    again = [replace(row, runs=99) for row in ROWS]
    other = replace(BASE, pairing="zip")
    results.add([other])
    results.add(again)
    assert read_results(path) == [other, *again]


@pytest.mark.parametrize(
    ("machine", "seconds", "message"),
    [
        (replace(MACHINE, threads=1), 1.5, "threads is 2, not 1"),
        (replace(MACHINE, device="Other"), 1.5, "device is Test processor, not Other"),
        (replace(MACHINE, versions="torch 0.1"), 1.5, "versions is torch 0.0"),
        (MACHINE, 0.3, r"seconds is 1\.5, not 0\.3"),
    ],
)
def test_measurements_do_not_mix(tmp_path: Path, machine: Machine, seconds: float, message: str) -> None:
    path = tmp_path / "rows.csv"
    ResultFile(path, MACHINE, 1.5).add(ROWS)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        ResultFile(path, machine, seconds)
    assert path.read_bytes() == before


def test_what_is_no_result_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_results(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="expected the columns op, pairing"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n")
    with pytest.raises(UserError, match="in line 2"):
        read_results(path)
    path.write_text(",".join(COLUMNS) + "\nmask_mix,grid\n")
    with pytest.raises(UserError, match="is not a file of measurements"):
        read_results(path)


def test_comparisons_know_who_won() -> None:
    (entry,) = compare(ROWS)
    assert entry.fused == BASE and entry.lost_to == ["pytorch"]
    assert [entry.ratio(name) for name in ("pytorch", "compile", "sdpa", "nobody")] == ["0.50", "-", "4.00", ""]


def test_numbers_are_written_with_units() -> None:
    assert [duration(value) for value in (0.00123, 0.25, 1.5, 150.0, 2500.0, None)] == [
        "1.23 µs",
        "250 µs",
        "1.50 ms",
        "150 ms",
        "2.50 s",
        "-",
    ]
    assert [size_of(value) for value in (0, 12, 1500, 12_345_678, 262_144_000, 3 * 10**9, None)] == [
        "0 B",
        "12 B",
        "1.50 kB",
        "12.3 MB",
        "262 MB",
        "3.00 GB",
        "-",
    ]
    assert [share(value) for value in (0.0123, 0.5, 1.75, None)] == ["1.2 %", "50 %", "175 %", "-"]


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
