// The loss operators over a backend: argument guards, allocation and the sequence of kernels. The CPU and the CUDA
// library instantiate the same code with their own Backend, which provides
//
//     cosine_forward(rows, logits dtype, target dtype, kind, targets, states, sim)
//     reduce<A>(terms, contrast, lse, loss, dtype)                loss and log-sum-exp of each column
//     cosine_backward(rows, ..., states, role, contrast, grad, out)
//     sharpen_forward / sharpen_backward
//
// Guards cover memory safety alone. The Python wrapper explains a refused call (ops/_checks.py).
#pragma once

#include "tensors.h"

namespace pmx {

// Logits and targets in kernel layout, with the tensors that own the memory.
class Rows {
 public:
  Rows(const Tensor& logits, std::optional<double> sharpen_T)
      : dtype_(dtype_of(logits)), classes_(logits.sizes()[logits.dim() - 1]), logits_(with_contiguous_rows(logits)) {
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
    STD_TORCH_CHECK(target.sizes()[0] == modulus, "expected one target for each row");
    const bool labels = target.scalar_type() == ScalarType::Long;
    const TargetKind kind = labels       ? TargetKind::labels
                            : sharpened_ ? TargetKind::teacher_logits
                                         : TargetKind::probabilities;
    STD_TORCH_CHECK(targets_ == 0 || kind == kind_, "expected both targets of one kind");
    STD_TORCH_CHECK(!(labels && sharpened_), "sharpen_T needs the teacher's logits");
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
  // Targets keep the dtype of the logits or the accumulation type; both targets of a loss share one dtype.
  Tensor convert(const Tensor& target) {
    const ScalarType type = target.scalar_type(), own = logits_.scalar_type();
    const bool same = targets_ == 0 ? type == own : target_dtype_ == dtype_;
    target_dtype_ = same ? dtype_ : (dtype_ == Dtype::f64 ? Dtype::f64 : Dtype::f32);
    const ScalarType wanted = same ? own : accumulation_type(dtype_);
    return with_contiguous_rows(type == wanted ? target : torch::stable::to(target, wanted));
  }

  Dtype dtype_;
  Dtype target_dtype_ = Dtype::f32;
  int64_t classes_;
  bool sharpened_;
  Tensor logits_;
  std::array<std::optional<Tensor>, 2> owned_;
  CosineRows in_{};
  TargetKind kind_ = TargetKind::probabilities;
  int targets_ = 0;
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
struct Losses {
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
    STD_TORCH_CHECK(logits.dim() == 2, "expected logits [N, C]");
    Rows rows(logits, sharpen_T);
    rows.add_target(target, 1, rows.in().rows);
    Tensor state = allocate<1>(logits, {rows.state_size()}, accumulation_type(rows.dtype()));
    Tensor loss = allocate<1>(logits, {rows.in().rows}, logits.scalar_type());
    Backend(logits).cosine_forward(rows, state.data_ptr(), loss.data_ptr());
    return {loss, state};
  }

  static Tensor sim_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target, const Tensor& state,
                                  std::optional<double> sharpen_T) {
    Rows rows(logits, sharpen_T);
    rows.add_target(target, 1, rows.in().rows);
    STD_TORCH_CHECK(grad.dim() == 1 && grad.sizes()[0] == rows.in().rows, "expected one gradient for each row");
    return with_accumulation(rows.dtype(), [&](auto zero) {
      using A = decltype(zero);
      const auto [incoming, owner] = row_scalar<A>(grad, logits);
      return backward(Backend(logits), rows, state, 0, RowRole::sim, Contrast<A>{}, incoming);
    });
  }

  static std::tuple<Tensor, Tensor> mix_contrastive_loss(const Tensor& logits, const Tensor& target_forget,
                                                         const Tensor& target_retain, std::optional<Tensor> lam,
                                                         double lam_value, std::optional<Tensor> tau, double tau_value,
                                                         bool grid, bool mean, std::optional<double> sharpen_T) {
    const Rows rows = mix_rows(logits, target_forget, target_retain, grid, sharpen_T);
    return with_accumulation(rows.dtype(), [&](auto zero) -> std::tuple<Tensor, Tensor> {
      using A = decltype(zero);
      const Scalars<A> scalars(lam, lam_value, tau, tau_value, logits, rows.in().rows);
      const Contrast<A> contrast = mix_contrast<A>(logits, scalars, grid, mean, nullptr);
      Tensor state = allocate<1>(logits, {rows.state_size() + contrast.columns}, accumulation_type(rows.dtype()));
      Tensor loss = allocate<0>(logits, {}, logits.scalar_type());
      Backend backend(logits);
      backend.cosine_forward(rows, state.data_ptr(), nullptr);
      const int64_t terms = contrast.columns > 0 ? rows.in().rows / contrast.columns : 0;
      const int width = state_width(2);
      const ContrastTerms<A> sums = {{data<A>(state), width, sim_slot(0), terms, contrast.columns},
                                     {data<A>(state), width, sim_slot(1), terms, contrast.columns},
                                     true};
      backend.reduce(sums, contrast, data<A>(state) + rows.state_size(), loss.data_ptr(), rows.dtype());
      return {loss, state};
    });
  }

