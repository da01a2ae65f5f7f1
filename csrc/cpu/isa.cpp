#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace pmx {

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::baseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Isa::avx512 : Isa::avx2;
#else
  return Isa::baseline;
#endif
}

namespace {

Isa limited() {
  const Isa best = best_isa();
  const char* limit = std::getenv("PYMIXUNLEARN_CPU_ISA");
  if (limit == nullptr) return best;
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (std::strcmp(limit, isa_name(isa)) == 0) return std::min(isa, best);
  }
  return best;
}

}  // namespace

Isa chosen_isa() {
  static const Isa isa = limited();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace pmx
