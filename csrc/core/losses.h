// What the cosine and contrastive losses compute, shared by the CPU and the CUDA kernels.
//
// With m = max(z), e = exp(z - m) and a target direction t, one row has
//
//     cos = <e, t> / (|e| |t|)          s = 1 - cos
//     ds/dz_j = e_j (b e_j - t_j) / (|e| |t|)     with b = <e, t> / |e|^2
//
// The softmax denominator cancels, so a row is described by a handful of scalars, its state. A loss is a weighted sum
// over rows whose weights follow from those scalars (row_weights), so one backward kernel serves every loss. The
// gradient is written with b because e and t are nearly parallel when forgetting has not begun: b e_j - t_j then
// cancels to the last digit, while a cosine and two norms, each rounded, would not.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "scalar.h"
#include "stream.h"

namespace pmx {

enum class TargetKind : int { probabilities, labels, teacher_logits };

// Targets of one role. Row n of the logits has the target row (n / divisor) % modulus, which covers zip (1, N), and in
// grid pairing the forget targets (N_r, N_f) and the retain targets (1, N_r).
struct TargetRows {
  const void* data;
  int64_t stride;  // elements between rows; unused for labels
  int64_t divisor;
  int64_t modulus;

  // Divisions of 64-bit numbers are slow and in zip pairing nothing is left to divide.
  PMX_HD int64_t row(int64_t n) const {
    const int64_t quotient = divisor == 1 ? n : divided(n);
    return quotient < modulus ? quotient : quotient % modulus;
  }

 private:
  PMX_HD int64_t divided(int64_t n) const {
    if (((n | divisor) >> 31) != 0) return n / divisor;
    return static_cast<uint32_t>(n) / static_cast<uint32_t>(divisor);
  }
};

// Logits and one or two targets for each of their rows.
struct CosineRows {
  const void* logits;
  int64_t stride;  // elements between rows of the logits
  int64_t rows;
  int64_t classes;
  TargetRows targets[2];
  double inverse_T;  // 1 / T of teacher logits
};

// The rows of one pass: one set, or the forget and then the retain rows of L_real, of the same width and types. The
// states of the second set follow those of the first.
struct RowSets {
  CosineRows first;
  CosineRows second;

  PMX_HD int64_t rows() const { return first.rows + second.rows; }
};

// The state of a row: max(z), then for each target s, 1/(|e||t|), b and, for teacher logits, max(u).
constexpr int state_width(int num_targets) { return 1 + 4 * num_targets; }

// The slot of a target's s in the state of its row; its other three scalars follow.
constexpr int sim_slot(int target) { return 1 + 4 * target; }

// Whether |t|^2, as it was summed, lies in the range in which sums of squares are exact; so does a NaN.
template <class A>
PMX_HD bool exact_square(A norm2) {
  constexpr A limit = sizeof(A) == 8 ? A(1e250) : A(1e30);
  return !(norm2 > limit || norm2 < A(1) / limit);
}

// |e| |t| where |t|^2 is not exact: the elements are scaled by a power of two and summed again, by the one thread that
// writes the state. Infinity for a target without a direction: of zeros, or with a norm below the smallest normal
// number. `T` is the type of the logits.
template <class T, class A, class U>
PMX_HD A rescaled_length(A e2, A norm2, const U* target, int64_t classes) {
  constexpr bool wide = sizeof(A) == 8;
  constexpr A power = wide ? A(0x1p800) : A(0x1p100), smallest = wide ? A(DBL_MIN) : A(FLT_MIN);
  const bool large = norm2 > A(1);
  const A scale = large ? A(1) / power : power;
  A sum = 0;
  PMX_NO_UNROLL
  for (int64_t j = 0; j < classes; ++j) {
    const A t = static_cast<A>(widen(target[j])) * scale;
    sum += t * t;
  }
  const A norm = sqrt_for<T>(sum) * (large ? power : A(1) / power);
  return norm < smallest ? A(INFINITY) : sqrt_for<T>(e2) * norm;
}

// Writes the state of one row from its sums; dot[k] = <e, t_k>, lengths[k] = |e| |t_k|, infinite for a target without a
// direction: cosine and gradient are 0. `T` is the type of the logits.
template <class T, class A>
PMX_HD void store_row_state(A* state, A max, A e2, int num_targets, const A* dot, const A* lengths,
                            const A* target_max) {
  state[0] = max;
  for (int k = 0; k < 2; ++k) {
    if (k >= num_targets) break;
    A* of_target = state + sim_slot(k);
    const A scale = divide_for<T>(A(1), lengths[k]);
    of_target[0] = A(1) - dot[k] * scale;
    of_target[1] = scale;
    of_target[2] = divide_for<T>(dot[k], e2);
    of_target[3] = target_max[k];
  }
}

// A number that is one for all rows, or one per row; kept on the device so that no launch waits for its value.
template <class A>
struct RowScalar {
  const A* data;  // null: `value` holds for every row
  int64_t stride;
  A value;

