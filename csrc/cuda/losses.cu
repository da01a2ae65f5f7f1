#include <initializer_list>

#include "launch_plan.h"
#include "losses_at_once.cuh"
#include "losses_columns.cuh"
#include "losses_rows.cuh"
#include "losses_sharpen.cuh"

namespace pmx::cuda {
namespace {

template <class T, class U, TargetKind kind, int group, int pack>
__global__ void cosine_forward_kernel(RowSets sets, int targets, Acc<T>* states, T* sim) {
  DeviceBlock block;
  cosine_forward_body<T, U, kind, group, pack>(block, sets, targets, states, sim);
}

template <class T, class U, TargetKind kind, int group, int pack>
__global__ void cosine_backward_kernel(RowSets sets, int targets, const Acc<T>* states, RowRole role,
                                       Contrast<Acc<T>> contrast, RowScalar<Acc<T>> grad, T* out_first, T* out_second) {
  DeviceBlock block;
  cosine_backward_body<T, U, kind, group, pack>(block, sets, targets, states, role, contrast, grad, out_first,
                                                out_second);
}

template <class T, class U, TargetKind kind>
__global__ void at_once_kernel(RowSets sets, int targets, RowRole role, ContrastTerms<Acc<T>> terms,
                               Contrast<Acc<T>> contrast, ColumnSum<Acc<T>>* partial, Acc<T>* states, Acc<T>* lse,
                               T* loss, bool with_gradient, T* out_first, T* out_second) {
  DeviceBlock block;
  at_once_body<T, U, kind>(block, sets, targets, role, terms, contrast, partial, states, lse, loss, with_gradient,
                           out_first, out_second);
}

template <class A, int tile>
__global__ void column_sums_kernel(ContrastTerms<A> terms, Contrast<A> contrast, int64_t stretches,
                                   ColumnSum<A>* partial) {
  DeviceBlock block;
  column_sums_body<A, tile>(block, terms, contrast, stretches, partial);
}

template <class T>
__global__ void column_losses_kernel(Contrast<Acc<T>> contrast, int64_t stretches, const ColumnSum<Acc<T>>* partial,
                                     Acc<T>* lse, T* loss) {
  DeviceBlock block;
  column_losses_body(block, contrast, stretches, partial, lse, loss);
}

template <class T, int group, int pack>
__global__ void sharpen_forward_kernel(const T* logits, int64_t rows, int64_t classes, Acc<T> inverse_T, T* out) {
  DeviceBlock block;
  sharpen_forward_body<T, group, pack>(block, logits, rows, classes, inverse_T, out);
}

template <class T, int group, int pack>
__global__ void sharpen_backward_kernel(const T* grad, const T* logits, int64_t rows, int64_t classes, Acc<T> inverse_T,
                                        T* out) {
  DeviceBlock block;
  sharpen_backward_body<T, group, pack>(block, grad, logits, rows, classes, inverse_T, out);
}

// A compile-time number as a function argument.
template <int value>
using Number = std::integral_constant<int, value>;

// Calls `body(group, pack)` with the plan for these rows. A block that shares a row reads packs only if
// `block_packs`, since every kernel more has to be compiled.
template <class T, bool block_packs = false, class Body>
void with_group(int64_t classes, bool packable, Body&& body) {
  switch (row_group(classes)) {
    case RowGroup::part_of_warp:
      return body(Number<part_of_warp_threads>{}, Number<1>{});
    case RowGroup::warp:
      if (packable) return body(Number<warp_size>{}, Number<pack_of(sizeof(T))>{});
      return body(Number<warp_size>{}, Number<1>{});
    case RowGroup::block:
      if constexpr (block_packs) {
        if (packable) return body(Number<block_threads>{}, Number<pack_of(sizeof(T))>{});
      }
      return body(Number<block_threads>{}, Number<1>{});
  }
}

// Calls `body(logits type, target type, kind)`.
template <class T, class Body>
void with_target(const RowsLaunch& launch, Body&& body) {
  const auto floating = [&](auto target) {
    if (launch.kind == TargetKind::probabilities) {
      body(TypeTag<T>{}, target, std::integral_constant<TargetKind, TargetKind::probabilities>{});
    } else {
      body(TypeTag<T>{}, target, std::integral_constant<TargetKind, TargetKind::teacher_logits>{});
    }
  };
  if (launch.kind == TargetKind::labels) {
    body(TypeTag<T>{}, TypeTag<T>{}, std::integral_constant<TargetKind, TargetKind::labels>{});
  } else if (launch.target_dtype == launch.dtype) {
    floating(TypeTag<T>{});
  } else {
    floating(TypeTag<Acc<T>>{});
  }
}

template <class Body>
void with_dtype(Dtype dtype, Body&& body) {
  switch (dtype) {
    case Dtype::f32:
      return body(TypeTag<float>{});
    case Dtype::f64:
      return body(TypeTag<double>{});
    case Dtype::bf16:
      return body(TypeTag<BFloat16>{});
    case Dtype::f16:
      return body(TypeTag<Half>{});
  }
}

template <class Body>
void with_types(const RowsLaunch& launch, Body&& body) {
  with_dtype(launch.dtype, [&](auto type) { with_target<typename decltype(type)::type>(launch, body); });
}

// Whether both sets of a launch can be read and written in packs.
template <class T, class U>
bool sets_packable(const RowsLaunch& launch, const void* out_first, const void* out_second) {
  const bool labels = launch.kind == TargetKind::labels;
  const RowSets& sets = launch.sets;
  return rows_packable(sets.first, launch.targets, sizeof(T), sizeof(U), labels, out_first) &&
         (sets.second.rows == 0 ||
          rows_packable(sets.second, launch.targets, sizeof(T), sizeof(U), labels, out_second));
}

// Elements that a thread loads at a time. Two packs of 16 bytes, or one of float16, would take registers that let fewer
// warps run at once.
template <class T, int widest, bool backward>
constexpr int sharpen_pack = widest > 1 && (backward || std::is_same_v<T, Half>) ? widest / 2 : widest;

// The same for arrays of whole rows.
template <class T>
bool contiguous_packable(int64_t classes, std::initializer_list<const void*> arrays) {
  constexpr int pack = pack_of(sizeof(T));
  bool fits = classes % pack == 0;
  for (const void* array : arrays) fits = fits && aligned(array, classes, sizeof(T), pack);
  return fits;
}

unsigned blocks_for(int64_t rows, int group) { return static_cast<unsigned>(ceil_div(rows, block_threads / group)); }

}  // namespace

void cosine_forward(const RowsLaunch& launch, void* states, void* sim) {
  if (launch.sets.rows() == 0) return;
  with_types(launch, [&](auto logits, auto target, auto kind) {
    using T = typename decltype(logits)::type;
    using U = typename decltype(target)::type;
    with_group<T>(launch.sets.first.classes, sets_packable<T, U>(launch, nullptr, nullptr), [&](auto group, auto pack) {
      const size_t shared = group() > warp_size ? sizeof(OnlineRow<T>) * (block_threads / warp_size) : 0;
      cosine_forward_kernel<T, U, kind(), group(), pack()>
          <<<blocks_for(launch.sets.rows(), group()), block_threads, shared, launch.stream>>>(
              launch.sets, launch.targets, static_cast<Acc<T>*>(states), static_cast<T*>(sim));
    });
  });
}

template <class A>
void cosine_backward(const RowsLaunch& launch, const A* states, const Contrast<A>& contrast, const RowScalar<A>& grad,
                     void* out_first, void* out_second) {
  if (launch.sets.rows() == 0) return;
  with_types(launch, [&](auto logits, auto target, auto kind) {
    using T = typename decltype(logits)::type;
    using U = typename decltype(target)::type;
    if constexpr (std::is_same_v<Acc<T>, A>) {
      const bool packable = sets_packable<T, U>(launch, out_first, out_second);
      with_group<T>(launch.sets.first.classes, packable, [&](auto group, auto pack) {
        cosine_backward_kernel<T, U, kind(), group(), pack()>
            <<<blocks_for(launch.sets.rows(), group()), block_threads, 0, launch.stream>>>(
                launch.sets, launch.targets, states, launch.role, contrast, grad, static_cast<T*>(out_first),
                static_cast<T*>(out_second));
      });
    }
  });
}

template <class A>
bool at_once(const RowsLaunch& launch, const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* states, A* lse,
             void* loss, void* scratch, bool with_gradient, void* out_first, void* out_second) {
  if (!fits_at_once(launch.sets, terms, contrast)) return false;
  with_types(launch, [&](auto logits, auto target, auto kind) {
    using T = typename decltype(logits)::type;
    using U = typename decltype(target)::type;
    if constexpr (std::is_same_v<Acc<T>, A>) {
      at_once_kernel<T, U, kind()><<<1, block_threads, block_threads * sizeof(ColumnSum<A>), launch.stream>>>(
          launch.sets, launch.targets, launch.role, terms, contrast, static_cast<ColumnSum<A>*>(scratch), states, lse,
          static_cast<T*>(loss), with_gradient, static_cast<T*>(out_first), static_cast<T*>(out_second));
    }
  });
  return true;
}

namespace {

template <class A>
int64_t stretches_of(const ContrastTerms<A>& terms) {
  const int64_t longest = terms.forget.terms > terms.retain.terms ? terms.forget.terms : terms.retain.terms;
  return longest > device_stretch ? ceil_div(longest, device_stretch) : 1;
}

}  // namespace

template <class A>
int64_t reduce_scratch(const ContrastTerms<A>& terms, const Contrast<A>& contrast) {
  return stretches_of(terms) * contrast.columns * static_cast<int64_t>(sizeof(ColumnSum<A>));
}

template <class A>
void reduce(const ContrastTerms<A>& terms, const Contrast<A>& contrast, A* lse, void* loss, Dtype dtype, void* scratch,
            cudaStream_t stream) {
  const int64_t stretches = stretches_of(terms);
  auto* partial = static_cast<ColumnSum<A>*>(scratch);
  const size_t shared = block_threads * sizeof(ColumnSum<A>);
  if (contrast.columns == 1) {
    column_sums_kernel<A, 1>
        <<<static_cast<unsigned>(stretches), block_threads, shared, stream>>>(terms, contrast, stretches, partial);
  } else if (contrast.columns > 1) {
    const auto blocks = static_cast<unsigned>(stretches * ceil_div(contrast.columns, warp_size));
    column_sums_kernel<A, warp_size><<<blocks, block_threads, shared, stream>>>(terms, contrast, stretches, partial);
  }
  with_dtype(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_same_v<Acc<T>, A>) {
      column_losses_kernel<T><<<1, block_threads, block_threads * sizeof(A), stream>>>(contrast, stretches, partial,
                                                                                       lse, static_cast<T*>(loss));
    }
  });
}

