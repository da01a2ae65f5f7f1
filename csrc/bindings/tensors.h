// The little that the bindings need of torch: dtypes, allocation, and inputs brought into the layout of the kernels.
// Everything goes through the LibTorch stable ABI, so that one build serves every later torch.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "../core/losses.h"

namespace pmx {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return Dtype::f32;
    case ScalarType::Double:
      return Dtype::f64;
    case ScalarType::BFloat16:
      return Dtype::bf16;
    case ScalarType::Half:
      return Dtype::f16;
    default:
      STD_TORCH_CHECK(false, "expected float32, float64, bfloat16 or float16");
  }
}

inline Dtype dtype_of(const Tensor& tensor) { return dtype_of(tensor.scalar_type()); }

inline ScalarType accumulation_type(Dtype dtype) {
  return dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float;
}

inline int32_t shim_dtype(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return aoti_torch_dtype_float32();
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    default:
      return aoti_torch_dtype_float16();
  }
}

// An uninitialised contiguous tensor on the device of `like`.
template <size_t dims>
Tensor allocate(const Tensor& like, std::array<int64_t, dims> sizes, ScalarType type) {
  std::array<int64_t, dims> strides{};
  int64_t step = 1;
  for (size_t i = dims; i-- > 0;) {
    strides[i] = step;
    step *= sizes[i] > 1 ? sizes[i] : 1;
  }
  int32_t device_type = 0, device_index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, sizes.data(), strides.data(), shim_dtype(type),
                                                         device_type, device_index, &handle));
  return Tensor(handle);
}

inline void check_same_device(const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.is_cpu() == like.is_cpu() &&
                      tensor.get_device_index() == like.get_device_index(),
                  "expected all tensors on one device");
}

// A [rows, C] tensor whose rows are contiguous; its row stride may be anything.
inline Tensor with_contiguous_rows(const Tensor& tensor) {
  const bool ready = tensor.dim() == 2 && (tensor.stride(1) == 1 || tensor.sizes()[1] == 1);
  return ready ? tensor : torch::stable::contiguous(tensor);
}

// A lam, tau or incoming gradient: one value, or one for each row, in accumulation type. The Tensor keeps a converted
// copy alive until the kernels have been queued.
template <class A>
std::pair<RowScalar<A>, Tensor> row_scalar(const Tensor& tensor, const Tensor& like) {
  check_same_device(tensor, like);
  dtype_of(tensor);  // refuses what is not floating
  const ScalarType type = std::is_same_v<A, double> ? ScalarType::Double : ScalarType::Float;
  Tensor converted = tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
  if (converted.dim() > 1) converted = torch::stable::contiguous(converted);
  const int64_t stride = converted.dim() == 0 ? 0 : converted.dim() == 1 ? converted.stride(0) : 1;
  return {{static_cast<const A*>(converted.data_ptr()), stride, A(0)}, converted};
}

}  // namespace pmx
