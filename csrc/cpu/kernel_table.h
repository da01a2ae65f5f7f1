// The CPU kernels of every operator as raw function pointers, one table per instruction set, chosen at run time.
#pragma once

#include <type_traits>

#include "attention.h"
#include "isa.h"
#include "losses.h"
#include "mask_mix.h"

namespace pmx {

struct KernelTable {
  CosineKernels (*cosine)(Dtype logits, Dtype target, TargetKind kind, int targets);
  SharpenKernels (*sharpen)(Dtype dtype);
  MaskMixKernels (*mask_mix)(bool in_double);
  AttentionKernels (*attention)(Dtype dtype);
  ColumnKernel<float> column_float;
  ColumnKernel<double> column_double;

  template <class A>
  ColumnKernel<A> column() const {
    if constexpr (std::is_same_v<A, double>) {
      return column_double;
    } else {
      return column_float;
    }
  }
};

// The table of the instruction set that isa.h chose.
const KernelTable& kernels();
// That of an instruction set this machine has.
const KernelTable& kernels(Isa isa);

extern const KernelTable baseline_kernels;
#if defined(__x86_64__)
extern const KernelTable avx2_kernels;
extern const KernelTable avx512_kernels;
#endif

}  // namespace pmx
