// The loss operators over a backend: argument guards, allocation and the sequence of kernels. The CPU and the CUDA
// library instantiate the same code with their own Backend, which provides
//
//     cosine_forward(pass, states, sim)
//     cosine_backward(pass, states, contrast, grad, out)
//     contrast(pass, terms, contrast, states, lse, loss, out)     states, loss and, unless out is null, the gradient
//     sharpen_forward / sharpen_backward
//
// Guards cover memory safety, and the ranges of lam and tau where they are tensors on the CPU, which nothing waits for.
// The Python wrapper explains a refused call (ops/reference.py).
#pragma once

#include "../core/losses.h"
#include "tensors.h"

namespace pmx {

// Logits and targets in kernel layout, with the tensors that own the memory.
class LossRows {
 public:
  // Targets keep the dtype of the logits if all of them have it (`narrow`), else they are brought to accumulation type.
  LossRows(const Tensor& logits, std::optional<double> sharpen_T, bool narrow)
      : dtype_(dtype_of(logits)),
        target_dtype_(narrow || dtype_ == Dtype::f64 ? dtype_ : Dtype::f32),
        target_type_(narrow ? logits.scalar_type() : accumulation_type(dtype_)),
        classes_(logits.sizes()[logits.dim() - 1]),
        logits_(with_contiguous_rows(logits)) {
    STD_TORCH_CHECK(classes_ > 0, "expected at least one class");
    in_.rows = 1;
    for (int64_t d = 0; d + 1 < logits.dim(); ++d) in_.rows *= logits.sizes()[d];
    in_.logits = logits_.data_ptr();
    in_.stride = logits_.dim() == 2 ? logits_.stride(0) : classes_;
    in_.classes = classes_;
    in_.inverse_T = sharpen_T ? 1.0 / *sharpen_T : 1.0;
    sharpened_ = sharpen_T.has_value();
  }

  void add_target(const Tensor& target, int64_t divisor, int64_t modulus) {
    check_same_device(target, logits_);
    STD_TORCH_CHECK(target.dim() > 0 && target.sizes()[0] == modulus, "expected one target for each row");
    const bool labels = target.scalar_type() == ScalarType::Long;
    const TargetKind kind = labels       ? TargetKind::labels
                            : sharpened_ ? TargetKind::teacher_logits
                                         : TargetKind::probabilities;
    STD_TORCH_CHECK(targets_ == 0 || kind == kind_, "expected both targets of one kind");
    STD_TORCH_CHECK(!(labels && sharpened_), "sharpen_T needs the teacher's logits");
    if (!labels) dtype_of(target);  // refuses what is not floating
    Tensor ready = labels ? torch::stable::contiguous(target) : convert(target);
    STD_TORCH_CHECK(labels ? ready.dim() == 1 : ready.dim() == 2 && ready.sizes()[1] == classes_,
                    "expected targets with one row of classes, or one label, for each row");
    in_.targets[targets_] = {ready.data_ptr(), labels ? 0 : ready.stride(0), divisor > 0 ? divisor : 1,
                             modulus > 0 ? modulus : 1};
    owned_[targets_++] = ready;
    kind_ = kind;
  }

  const CosineRows& in() const { return in_; }
  Dtype dtype() const { return dtype_; }
  Dtype target_dtype() const { return target_dtype_; }
  TargetKind kind() const { return kind_; }
  int targets() const { return targets_; }
  const Tensor& logits() const { return logits_; }
  int64_t state_size() const { return in_.rows * state_width(targets_); }

 private:
  Tensor convert(const Tensor& target) {
    return with_contiguous_rows(target.scalar_type() == target_type_ ? target
                                                                     : torch::stable::to(target, target_type_));
  }

  Dtype dtype_;
  Dtype target_dtype_;
  ScalarType target_type_;
  int64_t classes_;
  bool sharpened_;
  Tensor logits_;
  std::array<std::optional<Tensor>, 2> owned_;
  CosineRows in_{};
  TargetKind kind_ = TargetKind::probabilities;
  int targets_ = 0;
};

// Whether every target that is not labels has the dtype of the logits.
template <class... Targets>
bool narrow_targets(const Tensor& logits, const Targets&... targets) {
  const auto fits = [&](const Tensor& target) {
    return target.scalar_type() == logits.scalar_type() || target.scalar_type() == ScalarType::Long;
  };
  return (fits(targets) && ...);
}

// What one pass of the row kernels works on; the second set of rows is empty, or the retain side of L_real.
struct Pass {
  RowSets sets;
  Dtype dtype;
  Dtype target_dtype;
  TargetKind kind;
  int targets;
  RowRole role;  // of the first set

