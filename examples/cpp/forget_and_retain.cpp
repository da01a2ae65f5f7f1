// Adversarial mixup unlearning in miniature, without torch: raw buffers, the mixing step and the loss. Exits with 0 if
// what it computes is right.
#include <pymixunlearn/losses.h>
#include <pymixunlearn/mask_mix.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace {

using pymixunlearn::MixContrastiveLoss;
using pymixunlearn::SimLoss;
using pymixunlearn::Targets;

constexpr int64_t n_forget = 2, n_retain = 3, pairs = n_forget * n_retain, classes = 4;
const std::vector<int64_t> forget_labels = {0, 0};
const std::vector<int64_t> retain_labels = {1, 2, 3};

// Every forget image mixed with every retain image, pair (i, j) in row i * n_retain + j.
MixContrastiveLoss<double> loss_of(const std::vector<double>& logits) {
  MixContrastiveLoss<double> loss;
  loss.logits = {logits.data(), pairs, classes};
  loss.target_forget = Targets<double>::labels(forget_labels.data(), n_forget);
  loss.target_retain = Targets<double>::labels(retain_labels.data(), n_retain);
  loss.pairing = pymixunlearn::Pairing::grid;
  loss.lam = 0.6;
  loss.tau = 0.5;
  return loss;
}

double value_at(const std::vector<double>& logits) {
  const MixContrastiveLoss<double> loss = loss_of(logits);
  std::vector<double> state(loss.state_size());
  return loss.forward(state.data());
}

// The mean of 1 - cos between the rows and one label for each.
double mean_distance(const std::vector<double>& logits, const std::vector<int64_t>& labels) {
  const SimLoss<double> loss = {{logits.data(), pairs, classes}, Targets<double>::labels(labels.data(), pairs)};
  std::vector<double> losses(pairs), state(loss.state_size());
  loss.forward(losses.data(), state.data());
  double total = 0;
  for (double value : losses) total += value;
  return total / pairs;
}

// Mixes a black forget image with a white retain image: a mask logit of 0 shares every pixel equally, a large one shows
// the forget image alone.
bool mix_images() {
  const std::vector<float> forget(64, 0.f), retain(64, 1.f), mask_logits = {0.f, 30.f};
  std::vector<float> mixed(64), ones(64, 1.f), grad_forget(64);
  pymixunlearn::MaskMix<float> mix;
  mix.forget = {forget.data(), 1, 1, 8, 8};
  mix.retain = {retain.data(), 1, 1, 8, 8};
  mix.mask_logits = {mask_logits.data(), 1, 1, 2};  // equal on the left, forget on the right
  mix.forward(mixed.data());
  mix.backward(ones.data(), nullptr, grad_forget.data(), nullptr);
  std::printf("mix: left edge %.3f, right edge %.3f\n", mixed[0], mixed[7]);
  // The derivative by the black image is its share.
  return std::fabs(mixed[0] - 0.5f) < 1e-6f && std::fabs(mixed[7]) < 1e-6f &&
         std::fabs(grad_forget[0] - 0.5f) < 1e-6f && std::fabs(grad_forget[7] - 1.f) < 1e-6f;
}

// Follows the gradient of Eq. 5 on the logits of mixed images: away from the class of the forget image in each mix,
// towards the class of the retain image.
bool follow_the_loss() {
  std::vector<int64_t> forget_of_pair, retain_of_pair;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    forget_of_pair.push_back(forget_labels[pair / n_retain]);
    retain_of_pair.push_back(retain_labels[pair % n_retain]);
  }

  // A model that remembers: every mix looks like class 0, which is to be forgotten.
  std::vector<double> logits(pairs * classes, 0.0), gradient(pairs * classes);
  for (int64_t pair = 0; pair < pairs; ++pair) logits[pair * classes] = 2.0 + 0.1 * static_cast<double>(pair);

  const MixContrastiveLoss<double> loss = loss_of(logits);
  std::vector<double> state(loss.state_size());
  const double before = loss.forward(state.data());
  loss.backward(1.0, state.data(), gradient.data());

  double worst = 0;
  for (size_t k = 0; k < logits.size(); ++k) {
    std::vector<double> up = logits, down = logits;
    up[k] += 1e-5;
    down[k] -= 1e-5;
    worst = std::max(worst, std::fabs((value_at(up) - value_at(down)) / 2e-5 - gradient[k]));
  }
  std::printf("gradient: differs from a difference quotient by %.1e at most\n", worst);

  const double forget_before = mean_distance(logits, forget_of_pair);
  const double retain_before = mean_distance(logits, retain_of_pair);
  for (int step = 0; step < 200; ++step) {
    loss.forward(state.data());  // reads the logits where they lie
    loss.backward(1.0, state.data(), gradient.data());
    for (size_t k = 0; k < logits.size(); ++k) logits[k] -= 0.5 * gradient[k];
  }
  const double after = value_at(logits);
  const double forget_after = mean_distance(logits, forget_of_pair);
  const double retain_after = mean_distance(logits, retain_of_pair);
  std::printf("loss: %.4f, after 200 steps %.4f\n", before, after);
  std::printf("distance to the forget class: %.4f, after %.4f\n", forget_before, forget_after);
  std::printf("distance to the retain class: %.4f, after %.4f\n", retain_before, retain_after);

  return worst < 1e-8 && after < before && forget_after > 0.9 && retain_after < 0.1;
}

}  // namespace

int main() {
  std::printf("kernels: %s\n", pymixunlearn::instruction_set());
  const bool mixes = mix_images(), unlearns = follow_the_loss();
  if (!mixes) std::puts("FAILED: expected mixed pixels of 0.5 and 0");
  if (!unlearns) std::puts("FAILED: expected the mixes to leave the forget class and to reach the retain class");
  if (mixes && unlearns) std::puts("ok");
  return mixes && unlearns ? 0 : 1;
}
