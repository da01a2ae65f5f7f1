"""PTX as C++: one function for each kernel, which runs on the thread block emulator of the C++ tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from instructions import Translator, size_of, statements

ENTRY = re.compile(r"\.entry\s+(\w+)\s*\((.*?)\)\s*((?:\.\w+[^\n{]*\n)*)\s*\{(.*?)\n\}", re.DOTALL)
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?")
SHARED = re.compile(r"\.extern \.shared .*?\b(\w+)\[\]")


@dataclass
class Kernel:
    """One translated kernel."""

    name: str
    max_threads: int
    parameters: list[tuple[int, int]] = field(default_factory=list)  # offset and size of each
    body: list[str] = field(default_factory=list)
    #: Opcodes of each basic block, in the order in which the translated code counts their executions.
    blocks: list[list[str]] = field(default_factory=list)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters together."""
        return sum(self.parameters[-1]) if self.parameters else 0


def kernels(ptx: str, only: str = "") -> Iterator[Kernel]:
    """The kernels of a PTX file whose mangled names match the pattern ``only``."""
    found = SHARED.search(ptx)
    for name, parameters, directives, body in ENTRY.findall(ptx):
        if not re.search(only, name):
            continue
        most = re.search(r"\.maxntid\s+(\d+)", directives)
        kernel = Kernel(name, int(most[1]) if most else 1024)
        offsets: dict[str, int] = {}
        end = 0
        for align, kind, parameter, count in PARAMETER.findall(parameters):
            size = int(count) * size_of(kind) if count else size_of(kind)
            step = int(align) if align else size_of(kind)
            begin = -(-end // step) * step
            offsets[parameter], end = begin, begin + size
            kernel.parameters.append((begin, size))
        translator = Translator(offsets, found[1] if found else None)
        begins = True
        for statement in statements(body):
            code = translator.statement(statement)
            opcode = opcode_of(statement)
            if begins and opcode:
                kernel.body.append(f"++counted[{len(kernel.blocks)}];")
                kernel.blocks.append([])
                begins = False
            kernel.body.append(code)
            if opcode:
                kernel.blocks[-1].append(opcode)
            begins = begins or statement.endswith(":") or opcode.split(".")[0] in ("bra", "ret")
        yield kernel


def opcode_of(statement: str) -> str:
    """The opcode of an instruction, without its guard; nothing for labels, braces and declarations."""
    words = re.sub(r"^@!?%\w+\s+", "", statement).split()
    return "" if not words or words[0][0] in "{}." or statement.endswith(":") else words[0]


def translate(ptx: str, only: str = "") -> str:
    """A C++ file with a function for each kernel, which registers them with driver.h."""
    text = ['#include "machine.h"', "", "namespace pmx::ptx {", "namespace {", ""]
    rows = []
    for i, kernel in enumerate(kernels(ptx, only)):
        text.append(
            f"void kernel_{i}([[maybe_unused]] const Block& block, [[maybe_unused]] unsigned char* parameters) {{"
        )
        text += [f"uint32_t* counted = count(block, {len(kernel.blocks)});"]
        text += ["[[maybe_unused]] Copies copies;", *kernel.body, "}", ""]
        places = ", ".join(f"{{{begin}, {size}}}" for begin, size in kernel.parameters)
        rows.append(f'{{"{kernel.name}", kernel_{i}, {kernel.parameter_bytes}, {kernel.max_threads}, {{{places}}}}},')
    text += ["const Registration registration({", *rows, "});", "", "}  // namespace", "}  // namespace pmx::ptx", ""]
    return "\n".join(text)
