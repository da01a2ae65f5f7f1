#include "kernel_table.h"

#include "isa.h"

namespace pmx {

const KernelTable& kernels() { return kernels(chosen_isa()); }

const KernelTable& kernels(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx512:
      return avx512_kernels;
    case Isa::avx2:
      return avx2_kernels;
    default:
      return baseline_kernels;
  }
#else
  return baseline_kernels;
#endif
}

}  // namespace pmx
