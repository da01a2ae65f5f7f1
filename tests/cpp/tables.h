// The CPU kernels of every instruction set that this machine has.
#pragma once

#include <utility>
#include <vector>

#include "cpu/kernel_table.h"

namespace pmx::cpu {

inline std::vector<std::pair<const char*, const KernelTable*>> tables() {
  std::vector<std::pair<const char*, const KernelTable*>> all;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (isa <= best_isa()) all.push_back({isa_name(isa), &kernels(isa)});
  }
  return all;
}

}  // namespace pmx::cpu
