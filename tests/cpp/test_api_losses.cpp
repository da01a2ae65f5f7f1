// The losses for C++ users, on raw buffers, against the equations in double precision: values and gradients of whole
// losses, in every pairing and with every kind of target, and what a wrong argument is told.
#include <functional>
#include <random>
#include <stdexcept>

#include "check.h"
#include "pymixunlearn/losses.h"
#include "reference.h"

using namespace pymixunlearn;

namespace {

constexpr double temperature = 0.4;

template <class T>
constexpr double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;

// Rows of random numbers with room between them, and the same numbers as doubles.
template <class T>
struct Numbers {
  std::vector<T> values;
  std::vector<reference::Row> rows;
  Matrix<T> matrix;

  Numbers(int64_t count, int64_t classes, int64_t padding, unsigned seed, bool positive = false) {
    std::mt19937 random(seed);
    std::normal_distribution<T> normal(0, 2);
    values.assign(count * (classes + padding) + 1, T(NAN));
    for (int64_t n = 0; n < count; ++n) {
      rows.emplace_back();
      for (int64_t j = 0; j < classes; ++j) {
        T& value = values[n * (classes + padding) + j];
        value = positive ? std::fabs(normal(random)) : normal(random);
        rows.back().push_back(value);
      }
    }
    matrix = {values.data(), count, classes, classes + padding};
  }
};

// Targets of one kind, and the directions that they stand for.
template <class T>
struct Directions {
  Numbers<T> numbers;
  std::vector<int64_t> labels;
  std::vector<reference::Row> rows;
  Targets<T> targets;

