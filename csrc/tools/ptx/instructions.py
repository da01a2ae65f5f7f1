"""PTX instructions as C++: one method of :class:`Translator` for each opcode.

Registers become variables of raw bits, so that an instruction alone says how they are read. Types, arithmetic and what
a warp does together are in machine.h; an instruction that is not known here is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TYPES = {
    f"{kind}{bits}": f"{sign}int{bits}_t"
    for bits in (8, 16, 32, 64)
    for kind, sign in zip("bus", ("u", "u", ""), strict=True)
}
TYPES |= {"f32": "float", "f64": "double", "f16": "uint16_t", "pred": "bool"}
#: What a register is declared as, by the type in ``.reg``: bits without a meaning.
BITS = {name: f"uint{re.sub(r'[a-z]', '', name)}_t" for name in TYPES if name != "pred"} | {"pred": "bool"}
SPECIAL = {"%tid.x": "block.thread()", "%ntid.x": "block.threads()", "%ctaid.x": "block.index()"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
#: Unordered comparisons are the negation of the opposite ordered one: true where either side is a NaN.
UNORDERED = {"ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}


class UnknownInstruction(Exception):
    """PTX that this translation does not know."""


def size_of(kind: str) -> int:
    """Bytes of a PTX type."""
    return int(re.sub(r"\D", "", kind)) // 8


def is_float(kind: str) -> bool:
    """Whether a type has floating-point arithmetic; f16 is carried as bits."""
    return kind in ("f32", "f64")


def unsigned(kind: str) -> str:
    """The C++ type for wrapping arithmetic of a type."""
    return TYPES[kind] if is_float(kind) else f"uint{size_of(kind) * 8}_t"


def statements(body: str) -> Iterator[str]:
    """Instructions, labels (with their colon) and the braces of scopes, in order."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", body, flags=re.DOTALL)
    current = ""
    for letter in text:
        if letter in "{}" and not current.strip():
            yield letter
            current = ""
        elif letter == ";":
            yield current.strip()
            current = ""
        elif letter == ":" and re.fullmatch(r"\s*\$?\w+", current):
            yield current.strip() + ":"
            current = ""
        else:
            current += letter


def operands(text: str) -> list[str]:
    """Split at the commas that stand outside of braces and brackets."""
    return [part.strip() for part in re.split(r",(?![^{}]*\})(?![^\[\]]*\])", text) if part.strip()]


