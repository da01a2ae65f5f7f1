// The cosine and contrastive losses of Adversarial Mixup Unlearning on raw buffers, forward and backward, on the CPU.
//
// A loss is a struct that says where its inputs lie. It owns nothing and copies nothing: the buffers must outlive the
// calls. The forward leaves a few numbers per row in a `state` buffer of the caller's, and the backward reads it:
//
//     MixContrastiveLoss<float> loss;
//     loss.logits = {logits, n, classes};
//     loss.target_forget = Targets<float>::labels(forget_labels, n);
//     loss.target_retain = Targets<float>::labels(retain_labels, n);
//     std::vector<float> state(loss.state_size());
//     const float value = loss.forward(state.data());
//     loss.backward(1.f, state.data(), grad_logits);  // d value / d logits, [n, classes]
//
// T is float or double. Arguments that do not fit together throw std::invalid_argument, which names the argument, what
// it was and what was expected. A NaN, an infinity or a label out of range makes its row NaN.
#pragma once

#include <cstdint>

#include "pairing.h"
#include "runtime.h"

namespace pymixunlearn {

// [rows, columns]: the elements of a row are neighbours, the rows lie `stride` elements apart.
template <class T>
struct Matrix {
  const T* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;

  Matrix() = default;
  Matrix(const T* data, int64_t rows, int64_t columns) : Matrix(data, rows, columns, columns) {}
  Matrix(const T* data, int64_t rows, int64_t columns, int64_t stride)
      : data(data), rows(rows), columns(columns), stride(stride) {}
};

enum class TargetKind : int { probabilities, labels, teacher_logits };

// What the softmax of the logits is compared with, one target for each row (in grid pairing for each image).
template <class T>
struct Targets {
  TargetKind kind = TargetKind::probabilities;
  Matrix<T> values;                  // probabilities or teacher_logits
  const int64_t* classes = nullptr;  // labels: [count]
  int64_t count = 0;
  double temperature = 1;  // teacher_logits: the target is softmax(values / temperature), Eq. 8

  // Any direction will do: only the cosine is taken, so rows need not sum to one. A row of zeros has cosine 0.
  static Targets probabilities(const Matrix<T>& values) {
    return {TargetKind::probabilities, values, nullptr, values.rows, 1};
  }
  static Targets labels(const int64_t* classes, int64_t count) { return {TargetKind::labels, {}, classes, count, 1}; }
  static Targets teacher_logits(const Matrix<T>& values, double temperature) {
    return {TargetKind::teacher_logits, values, nullptr, values.rows, temperature};
  }
};

// mean divides by the number of retain images.
enum class Reduction : int { sum, mean };

// 1 - cos(softmax(logits), target), one loss for each row.
template <class T>
struct SimLoss {
  Matrix<T> logits;
  Targets<T> target;

  int64_t state_size() const;
  // Writes `losses` [rows] and `state` [state_size()].
  void forward(T* losses, T* state, const ParallelFor& parallel_for = serial) const;
  // Writes `grad_logits` [rows, classes], contiguous, from `grad` [rows].
  void backward(const T* grad, const T* state, T* grad_logits, const ParallelFor& parallel_for = serial) const;
};

// Eq. 5 (Eq. 3 is its negative), on the logits of mixed images.
template <class T>
struct MixContrastiveLoss {
  Matrix<T> logits;          // one row for each pair
  Targets<T> target_forget;  // both targets are of one kind
  Targets<T> target_retain;
  T lam = T(0.5);               // share of the forget image in a mix
  const T* lam_rows = nullptr;  // [rows]: one share for each pair instead
  T tau = T(1);
  Pairing pairing = Pairing::zip;
  Reduction reduction = Reduction::sum;

  int64_t state_size() const;
  // Returns the loss and writes `state` [state_size()].
  T forward(T* state, const ParallelFor& parallel_for = serial) const;
  // Writes `grad_logits` [rows, classes], contiguous: `grad` times the derivative of the loss.
  void backward(T grad, const T* state, T* grad_logits, const ParallelFor& parallel_for = serial) const;
};

// Eq. 6, on the logits of real images. An empty forget set contributes nothing.
template <class T>
struct RealContrastiveLoss {
  Matrix<T> logits_forget;
  Matrix<T> logits_retain;
  Targets<T> target_forget;
  Targets<T> target_retain;
  T tau = T(1);
  Reduction reduction = Reduction::sum;

  int64_t state_size() const;
  // Returns the loss and writes `state` [state_size()].
  T forward(T* state, const ParallelFor& parallel_for = serial) const;
  // Writes `grad_forget` and `grad_retain`, contiguous and shaped like the two logits.
  void backward(T grad, const T* state, T* grad_forget, T* grad_retain, const ParallelFor& parallel_for = serial) const;
};

}  // namespace pymixunlearn
