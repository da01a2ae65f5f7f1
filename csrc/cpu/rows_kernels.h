// The row kernels of the losses and of sharpen, written once and compiled for each instruction set by the
// rows_<isa>.cpp files. Every kernel handles rows [begin, end) and touches nothing else, so callers may split the rows
// over threads as they like without changing a single bit of the result.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace pmx {
inline namespace PMX_ISA {

// Calls `body(offset, count)` for whole vectors, then once for the remainder. `count` is a constant in the first case.
template <int lanes, class Body>
static inline void over_row(int64_t n, Body&& body) {
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) body(j, std::integral_constant<int, lanes>{});
  if (j < n) body(j, static_cast<int>(n - j));
}

template <class T, int lanes>
static inline auto load_at(const T* from, std::integral_constant<int, lanes>, Acc<T>) {
  return load(from);
}
template <class T>
static inline auto load_at(const T* from, int count, Acc<T> fill) {
  return load_part(from, count, fill);
}
template <class T, class V, int lanes>
static inline void store_at(T* to, V v, std::integral_constant<int, lanes>) {
  store(to, v);
}
template <class T, class V>
static inline void store_at(T* to, V v, int count) {
  store_part(to, v, count);
}

// A NaN compares false and is skipped here; it comes back through exp(z - max) and ends in every sum.
template <class T>
static inline Acc<T> row_max(const T* row, int64_t classes) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  V top = broadcast<V>(A(-INFINITY));
  over_row<lanes>(classes, [&](int64_t j, auto count) { top = maximum(load_at(row + j, count, A(-INFINITY)), top); });
  return largest(top);
}

template <class T, class U, TargetKind kind, int targets>
static void cosine_forward(const CosineRows& in, int64_t begin, int64_t end, void* states, void* sim) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A inverse_T = static_cast<A>(in.inverse_T);
  for (int64_t n = begin; n < end; ++n) {
    const T* z = static_cast<const T*>(in.logits) + n * in.stride;
    const A max = row_max(z, in.classes);
    [[maybe_unused]] const U* target[targets];
    A target_max[targets] = {};
    A dot[targets], norm2[targets];
    V e2{}, dots[targets] = {}, norms[targets] = {};
    if constexpr (kind == TargetKind::labels) {
      over_row<lanes>(in.classes, [&](int64_t j, auto count) {
        const V e = exp(load_at(z + j, count, A(-INFINITY)) - max);
        e2 += e * e;
      });
      for (int k = 0; k < targets; ++k) {
        const int64_t label = static_cast<const int64_t*>(in.targets[k].data)[in.targets[k].row(n)];
        const bool valid = label >= 0 && label < in.classes;
        // A label out of range makes its row NaN: visible in the loss, and without waiting for a device.
        norm2[k] = valid ? A(1) : A(NAN);
        dot[k] = valid ? exp(broadcast<V>(A(widen(z[label])) - max))[0] : A(NAN);
      }
    } else {
      for (int k = 0; k < targets; ++k) {
        target[k] = static_cast<const U*>(in.targets[k].data) + in.targets[k].row(n) * in.targets[k].stride;
        if constexpr (kind == TargetKind::teacher_logits) target_max[k] = row_max(target[k], in.classes) * inverse_T;
      }
      over_row<lanes>(in.classes, [&](int64_t j, auto count) {
        const V e = exp(load_at(z + j, count, A(-INFINITY)) - max);
        e2 += e * e;
        for (int k = 0; k < targets; ++k) {
          V t;
          if constexpr (kind == TargetKind::teacher_logits) {
            t = exp(load_at(target[k] + j, count, A(-INFINITY)) * inverse_T - target_max[k]);
          } else {
            t = load_at(target[k] + j, count, A(0));
          }
          dots[k] += e * t;
          norms[k] += t * t;
        }
      });
      for (int k = 0; k < targets; ++k) {
        dot[k] = sum(dots[k]);
        norm2[k] = sum(norms[k]);
      }
    }
    A* state = static_cast<A*>(states) + n * state_width(targets);
    store_row_state(state, max, sum(e2), targets, dot, norm2, target_max);
    if (sim != nullptr) static_cast<T*>(sim)[n] = narrow<T>(A(1) - state[cosine_slot(0)]);
  }
}

