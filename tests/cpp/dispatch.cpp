// The operators in a LibTorch program: found by name in the dispatcher because the library was linked, with the values
// and gradients of torch's own formulas.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#undef CHECK  // torch's logging has one as well
#include "check.h"

namespace {

template <class Signature>
auto op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

at::Tensor sim(const at::Tensor& z, const at::Tensor& target) {
  const at::Tensor p = z.softmax(1);
  return 1 - (p * target).sum(1) / (p.norm(2, 1) * target.norm(2, 1));
}

}  // namespace

TEST(sim_loss_and_its_backward) {
  at::manual_seed(0);
  const at::Tensor z = at::randn({7, 10}, at::kDouble), target = at::rand({7, 10}, at::kDouble);
  const auto [loss, state] =
      op<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, std::optional<double>)>(
          "pymixunlearn::sim_loss")
          .call(z, target, std::nullopt);
  CHECK(at::allclose(loss, sim(z, target), 1e-12, 1e-14));

  const at::Tensor grad = at::rand({7}, at::kDouble);
  const at::Tensor gradient =
      op<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, std::optional<double>)>(
          "pymixunlearn::sim_loss_backward")
          .call(grad, z, target, state, std::nullopt);
  const at::Tensor direction = at::randn({7, 10}, at::kDouble);
  const at::Tensor slope = (sim(z + 1e-6 * direction, target) - sim(z - 1e-6 * direction, target)) / 2e-6;
  CHECK(at::allclose((gradient * direction).sum(1), grad * slope, 1e-7, 1e-9));
}

TEST_MAIN