  PMX_HD A at(int64_t row) const { return data == nullptr ? value : data[row * stride]; }
};

// How the cosine losses of a row enter a contrastive loss (README.md, "Contrastive losses").
//
//     L = sum_columns [ retain_weight * sum (1 - lam) s_r  -  forget_weight * LSE(lam s_f / tau) ]
//
// Row n belongs to column n % columns: 1 column in zip pairing and in L_real, N_r columns in grid pairing.
template <class A>
struct Contrast {
  int64_t columns;
  RowScalar<A> lam;
  RowScalar<A> tau;
  A forget_weight;
  A retain_weight;
  const A* lse;  // [columns], written by the forward
};

// Which loss a row takes part in, and through which of its targets.
enum class RowRole : int {
  sim,     // one target; the incoming gradient has one value per row
  forget,  // one target, forget side of L_real (lam = 1)
  retain,  // one target, retain side of L_real (lam = 0)
  mixed    // two targets: forget, retain
};

// The role of a row in a pass whose first rows have `first`.
PMX_HD RowRole role_of(RowRole first, bool second) { return second ? RowRole::retain : first; }

// dL/ds of the row for each of its targets, times the incoming gradient.
template <class A>
PMX_HD void row_weights(RowRole role, const Contrast<A>& contrast, const RowScalar<A>& grad, int64_t row,
                        const A* state, A* weight) {
  const A incoming = grad.at(row);
  if (role == RowRole::sim) {
    weight[0] = incoming;
    return;
  }
  if (role == RowRole::retain) {
    weight[0] = incoming * contrast.retain_weight;
    return;
  }
  const A lam = role == RowRole::mixed ? contrast.lam.at(row) : A(1);
  const A rate = lam / contrast.tau.at(0);
  const A softmax = std::exp(rate * state[sim_slot(0)] - contrast.lse[row % contrast.columns]);
  weight[0] = -incoming * contrast.forget_weight * rate * softmax;
  if (role == RowRole::mixed) weight[1] = incoming * contrast.retain_weight * (A(1) - lam);
}

// Coefficients of the gradient row: dL/dz_j = e_j sum_k pull_k (b_k e_j - t_kj).
template <class A>
struct GradientRow {
  A pull[2] = {0, 0};
  A b[2] = {0, 0};

  PMX_HD GradientRow(int num_targets, const A* state, const A* weight) {
    for (int k = 0; k < 2; ++k) {
      if (k >= num_targets) break;
      pull[k] = weight[k] * state[sim_slot(k) + 1];
      b[k] = state[sim_slot(k) + 2];
    }
  }
};

// A log-sum-exp that can be continued and merged: sum of exp(x - max).
template <class A>
struct LogSumExp {
  A max;
  A sum;

  PMX_HD void add(A x) {
    if (x <= max) {
      sum += std::exp(x - max);
    } else {  // also taken by a NaN, which must end in the result
      sum = (sum == A(0) ? A(0) : sum * std::exp(max - x)) + A(1);
      max = x;
    }
  }
  PMX_HD void merge(const LogSumExp& other) {
    if (other.sum == A(0)) return;
    if (sum == A(0)) {
      *this = other;
      return;
    }
    const A top = other.max > max ? other.max : max;
    sum = sum * std::exp(max - top) + other.sum * std::exp(other.max - top);
    max = top;
  }
  // Nothing added: 0, so that an empty forget set contributes nothing instead of infinity.
  PMX_HD A value() const { return sum == A(0) ? A(0) : max + std::log(sum); }

  static PMX_HD LogSumExp empty() { return {-INFINITY, A(0)}; }
};

// Where the losses s of one side of a contrastive loss lie: term i of column c is row i * row_step + c.
template <class A>
struct Side {
  const A* states;
  int width;
  int slot;
  int64_t terms;  // rows per column
  int64_t row_step;

