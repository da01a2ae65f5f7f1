// Times the CPU kernels on one thread in every instruction set of this machine, beside a copy of memory.
//
// Every round runs each case once, so that a slow moment of the machine falls on all of them alike. What is written is
// far larger than the caches. Bytes are those that cannot be avoided: every input read once and every output written
// once; the copy counts what it reads and what it writes. The output is CSV.
//
//     bench_kernels [rounds]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/losses.h"
#include "cpu/kernel_table.h"
#include "cpu/losses.h"

namespace {

using namespace pmx;

constexpr int64_t buffer_elements = int64_t{1} << 24;  // 64 MiB of float32

struct Case {
  std::string kernel, shape, isa;
  double bytes;
  std::function<void()> run;
  std::vector<double> seconds;
};

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = uniform(random);
  return values;
}

// Eq. 5 on pairs of n_forget and n_retain images, with one probability target for each image.
class MixLoss {
 public:
  MixLoss(const Pairs& pairs, int64_t classes)
      : pairs_(pairs),
        classes_(classes),
        logits_(random_floats(pairs.rows() * classes, 1)),
        forget_(random_floats(pairs.forget * classes, 2)),
        retain_(random_floats(pairs.retain * classes, 3)),
        states_(static_cast<size_t>(pairs.rows() * state_width(2))),
        lse_(static_cast<size_t>(pairs.columns())),
        gradient_(logits_.size()) {
    in_ = {logits_.data(), classes, pairs.rows(), classes, {}, 1};
    in_.targets[0] = {forget_.data(), classes, pairs.forget_divisor(), pairs.forget};
    in_.targets[1] = {retain_.data(), classes, pairs.retain_divisor(), pairs.retain};
    contrast_ = mix_contrast<float>(pairs_, {nullptr, 0, 0.5f}, {nullptr, 0, 1.f}, false, lse_.data());
  }
  MixLoss(const MixLoss&) = delete;

  void forward(Isa isa) {
    kernels(isa)
        .cosine(Dtype::f32, Dtype::f32, TargetKind::probabilities, 2)
        .forward(in_, 0, in_.rows, states_.data(), nullptr);
    reduce_columns(kernels(isa).column<float>(), mix_terms<float>(pairs_, states_.data()), contrast_, lse_.data(),
                   [](int64_t count, int64_t, const auto& body) { body(int64_t{0}, count); });
  }
  void backward(Isa isa) {
    const RowScalar<float> grad = {nullptr, 0, 1.f};
    kernels(isa)
        .cosine(Dtype::f32, Dtype::f32, TargetKind::probabilities, 2)
        .backward(in_, 0, in_.rows, states_.data(), RowRole::mixed, &contrast_, &grad, gradient_.data());
  }

  double forward_bytes() const { return 4.0 * static_cast<double>(logits_.size() + forget_.size() + retain_.size()); }
  double backward_bytes() const { return forward_bytes() + 4.0 * static_cast<double>(gradient_.size()); }
  std::string shape() const {
    const std::string rows = pairs_.grid ? std::to_string(pairs_.forget) + "x" + std::to_string(pairs_.retain)
                                         : std::to_string(pairs_.forget);
    return (pairs_.grid ? "grid " : "zip ") + rows + "x" + std::to_string(classes_);
  }

 private:
  Pairs pairs_;
  int64_t classes_;
  std::vector<float> logits_, forget_, retain_, states_, lse_, gradient_;
  CosineRows in_{};
  Contrast<float> contrast_{};
};

// Pairs of colour images and their masks. The runner of the library picks the instruction set by itself, so the kernels
// are driven here as one piece.
class Mix {
 public:
  Mix(int64_t n_forget, int64_t n_retain, bool grid, int64_t size)
      : shape_{n_forget, n_retain, grid,  3,          size,       size,      size / 8,
               size / 8, false,    false, Dtype::f32, Dtype::f32, Dtype::f32},
        forget_(random_floats(n_forget * shape_.image_size(), 1)),
        retain_(random_floats(n_retain * shape_.image_size(), 2)),
        masks_(random_floats(shape_.pairs() * shape_.mask_height * shape_.mask_width, 3)),
        mixed_(random_floats(shape_.pairs() * shape_.image_size(), 4)),
        grad_masks_(masks_.size()),
        forward_(shape_, operands(mixed_), false),
        backward_(shape_, operands(grad_masks_), false),
        workspace_(static_cast<size_t>(std::max(forward_.plan().workspace(), backward_.plan().workspace()))) {}
  Mix(const Mix&) = delete;

