#include "pymixunlearn/losses.h"

#include "../core/losses.h"
#include "../cpu/kernel_table.h"
#include "../cpu/losses.h"
#include "arguments.h"

namespace pymixunlearn {
namespace {

static_assert(static_cast<int>(TargetKind::probabilities) == static_cast<int>(pmx::TargetKind::probabilities) &&
              static_cast<int>(TargetKind::labels) == static_cast<int>(pmx::TargetKind::labels) &&
              static_cast<int>(TargetKind::teacher_logits) == static_cast<int>(pmx::TargetKind::teacher_logits));

template <class T>
void require_matrix(const char* name, const Matrix<T>& matrix) {
  require(matrix.rows >= 0, name, " must have 0 rows or more, got ", matrix.rows);
  require(matrix.columns > 0, name, " must have at least one class, got ", matrix.columns);
  require(matrix.stride >= matrix.columns, name, " must have a stride of at least its ", matrix.columns,
          " columns, got ", matrix.stride);
}

// Checked logits and targets in kernel layout.
template <class T>
class BufferRows {
 public:
  BufferRows(const char* name, const Matrix<T>& logits) {
    require_matrix(name, logits);
    in_ = {logits.data, logits.stride, logits.rows, logits.columns, {}, 1};
  }

  void add_target(const char* name, const Targets<T>& target, int64_t count, int64_t divisor) {
    require(target.count == count, name, " must have ", count, " targets, got ", target.count);
    require(targets_ == 0 || static_cast<int>(target.kind) == static_cast<int>(kind_), name,
            " must be of the same kind as target_forget");
    kind_ = static_cast<pmx::TargetKind>(target.kind);
    pmx::TargetRows rows = {target.classes, 0, divisor, count > 0 ? count : 1};
    if (target.kind != TargetKind::labels) {
      require_matrix(name, target.values);
      require(target.values.rows == count, name, " must have ", count, " rows, got ", target.values.rows);
      require(target.values.columns == in_.classes, name, " must have the ", in_.classes,
              " classes of the logits, got ", target.values.columns);
      rows.data = target.values.data;
      rows.stride = target.values.stride;
    }
    if (target.kind == TargetKind::teacher_logits) {
      require(target.temperature > 0, name, " must have a temperature above 0, got ", target.temperature);
      require(targets_ == 0 || in_.inverse_T == 1 / target.temperature, name,
              " must have the temperature of target_forget");
      in_.inverse_T = 1 / target.temperature;
    }
    in_.targets[targets_++] = rows;
  }

  int64_t state_size() const { return in_.rows * pmx::state_width(targets_); }
  int64_t rows() const { return in_.rows; }

  void forward(T* states, T* losses, const ParallelFor& parallel_for) const {
    const auto kernels = table();
    parallel_for(in_.rows, pmx::row_grain(in_.classes),
                 [&](int64_t begin, int64_t end) { kernels.forward(in_, begin, end, states, losses); });
  }

  void backward(const T* states, pmx::RowRole role, const pmx::Contrast<T>& contrast, const pmx::RowScalar<T>& grad,
                T* out, const ParallelFor& parallel_for) const {
    const auto kernels = table();
    parallel_for(in_.rows, pmx::row_grain(in_.classes), [&](int64_t begin, int64_t end) {
      kernels.backward(in_, begin, end, states, role, &contrast, &grad, out);
    });
  }

 private:
  pmx::CosineKernels table() const { return pmx::kernels().cosine(dtype<T>, dtype<T>, kind_, targets_); }

  pmx::CosineRows in_{};
  pmx::TargetKind kind_ = pmx::TargetKind::probabilities;
  int targets_ = 0;
};

template <class T>
pmx::RowScalar<T> one(T value) {
  return {nullptr, 0, value};
}

template <class T>
BufferRows<T> rows_of(const SimLoss<T>& loss) {
  BufferRows<T> rows("logits", loss.logits);
  rows.add_target("target", loss.target, loss.logits.rows, 1);
  return rows;
}

template <class T>
pmx::Pairs pairs_of(const MixContrastiveLoss<T>& loss) {
  if (loss.pairing == Pairing::zip) return {loss.logits.rows, loss.logits.rows, false};
  return {loss.target_forget.count, loss.target_retain.count, true};
}

template <class T>
BufferRows<T> rows_of(const MixContrastiveLoss<T>& loss) {
  const pmx::Pairs pairs = pairs_of(loss);
  require(loss.tau > 0, "tau must be above 0, got ", loss.tau);
  require(loss.logits.rows == pairs.rows(), "logits must have one row for each pair of ", pairs.forget, " forget and ",
          pairs.retain, " retain images, got ", loss.logits.rows);
  BufferRows<T> rows("logits", loss.logits);
  rows.add_target("target_forget", loss.target_forget, pairs.forget, pairs.forget_divisor());
  rows.add_target("target_retain", loss.target_retain, pairs.retain, pairs.retain_divisor());
  return rows;
}

template <class T>
pmx::Contrast<T> contrast_of(const MixContrastiveLoss<T>& loss, const T* lse) {
  const pmx::RowScalar<T> lam = {loss.lam_rows, 1, loss.lam};
  return pmx::mix_contrast<T>(pairs_of(loss), lam, one(loss.tau), loss.reduction == Reduction::mean, lse);
}

template <class T>
struct RealRows {
  BufferRows<T> forget, retain;

