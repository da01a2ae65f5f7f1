#include "../cpu/mask_mix_run.h"
#include "mask_mix.h"

namespace pmx {
namespace {

struct CpuMaskMix {
  explicit CpuMaskMix(const Tensor& like) { STD_TORCH_CHECK(like.is_cpu(), "expected a CPU tensor"); }

  void mask_mix_forward(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    pmx::mask_mix_forward(shape, operands, parallel);
  }
  void mask_mix_mask_gradient(const MaskMixShape& shape, const MaskMixOperands& operands) const {
    pmx::mask_mix_mask_gradient(shape, operands, parallel);
  }
  void mask_mix_image_gradient(const MaskMixShape& shape, const MaskMixOperands& operands, bool retain_side) const {
    pmx::mask_mix_image_gradient(shape, operands, retain_side, parallel);
  }

 private:
  static constexpr auto parallel = [](int64_t count, int64_t grain, const auto& body) {
    torch::stable::parallel_for(0, count, grain, body);
  };
};

}  // namespace
}  // namespace pmx

STABLE_TORCH_LIBRARY_IMPL(pymixunlearn, CPU, m) { PMX_REGISTER_MASK_MIX(m, pmx::CpuMaskMix); }
