"""What the instructions of a kernel cost: counts of a run, and the bound on an H200's speed that they set.

Counted are executions of PTX instructions by warps, in the cases of the benches (run.py). They stand for machine
instructions through weights, about what ptxas makes of each kind, scaled for each kernel so that one execution of every
PTX instruction gives the number of machine instructions that ptxas made of the kernel for sm_90. That number is exact;
how often each of them runs is the estimate.

A result is one element of the output: a mixed image's, a gradient row's, a mask logit. ``share`` is that of a copy's
rate at which the bytes that the case cannot avoid would move if nothing but issuing took time, with 75 of 100 issue
slots used: a bound, not a measurement.
"""

from __future__ import annotations

import csv
import json
import re
import struct
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from translate import kernels

#: Of an H200: warp instructions issued in a second, at 75 of 100 slots, and bytes copied in a second (measured).
ISSUED = 132 * 4 * 1.98e9 * 0.75
COPIED = 4.3e12
#: Registers and warps of a multiprocessor, and its shared memory in bytes, with what each block costs besides its own.
REGISTERS, WARPS, SHARED, SHARED_BESIDES = 65536, 64, 228 * 1024, 1024
#: A kernel may get this much heavier before it counts as a change.
ALLOWED = 1.03

KINDS = ("floating", "integer", "integer64", "division", "conversion", "special", "memory", "exchange", "control")


def kind_of(opcode: str) -> str:
    """The kind of a PTX instruction, of :data:`KINDS`, or nothing for one that leaves none in the machine code."""
    parts = opcode.split(".")
    name, wide = parts[0], parts[-1] in ("s64", "u64", "b64")
    if name in ("mov", "cvta"):
        return ""
    if name in ("div", "rem") and parts[-1][0] in "su":
        return "division"
    if name in ("ex2", "rcp", "sqrt", "div"):
        return "special"
    if name in ("ld", "st"):
        return "" if "param" in parts else "memory"
    if name in ("cp", "ldmatrix"):
        return "memory"
    if name in ("shfl", "bar", "mma"):
        return "exchange"
    if name == "cvt":
        return "conversion"
    if name in ("bra", "ret"):
        return "control"
    if parts[-1] in ("f32", "f64"):
        return "floating"
    return "integer64" if wide else "integer"


def weight_of(opcode: str) -> float:
    """About how many machine instructions one PTX instruction becomes."""
    parts = opcode.split(".")
    kind = kind_of(opcode)
    if kind == "division":
        return 70 if parts[-1].endswith("64") else 16
    if kind == "integer64":
        return 4 if parts[0] in ("mul", "mad") and parts[1] == "lo" else 2
    if kind == "special":
        return (1 if "ftz" in parts else 4) if "approx" in parts else 8
    return 1 if kind else 0


@dataclass
class Code:
    """What ptxas made of a kernel for sm_90."""

    instructions: int = 0
    registers: int = 0
    shared: int = 0


def machine_instructions(cubin: bytes) -> Iterator[tuple[str, int]]:
    """Kernels of a cubin and their machine instructions, without the padding at the end."""
    (begin,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, begin + i * size) for i in range(count)]
    strings = sections[names][4]
    for name, _, _, _, at, length in sections:
        text = cubin[strings + name : cubin.index(b"\0", strings + name)].decode()
        if not text.startswith(".text."):
            continue
        # 16 bytes each; the lowest 12 bits say which: NOP, and the jump to itself before them.
        codes = [code & 0xFFF for (code, _) in struct.iter_unpack("<QQ", cubin[at : at + length])]
        while codes and codes[-1] in (0x918, 0x947):
            codes.pop()
        yield text.removeprefix(".text."), len(codes)


def assemble(ptx: str, names: Iterable[str], folder: Path, ptxas: str) -> dict[str, Code]:
    """What ptxas says and makes of some kernels of a PTX file."""
    wanted = set(names)
    pieces = re.split(r"(?m)^(?=\.(?:visible )?(?:entry|weak)|// \.(?:globl|weak))", ptx)
    kept = [piece for piece in pieces if not (entry := re.search(r"\.entry\s+(\w+)", piece)) or entry[1] in wanted]
    source, cubin = folder / "counted.ptx", folder / "counted.cubin"
    source.write_text("".join(kept))
    command = [ptxas, "-arch=sm_90", "-v", str(source), "-o", str(cubin)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"ptxas failed:\n{result.stderr}")
    codes = {name: Code(instructions=count) for name, count in machine_instructions(cubin.read_bytes())}
    for name, said in re.findall(r"Compiling entry function '(\w+)'(.*?Used[^\n]*)", result.stderr, re.DOTALL):
        codes[name].registers = int(re.search(r"Used (\d+) registers", said)[1])  # type: ignore[index]
        shared = re.search(r"(\d+) bytes smem", said)
        codes[name].shared = int(shared[1]) if shared else 0
    return codes


