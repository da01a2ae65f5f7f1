#include <type_traits>

#include "attention.cuh"

namespace pmx::cuda {
namespace {

template <class Math>
using Element = typename Math::Element;

// Blocks on a multiprocessor that the registers leave room for, the most that no kernel spills at.
template <class Math, bool keys>
constexpr int backward_blocks = keys || sizeof(Element<Math>) == 8 || std::is_same_v<Math, Tf32Math> ? 2 : 3;

template <class Math>
__global__ void __launch_bounds__(attention_threads, 2)
    attention_forward_kernel(const __grid_constant__ Attention in, Acc<Element<Math>>* states, Element<Math>* out) {
  DeviceBlock block;
  attention_forward_body<Math>(block, in, states, out);
}

template <class Math, bool keys>
__global__ void __launch_bounds__(attention_threads, backward_blocks<Math, keys>)
    attention_backward_kernel(const __grid_constant__ Attention in, const Element<Math>* grad,
                              const Acc<Element<Math>>* states, const __grid_constant__ AttentionGradients to,
                              Acc<Element<Math>>* of_values) {
  DeviceBlock block;
  attention_backward_body<Math, keys>(block, in, grad, states, to, of_values);
}

template <class T>
__global__ void value_gradients_kernel(const __grid_constant__ Attention in, const Acc<T>* of_values,
                                       const __grid_constant__ AttentionGradients to) {
  DeviceBlock block;
  value_gradients_body<T>(block, in, of_values, to);
}

template <class Body>
void with_math(Dtype dtype, bool tf32, Body&& body) {
  switch (dtype) {
    case Dtype::f32:
      return tf32 ? body(TypeTag<Tf32Math>{}) : body(TypeTag<PlainMath<float>>{});
    case Dtype::f64:
      return body(TypeTag<PlainMath<double>>{});
    case Dtype::bf16:
      return body(TypeTag<HalfMath<BFloat16>>{});
    case Dtype::f16:
      return body(TypeTag<HalfMath<Half>>{});
  }
}

// Beyond 48 KiB a kernel has to be allowed its shared memory; for every launch, since each device has its own setting.
template <class Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  if (bytes > 48 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  }
}

}  // namespace

void attention_forward(const Attention& in, Dtype dtype, bool tf32, void* states, void* out, cudaStream_t stream) {
  const int64_t blocks = in.pairs() * ceil_div(in.tokens, tile_size);
  if (blocks == 0) return;
  with_math(dtype, tf32, [&](auto type) {
    using Math = typename decltype(type)::type;
    using T = typename Math::Element;
    const size_t shared = SharedTiles<Math>::bytes(in.dim, false);
    allow_shared(attention_forward_kernel<Math>, shared);
    attention_forward_kernel<Math><<<static_cast<unsigned>(blocks), attention_threads, shared, stream>>>(
        in, static_cast<Acc<T>*>(states), static_cast<T*>(out));
  });
}

void attention_backward(const Attention& in, Dtype dtype, bool tf32, const void* grad, const void* states,
                        const AttentionGradients& to, void* of_values, cudaStream_t stream) {
  if (in.images[0] + in.images[1] == 0) return;
  const bool of_query = to.query[0] != nullptr || to.query[1] != nullptr;
  const bool of_value = to.value[0] != nullptr || to.value[1] != nullptr;
  const bool of_key = to.key[0] != nullptr || to.key[1] != nullptr || of_value;
  with_math(dtype, tf32, [&](auto type) {
    using Math = typename decltype(type)::type;
    using T = typename Math::Element;
    using A = Acc<T>;
    const auto blocks = static_cast<unsigned>(Owner::blocks(in, Math::channels));
    const size_t shared = SharedTiles<Math>::bytes(in.dim, true);
    const auto launch = [&](auto kernel) {
      allow_shared(kernel, shared);
      kernel<<<blocks, attention_threads, shared, stream>>>(
          in, static_cast<const T*>(grad), static_cast<const A*>(states), to, static_cast<A*>(of_values));
    };
    if (of_query) launch(attention_backward_kernel<Math, false>);
    if (of_key) launch(attention_backward_kernel<Math, true>);
    if (of_value) {
      const int64_t values = (in.images[0] + in.images[1]) * in.tokens;
      value_gradients_kernel<T><<<static_cast<unsigned>(ceil_div(values, block_threads)), block_threads, 0, stream>>>(
          in, static_cast<const A*>(of_values), to);
    }
  });
}

}  // namespace pmx::cuda
