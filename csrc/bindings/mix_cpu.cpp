#include "../cpu/mix_run.h"
#include "mix.h"

namespace pmx {
namespace {

struct Cpu {
  explicit Cpu(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void mix_forward(const MixShape& shape, const MixOperands& operands) const {
    pmx::mix_forward(shape, operands, parallel);
  }
  void mix_mask_gradient(const MixShape& shape, const MixOperands& operands) const {
    pmx::mix_mask_gradient(shape, operands, parallel);
  }
  void mix_image_gradient(const MixShape& shape, const MixOperands& operands, bool retain_side) const {
    pmx::mix_image_gradient(shape, operands, retain_side, parallel);
  }

 private:
  static constexpr auto parallel = [](int64_t count, int64_t grain, const auto& body) {
    torch::stable::parallel_for(0, count, grain, body);
  };
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_MIXING(m, pmx::Cpu); }