  PMX_HD int64_t row(int64_t i, int64_t column) const { return i * row_step + column; }
  PMX_HD A loss(int64_t row) const { return states[row * width + slot]; }
};

template <class A>
struct ContrastTerms {
  Side<A> forget;
  Side<A> retain;
  bool mixed;  // lam weighs the terms; otherwise L_real, where both weights are 1
};

// What a stretch of a column's terms contributes, and how two stretches join.
template <class A>
struct ColumnSum {
  LogSumExp<A> forget;
  A retain;

  static PMX_HD ColumnSum empty() { return {LogSumExp<A>::empty(), A(0)}; }
  PMX_HD void add(const ContrastTerms<A>& terms, const Contrast<A>& contrast, int64_t i, int64_t column) {
    if (i < terms.forget.terms) {
      const int64_t row = terms.forget.row(i, column);
      const A lam = terms.mixed ? contrast.lam.at(row) : A(1);
      forget.add(lam * terms.forget.loss(row) / contrast.tau.at(0));
    }
    if (i < terms.retain.terms) {
      const int64_t row = terms.retain.row(i, column);
      const A lam = terms.mixed ? contrast.lam.at(row) : A(0);
      retain += (A(1) - lam) * terms.retain.loss(row);
    }
  }
  PMX_HD void merge(const ColumnSum& other) {
    forget.merge(other.forget);
    retain += other.retain;
  }
  PMX_HD A loss(const Contrast<A>& contrast) const {
    return contrast.retain_weight * retain - contrast.forget_weight * forget.value();
  }
};

// --- from sizes to these structures: the pairs of a loss, its weights, and where its terms lie
// --------------------------

// The rows of a mixed loss. In grid pairing every retain image is a column of its own.
struct Pairs {
  int64_t forget;
  int64_t retain;
  bool grid;

  int64_t rows() const { return grid ? forget * retain : forget; }
  int64_t columns() const { return grid ? retain : 1; }
  // Divisors of TargetRows; its modulus is the number of images.
  int64_t forget_divisor() const { return grid ? retain : 1; }
  int64_t retain_divisor() const { return 1; }
};

template <class A>
Contrast<A> mix_contrast(const Pairs& pairs, const RowScalar<A>& lam, const RowScalar<A>& tau, bool mean,
                         const A* lse) {
  const A scale = mean && pairs.retain > 0 ? A(1) / pairs.retain : A(1);
  const A per_column = pairs.grid ? A(1) : static_cast<A>(pairs.retain);
  const A averaged = pairs.grid && pairs.forget > 0 ? A(1) / pairs.forget : A(1);
  return {pairs.columns(), lam, tau, scale * per_column, scale * averaged, lse};
}

template <class A>
ContrastTerms<A> mix_terms(const Pairs& pairs, const A* states) {
  const int64_t columns = pairs.columns(), terms = columns > 0 ? pairs.rows() / columns : 0;
  const int width = state_width(2);
  return {{states, width, sim_slot(0), terms, columns}, {states, width, sim_slot(1), terms, columns}, true};
}

template <class A>
Contrast<A> real_contrast(int64_t n_retain, const RowScalar<A>& tau, bool mean, const A* lse) {
  const A scale = mean && n_retain > 0 ? A(1) / n_retain : A(1);
  return {1, {nullptr, 0, A(1)}, tau, scale * n_retain, scale, lse};
}

template <class A>
ContrastTerms<A> real_terms(const A* forget_states, int64_t n_forget, const A* retain_states, int64_t n_retain) {
  const int width = state_width(1);
  return {{forget_states, width, sim_slot(0), n_forget, 1}, {retain_states, width, sim_slot(0), n_retain, 1}, false};
}

// The CPU kernels, over rows [begin, end). `states` is [rows, state_width] in the accumulation type of the logits;
// `sim`, if not null, receives the losses of the first target, [rows] in the dtype of the logits; `contrast` and `grad`
// point to a Contrast and a RowScalar of that type; `out` is [rows, classes] contiguous in the dtype of the logits.
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

// The launchers of the CUDA kernels: raw device pointers, sizes and a stream. Nothing here waits for the device.
namespace cuda {

// The logits and targets of a launch and how to read them.
struct RowsLaunch {
  RowSets sets;
  Dtype dtype;
  Dtype target_dtype;
  TargetKind kind;
  int targets;
  RowRole role;  // of the first set
  Stream stream;
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
            Stream stream);

void sharpen_forward(Dtype dtype, const void* logits, int64_t rows, int64_t classes, double inverse_T, void* out,
                     Stream stream);
void sharpen_backward(Dtype dtype, const void* grad, const void* logits, int64_t rows, int64_t classes,
                      double inverse_T, void* out, Stream stream);

}  // namespace cuda

}  // namespace pmx