  Pass(const LossRows& rows, RowRole role_)
      : sets{rows.in(), {}},
        dtype(rows.dtype()),
        target_dtype(rows.target_dtype()),
        kind(rows.kind()),
        targets(rows.targets()),
        role(role_) {}
  Pass(const LossRows& forget, const LossRows& retain) : Pass(forget, RowRole::forget) { sets.second = retain.in(); }
};

// Where a pass writes its gradients.
struct Gradients {
  void* first = nullptr;
  void* second = nullptr;
};

// Calls `body` with a value of the accumulation type of `dtype`.
template <class Body>
auto with_accumulation(Dtype dtype, Body&& body) {
  return dtype == Dtype::f64 ? body(double{}) : body(float{});
}

template <class A>
A* data(const Tensor& tensor) {
  return static_cast<A*>(tensor.data_ptr());
}

template <class Backend>
struct LossOperators {
  static Tensor sharpen(const Tensor& logits, double T) {
    const Tensor rows = torch::stable::contiguous(logits);
    const Tensor out = torch::stable::empty_like(rows);
    const int64_t classes = rows.sizes()[rows.dim() - 1];
    STD_TORCH_CHECK(classes > 0 && T > 0, "expected at least one class and T above 0");
    Backend(rows).sharpen_forward(dtype_of(rows), rows.data_ptr(), rows.numel() / classes, classes, 1.0 / T,
                                  out.data_ptr());
    return out;
  }

  static Tensor sharpen_backward(const Tensor& grad, const Tensor& logits, double T) {
    const Tensor g = torch::stable::contiguous(grad), z = torch::stable::contiguous(logits);
    STD_TORCH_CHECK(g.numel() == z.numel() && g.scalar_type() == z.scalar_type(),
                    "expected a gradient like the logits");
    check_same_device(g, z);
    const Tensor out = torch::stable::empty_like(z);
    const int64_t classes = z.sizes()[z.dim() - 1];
    STD_TORCH_CHECK(classes > 0 && T > 0, "expected at least one class and T above 0");
    Backend(z).sharpen_backward(dtype_of(z), g.data_ptr(), z.data_ptr(), z.numel() / classes, classes, 1.0 / T,
                                out.data_ptr());
    return out;
  }

  static std::tuple<Tensor, Tensor> sim_loss(const Tensor& logits, const Tensor& target,
                                             std::optional<double> sharpen_T) {
    const LossRows rows = sim_rows(logits, target, sharpen_T);
    Tensor state = allocate<1>(logits, {rows.state_size()}, accumulation_type(rows.dtype()));
    Tensor loss = allocate<1>(logits, {rows.in().rows}, logits.scalar_type());
    Backend(logits).cosine_forward(Pass(rows, RowRole::sim), state.data_ptr(), loss.data_ptr());
    return {loss, state};
  }

  static Tensor sim_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target, const Tensor& state,
                                  std::optional<double> sharpen_T) {
    const LossRows rows = sim_rows(logits, target, sharpen_T);
    check_state(state, rows, rows.state_size());
    STD_TORCH_CHECK(grad.dim() == 1 && grad.sizes()[0] == rows.in().rows, "expected one gradient for each row");
    return with_accumulation(rows.dtype(), [&](auto zero) {
      using A = decltype(zero);
      const auto [incoming, owner] = row_scalar<A>(grad, logits);
      const Tensor out = like_logits(rows);
      Backend(logits).cosine_backward(Pass(rows, RowRole::sim), data<A>(state), Contrast<A>{}, incoming,
                                      {out.data_ptr()});
      return out;
    });
  }

  static std::tuple<Tensor, Tensor> mix_contrastive_loss(const Tensor& logits, const Tensor& target_forget,
                                                         const Tensor& target_retain, std::optional<Tensor> lam,
                                                         double lam_value, std::optional<Tensor> tau, double tau_value,
                                                         bool grid, bool mean, std::optional<double> sharpen_T) {
    const auto [loss, state, gradient] =
        mix_forward(logits, target_forget, target_retain, lam, lam_value, tau, tau_value, grid, mean, sharpen_T, false);
    return {loss, state};
  }

