// Launchers of the loss kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
#pragma once

#include <cuda_runtime_api.h>

#include "../core/losses.h"

namespace pmx::cuda {

// The logits and targets of a launch and how to read them.
struct RowsLaunch {
  RowSets sets;
  Dtype dtype;
  Dtype target_dtype;
  TargetKind kind;
  int targets;
  RowRole role;  // of the first set
  cudaStream_t stream;
};

// `states` is [rows, state_width] in accumulation type; `sim`, if not null, [rows] in the dtype of the logits.
void cosine_forward(const RowsLaunch& launch, void* states, void* sim);

template <class A>
void cosine_backward(const RowsLaunch& launch, const A* states, const Contrast<A>& contrast, const RowScalar<A>& grad,
                     void* out_first, void* out_second);

// States, loss and, if asked for, the gradient in a single launch. False, and nothing done, if the
// problem is too large for that. `scratch` is as for `reduce`.
template <class A>
bool at_once(const RowsLaunch& launch, const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* states, A* lse,
             void* loss, void* scratch, bool with_gradient, void* out_first, void* out_second);

// Bytes of scratch memory that `reduce` needs.
template <class A>
int64_t reduce_scratch(const ContrastTerms<A>& terms, const Contrast<A>& contrast);

// `lse` is [columns]; `loss` one value of `dtype`.
template <class A>
void reduce(const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* lse, void* loss, Dtype dtype, void* scratch,
            cudaStream_t stream);

void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T, void* out,
                     cudaStream_t stream);
void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                      double inverse_T, void* out, cudaStream_t stream);

}  // namespace pmx::cuda