class Translator:
    """Translates the instructions of one kernel; a method ``_op_NAME`` for each opcode."""

    def __init__(self, offsets: dict[str, int], shared: str | None) -> None:
        self.offsets = offsets
        self.shared = shared
        self.declared: set[str] = set()

    def statement(self, text: str) -> str:
        """The C++ of one statement."""
        if text in ("{", "}"):
            return text
        if text.endswith(":"):
            return f"{self._label(text[:-1])}:;"
        if text.startswith(".reg"):
            return self._registers(text)
        if text.startswith("."):
            return ""
        guard = re.match(r"@(!?)(%\w+)\s+(.*)", text, re.DOTALL)
        condition, rest = (f"if ({guard[1]}{self._name(guard[2])}) ", guard[3]) if guard else ("", text)
        opcode, _, arguments = rest.partition(" ") if "\t" not in rest.split(" ")[0] else rest.partition("\t")
        return f"{condition}{{ {self.instruction(opcode.strip(), operands(arguments))} }}"

    def instruction(self, opcode: str, arguments: list[str]) -> str:
        """The C++ of one instruction without its guard."""
        parts = opcode.split(".")
        method = getattr(self, f"_op_{parts[0]}", None)
        code = method(parts, arguments) if method else None
        if code is None:
            raise UnknownInstruction(f"{opcode} {', '.join(arguments)}")
        return str(code)

    # --- operands ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _label(name: str) -> str:
        return "L" + re.sub(r"\W", "_", name)

    @staticmethod
    def _name(register: str) -> str:
        return "r_" + register.lstrip("%")

    def _registers(self, text: str) -> str:
        kind, names = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        declared: list[str] = []
        for name in operands(names):
            many = re.fullmatch(r"%(\w+?)<(\d+)>", name)
            declared += [f"r_{many[1]}{i}" for i in range(int(many[2]))] if many else [self._name(name)]
        self.declared.update(declared)
        return f"[[maybe_unused]] {BITS[kind]} {', '.join(declared)};"

    def read(self, operand: str, kind: str) -> str:
        """An operand as a value of a type."""
        to = TYPES[kind]
        if operand in SPECIAL:
            return f"{to}({SPECIAL[operand]})"
        if self._name(operand) in self.declared:
            return f"get<{to}>({self._name(operand)})"
        if literal := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", operand):
            return f"get<{to}>(uint32_t(0x{literal[1]}u))"
        if literal := re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", operand):
            return f"get<{to}>(uint64_t(0x{literal[1]}ull))"
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", operand) and not is_float(kind):
            return f"{to}(0x{int(operand.rstrip('U'), 0) & (1 << 64) - 1:x}ull)"
        if operand == self.shared:
            return f"{to}(0)"  # addresses in shared memory count from its begin
        if operand in self.offsets:
            return f"{to}(reinterpret_cast<uintptr_t>(parameters + {self.offsets[operand]}))"
        raise UnknownInstruction(f"operand {operand} as {kind}")

    def write(self, register: str, kind: str, value: str) -> str:
        """Set a register to a value of a type; wider registers are extended as the type says."""
        return f"{value};" if register == "_" else f"put<{TYPES[kind]}>({self._name(register)}, {value});"

    def address(self, operand: str, space: str) -> str:
        """The memory that an operand in brackets names."""
        base, offset = re.fullmatch(r"\[\s*([^+\s]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand).groups()  # type: ignore[union-attr]
        offset = int(offset or "0", 0)
        if space == "param" and base in self.offsets:
            return f"parameters + {self.offsets[base] + offset}"
        if space == "shared":
            return f"block.shared() + get<int32_t>(uint32_t({self.read(base, 'u32')} + {offset & 0xFFFFFFFF}u))"
        return f"reinterpret_cast<unsigned char*>(uintptr_t({self.read(base, 'u64')} + {offset}ll))"

    @staticmethod
    def _vector(operand: str) -> list[str]:
        return [name.strip() for name in operand.strip("{} ").split(",")] if operand.startswith("{") else [operand]

    def binary(self, arguments: list[str], kind: str, operation: str) -> str:
        """A wrapping operation of integers, or one of floating-point numbers."""
        left, right = (self.read(argument, kind) for argument in arguments[1:3])
        return self.write(
            arguments[0], kind, f"{TYPES[kind]}({unsigned(kind)}({left}) {operation} {unsigned(kind)}({right}))"
        )

    def call(self, arguments: list[str], kind: str, function: str, *kinds: str) -> str:
        """A function of machine.h over the remaining operands, each of the type at its place or of ``kind``."""
        types = [*kinds, *[kind] * (len(arguments) - 1 - len(kinds))]
        values = ", ".join(self.read(argument, of) for argument, of in zip(arguments[1:], types, strict=True))
        return self.write(arguments[0], kind, f"{function}({values})")

    # --- control ----------------------------------------------------------------------------------------------------

    def _op_ret(self, parts: list[str], a: list[str]) -> str:
        return "return;"

    def _op_bra(self, parts: list[str], a: list[str]) -> str:
        return f"goto {self._label(a[0])};"

    def _op_bar(self, parts: list[str], a: list[str]) -> str | None:
        return "block.sync();" if a == ["0"] else None

    # --- moves and memory -------------------------------------------------------------------------------------------

    def _op_mov(self, parts: list[str], a: list[str]) -> str:
        kind = parts[-1]
        pieces, source = self._vector(a[0]), self._vector(a[1])
        if len(pieces) > 1:  # the first element is the lowest
            width = size_of(kind) * 8 // len(pieces)
            moved = f"const auto whole = {self.read(a[1], f'b{width * len(pieces)}')};"
            return moved + "".join(
                self.write(piece, f"b{width}", f"uint{width}_t(whole >> {i * width})")
                for i, piece in enumerate(pieces)
                if piece != "_"
            )
        if len(source) > 1:
            width = size_of(kind) * 8 // len(source)
            whole = " | ".join(
                f"{BITS[kind]}({self.read(part, f'b{width}')}) << {i * width}" for i, part in enumerate(source)
            )
            return self.write(a[0], f"b{size_of(kind) * 8}", f"{BITS[kind]}({whole})")
        return self.write(a[0], kind, self.read(a[1], kind))

    def _op_ld(self, parts: list[str], a: list[str]) -> str | None:
        kind, into = parts[-1], self._vector(a[0])
        space = next((name for name in ("param", "shared", "global") if name in parts), None)
        if space is None:
            return None
        loads = "".join(
            self.write(r, kind, f"load<{TYPES[kind]}>(from + {i * size_of(kind)})") for i, r in enumerate(into)
        )
        return f"const unsigned char* from = aligned<{len(into) * size_of(kind)}>({self.address(a[1], space)}); {loads}"

    def _op_st(self, parts: list[str], a: list[str]) -> str | None:
        kind, values = parts[-1], self._vector(a[1])
        space = next((name for name in ("shared", "global") if name in parts), None)
        if space is None:
            return None
        stores = "".join(
            f"store<{TYPES[kind]}>(to + {i * size_of(kind)}, {self.read(v, kind)});" for i, v in enumerate(values)
        )
        return f"unsigned char* to = aligned<{len(values) * size_of(kind)}>({self.address(a[0], space)}); {stores}"

    def _op_cvta(self, parts: list[str], a: list[str]) -> str:
        # From a generic address to one in shared memory; global addresses are generic ones.
        window = " - reinterpret_cast<uintptr_t>(block.shared())" if "shared" in parts else ""
        return self.write(a[0], "u64", f"uint64_t({self.read(a[1], 'u64')}{window})")

    def _op_cp(self, parts: list[str], a: list[str]) -> str | None:
        if parts == ["cp", "async", "wait_all"]:
            return "copies.wait();"
        if parts[:3] == ["cp", "async", "ca"]:
            return f"copies.begin({self.address(a[0], 'shared')}, {self.address(a[1], 'global')}, {a[2]});"
        return None

    # --- arithmetic -------------------------------------------------------------------------------------------------

    def _op_add(self, parts: list[str], a: list[str]) -> str:
        return self.binary(a, parts[-1], "+")

    def _op_sub(self, parts: list[str], a: list[str]) -> str:
        return self.binary(a, parts[-1], "-")

    def _op_mul(self, parts: list[str], a: list[str]) -> str | None:
        kind = parts[-1]
        if is_float(kind):
            return self.binary(a, kind, "*")
        if parts[1] == "wide":
            wide = f"{kind[0]}{size_of(kind) * 16}"
            left, right = (f"{TYPES[wide]}({self.read(x, kind)})" for x in a[1:])
            return self.write(a[0], wide, f"{left} * {right}")
        return self.call(a, kind, f"mul_{parts[1]}<{TYPES[kind]}>") if parts[1] in ("lo", "hi") else None

    def _op_mad(self, parts: list[str], a: list[str]) -> str | None:
        kind = parts[-1]
        if parts[1] != "lo":
            return None
        product = f"mul_lo<{TYPES[kind]}>({self.read(a[1], kind)}, {self.read(a[2], kind)})"
        total = f"{unsigned(kind)}({product}) + {unsigned(kind)}({self.read(a[3], kind)})"
        return self.write(a[0], kind, f"{TYPES[kind]}({total})")

    def _op_fma(self, parts: list[str], a: list[str]) -> str | None:
        return self.call(a, parts[-1], f"fma_{parts[1]}") if parts[1] in ("rn", "rm") else None

    def _op_div(self, parts: list[str], a: list[str]) -> str:
        return self.write(a[0], parts[-1], f"{self.read(a[1], parts[-1])} / {self.read(a[2], parts[-1])}")

    def _op_rem(self, parts: list[str], a: list[str]) -> str:
        return self.write(a[0], parts[-1], f"{self.read(a[1], parts[-1])} % {self.read(a[2], parts[-1])}")

    def _op_min(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], "smaller")

    def _op_max(self, parts: list[str], a: list[str]) -> str:
        if parts[1:] in (["bf16x2"], ["f16x2"]):
            return self.call(a, "b32", f"larger_halves<from_{parts[1][:-2]}>")
        return self.call(a, parts[-1], "larger")

    def _op_neg(self, parts: list[str], a: list[str]) -> str:
        kind = parts[-1]
        value = self.read(a[1], kind)
        return self.write(
            a[0], kind, f"-{value}" if is_float(kind) else f"{TYPES[kind]}(0 - {unsigned(kind)}({value}))"
        )

    def _op_abs(self, parts: list[str], a: list[str]) -> str | None:
        return self.call(a, parts[-1], "std::fabs") if is_float(parts[-1]) else None

    def _op_ex2(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], f"exp2_approx<{str('ftz' in parts).lower()}>")

    def _op_rcp(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], "reciprocal_approx" if "approx" in parts else "reciprocal")

    def _op_sqrt(self, parts: list[str], a: list[str]) -> str | None:
        return self.call(a, parts[-1], "std::sqrt") if "rn" in parts or "approx" in parts else None

    # --- bits and predicates ----------------------------------------------------------------------------------------

    def _op_and(self, parts: list[str], a: list[str]) -> str:
        return self._bitwise(parts, a, "&")

    def _op_or(self, parts: list[str], a: list[str]) -> str:
        return self._bitwise(parts, a, "|")

    def _op_xor(self, parts: list[str], a: list[str]) -> str:
        return self._bitwise(parts, a, "^")

    def _bitwise(self, parts: list[str], a: list[str], operation: str) -> str:
        kind = parts[-1]
        return self.write(a[0], kind, f"{TYPES[kind]}({self.read(a[1], kind)} {operation} {self.read(a[2], kind)})")

    def _op_not(self, parts: list[str], a: list[str]) -> str:
        kind = parts[-1]
        return self.write(a[0], kind, f"{TYPES[kind]}({'!' if kind == 'pred' else '~'}{self.read(a[1], kind)})")

    def _op_shl(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], "shift_left", parts[-1], "u32")

    def _op_shr(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], "shift_right", parts[-1], "u32")

    def _op_bfi(self, parts: list[str], a: list[str]) -> str:
        return self.call(a, parts[-1], "insert_bits", parts[-1], parts[-1], "u32", "u32")

    def _op_setp(self, parts: list[str], a: list[str]) -> str | None:
        kind, comparison = parts[-1], parts[1]
        if len(parts) != 3:
            return None
        left, right = self.read(a[1], kind), self.read(a[2], kind)
        if comparison == "nan":
            return self.write(a[0], "pred", f"({left} != {left} || {right} != {right})")
        if comparison == "ne" and is_float(kind):  # ordered: false for a NaN
            return self.write(a[0], "pred", f"({left} < {right} || {left} > {right})")
        if comparison in COMPARISONS:
            return self.write(a[0], "pred", f"({left} {COMPARISONS[comparison]} {right})")
        if comparison in UNORDERED:
            return self.write(a[0], "pred", f"!({left} {UNORDERED[comparison]} {right})")
        return None

    def _op_selp(self, parts: list[str], a: list[str]) -> str:
        kind = parts[-1]
        return self.write(a[0], kind, f"({self._name(a[3])} ? {self.read(a[1], kind)} : {self.read(a[2], kind)})")

    # --- conversions ------------------------------------------------------------------------------------------------

    def _op_cvt(self, parts: list[str], a: list[str]) -> str | None:
        to, source = parts[-2:]
        if to in ("bf16x2", "f16x2"):  # the first operand goes to the upper half
            upper, lower = (f"uint32_t(to_{to[:-2]}({self.read(x, 'f32')}))" for x in a[1:])
            return self.write(a[0], "b32", f"({upper} << 16 | {lower})")
        if (to, source) == ("tf32", "f32"):
            return self.write(a[0], "b32", f"to_tf32({self.read(a[1], 'f32')})")
        if (to, source) == ("bf16", "f32"):
            return self.write(a[0], "b16", f"to_bf16({self.read(a[1], 'f32')})")
        if (to, source) == ("f16", "f32"):
            return self.write(a[0], "b16", f"to_f16({self.read(a[1], 'f32')})")
        if (to, source) == ("f32", "f16"):
            return self.write(a[0], "f32", f"from_f16({self.read(a[1], 'b16')})")
        value = self.read(a[1], source)
        if "sat" in parts:
            return self.write(a[0], to, f"saturate({value})") if to == source == "f32" else None
        rounding = next((name for name in ("rni", "rmi", "rpi", "rzi") if name in parts), None)
        if rounding and is_float(source):
            value = f"round_{rounding}({value})"
        if is_float(source) and not is_float(to):
            return self.write(a[0], to, f"to_integer<{TYPES[to]}>({value})") if rounding else None
        return self.write(a[0], to, f"{TYPES[to]}({value})")

    # --- what a warp does together ----------------------------------------------------------------------------------

    def _op_shfl(self, parts: list[str], a: list[str]) -> str | None:
        if parts[1:] != ["sync", "bfly", "b32"]:
            return None
        into, *found = a[0].split("|")
        value, lanes, clamp, members = (self.read(x, "b32") for x in a[1:])
        exchange = self.write(into, "b32", f"shuffle_xor(block, {value}, {lanes}, {clamp}, {members})")
        return exchange + "".join(self.write(p, "pred", "true") for p in found)

    def _op_ldmatrix(self, parts: list[str], a: list[str]) -> str | None:
        if parts[1:5] != ["sync", "aligned", "m8n8", "x4"]:
            return None
        transposed = str("trans" in parts).lower()
        load = f"const Fragment loaded = load_matrices<{transposed}>(block, {self.address(a[1], 'shared')});"
        return load + "".join(self.write(r, "b32", f"loaded.at[{i}]") for i, r in enumerate(self._vector(a[0])))

    def _op_mma(self, parts: list[str], a: list[str]) -> str | None:
        shape, kind = parts[3], parts[7]
        if parts[4:7] != ["row", "col", "f32"] or (shape, kind) not in (
            ("m16n8k16", "bf16"),
            ("m16n8k16", "f16"),
            ("m16n8k8", "tf32"),
        ):
            return None
        factors = [
            ", ".join(self.read(x, of) for x in self._vector(operand))
            for operand, of in zip(a[1:], ("b32", "b32", "f32"), strict=True)
        ]
        values = f"{{{{{factors[0]}}}, {{{factors[1]}}}, {{{factors[2]}}}}}"
        multiply = f"const Sums sums = multiply<Element::{kind}>(block, {values});"
        return multiply + "".join(self.write(r, "f32", f"sums.at[{i}]") for i, r in enumerate(self._vector(a[0])))