  void forward(Isa isa) {
    kernels(isa).mask_mix(false).forward(forward_.plan(), 0, forward_.plan().forward_tasks(), workspace_.data());
  }
  void backward(Isa isa) {
    kernels(isa).mask_mix(false).mask_gradient(backward_.plan(), 0, backward_.plan().mask_gradient_tasks(),
                                               workspace_.data());
  }

  double forward_bytes() const { return 4.0 * static_cast<double>(forget_.size() + retain_.size() + mixed_.size()); }
  double backward_bytes() const { return forward_bytes(); }
  std::string shape() const {
    const std::string images = shape_.grid ? std::to_string(shape_.n_forget) + "x" + std::to_string(shape_.n_retain)
                                           : std::to_string(shape_.n_forget);
    return (shape_.grid ? "grid " : "zip ") + images + "x3x" + std::to_string(shape_.height) + "x" +
           std::to_string(shape_.width);
  }

 private:
  MaskMixOperands operands(std::vector<float>& result) {
    const int64_t step = shape_.image_size();
    return {forget_.data(), retain_.data(), step, step, masks_.data(), mixed_.data(), step, result.data(), {}};
  }

  MaskMixShape shape_;
  std::vector<float> forget_, retain_, masks_, mixed_, grad_masks_;
  MaskMixTaps<float> forward_, backward_;
  std::vector<float> workspace_;
};

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: %s [rounds], a number above 0\n", argv[0]);
    return 2;
  }

  std::vector<Case> cases;
  const std::vector<float> from = random_floats(buffer_elements, 7);
  std::vector<float> to(from.size());
  cases.push_back({"copy",
                   std::to_string(buffer_elements),
                   "-",
                   8.0 * buffer_elements,
                   [&] { memcpy(to.data(), from.data(), from.size() * sizeof(float)); },
                   {}});

  // Both directions of `work` in every instruction set.
  const auto add = [&](const std::string& name, auto& work) {
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (isa > best_isa()) continue;
      cases.push_back({name + " forward",
                       work.shape(),
                       isa_name(isa),
                       work.forward_bytes(),
                       [&work, isa] { work.forward(isa); },
                       {}});
      cases.push_back({name + " backward",
                       work.shape(),
                       isa_name(isa),
                       work.backward_bytes(),
                       [&work, isa] { work.backward(isa); },
                       {}});
    }
  };
  MixLoss few_classes({1024, buffer_elements / 10 / 1024, true}, 10);
  MixLoss many_classes({128, buffer_elements / 1000 / 128, true}, 1000);
  MixLoss zipped({buffer_elements / 100, buffer_elements / 100, false}, 100);
  Mix zip_images(64, 64, false, 224);
  Mix grid_images(16, 32, true, 96);
  add("mix_contrastive_loss", few_classes);
  add("mix_contrastive_loss", many_classes);
  add("mix_contrastive_loss", zipped);
  add("mask_mix", zip_images);
  add("mask_mix", grid_images);

  for (int round = -1; round < rounds; ++round) {  // the first one touches the memory and is not counted
    for (Case& c : cases) {
      const auto start = std::chrono::steady_clock::now();
      c.run();
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      if (round >= 0) c.seconds.push_back(elapsed.count());
    }
  }

  const double copy_rate = cases[0].bytes / percentile(cases[0].seconds, 0.5);
  std::puts("kernel,shape,isa,p20_ms,p50_ms,p80_ms,gb_per_s,share_of_copy");
  for (const Case& c : cases) {
    const double median = percentile(c.seconds, 0.5), rate = c.bytes / median;
    std::printf("%s,%s,%s,%.3f,%.3f,%.3f,%.2f,%.2f\n", c.kernel.c_str(), c.shape.c_str(), c.isa.c_str(),
                1e3 * percentile(c.seconds, 0.2), 1e3 * median, 1e3 * percentile(c.seconds, 0.8), rate / 1e9,
                rate / copy_rate);
  }
  return 0;
}
