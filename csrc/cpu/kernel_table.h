// The CPU kernels of every operator as raw function pointers, one table per instruction set, chosen at run time. An
// operator adds its row in two places below, and includes its kernels between them.
//
// Without PMX_ISA this is the interface. A table_ISA.cpp includes it a second time with PMX_ISA: then it is the kernels
// of that instruction set. What these include from outside cpu/isa must be included here, by the interface, because an
// inline function compiled for an instruction set could be the copy that the linker keeps for everybody.
#if !defined(PMX_ISA)
#if !defined(PMX_KERNEL_TABLE_H)
#define PMX_KERNEL_TABLE_H

#include <type_traits>

#include "../core/attention.h"
#include "../core/losses.h"
#include "isa.h"
#include "mask_mix.h"

namespace pmx {

struct KernelTable {
  CosineKernels (*cosine)(Dtype logits, Dtype target, TargetKind kind, int targets);
  SharpenKernels (*sharpen)(Dtype dtype);
  ColumnKernel<float> column_float;
  ColumnKernel<double> column_double;
  MaskMixKernels (*mask_mix)(bool in_double);
  AttentionKernels (*attention)(Dtype dtype);

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

#endif
#else

#include "isa/attention.h"
#include "isa/losses_columns.h"
#include "isa/losses_rows.h"
#include "isa/mask_mix.h"

namespace pmx {

// In the order of KernelTable.
const KernelTable PMX_TABLE = {cosine_kernels,     sharpen_kernels,  column_sum<float>,
                               column_sum<double>, mask_mix_kernels, attention_kernels};

}  // namespace pmx

#endif
