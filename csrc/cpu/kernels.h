// The CPU kernels as raw function pointers, one table per instruction set; dispatch.cpp picks the table at run time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "../core/attention.h"
#include "../core/contrastive.h"
#include "isa.h"
#include "mix.h"

namespace pmx {

// `states` is [rows, state_width] in the accumulation type of the logits; `sim`, if not null, receives the losses of
// the first target, [rows] in the dtype of the logits; `contrast` and `grad` point to a Contrast and a RowScalar of
// that type; `out` is [rows, classes] contiguous in the dtype of the logits.
struct CosineKernels {
  void (*forward)(const CosineRows& in, int64_t begin, int64_t end, void* states, void* sim);
  void (*backward)(const CosineRows& in, int64_t begin, int64_t end, const void* states, RowRole role,
                   const void* contrast, const void* grad, void* out);
};

struct SharpenKernels {
  void (*forward)(const void* logits, int64_t classes, double inverse_T, int64_t begin, int64_t end, void* out);
  void (*backward)(const void* grad, const void* logits, int64_t classes, double inverse_T, int64_t begin, int64_t end,
                   void* out);
};

// What the terms [begin, end) of a column contribute to a contrastive loss.
template <class A>
using ColumnKernel = ColumnSum<A> (*)(const ContrastTerms<A>& terms, const Contrast<A>& contrast, int64_t column,
                                      int64_t begin, int64_t end);

// Tasks [begin, end) of a plan, with its workspace in the type that the kernels compute in.
struct MixKernels {
  void (*forward)(const MixPlan& plan, int64_t begin, int64_t end, void* workspace);
  void (*mask_gradient)(const MixPlan& plan, int64_t begin, int64_t end, void* workspace);
  void (*image_gradient)(const MixPlan& plan, int64_t begin, int64_t end, void* workspace);
};

// Pairs of a grid in rounds whose pairs share no image: within a round every pair may add to the gradients of its
// images, and over the rounds an image meets its partners in a fixed order. In zip pairing one round has all pairs.
struct GridRounds {
  int64_t rounds;
  int64_t pairs;  // in each round

  explicit GridRounds(const Attention& in) : rounds(1), pairs(in.images[0]), retain_(in.images[1]), grid_(in.grid) {
    if (!in.grid) return;
    rounds = in.images[0] > retain_ ? in.images[0] : retain_;
    pairs = in.images[0] < retain_ ? in.images[0] : retain_;
  }
  int64_t pair(int64_t round, int64_t i) const {
    if (!grid_) return i;
    const int64_t partner = (i + round) % rounds;
    return pairs == retain_ ? partner * retain_ + i : i * retain_ + partner;
  }

 private:
  int64_t retain_;
  bool grid_;
};

// Each call handles units [begin, end), in `scratch_bytes` of memory of its own, aligned to 64 bytes. `states` is as in
// core/attention.h, in accumulation type; `grad` and `out` are [pairs, tokens] contiguous. The backward writes
// gradients in accumulation type and, in grid pairing, adds them to what is there: units of a round in any order,
// rounds in turn.
struct AttentionKernels {
  int64_t (*scratch_bytes)(const Attention& in, bool backward);
  int64_t (*forward_units)(const Attention& in);
  void (*forward)(const Attention& in, int64_t begin, int64_t end, void* scratch, void* states, void* out);
  void (*backward)(const Attention& in, int64_t round, int64_t begin, int64_t end, const void* grad, const void* states,
                   void* scratch, const AttentionGradients& to);
};

struct KernelTable {
  CosineKernels (*cosine)(Dtype logits, Dtype target, TargetKind kind, int targets);
  SharpenKernels (*sharpen)(Dtype dtype);
  MixKernels (*mix)(bool in_double);
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

// Rows given to one thread at the least: about 10 microseconds of work, several times what waking a thread costs.
inline int64_t row_grain(int64_t classes) { return std::max<int64_t>(1, 16384 / (classes + 16)); }

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