def warps_at_once(code: Code, threads: int, shared: int) -> int:
    """Warps of a kernel that a multiprocessor holds: what registers and shared memory leave room for."""
    warps = -(-threads // 32)
    by_registers = REGISTERS // (-(-code.registers // 8) * 8 * 32) // warps
    by_shared = SHARED // (code.shared + shared + SHARED_BESIDES)
    return warps * min(by_registers, by_shared, WARPS // warps, 32)


def rows_of(
    ptx: str, lines: Iterable[str], readable: dict[str, str], folder: Path, ptxas: str
) -> list[dict[str, object]]:
    """The table's rows for the counts of one operator: one for each kernel, and one for each case and mode."""
    launches = [json.loads(line) for line in lines]
    if not launches:
        return []
    codes = assemble(ptx, {one["kernel"] for one in launches}, folder, ptxas)
    names = "|".join(re.escape(name) for name in codes)
    opcodes = {kernel.name: kernel.blocks for kernel in kernels(ptx, f"^({names})$")}
    rows: list[dict[str, object]] = []
    totals: dict[tuple[str, str], float] = defaultdict(float)
    bounds = {(one["case"], one["mode"]): (one["results"], one["bytes"]) for one in launches}
    for one in launches:
        blocks, code = opcodes[one["kernel"]], codes[one["kernel"]]
        weighed = [sum(map(weight_of, block)) for block in blocks]
        scale = code.instructions / sum(weighed)
        per_result = 32 / one["results"]
        executed = zip(one["executions"], weighed, strict=True)
        machine = sum(count * weight for count, weight in executed) * scale * per_result
        kinds: Counter[str] = Counter()
        for count, block in zip(one["executions"], blocks, strict=True):
            for opcode in block:
                kinds[kind_of(opcode)] += count
        totals[one["case"], one["mode"]] += machine
        rows.append(
            {
                "case": one["case"],
                "mode": one["mode"],
                "kernel": readable[one["kernel"]],
                **{kind: f"{kinds[kind] * per_result:.3f}" for kind in KINDS},
                "machine": f"{machine:.3f}",
                "code": code.instructions,
                "registers": code.registers,
                "shared": code.shared + one["shared"],
                "warps": warps_at_once(code, one["threads"], one["shared"]),
            }
        )
    for (case, mode), machine in totals.items():
        results, moved = bounds[case, mode]
        issue, copy = machine / 32 / ISSUED, moved / results / COPIED
        share = f"{100 * min(1.0, copy / issue):.0f}"
        rows.append({"case": case, "mode": mode, "kernel": "", "machine": f"{machine:.3f}", "share": share})
    return rows


COLUMNS = ["case", "mode", "kernel", *KINDS, "machine", "share", "code", "registers", "shared", "warps"]


def write(rows: list[dict[str, object]], path: Path) -> None:
    """Write the table."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(sorted(rows, key=lambda row: (str(row["case"]), str(row["mode"]), str(row["kernel"]))))


def heavier(rows: list[dict[str, object]], bound: Path) -> list[str]:
    """One line for each kernel that executes more than a stored table allows, or that fewer warps run of at once.

    A kernel of another name than the stored one is held to the case's total alone.
    """

    def key(row: dict[str, object]) -> tuple[str, str, str]:
        return str(row["case"]), str(row["mode"]), str(row["kernel"])

    with bound.open(newline="") as file:
        stored = {key(dict(row)): row for row in csv.DictReader(file)}
    found = []
    for row in rows:
        before, name = stored.get(key(row)), ", ".join(filter(None, key(row)))
        if before is None:
            if not row["kernel"]:
                found.append(f"{name}: not in {bound.name}; write it anew with --counts {bound.name}")
            continue
        if float(str(row["machine"])) > ALLOWED * float(before["machine"]):
            found.append(f"{name}: {row['machine']} instructions for each result, {before['machine']} in {bound.name}")
        if row["kernel"] and int(str(row["warps"])) < int(before["warps"]):
            found.append(f"{name}: {row['warps']} warps at once, {before['warps']} in {bound.name}")
    return found