  static Tensor mix_contrastive_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target_forget,
                                              const Tensor& target_retain, const Tensor& state,
                                              std::optional<Tensor> lam, double lam_value, std::optional<Tensor> tau,
                                              double tau_value, bool grid, bool mean, std::optional<double> sharpen_T) {
    const Rows rows = mix_rows(logits, target_forget, target_retain, grid, sharpen_T);
    return with_accumulation(rows.dtype(), [&](auto zero) {
      using A = decltype(zero);
      const Scalars<A> scalars(lam, lam_value, tau, tau_value, logits, rows.in().rows);
      const Contrast<A> contrast = mix_contrast<A>(logits, scalars, grid, mean, data<A>(state) + rows.state_size());
      STD_TORCH_CHECK(state.numel() == rows.state_size() + contrast.columns, "expected the state of this call");
      const auto [incoming, owner] = row_scalar<A>(grad, logits);
      return backward(Backend(logits), rows, state, 0, RowRole::mixed, contrast, incoming);
    });
  }

  static std::tuple<Tensor, Tensor> real_contrastive_loss(const Tensor& logits_forget, const Tensor& logits_retain,
                                                          const Tensor& target_forget, const Tensor& target_retain,
                                                          std::optional<Tensor> tau, double tau_value, bool mean,
                                                          std::optional<double> sharpen_T) {
    const auto [forget, retain] = real_rows(logits_forget, logits_retain, target_forget, target_retain, sharpen_T);
    return with_accumulation(
        forget.dtype(), [&, &forget = forget, &retain = retain](auto zero) -> std::tuple<Tensor, Tensor> {
          using A = decltype(zero);
          const Scalars<A> scalars(std::nullopt, 1.0, tau, tau_value, logits_retain, 0);
          const Contrast<A> contrast = real_contrast<A>(retain.in().rows, scalars, mean, nullptr);
          const int64_t forget_size = forget.state_size(), size = forget_size + retain.state_size();
          Tensor state = allocate<1>(logits_retain, {size + 1}, accumulation_type(retain.dtype()));
          Tensor loss = allocate<0>(logits_retain, {}, logits_retain.scalar_type());
          Backend backend(logits_retain);
          backend.cosine_forward(forget, data<A>(state), nullptr);
          backend.cosine_forward(retain, data<A>(state) + forget_size, nullptr);
          const int width = state_width(1);
          const ContrastTerms<A> sums = {{data<A>(state), width, sim_slot(0), forget.in().rows, 1},
                                         {data<A>(state) + forget_size, width, sim_slot(0), retain.in().rows, 1},
                                         false};
          backend.reduce(sums, contrast, data<A>(state) + size, loss.data_ptr(), retain.dtype());
          return {loss, state};
        });
  }

  static std::tuple<Tensor, Tensor> real_contrastive_loss_backward(const Tensor& grad, const Tensor& logits_forget,
                                                                   const Tensor& logits_retain,
                                                                   const Tensor& target_forget,
                                                                   const Tensor& target_retain, const Tensor& state,
                                                                   std::optional<Tensor> tau, double tau_value,
                                                                   bool mean, std::optional<double> sharpen_T) {
    const auto [forget, retain] = real_rows(logits_forget, logits_retain, target_forget, target_retain, sharpen_T);
    return with_accumulation(
        forget.dtype(), [&, &forget = forget, &retain = retain](auto zero) -> std::tuple<Tensor, Tensor> {
          using A = decltype(zero);
          const int64_t forget_size = forget.state_size(), size = forget_size + retain.state_size();
          STD_TORCH_CHECK(state.numel() == size + 1, "expected the state of this call");
          const Scalars<A> scalars(std::nullopt, 1.0, tau, tau_value, logits_retain, 0);
          const Contrast<A> contrast = real_contrast<A>(retain.in().rows, scalars, mean, data<A>(state) + size);
          const auto [incoming, owner] = row_scalar<A>(grad, logits_retain);
          Backend backend(logits_retain);
          return {backward(backend, forget, state, 0, RowRole::forget, contrast, incoming),
                  backward(backend, retain, state, forget_size, RowRole::retain, contrast, incoming)};
        });
  }

 private:
  // lam and tau as the kernels want them.
  template <class A>
  struct Scalars {
    RowScalar<A> lam, tau;
    std::optional<Tensor> lam_owner, tau_owner;

    Scalars(const std::optional<Tensor>& lam_tensor, double lam_value, const std::optional<Tensor>& tau_tensor,
            double tau_value, const Tensor& like, int64_t rows)
        : lam{nullptr, 0, static_cast<A>(lam_value)}, tau{nullptr, 0, static_cast<A>(tau_value)} {
      if (lam_tensor) {
        STD_TORCH_CHECK(lam_tensor->dim() == 0 || lam_tensor->numel() == rows, "expected one lam, or one for each row");
        std::tie(lam, lam_owner) = row_scalar<A>(*lam_tensor, like);
      }
      if (tau_tensor) {
        STD_TORCH_CHECK(tau_tensor->dim() == 0, "expected one tau");
        std::tie(tau, tau_owner) = row_scalar<A>(*tau_tensor, like);
      }
    }
  };

