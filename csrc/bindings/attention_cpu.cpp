#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../cpu/kernel_table.h"
#include "attention.h"

namespace pmx {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

std::unique_ptr<void, Free> scratch_of(int64_t bytes) {
  const size_t rounded = static_cast<size_t>(bytes + 63) / 64 * 64;
  std::unique_ptr<void, Free> memory(std::aligned_alloc(64, rounded));
  STD_TORCH_CHECK(memory != nullptr, "out of memory for the attention's tiles");
  return memory;
}

// Units given to one thread at the least: several times the work that waking a thread costs.
int64_t unit_grain(const Attention& in) {
  const double operations = 4.0 * in.tokens * in.tokens * (in.dim + 16);
  return std::max<int64_t>(1, static_cast<int64_t>(5e5 / operations));
}

struct CpuAttention {
  static constexpr bool position_stride_is_free = true;

  // Accumulation type, because in grid pairing gradients are sums over the partners of an image.
  static ScalarType gradient_type(ScalarType own) {
    return own == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  }

  explicit CpuAttention(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void forward(const Attention& in, Dtype dtype, bool, void* states, void* out) const {
    const AttentionKernels table = kernels().attention(dtype);
    const int64_t bytes = table.scratch_bytes(in, false);
    torch::stable::parallel_for(0, table.forward_units(in), unit_grain(in), [&](int64_t begin, int64_t end) {
      table.forward(in, begin, end, scratch_of(bytes).get(), states, out);
    });
  }

  void backward(const Attention& in, Dtype dtype, bool, const void* grad, const void* states,
                const AttentionGradients& to) const {
    const AttentionKernels table = kernels().attention(dtype);
    const int64_t bytes = table.scratch_bytes(in, true);
    const size_t element = dtype == Dtype::f64 ? sizeof(double) : sizeof(float);
    if (in.grid) clear(in, element, to);
    const GridRounds rounds(in);
    for (int64_t round = 0; round < rounds.rounds; ++round) {
      torch::stable::parallel_for(0, 2 * rounds.pairs, unit_grain(in), [&](int64_t begin, int64_t end) {
        table.backward(in, round, begin, end, grad, states, scratch_of(bytes).get(), to);
      });
    }
  }

 private:
  static void clear(const Attention& in, size_t element, const AttentionGradients& to) {
    for (int k = 0; k < 2; ++k) {
      const size_t mine = in.images[k] * in.tokens * element, other = in.images[1 - k] * in.tokens * element;
      if (to.query[k] != nullptr) std::memset(to.query[k], 0, mine * in.dim);
      if (to.key[k] != nullptr) std::memset(to.key[k], 0, other * in.dim);
      if (to.value[k] != nullptr) std::memset(to.value[k], 0, mine);
    }
  }
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_ATTENTION(m, pmx::CpuAttention); }
