// The operators' schemas. They live in the CPU library, which every installation has; the CUDA library only adds
// implementations to them.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pymixunlearn, m) {
  m.def("sharpen(Tensor logits, float T) -> Tensor");
  m.def("sharpen_backward(Tensor grad, Tensor logits, float T) -> Tensor");
  // `state` holds a few scalars per row (core/losses.h) and is what the backward needs besides the inputs.
  m.def("sim_loss(Tensor logits, Tensor target, float? sharpen_T) -> (Tensor loss, Tensor state)");
  m.def("sim_loss_backward(Tensor grad, Tensor logits, Tensor target, Tensor state, float? sharpen_T) -> Tensor");
  // A scalar argument that may be a tensor comes twice: the tensor, and the number that holds when there is none.
  m.def(
      "mix_contrastive_loss(Tensor logits, Tensor target_forget, Tensor target_retain, Tensor? lam, float lam_value, "
      "Tensor? tau, float tau_value, bool grid, bool mean, float? sharpen_T) -> (Tensor loss, Tensor state)");
  // The loss and its gradient in one call, for small inputs, where calls are the cost.
  m.def(
      "mix_contrastive_loss_and_gradient(Tensor logits, Tensor target_forget, Tensor target_retain, Tensor? lam, "
      "float lam_value, Tensor? tau, float tau_value, bool grid, bool mean, float? sharpen_T) "
      "-> (Tensor loss, Tensor gradient)");
  m.def(
      "mix_contrastive_loss_backward(Tensor grad, Tensor logits, Tensor target_forget, Tensor target_retain, "
      "Tensor state, Tensor? lam, float lam_value, Tensor? tau, float tau_value, bool grid, bool mean, "
      "float? sharpen_T) -> Tensor");
  m.def(
      "real_contrastive_loss(Tensor logits_forget, Tensor logits_retain, Tensor target_forget, Tensor target_retain, "
      "Tensor? tau, float tau_value, bool mean, float? sharpen_T) -> (Tensor loss, Tensor state)");
  m.def(
      "real_contrastive_loss_and_gradients(Tensor logits_forget, Tensor logits_retain, Tensor target_forget, "
      "Tensor target_retain, Tensor? tau, float tau_value, bool mean, float? sharpen_T) "
      "-> (Tensor loss, Tensor grad_forget, Tensor grad_retain)");
  // Gradients that are not wanted come back empty.
  m.def(
      "real_contrastive_loss_backward(Tensor grad, Tensor logits_forget, Tensor logits_retain, Tensor target_forget, "
      "Tensor target_retain, Tensor state, Tensor? tau, float tau_value, bool mean, float? sharpen_T, "
      "bool want_forget, bool want_retain) -> (Tensor grad_forget, Tensor grad_retain)");
  // `mean` and `std` are empty, or hold one value for each channel of uint8 images.
  m.def(
      "mask_mix(Tensor x_forget, Tensor x_retain, Tensor mask_logits, bool grid, float[] mean, float[] std, "
      "ScalarType dtype) -> Tensor");
  m.def(
      "mask_mix_backward_mask(Tensor grad, Tensor x_forget, Tensor x_retain, Tensor mask_logits, bool grid, "
      "float[] mean, float[] std) -> Tensor");
  m.def(
      "mask_mix_backward_image(Tensor grad, Tensor mask_logits, bool grid, bool retain_side, SymInt n_forget, "
      "SymInt n_retain, ScalarType dtype, bool channels_last) -> Tensor");
  // `state` holds three numbers per query (core/attention.h). The backward returns the gradients that the bits of
  // `wanted` ask for, in the order of the inputs; the others are empty.
  m.def(
      "mixblock_attention(Tensor q_f, Tensor k_f, Tensor v_f, Tensor q_r, Tensor k_r, Tensor v_r, bool grid, "
      "bool allow_tf32) -> (Tensor mask_logits, Tensor state)");
  m.def(
      "mixblock_attention_backward(Tensor grad, Tensor q_f, Tensor k_f, Tensor v_f, Tensor q_r, Tensor k_r, "
      "Tensor v_r, Tensor state, bool grid, bool allow_tf32, int wanted) -> (Tensor grad_q_f, Tensor grad_k_f, "
      "Tensor grad_v_f, Tensor grad_q_r, Tensor grad_k_r, Tensor grad_v_r)");
}
