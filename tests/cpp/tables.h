// The CPU kernels of every instruction set that this machine has.
#pragma once

#include <utility>
#include <vector>

#include "cpu/kernels.h"

namespace pmx::cpu {

inline std::vector<std::pair<const char*, const KernelTable*>> tables() {
  std::vector<std::pair<const char*, const KernelTable*>> all = {{"baseline", &baseline_kernels}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back({"avx2", &avx2_kernels});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    all.push_back({"avx512", &avx512_kernels});
  }
#endif
  return all;
}

}  // namespace pmx::cpu
