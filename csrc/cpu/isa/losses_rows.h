// The row kernels of the losses and of sharpen, compiled for each instruction set. Every kernel handles rows [begin,
// end) and touches nothing else, so callers may split the rows over threads as they like without changing a single bit
// of the result.
#pragma once

#include "../../core/losses.h"
#include "row_loops.h"

namespace pmx {
inline namespace PMX_ISA {

// Not inlined: it hardly ever runs, and would take registers from what does.
template <class T, class A, class U>
static __attribute__((noinline)) A rare_length(A e2, A norm2, const U* target, int64_t classes) {
  return rescaled_length<T>(e2, norm2, target, classes);
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
    A dot[targets], lengths[targets];
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
        lengths[k] = valid ? std::sqrt(sum(e2)) : A(NAN);
        dot[k] = valid ? exp(broadcast<V>(A(widen(z[label])) - max))[0] : A(NAN);
      }
    } else {
      for (int k = 0; k < targets; ++k) {
        target[k] = static_cast<const U*>(in.targets[k].data) + in.targets[k].row(n) * in.targets[k].stride;
        if constexpr (kind == TargetKind::teacher_logits) target_max[k] = row_max(target[k], in.classes);
      }
      over_row<lanes>(in.classes, [&](int64_t j, auto count) {
        const V e = exp(load_at(z + j, count, A(-INFINITY)) - max);
        e2 += e * e;
        for (int k = 0; k < targets; ++k) {
          V t;
          if constexpr (kind == TargetKind::teacher_logits) {
            t = exp((load_at(target[k] + j, count, A(-INFINITY)) - target_max[k]) * inverse_T);
          } else {
            t = load_at(target[k] + j, count, A(0));
          }
          dots[k] += e * t;
          norms[k] += t * t;
        }
      });
      const A total = sum(e2);
      for (int k = 0; k < targets; ++k) {
        dot[k] = sum(dots[k]);
        const A norm2 = sum(norms[k]);
        if (kind == TargetKind::teacher_logits || exact_square(norm2)) {
          lengths[k] = std::sqrt(total * norm2);
        } else {
          lengths[k] = rare_length<T>(total, norm2, target[k], in.classes);
        }
      }
    }
    A* state = static_cast<A*>(states) + n * state_width(targets);
    store_row_state<T>(state, max, sum(e2), targets, dot, lengths, target_max);
    if (sim != nullptr) static_cast<T*>(sim)[n] = narrow<T>(state[sim_slot(0)]);
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
    A weight[2] = {0, 0};
    row_weights(role, *static_cast<const Contrast<A>*>(contrast), *static_cast<const RowScalar<A>*>(grad), n, state,
                weight);
    const GradientRow<A> row(targets, state, weight);
    const A max = state[0];
    [[maybe_unused]] const U* target[targets];
    [[maybe_unused]] A target_max[targets];
    if constexpr (kind != TargetKind::labels) {
      for (int k = 0; k < targets; ++k) {
        target[k] = static_cast<const U*>(in.targets[k].data) + in.targets[k].row(n) * in.targets[k].stride;
        target_max[k] = state[sim_slot(k) + 3];
      }
    }
    over_row<lanes>(in.classes, [&](int64_t j, auto count) {
      const V e = exp(load_at(z + j, count, A(-INFINITY)) - max);
      V toward{};
      for (int k = 0; k < targets; ++k) {
        if constexpr (kind == TargetKind::labels) {
          toward += row.pull[k] * (row.b[k] * e);
        } else if constexpr (kind == TargetKind::teacher_logits) {
          const V t = exp((load_at(target[k] + j, count, A(-INFINITY)) - target_max[k]) * inverse_T);
          toward += row.pull[k] * (row.b[k] * e - t);
        } else {
          toward += row.pull[k] * (row.b[k] * e - load_at(target[k] + j, count, A(0)));
        }
      }
      store_at(g + j, e * toward, count);
    });
    if constexpr (kind == TargetKind::labels) {
      // Written anew rather than subtracted from what was stored: a half would round twice.
      int64_t label[2] = {-1, -1};
      for (int k = 0; k < targets; ++k) {
        label[k] = static_cast<const int64_t*>(in.targets[k].data)[in.targets[k].row(n)];
      }
      for (int k = 0; k < targets; ++k) {
        if (label[k] < 0 || label[k] >= in.classes) continue;
        const A e = exp(broadcast<V>(A(widen(z[label[k]])) - max))[0];
        A toward = 0;
        for (int other = 0; other < targets; ++other) {
          toward += row.pull[other] * (row.b[other] * e - (label[other] == label[k] ? A(1) : A(0)));
        }
        g[label[k]] = narrow<T>(e * toward);
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
    const A max = row_max(z, classes);
    V total{};
    over_row<lanes>(classes,
                    [&](int64_t j, auto count) { total += exp((load_at(z + j, count, A(-INFINITY)) - max) * rate); });
    const A scale = A(1) / sum(total);
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      store_at(p + j, exp((load_at(z + j, count, A(-INFINITY)) - max) * rate) * scale, count);
    });
  }
}

// From the logits rather than the probabilities: a half-precision output would bring its rounding into the gradient.
template <class T>
static void sharpen_backward(const void* grad, const void* logits, int64_t classes, double inverse_T, int64_t begin,
                             int64_t end, void* out) {
  using A = Acc<T>;
  using V = typename Simd<A>::vector;
  constexpr int lanes = Simd<A>::lanes;
  const A rate = static_cast<A>(inverse_T);
  for (int64_t n = begin; n < end; ++n) {
    const T* g = static_cast<const T*>(grad) + n * classes;
    const T* z = static_cast<const T*>(logits) + n * classes;
    T* to = static_cast<T*>(out) + n * classes;
    const A max = row_max(z, classes);
    V total{}, inner{};
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      const V e = exp((load_at(z + j, count, A(-INFINITY)) - max) * rate);
      total += e;
      inner += e * load_at(g + j, count, A(0));
    });
    const A scale = A(1) / sum(total), mean = sum(inner) * scale;
    over_row<lanes>(classes, [&](int64_t j, auto count) {
      const V e = exp((load_at(z + j, count, A(-INFINITY)) - max) * rate);
      store_at(to + j, (load_at(g + j, count, A(0)) - mean) * e * (scale * rate), count);
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