template <class T, class U, TargetKind kind, int targets>
static void cosine_backward(const CosineRows& in, int64_t begin, int64_t end, const void* states, RowRole role,
                            const void* contrast, const void* grad, void* out) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A inverse_T = static_cast<A>(in.inverse_T);
  for (int64_t n = begin; n < end; ++n) {
    const T* z = static_cast<const T*>(in.logits) + n * in.stride;
    T* g = static_cast<T*>(out) + n * in.classes;
    const A* state = static_cast<const A*>(states) + n * state_width(targets);
    A weight[2], pull[2];  // row_weights fills one for each target
    row_weights(role, *static_cast<const Contrast<A>*>(contrast), *static_cast<const RowScalar<A>*>(grad), n, state,
                weight);
    const A slope = gradient_coefficients(targets, state, weight, pull);
    const A max = state[0];
    [[maybe_unused]] const U* target[targets];
    [[maybe_unused]] A target_max[targets];
    if constexpr (kind != TargetKind::labels) {
      for (int k = 0; k < targets; ++k) {
        target[k] = static_cast<const U*>(in.targets[k].data) + in.targets[k].row(n) * in.targets[k].stride;
        target_max[k] = state[4 + 3 * k];
      }
    }
    over_row<lanes>(in.classes, [&](int64_t j, auto count) {
      const V e = exp(load_at(z + j, count, A(-INFINITY)) - max);
      V toward = e * slope;
      if constexpr (kind != TargetKind::labels) {
        for (int k = 0; k < targets; ++k) {
          V t;
          if constexpr (kind == TargetKind::teacher_logits) {
            t = exp(load_at(target[k] + j, count, A(-INFINITY)) * inverse_T - target_max[k]);
          } else {
            t = load_at(target[k] + j, count, A(0));
          }
          toward -= t * pull[k];
        }
      }
      store_at(g + j, e * toward, count);
    });
    if constexpr (kind == TargetKind::labels) {
      // Recomputed from the coefficients instead of adding to what was stored: a half would round twice.
      for (int k = 0; k < targets; ++k) {
        const int64_t label = static_cast<const int64_t*>(in.targets[k].data)[in.targets[k].row(n)];
        if (label < 0 || label >= in.classes) continue;
        A total = A(0);
        for (int other = 0; other < targets; ++other) {
          const int64_t same = static_cast<const int64_t*>(in.targets[other].data)[in.targets[other].row(n)];
          if (same == label) total += pull[other];
        }
        const A e = exp(broadcast<V>(A(widen(z[label])) - max))[0];
        g[label] = narrow<T>(e * (e * slope - total));
      }
    }
  }
}

template <class T>
static void sharpen_forward(const void* logits, int64_t classes, double inverse_T, int64_t begin, int64_t end,
                            void* out) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A rate = static_cast<A>(inverse_T);
  for (int64_t n = begin; n < end; ++n) {
    const T* z = static_cast<const T*>(logits) + n * classes;
    T* p = static_cast<T*>(out) + n * classes;
    const A max = row_max(z, classes) * rate;
    V total{};
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      total += exp(load_at(z + j, count, A(-INFINITY)) * rate - max);
    });
    const A scale = A(1) / sum(total);
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      store_at(p + j, exp(load_at(z + j, count, A(-INFINITY)) * rate - max) * scale, count);
    });
  }
}

template <class T>
static void sharpen_backward(const void* grad, const void* probabilities, int64_t classes, double inverse_T,
                             int64_t begin, int64_t end, void* out) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A rate = static_cast<A>(inverse_T);
  for (int64_t n = begin; n < end; ++n) {
    const T* g = static_cast<const T*>(grad) + n * classes;
    const T* p = static_cast<const T*>(probabilities) + n * classes;
    T* to = static_cast<T*>(out) + n * classes;
    V inner{};
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      inner += load_at(g + j, count, A(0)) * load_at(p + j, count, A(0));
    });
    const A mean = sum(inner);
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      const V centred = load_at(g + j, count, A(0)) - mean;
      store_at(to + j, centred * load_at(p + j, count, A(0)) * rate, count);
    });
  }
}

// --- the table -------------------------------------------------------------------------------------------------------

template <class T, class U, TargetKind kind>
static constexpr CosineKernels cosine_pair(int targets) {
  if (targets == 1) return {cosine_forward<T, U, kind, 1>, cosine_backward<T, U, kind, 1>};
  return {cosine_forward<T, U, kind, 2>, cosine_backward<T, U, kind, 2>};
}

template <class T, class U>
static constexpr CosineKernels cosine_of(TargetKind kind, int targets) {
  if (kind == TargetKind::labels) return cosine_pair<T, int64_t, TargetKind::labels>(targets);
  if (kind == TargetKind::probabilities) return cosine_pair<T, U, TargetKind::probabilities>(targets);
  return cosine_pair<T, U, TargetKind::teacher_logits>(targets);
}

static CosineKernels cosine_kernels(Dtype logits, Dtype target, TargetKind kind, int targets) {
  const bool wide = logits != target;  // half logits with float targets
  switch (logits) {
    case Dtype::f32:
      return cosine_of<float, float>(kind, targets);
    case Dtype::f64:
      return cosine_of<double, double>(kind, targets);
    case Dtype::bf16:
      return wide ? cosine_of<BFloat16, float>(kind, targets) : cosine_of<BFloat16, BFloat16>(kind, targets);
    case Dtype::f16:
      return wide ? cosine_of<Half, float>(kind, targets) : cosine_of<Half, Half>(kind, targets);
  }
  return {};
}

static SharpenKernels sharpen_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return {sharpen_forward<float>, sharpen_backward<float>};
    case Dtype::f64:
      return {sharpen_forward<double>, sharpen_backward<double>};
    case Dtype::bf16:
      return {sharpen_forward<BFloat16>, sharpen_backward<BFloat16>};
    case Dtype::f16:
      return {sharpen_forward<Half>, sharpen_backward<Half>};
  }
  return {};
}

}  // namespace PMX_ISA
}  // namespace pmx
