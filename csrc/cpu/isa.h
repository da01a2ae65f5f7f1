// Which instruction set the CPU kernels use on this machine.
#pragma once

namespace pmx {

enum class Isa { baseline, avx2, avx512 };

// The best one that the processor and the operating system support; the ones before it work as well.
Isa best_isa();

// The best one, or less where the environment variable PYMIXUNLEARN_CPU_ISA (baseline, avx2 or avx512) lowers the
// choice, for tests and comparisons. Chosen once per process.
Isa chosen_isa();

const char* isa_name(Isa isa);

}  // namespace pmx