  static Rows mix_rows(const Tensor& logits, const Tensor& target_forget, const Tensor& target_retain, bool grid,
                       std::optional<double> sharpen_T) {
    STD_TORCH_CHECK(logits.dim() == (grid ? 3 : 2), "expected logits [N, C], or [N_f, N_r, C] in grid pairing");
    Rows rows(logits, sharpen_T);
    const int64_t n_forget = logits.sizes()[0], n_retain = grid ? logits.sizes()[1] : n_forget;
    rows.add_target(target_forget, grid ? n_retain : 1, n_forget);
    rows.add_target(target_retain, 1, n_retain);
    return rows;
  }

  static std::pair<Rows, Rows> real_rows(const Tensor& logits_forget, const Tensor& logits_retain,
                                         const Tensor& target_forget, const Tensor& target_retain,
                                         std::optional<double> sharpen_T) {
    STD_TORCH_CHECK(logits_forget.dim() == 2 && logits_retain.dim() == 2, "expected logits [N, C]");
    STD_TORCH_CHECK(logits_forget.sizes()[1] == logits_retain.sizes()[1] &&
                        logits_forget.scalar_type() == logits_retain.scalar_type(),
                    "expected both logits with the same classes and dtype");
    check_same_device(logits_forget, logits_retain);
    Rows forget(logits_forget, sharpen_T), retain(logits_retain, sharpen_T);
    forget.add_target(target_forget, 1, forget.in().rows);
    retain.add_target(target_retain, 1, retain.in().rows);
    return {std::move(forget), std::move(retain)};
  }

  // Weights of math.md, section 3; in grid pairing every retain image is a column of its own.
  template <class A>
  static Contrast<A> mix_contrast(const Tensor& logits, const Scalars<A>& scalars, bool grid, bool mean, const A* lse) {
    const int64_t n_forget = logits.sizes()[0], n_retain = grid ? logits.sizes()[1] : n_forget;
    const A scale = mean && n_retain > 0 ? A(1) / n_retain : A(1);
    const A per_column = grid ? A(1) : static_cast<A>(n_retain);
    const A averaged = grid && n_forget > 0 ? A(1) / n_forget : A(1);
    return {grid ? n_retain : 1, scalars.lam, scalars.tau, scale * per_column, scale * averaged, lse};
  }

  template <class A>
  static Contrast<A> real_contrast(int64_t n_retain, const Scalars<A>& scalars, bool mean, const A* lse) {
    const A scale = mean && n_retain > 0 ? A(1) / n_retain : A(1);
    return {1, scalars.lam, scalars.tau, scale * n_retain, scale, lse};
  }

  template <class A>
  static Tensor backward(const Backend& backend, const Rows& rows, const Tensor& state, int64_t offset, RowRole role,
                         const Contrast<A>& contrast, const RowScalar<A>& incoming) {
    const auto sizes = rows.logits().sizes();
    STD_TORCH_CHECK(
        state.scalar_type() == accumulation_type(rows.dtype()) && state.numel() >= offset + rows.state_size(),
        "expected the state of this call");
    const ScalarType type = rows.logits().scalar_type();
    const Tensor out = sizes.size() == 2 ? allocate<2>(rows.logits(), {sizes[0], sizes[1]}, type)
                                         : allocate<3>(rows.logits(), {sizes[0], sizes[1], sizes[2]}, type);
    backend.cosine_backward(rows, data<A>(state) + offset, role, contrast, incoming, out.data_ptr());
    return out;
  }
};

// Registers every loss operator of a backend under its schema's name.
#define PMX_REGISTER_LOSSES(library, Backend)                                                                     \
  library.impl("sharpen", TORCH_BOX(&pmx::Losses<Backend>::sharpen));                                             \
  library.impl("sharpen_backward", TORCH_BOX(&pmx::Losses<Backend>::sharpen_backward));                           \
  library.impl("sim_loss", TORCH_BOX(&pmx::Losses<Backend>::sim_loss));                                           \
  library.impl("sim_loss_backward", TORCH_BOX(&pmx::Losses<Backend>::sim_loss_backward));                         \
  library.impl("mix_contrastive_loss", TORCH_BOX(&pmx::Losses<Backend>::mix_contrastive_loss));                   \
  library.impl("mix_contrastive_loss_backward", TORCH_BOX(&pmx::Losses<Backend>::mix_contrastive_loss_backward)); \
  library.impl("real_contrastive_loss", TORCH_BOX(&pmx::Losses<Backend>::real_contrastive_loss));                 \
  library.impl("real_contrastive_loss_backward", TORCH_BOX(&pmx::Losses<Backend>::real_contrastive_loss_backward))

}  // namespace pmx