  explicit RealRows(const RealContrastiveLoss<T>& loss)
      : forget("logits_forget", loss.logits_forget), retain("logits_retain", loss.logits_retain) {
    require(loss.tau > 0, "tau must be above 0, got ", loss.tau);
    require(loss.logits_forget.columns == loss.logits_retain.columns, "logits_forget must have the ",
            loss.logits_retain.columns, " classes of logits_retain, got ", loss.logits_forget.columns);
    forget.add_target("target_forget", loss.target_forget, loss.logits_forget.rows, 1);
    retain.add_target("target_retain", loss.target_retain, loss.logits_retain.rows, 1);
  }
  int64_t state_size() const { return forget.state_size() + retain.state_size(); }
};

template <class T>
pmx::Contrast<T> contrast_of(const RealContrastiveLoss<T>& loss, const T* lse) {
  return pmx::real_contrast<T>(loss.logits_retain.rows, one(loss.tau), loss.reduction == Reduction::mean, lse);
}

}  // namespace

template <class T>
int64_t SimLoss<T>::state_size() const {
  return rows_of(*this).state_size();
}

template <class T>
void SimLoss<T>::forward(T* losses, T* state, const ParallelFor& parallel_for) const {
  rows_of(*this).forward(state, losses, parallel_for);
}

template <class T>
void SimLoss<T>::backward(const T* grad, const T* state, T* grad_logits, const ParallelFor& parallel_for) const {
  rows_of(*this).backward(state, pmx::RowRole::sim, {}, {grad, 1, T(0)}, grad_logits, parallel_for);
}

template <class T>
int64_t MixContrastiveLoss<T>::state_size() const {
  return rows_of(*this).state_size() + pairs_of(*this).columns();
}

template <class T>
T MixContrastiveLoss<T>::forward(T* state, const ParallelFor& parallel_for) const {
  const BufferRows<T> rows = rows_of(*this);
  rows.forward(state, nullptr, parallel_for);
  return pmx::reduce_columns(pmx::kernels().column<T>(), pmx::mix_terms<T>(pairs_of(*this), state),
                             contrast_of<T>(*this, nullptr), state + rows.state_size(), parallel_for);
}

template <class T>
void MixContrastiveLoss<T>::backward(T grad, const T* state, T* grad_logits, const ParallelFor& parallel_for) const {
  const BufferRows<T> rows = rows_of(*this);
  rows.backward(state, pmx::RowRole::mixed, contrast_of(*this, state + rows.state_size()), one(grad), grad_logits,
                parallel_for);
}

template <class T>
int64_t RealContrastiveLoss<T>::state_size() const {
  return RealRows<T>(*this).state_size() + 1;
}

template <class T>
T RealContrastiveLoss<T>::forward(T* state, const ParallelFor& parallel_for) const {
  const RealRows<T> rows(*this);
  T* retain_state = state + rows.forget.state_size();
  rows.forget.forward(state, nullptr, parallel_for);
  rows.retain.forward(retain_state, nullptr, parallel_for);
  return pmx::reduce_columns(pmx::kernels().column<T>(),
                             pmx::real_terms<T>(state, rows.forget.rows(), retain_state, rows.retain.rows()),
                             contrast_of<T>(*this, nullptr), state + rows.state_size(), parallel_for);
}

template <class T>
void RealContrastiveLoss<T>::backward(T grad, const T* state, T* grad_forget, T* grad_retain,
                                      const ParallelFor& parallel_for) const {
  const RealRows<T> rows(*this);
  const pmx::Contrast<T> contrast = contrast_of(*this, state + rows.state_size());
  rows.forget.backward(state, pmx::RowRole::forget, contrast, one(grad), grad_forget, parallel_for);
  rows.retain.backward(state + rows.forget.state_size(), pmx::RowRole::retain, contrast, one(grad), grad_retain,
                       parallel_for);
}

template struct SimLoss<float>;
template struct SimLoss<double>;
template struct MixContrastiveLoss<float>;
template struct MixContrastiveLoss<double>;
template struct RealContrastiveLoss<float>;
template struct RealContrastiveLoss<double>;

}  // namespace pymixunlearn