  static std::tuple<Tensor, Tensor> mix_contrastive_loss_and_gradient(const Tensor& logits, const Tensor& target_forget,
                                                                      const Tensor& target_retain,
                                                                      std::optional<Tensor> lam, double lam_value,
                                                                      std::optional<Tensor> tau, double tau_value,
                                                                      bool grid, bool mean,
                                                                      std::optional<double> sharpen_T) {
    const auto [loss, state, gradient] =
        mix_forward(logits, target_forget, target_retain, lam, lam_value, tau, tau_value, grid, mean, sharpen_T, true);
    return {loss, *gradient};
  }

  static Tensor mix_contrastive_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target_forget,
                                              const Tensor& target_retain, const Tensor& state,
                                              std::optional<Tensor> lam, double lam_value, std::optional<Tensor> tau,
                                              double tau_value, bool grid, bool mean, std::optional<double> sharpen_T) {
    const LossRows rows = mix_rows(logits, target_forget, target_retain, grid, sharpen_T);
    check_state(state, rows, rows.state_size() + (grid ? logits.sizes()[1] : 1));
    STD_TORCH_CHECK(grad.dim() == 0, "expected one gradient");
    return with_accumulation(rows.dtype(), [&](auto zero) {
      using A = decltype(zero);
      const Scalars<A> scalars(lam, lam_value, tau, tau_value, logits);
      const A* lse = data<A>(state) + rows.state_size();
      const Contrast<A> contrast = mix_contrast<A>(pairs_of(logits, grid), scalars.lam, scalars.tau, mean, lse);
      const auto [incoming, owner] = row_scalar<A>(grad, logits);
      const Tensor out = like_logits(rows);
      Backend(logits).cosine_backward(Pass(rows, RowRole::mixed), data<A>(state), contrast, incoming, {out.data_ptr()});
      return out;
    });
  }

  static std::tuple<Tensor, Tensor> real_contrastive_loss(const Tensor& logits_forget, const Tensor& logits_retain,
                                                          const Tensor& target_forget, const Tensor& target_retain,
                                                          std::optional<Tensor> tau, double tau_value, bool mean,
                                                          std::optional<double> sharpen_T) {
    const auto [loss, state, forget, retain] = real_forward(logits_forget, logits_retain, target_forget, target_retain,
                                                            tau, tau_value, mean, sharpen_T, false);
    return {loss, state};
  }

  static std::tuple<Tensor, Tensor, Tensor> real_contrastive_loss_and_gradients(
      const Tensor& logits_forget, const Tensor& logits_retain, const Tensor& target_forget,
      const Tensor& target_retain, std::optional<Tensor> tau, double tau_value, bool mean,
      std::optional<double> sharpen_T) {
    const auto [loss, state, forget, retain] =
        real_forward(logits_forget, logits_retain, target_forget, target_retain, tau, tau_value, mean, sharpen_T, true);
    return {loss, *forget, *retain};
  }

  // Only the wanted gradients are computed; another one comes back empty.
  static std::tuple<Tensor, Tensor> real_contrastive_loss_backward(
      const Tensor& grad, const Tensor& logits_forget, const Tensor& logits_retain, const Tensor& target_forget,
      const Tensor& target_retain, const Tensor& state, std::optional<Tensor> tau, double tau_value, bool mean,
      std::optional<double> sharpen_T, bool want_forget, bool want_retain) {
    const auto [forget, retain] = real_rows(logits_forget, logits_retain, target_forget, target_retain, sharpen_T);
    const int64_t forget_size = forget.state_size(), size = forget_size + retain.state_size();
    check_state(state, retain, size + 1);
    STD_TORCH_CHECK(grad.dim() == 0, "expected one gradient");
    const Tensor grad_forget = want_forget ? like_logits(forget) : nothing_like(forget);
    const Tensor grad_retain = want_retain ? like_logits(retain) : nothing_like(retain);
    if (!want_forget && !want_retain) return {grad_forget, grad_retain};
    const Pass pass = want_forget && want_retain ? Pass(forget, retain)
                      : want_forget              ? Pass(forget, RowRole::forget)
                                                 : Pass(retain, RowRole::retain);
    with_accumulation(pass.dtype, [&, &retain = retain](auto zero) {
      using A = decltype(zero);
      const Scalars<A> scalars(std::nullopt, 1.0, tau, tau_value, logits_retain);
      const Contrast<A> contrast = real_contrast<A>(retain.in().rows, scalars.tau, mean, data<A>(state) + size);
      const auto [incoming, owner] = row_scalar<A>(grad, logits_retain);
      Backend(logits_retain)
          .cosine_backward(pass, data<A>(state) + (want_forget ? 0 : forget_size), contrast, incoming,
                           want_forget ? Gradients{grad_forget.data_ptr(), grad_retain.data_ptr()}
                                       : Gradients{grad_retain.data_ptr()});
    });
    return {grad_forget, grad_retain};
  }

 private:
  // lam and tau as the kernels want them.
  template <class A>
  struct Scalars {
    RowScalar<A> lam, tau;
    std::optional<Tensor> lam_owner, tau_owner;

    Scalars(const std::optional<Tensor>& lam_tensor, double lam_value, const std::optional<Tensor>& tau_tensor,
            double tau_value, const Tensor& like)
        : lam{nullptr, 0, static_cast<A>(lam_value)}, tau{nullptr, 0, static_cast<A>(tau_value)} {
      if (lam_tensor) {
        bool fits = lam_tensor->dim() == 0 || lam_tensor->dim() + 1 == like.dim();
        for (int64_t d = 0; d < lam_tensor->dim() && fits; ++d) fits = lam_tensor->sizes()[d] == like.sizes()[d];
        STD_TORCH_CHECK(fits, "expected one lam, or one for each row");
        std::tie(lam, lam_owner) = row_scalar<A>(*lam_tensor, like);
        const int64_t values = like.is_cpu() ? lam_tensor->numel() : 0;
        for (int64_t n = 0; n < values; ++n) {
          STD_TORCH_CHECK(lam.at(n) >= A(0) && lam.at(n) <= A(1), "expected lam in [0, 1]");
        }
      }
      if (tau_tensor) {
        STD_TORCH_CHECK(tau_tensor->dim() == 0, "expected one tau");
        std::tie(tau, tau_owner) = row_scalar<A>(*tau_tensor, like);
        if (like.is_cpu()) {
          STD_TORCH_CHECK(tau.at(0) > A(0) && tau.at(0) < A(INFINITY), "expected tau above 0 and finite");
        }
      }
    }
  };

  static LossRows sim_rows(const Tensor& logits, const Tensor& target, std::optional<double> sharpen_T) {
    STD_TORCH_CHECK(logits.dim() == 2, "expected logits [N, C]");
    LossRows rows(logits, sharpen_T, narrow_targets(logits, target));
    rows.add_target(target, 1, rows.in().rows);
    return rows;
  }

  static Pairs pairs_of(const Tensor& logits, bool grid) {
    const int64_t n_forget = logits.sizes()[0];
    return {n_forget, grid ? logits.sizes()[1] : n_forget, grid};
  }

  static LossRows mix_rows(const Tensor& logits, const Tensor& target_forget, const Tensor& target_retain, bool grid,
                           std::optional<double> sharpen_T) {
    STD_TORCH_CHECK(logits.dim() == (grid ? 3 : 2), "expected logits [N, C], or [N_f, N_r, C] in grid pairing");
    LossRows rows(logits, sharpen_T, narrow_targets(logits, target_forget, target_retain));
    const Pairs pairs = pairs_of(logits, grid);
    rows.add_target(target_forget, pairs.forget_divisor(), pairs.forget);
    rows.add_target(target_retain, pairs.retain_divisor(), pairs.retain);
    return rows;
  }

  static std::pair<LossRows, LossRows> real_rows(const Tensor& logits_forget, const Tensor& logits_retain,
                                                 const Tensor& target_forget, const Tensor& target_retain,
                                                 std::optional<double> sharpen_T) {
    STD_TORCH_CHECK(logits_forget.dim() == 2 && logits_retain.dim() == 2, "expected logits [N, C]");
    STD_TORCH_CHECK(logits_forget.sizes()[1] == logits_retain.sizes()[1] &&
                        logits_forget.scalar_type() == logits_retain.scalar_type(),
                    "expected both logits with the same classes and dtype");
    check_same_device(logits_forget, logits_retain);
    const bool narrow = narrow_targets(logits_retain, target_forget, target_retain);
    LossRows forget(logits_forget, sharpen_T, narrow), retain(logits_retain, sharpen_T, narrow);
    forget.add_target(target_forget, 1, forget.in().rows);
    retain.add_target(target_retain, 1, retain.in().rows);
    STD_TORCH_CHECK(forget.kind() == retain.kind(), "expected both targets of one kind");
    return {std::move(forget), std::move(retain)};
  }

  // Loss, state and, if wanted, the gradient of the loss.
  static std::tuple<Tensor, Tensor, std::optional<Tensor>> mix_forward(
      const Tensor& logits, const Tensor& target_forget, const Tensor& target_retain, const std::optional<Tensor>& lam,
      double lam_value, const std::optional<Tensor>& tau, double tau_value, bool grid, bool mean,
      std::optional<double> sharpen_T, bool with_gradient) {
    const LossRows rows = mix_rows(logits, target_forget, target_retain, grid, sharpen_T);
    const Pairs pairs = pairs_of(logits, grid);
    const Tensor state = allocate<1>(logits, {rows.state_size() + pairs.columns()}, accumulation_type(rows.dtype()));
    const Tensor loss = allocate<0>(logits, {}, logits.scalar_type());
    std::optional<Tensor> gradient;
    if (with_gradient) gradient = like_logits(rows);
    with_accumulation(rows.dtype(), [&](auto zero) {
      using A = decltype(zero);
      const Scalars<A> scalars(lam, lam_value, tau, tau_value, logits);
      A* lse = data<A>(state) + rows.state_size();
      const Gradients out = {gradient ? gradient->data_ptr() : nullptr};
      Backend(logits).contrast(Pass(rows, RowRole::mixed), mix_terms<A>(pairs, data<A>(state)),
                               mix_contrast<A>(pairs, scalars.lam, scalars.tau, mean, lse), data<A>(state), lse,
                               loss.data_ptr(), gradient ? &out : nullptr);
    });
    return {loss, state, gradient};
  }

  static std::tuple<Tensor, Tensor, std::optional<Tensor>, std::optional<Tensor>> real_forward(
      const Tensor& logits_forget, const Tensor& logits_retain, const Tensor& target_forget,
      const Tensor& target_retain, const std::optional<Tensor>& tau, double tau_value, bool mean,
      std::optional<double> sharpen_T, bool with_gradients) {
    const auto [forget, retain] = real_rows(logits_forget, logits_retain, target_forget, target_retain, sharpen_T);
    const int64_t forget_size = forget.state_size(), size = forget_size + retain.state_size();
    const Tensor state = allocate<1>(logits_retain, {size + 1}, accumulation_type(retain.dtype()));
    const Tensor loss = allocate<0>(logits_retain, {}, logits_retain.scalar_type());
    std::optional<Tensor> grad_forget, grad_retain;
    if (with_gradients) grad_forget = like_logits(forget), grad_retain = like_logits(retain);
    with_accumulation(retain.dtype(), [&, &forget = forget, &retain = retain](auto zero) {
      using A = decltype(zero);
      const Scalars<A> scalars(std::nullopt, 1.0, tau, tau_value, logits_retain);
      A* lse = data<A>(state) + size;
      const ContrastTerms<A> terms =
          real_terms<A>(data<A>(state), forget.in().rows, data<A>(state) + forget_size, retain.in().rows);
      const Gradients out = with_gradients ? Gradients{grad_forget->data_ptr(), grad_retain->data_ptr()} : Gradients{};
      Backend(logits_retain)
          .contrast(Pass(forget, retain), terms, real_contrast<A>(retain.in().rows, scalars.tau, mean, lse),
                    data<A>(state), lse, loss.data_ptr(), with_gradients ? &out : nullptr);
    });
    return {loss, state, grad_forget, grad_retain};
  }

  static void check_state(const Tensor& state, const LossRows& rows, int64_t size) {
    check_same_device(state, rows.logits());
    STD_TORCH_CHECK(state.scalar_type() == accumulation_type(rows.dtype()) && state.dim() == 1 &&
                        state.numel() == size && (size < 2 || state.stride(0) == 1),
                    "expected the state of this call");
  }

  static Tensor like_logits(const LossRows& rows) {
    const auto sizes = rows.logits().sizes();
    const ScalarType type = rows.logits().scalar_type();
    return sizes.size() == 2 ? allocate<2>(rows.logits(), {sizes[0], sizes[1]}, type)
                             : allocate<3>(rows.logits(), {sizes[0], sizes[1], sizes[2]}, type);
  }

  static Tensor nothing_like(const LossRows& rows) {
    return allocate<1>(rows.logits(), {0}, rows.logits().scalar_type());
  }
};

}  // namespace pmx
