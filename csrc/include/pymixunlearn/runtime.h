// How the library uses the machine: it starts no threads of its own, and picks the widest instruction set there is.
#pragma once

#include <cstdint>
#include <functional>

namespace pymixunlearn {

// Runs `body(begin, end)` over pieces that cover [0, count) once. Pieces should hold at least `grain` items, below
// which another thread would cost more than it brings, and may run at the same time. Results do not depend on the cut.
using Pieces = std::function<void(int64_t begin, int64_t end)>;
using ParallelFor = std::function<void(int64_t count, int64_t grain, const Pieces& body)>;

// The ParallelFor of one thread, and the default everywhere: a single piece.
void serial(int64_t count, int64_t grain, const Pieces& body);

// The instruction set of the kernels in this process: "baseline" (SSE2 or NEON), "avx2" or "avx512". The environment
// variable PYMIXUNLEARN_CPU_ISA lowers the choice; it is read once.
const char* instruction_set();

}  // namespace pymixunlearn