void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T, void* out,
                     cudaStream_t stream) {
  if (rows == 0) return;
  with_dtype(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const bool packable = contiguous_packable<T>(classes, {logits, out});
    with_group<T, true>(classes, packable, [&](auto group, auto widest) {
      constexpr int pack = sharpen_pack<T, widest(), false>;
      const size_t shared = sizeof(OnlineSoftmax<Acc<T>>) * (block_threads / warp_size);
      sharpen_forward_kernel<T, group(), pack><<<blocks_for(rows, group()), block_threads, shared, stream>>>(
          static_cast<const T*>(logits), rows, classes, static_cast<Acc<T>>(inverse_T), static_cast<T*>(out));
    });
  });
}

void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                      double inverse_T, void* out, cudaStream_t stream) {
  if (rows == 0) return;
  with_dtype(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const bool packable = contiguous_packable<T>(classes, {grad, logits, out});
    with_group<T, true>(classes, packable, [&](auto group, auto widest) {
      constexpr int pack = sharpen_pack<T, widest(), true>;
      const size_t shared = sizeof(OnlineSoftmax<Acc<T>>) * (block_threads / warp_size);
      sharpen_backward_kernel<T, group(), pack><<<blocks_for(rows, group()), block_threads, shared, stream>>>(
          static_cast<const T*>(grad), static_cast<const T*>(logits), rows, classes, static_cast<Acc<T>>(inverse_T),
          static_cast<T*>(out));
    });
  });
}

#define PMX_INSTANTIATE(A)                                                                                             \
  template void cosine_backward<A>(const RowsLaunch&, const A*, const Contrast<A>&, const RowScalar<A>&, void*,        \
                                   void*);                                                                             \
  template bool at_once<A>(const RowsLaunch&, const ContrastTerms<A>&, const Contrast<A>&, A*, A*, void*, void*, bool, \
                           void*, void*);                                                                              \
  template int64_t reduce_scratch<A>(const ContrastTerms<A>&, const Contrast<A>&);                                     \
  template void reduce<A>(const ContrastTerms<A>&, const Contrast<A>&, A*, void*, Dtype, void*, cudaStream_t);
PMX_INSTANTIATE(float)
PMX_INSTANTIATE(double)
#undef PMX_INSTANTIATE

}  // namespace pmx::cuda