  Directions(TargetKind kind, int64_t count, int64_t classes, unsigned seed)
      : numbers(count, classes, 2, seed, kind == TargetKind::probabilities), rows(numbers.rows) {
    for (int64_t n = 0; n < count; ++n) labels.push_back((n * 7 + seed) % classes);
    if (kind == TargetKind::probabilities) targets = Targets<T>::probabilities(numbers.matrix);
    if (kind == TargetKind::labels) targets = Targets<T>::labels(labels.data(), count);
    if (kind == TargetKind::teacher_logits) targets = Targets<T>::teacher_logits(numbers.matrix, temperature);
    for (int64_t n = 0; n < count; ++n) {
      if (kind == TargetKind::teacher_logits) rows[n] = reference::softmax(rows[n], temperature);
      if (kind != TargetKind::labels) continue;
      rows[n].assign(classes, 0);
      rows[n][labels[n]] = 1;
    }
  }
};

// Cuts the work as finely as it can be cut, and runs it backwards.
void reversed_pieces(int64_t count, int64_t, const Pieces& body) {
  for (int64_t i = count; i-- > 0;) body(i, i + 1);
}

template <class T>
void expect(const char* what, const std::vector<T>& actual, const std::vector<double>& expected, double scale) {
  CHECK(actual.size() == expected.size());
  CHECK_CLOSE(
      what, actual.size(), [&](size_t i) { return actual[i]; }, [&](size_t i) { return expected[i]; },
      [&](size_t i) { return 200 * eps<T> * (std::fabs(expected[i]) + scale); });
}

// Runs `loss` in one piece and in many, which must agree bit for bit, and hands over the value and the gradients.
template <class T, class Loss, class Backward>
void run(const Loss& loss, const std::vector<size_t>& gradient_sizes, const Backward& backward,
         const std::function<void(T, const std::vector<std::vector<T>>&)>& verify) {
  std::vector<std::pair<T, std::vector<std::vector<T>>>> results;
  for (const ParallelFor& parallel_for : {ParallelFor(serial), ParallelFor(reversed_pieces)}) {
    std::vector<T> state(loss.state_size(), T(NAN));
    std::vector<std::vector<T>> gradients;
    for (size_t size : gradient_sizes) gradients.emplace_back(size, T(NAN));
    const T value = loss.forward(state.data(), parallel_for);
    backward(state.data(), gradients, parallel_for);
    results.push_back({value, gradients});
  }
  CHECK(results[0] == results[1]);
  verify(results[0].first, results[0].second);
}

template <class T>
void check_sim(TargetKind kind) {
  const int64_t rows = 5, classes = 11;
  const Numbers<T> logits(rows, classes, 3, 1);
  const Directions<T> target(kind, rows, classes, 2);
  const SimLoss<T> loss = {logits.matrix, target.targets};
  std::vector<T> losses(rows), state(loss.state_size()), grad, gradient(rows * classes);
  std::vector<double> expected, expected_gradient;
  for (int64_t n = 0; n < rows; ++n) {
    grad.push_back(T(n) - T(1.5));
    expected.push_back(reference::sim(logits.rows[n], target.rows[n]));
    for (double g : reference::sim_gradient(logits.rows[n], target.rows[n])) expected_gradient.push_back(grad[n] * g);
  }
  loss.forward(losses.data(), state.data());
  loss.backward(grad.data(), state.data(), gradient.data());
  expect("losses", losses, expected, 1);
  expect("gradient", gradient, expected_gradient, 1);
}

// Eq. 5 from its definition: a column of pairs for each retain image (grid), or one column for all (zip).
template <class T>
void check_mask_mix(TargetKind kind, Pairing pairing, Reduction reduction, bool lam_rows) {
  const bool grid = pairing == Pairing::grid;
  const int64_t n_forget = grid ? 4 : 6, n_retain = grid ? 3 : 6, rows = grid ? 12 : 6, classes = 10;
  const Numbers<T> logits(rows, classes, 1, 1);
  const Directions<T> forget(kind, n_forget, classes, 2), retain(kind, n_retain, classes, 3);
  std::vector<T> lam;
  for (int64_t n = 0; n < rows; ++n) lam.push_back(lam_rows ? T(n) / T(rows) : T(0.3));
  MixContrastiveLoss<T> loss;
  loss.logits = logits.matrix;
  loss.target_forget = forget.targets;
  loss.target_retain = retain.targets;
  loss.lam = T(0.3);
  loss.lam_rows = lam_rows ? lam.data() : nullptr;
  loss.tau = T(0.5);
  loss.pairing = pairing;
  loss.reduction = reduction;

  const double scale = reduction == Reduction::mean ? 1.0 / n_retain : 1.0;
  const double incoming = 1.75;
  const int64_t columns = grid ? n_retain : 1, terms = rows / columns;
  double value = 0;
  std::vector<double> gradient(rows * classes);
  for (int64_t c = 0; c < columns; ++c) {
    reference::Row scaled;
    for (int64_t i = 0; i < terms; ++i) {
      const int64_t n = i * columns + c;
      scaled.push_back(lam[n] / 0.5 * reference::sim(logits.rows[n], forget.rows[grid ? n / n_retain : n]));
    }
    const double lse = reference::logsumexp(scaled), forget_weight = grid ? 1 : n_retain;
    value -= scale * forget_weight * lse;
    for (int64_t i = 0; i < terms; ++i) {
      const int64_t n = i * columns + c;
      const reference::Row& toward = retain.rows[grid ? n % n_retain : n];
      const double retain_weight = (1.0 - lam[n]) / (grid ? n_forget : 1);
      value += scale * retain_weight * reference::sim(logits.rows[n], toward);
      const reference::Row g_forget = reference::sim_gradient(logits.rows[n], forget.rows[grid ? n / n_retain : n]);
      const reference::Row g_retain = reference::sim_gradient(logits.rows[n], toward);
      for (int64_t j = 0; j < classes; ++j) {
        const double pull = retain_weight * g_retain[j];
        const double push = forget_weight * lam[n] / 0.5 * std::exp(scaled[i] - lse) * g_forget[j];
        gradient[n * classes + j] = incoming * scale * (pull - push);
      }
    }
  }
  run<T>(
      loss, {gradient.size()},
      [&](const T* state, std::vector<std::vector<T>>& out, const ParallelFor& parallel_for) {
        loss.backward(T(incoming), state, out[0].data(), parallel_for);
      },
      [&](T actual, const std::vector<std::vector<T>>& out) {
        expect<T>("loss", {actual}, {value}, double(rows));
        expect("gradient", out[0], gradient, double(n_retain));
      });
}

template <class T>
void check_real(TargetKind kind, int64_t n_forget, int64_t n_retain, Reduction reduction) {
  const int64_t classes = 9;
  const Numbers<T> z_forget(n_forget, classes, 0, 1), z_retain(n_retain, classes, 4, 2);
  const Directions<T> forget(kind, n_forget, classes, 3), retain(kind, n_retain, classes, 4);
  RealContrastiveLoss<T> loss;
  loss.logits_forget = z_forget.matrix;
  loss.logits_retain = z_retain.matrix;
  loss.target_forget = forget.targets;
  loss.target_retain = retain.targets;
  loss.tau = T(2);
  loss.reduction = reduction;

  const double scale = reduction == Reduction::mean && n_retain > 0 ? 1.0 / n_retain : 1.0;
  reference::Row scaled;
  for (int64_t n = 0; n < n_forget; ++n) scaled.push_back(reference::sim(z_forget.rows[n], forget.rows[n]) / 2);
  const double lse = reference::logsumexp(scaled);
  double value = -scale * n_retain * lse;
  std::vector<double> g_forget, g_retain;
  for (int64_t n = 0; n < n_forget; ++n) {
    const double weight = -scale * n_retain / 2 * std::exp(scaled[n] - lse);
    for (double g : reference::sim_gradient(z_forget.rows[n], forget.rows[n])) g_forget.push_back(weight * g);
  }
  for (int64_t n = 0; n < n_retain; ++n) {
    value += scale * reference::sim(z_retain.rows[n], retain.rows[n]);
    for (double g : reference::sim_gradient(z_retain.rows[n], retain.rows[n])) g_retain.push_back(scale * g);
  }
  run<T>(
      loss, {g_forget.size(), g_retain.size()},
      [&](const T* state, std::vector<std::vector<T>>& out, const ParallelFor& parallel_for) {
        loss.backward(T(1), state, out[0].data(), out[1].data(), parallel_for);
      },
      [&](T actual, const std::vector<std::vector<T>>& out) {
        expect<T>("loss", {actual}, {value}, double(n_retain) + 1);
        expect("gradient of the forget logits", out[0], g_forget, double(n_retain));
        expect("gradient of the retain logits", out[1], g_retain, 1);
      });
}

template <class T>
void check_all() {
  for (TargetKind kind : {TargetKind::probabilities, TargetKind::labels, TargetKind::teacher_logits}) {
    check::Context what("kind ", static_cast<int>(kind), ", bytes ", sizeof(T));
    check_sim<T>(kind);
    for (Reduction reduction : {Reduction::sum, Reduction::mean}) {
      check::Context how("reduction ", static_cast<int>(reduction));
      for (bool lam_rows : {false, true}) {
        check_mask_mix<T>(kind, Pairing::zip, reduction, lam_rows);
        check_mask_mix<T>(kind, Pairing::grid, reduction, lam_rows);
      }
      check_real<T>(kind, 5, 8, reduction);
      check_real<T>(kind, 0, 3, reduction);
      check_real<T>(kind, 3, 0, reduction);
    }
  }
}

// What a refused call is told.
template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace

TEST(float_losses) { check_all<float>(); }
TEST(double_losses) { check_all<double>(); }

TEST(a_wrong_argument_is_named) {
  const Numbers<float> z(4, 3, 0, 1), wide(4, 5, 0, 2);
  const std::vector<int64_t> labels = {0, 1, 2, 0};
  const auto four = Targets<float>::labels(labels.data(), 4), three = Targets<float>::labels(labels.data(), 3);

  const auto sim = [](const Matrix<float>& logits, const Targets<float>& target) {
    return refusal([&] { SimLoss<float>{logits, target}.state_size(); });
  };
  CHECK(sim(z.matrix, four) == "nothing");
  CHECK(sim(z.matrix, three) == "target must have 4 targets, got 3");
  CHECK(sim({z.values.data(), 4, 0}, four) == "logits must have at least one class, got 0");
  CHECK(sim({z.values.data(), 4, 3, 2}, four) == "logits must have a stride of at least its 3 columns, got 2");
  CHECK(sim(z.matrix, Targets<float>::probabilities(wide.matrix)) ==
        "target must have the 3 classes of the logits, got 5");
  CHECK(sim(z.matrix, Targets<float>::teacher_logits(z.matrix, 0)) == "target must have a temperature above 0, got 0");

  MixContrastiveLoss<float> mix;
  mix.logits = z.matrix;
  mix.target_forget = four;
  mix.target_retain = four;
  const auto told = [](const auto& loss) { return refusal([&] { loss.state_size(); }); };
  CHECK(told(mix) == "nothing");
  mix.tau = 0;
  CHECK(told(mix) == "tau must be above 0, got 0");
  mix.tau = 1;
  mix.pairing = Pairing::grid;
  CHECK(told(mix) == "logits must have one row for each pair of 4 forget and 4 retain images, got 4");
  mix.pairing = Pairing::zip;
  mix.target_retain = Targets<float>::probabilities(z.matrix);
  CHECK(told(mix) == "target_retain must be of the same kind as target_forget");
  mix.target_forget = Targets<float>::teacher_logits(z.matrix, 0.5);
  mix.target_retain = Targets<float>::teacher_logits(z.matrix, 0.25);
  CHECK(told(mix) == "target_retain must have the temperature of target_forget");

  RealContrastiveLoss<float> real;
  real.logits_forget = wide.matrix;
  real.logits_retain = z.matrix;
  real.target_forget = four;
  real.target_retain = four;
  CHECK(told(real) == "logits_forget must have the 3 classes of logits_retain, got 5");
}

TEST_MAIN
