// MixBlock's attention, on the CPU in every instruction set this machine has and as CUDA bodies on the emulator,
// against the equations in double precision: shapes, element types, strides, pairings, and which gradients are asked
// for.
#include <random>

#include "check.h"
#include "cpu/kernel_table.h"
#include "cuda/attention.cuh"
#include "elements.h"
#include "emulator.h"
#include "reference.h"
#include "tables.h"

using namespace pmx;

namespace {

struct Shape {
  int64_t n_forget, n_retain;
  bool grid;
  int64_t dim, tokens;
  int64_t padding = 0;  // elements between channels: rows are then aligned to nothing
};

struct Truth {
  std::vector<double> out;
  std::vector<double> query[2], key[2], value[2];
};

// Maps in the element type as slices of a stacked projection [images, 2 d + 1, tokens], by side.
template <class T>
struct Problem {
  Shape shape;
  int64_t channel;
  std::vector<T> stacked[2];
  std::vector<T> grad;
  Attention in{};

  explicit Problem(const Shape& s, unsigned seed = 1) : shape(s), channel(s.tokens + s.padding) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    in.images[0] = s.n_forget;
    in.images[1] = s.n_retain;
    in.grid = s.grid;
    in.dim = s.dim;
    in.tokens = s.tokens;
    in.scale = 1 / std::sqrt(static_cast<double>(s.dim));
    const int64_t image = (2 * s.dim + 1) * channel;
    for (int side = 0; side < 2; ++side) {
      stacked[side].resize(in.images[side] * image + 1, narrow<T>(NAN));
      for (T& x : stacked[side]) x = narrow<T>(normal(random));
    }
    grad.resize(in.pairs() * s.tokens);
    for (T& x : grad) x = narrow<T>(normal(random));
    const auto maps = [&](int side, int64_t row) {
      return Maps{stacked[side].data() + row * channel, image, channel, 1};
    };
    in.direction[0] = {maps(0, 0), maps(1, s.dim), maps(0, 2 * s.dim)};
    in.direction[1] = {maps(1, 0), maps(0, s.dim), maps(1, 2 * s.dim)};
  }

  double at(const Maps& maps, int64_t image, int64_t c, int64_t n) const {
    return widen(static_cast<const T*>(maps.data)[image * maps.image + c * maps.channel + n * maps.position]);
  }

  Truth truth() const {
    Truth t;
    const int64_t d = shape.dim, tokens = shape.tokens;
    t.out.resize(in.pairs() * tokens);
    for (int k = 0; k < 2; ++k) {
      const Direction& maps = in.direction[k];
      t.query[k].resize(in.images[k] * d * tokens);
      t.key[k].resize(in.images[1 - k] * d * tokens);
      t.value[k].resize(in.images[k] * tokens);
      for (int64_t pair = 0; pair < in.pairs(); ++pair) {
        const int64_t i = in.image_of(k, pair), j = in.image_of(1 - k, pair);
        for (int64_t n = 0; n < tokens; ++n) {
          reference::Row scores, values;
          for (int64_t m = 0; m < tokens; ++m) {
            double s = 0;
            for (int64_t c = 0; c < d; ++c) s += at(maps.query, i, c, n) * at(maps.key, j, c, m);
            scores.push_back(s * in.scale);
            values.push_back(at(maps.value, i, 0, m));
          }
          const reference::Row p = reference::softmax(scores);
          const double l = reference::dot(p, values), sign = k == 0 ? 1 : -1;
          const double g = sign * static_cast<double>(widen(grad[pair * tokens + n]));
          t.out[pair * tokens + n] += sign * l;
          for (int64_t m = 0; m < tokens; ++m) {
            const double by_score = g * p[m] * (values[m] - l) * in.scale;
            t.value[k][i * tokens + m] += g * p[m];
            for (int64_t c = 0; c < d; ++c) {
              t.query[k][(i * d + c) * tokens + n] += by_score * at(maps.key, j, c, m);
              t.key[k][(j * d + c) * tokens + m] += by_score * at(maps.query, i, c, n);
            }
          }
        }
      }
    }
    return t;
  }
};

// What a backend writes; gradients in type G, each filled with NaN before, or left out.
template <class T, class G>
struct Results {
  std::vector<Acc<T>> states;
  std::vector<T> out;
  std::vector<G> query[2], key[2], value[2];
  AttentionGradients to{};

  explicit Results(const Problem<T>& p, int wanted = 63, G fill = narrow<G>(Acc<T>(NAN))) {
    const Attention& in = p.in;
    states.assign(in.pairs() * 2 * state_parts * in.tokens, Acc<T>(NAN));
    out.assign(in.pairs() * in.tokens, narrow<T>(Acc<T>(NAN)));
    const auto slot = [&](std::vector<G>& values, int64_t size) -> void* {
      values.assign(size, fill);
      const bool asked = wanted & 1;
      wanted >>= 1;
      return asked ? values.data() : nullptr;
    };
    for (int k = 0; k < 2; ++k) {
      to.query[k] = slot(query[k], in.images[k] * in.dim * in.tokens);
      to.key[k] = slot(key[k], in.images[1 - k] * in.dim * in.tokens);
      to.value[k] = slot(value[k], in.images[k] * in.tokens);
    }
  }
};

template <class G>
void close_to(const char* what, const std::vector<G>& actual, const std::vector<double>& expected, double eps) {
  double largest = 1e-3;
  for (double x : expected) largest = std::max(largest, std::fabs(x));
  CHECK_CLOSE(
      what, expected.size(), [&](size_t i) { return widen(actual[i]); }, [&](size_t i) { return expected[i]; },
      [&](size_t) { return eps * largest; });
}

template <class T, class G>
void compare(const Problem<T>& p, const Results<T, G>& results, double eps) {
  const Truth t = p.truth();
  close_to("out", results.out, t.out, eps);
  for (int k = 0; k < 2; ++k) {
    if (results.to.query[k] != nullptr) close_to(k == 0 ? "q_f" : "q_r", results.query[k], t.query[k], eps);
    if (results.to.key[k] != nullptr) close_to(k == 0 ? "k_r" : "k_f", results.key[k], t.key[k], eps);
    if (results.to.value[k] != nullptr) close_to(k == 0 ? "v_f" : "v_r", results.value[k], t.value[k], eps);
  }
}

std::string describe(const Shape& s) {
  std::ostringstream text;
  text << s.n_forget << (s.grid ? " x " : " and ") << s.n_retain << " images, d " << s.dim << ", " << s.tokens
       << " tokens, padding " << s.padding;
  return text.str();
}

// --- CPU -------------------------------------------------------------------------------------------------------------

template <class T>
void on_the_cpu(const Shape& shape, double eps, int wanted = 63) {
  using A = Acc<T>;
  const Problem<T> p(shape);
  for (const auto& [isa, table] : cpu::tables()) {
    check::Context what(isa, ": ", describe(shape), ", element bytes ", sizeof(T));
    const AttentionKernels kernels = table->attention(dtype_of<T>);
    Results<T, A> results(p, wanted, shape.grid ? A(0) : A(NAN));
    // The exact size, each time anew, so that the sanitizer sees every step outside.
    const auto scratch = [&](bool backward) {
      return std::vector<A>(kernels.scratch_bytes(p.in, backward) / sizeof(A));
    };
    const int64_t units = kernels.forward_units(p.in);
    for (auto [begin, end] : {std::pair<int64_t, int64_t>{units / 2, units}, {0, units / 2}}) {
      kernels.forward(p.in, begin, end, scratch(false).data(), results.states.data(), results.out.data());
    }
    const GridRounds rounds(p.in);
    for (int64_t round = 0; round < rounds.rounds; ++round) {
      for (int64_t unit = 2 * rounds.pairs; unit-- > 0;) {
        kernels.backward(p.in, round, unit, unit + 1, p.grad.data(), results.states.data(), scratch(true).data(),
                         results.to);
      }
    }
    compare(p, results, eps);
  }
}

// --- CUDA ------------------------------------------------------------------------------------------------------------

template <class Math>
void emulated(const Shape& shape, double eps, int wanted = 63) {
  using T = typename Math::Element;
  using A = Acc<T>;
  const Problem<T> p(shape);
  const Attention& in = p.in;
  check::Context what("emulated: ", describe(shape), ", element bytes ", sizeof(T));
  Results<T, T> results(p, wanted);
  const int64_t tiles = ceil_div(in.tokens, tile_size);
  emulator::launch({in.pairs() * tiles, attention_threads, SharedTiles<Math>::bytes(in.dim, false)},
                   {emulator::output("states", results.states), emulator::output("out", results.out)},
                   [&](emulator::Block& block) {
                     attention_forward_body<Math>(block, in, results.states.data(), results.out.data());
                   });
  std::vector<A> of_values(in.pairs() * 2 * in.tokens, A(NAN));
  const emulator::Launch owners = {Owner::blocks(in, Math::channels), attention_threads,
                                   SharedTiles<Math>::bytes(in.dim, true)};
  emulator::launch(owners, {emulator::output("q_f", results.query[0]), emulator::output("q_r", results.query[1])},
                   [&](emulator::Block& block) {
                     attention_backward_body<Math, false>(block, in, p.grad.data(), results.states.data(), results.to,
                                                          of_values.data());
                   });
  emulator::launch(owners,
                   {emulator::output("k_r", results.key[0]), emulator::output("k_f", results.key[1]),
                    emulator::output("of_values", of_values)},
                   [&](emulator::Block& block) {
                     attention_backward_body<Math, true>(block, in, p.grad.data(), results.states.data(), results.to,
                                                         of_values.data());
                   });
  const int64_t values = (in.images[0] + in.images[1]) * in.tokens;
  emulator::launch({ceil_div(values, block_threads), block_threads, 0},
                   {emulator::output("v_f", results.value[0]), emulator::output("v_r", results.value[1])},
                   [&](emulator::Block& block) { value_gradients_body<T>(block, in, of_values.data(), results.to); });
  compare(p, results, eps);
}

// One token; fewer tokens and channels than any step; a tile, one more; several tiles; more channels than a chunk.
const std::vector<Shape> shapes = {{1, 1, false, 1, 1},     {2, 2, false, 3, 5},    {2, 2, false, 16, 49},
                                   {1, 1, false, 8, 64},    {1, 1, false, 17, 65},  {1, 1, false, 40, 196},
                                   {1, 1, false, 128, 16},  {1, 1, false, 130, 30}, {2, 3, true, 16, 20},
                                   {3, 1, true, 5, 70},     {1, 2, true, 150, 24},  {2, 2, false, 16, 49, 3},
                                   {1, 1, false, 24, 72, 4}};

}  // namespace

TEST(cpu_attention_agrees_with_the_equations) {
  for (const Shape& shape : shapes) {
    on_the_cpu<double>(shape, 2e-14);
    on_the_cpu<float>(shape, 8e-6);
    on_the_cpu<BFloat16>(shape, 1e-2);
    on_the_cpu<Half>(shape, 1.5e-3);
  }
  on_the_cpu<float>({1, 1, false, 3, 700}, 1e-5);    // chunks of keys, segments of queries
  on_the_cpu<float>({1, 1, false, 1100, 70}, 1e-5);  // chunks of 32 keys
  on_the_cpu<float>({4, 4, true, 6, 9}, 8e-6);
}

TEST(cpu_attention_writes_only_the_gradients_that_are_wanted) {
  for (int wanted = 0; wanted < 64; ++wanted) on_the_cpu<float>({2, 3, true, 4, 13}, 8e-6, wanted);
}

TEST(every_pair_of_a_grid_is_in_one_round_and_no_image_twice_in_a_round) {
  for (const auto& [n_forget, n_retain] : {std::pair<int64_t, int64_t>{3, 3}, {2, 5}, {5, 2}, {1, 4}, {4, 1}, {0, 3}}) {
    check::Context what(n_forget, " x ", n_retain);
    Attention in{};
    in.images[0] = n_forget;
    in.images[1] = n_retain;
    in.grid = true;
    const GridRounds rounds(in);
    std::vector<int> seen(in.pairs());
    for (int64_t round = 0; round < rounds.rounds; ++round) {
      std::vector<int> forget(n_forget), retain(n_retain);
      for (int64_t i = 0; i < rounds.pairs; ++i) {
        const int64_t pair = rounds.pair(round, i);
        CHECK(pair >= 0 && pair < in.pairs());
        CHECK(++seen[pair] == 1);
        CHECK(++forget[in.image_of(0, pair)] == 1 && ++retain[in.image_of(1, pair)] == 1);
      }
    }
    for (int count : seen) CHECK(count == 1);
  }
}

TEST(emulated_attention_in_float64) {
  for (const Shape& shape : shapes) emulated<PlainMath<double>>(shape, 2e-14);
}
TEST(emulated_attention_in_float32) {
  for (const Shape& shape : shapes) emulated<PlainMath<float>>(shape, 8e-6);
}
TEST(emulated_attention_in_tf32) {
  for (const Shape& shape : shapes) emulated<Tf32Math>(shape, 3e-3);
}
TEST(emulated_attention_in_bfloat16) {
  for (const Shape& shape : shapes) emulated<HalfMath<BFloat16>>(shape, 1.5e-2);
}
TEST(emulated_attention_in_float16) {
  for (const Shape& shape : shapes) emulated<HalfMath<Half>>(shape, 2e-3);
}

TEST(emulated_attention_writes_only_the_gradients_that_are_wanted) {
  for (int wanted : {1, 2, 4, 8, 16, 32, 0b100100, 0b010001}) {
    emulated<HalfMath<BFloat16>>({2, 3, true, 16, 20}, 1.5e-2, wanted);
    emulated<PlainMath<float>>({2, 2, false, 70, 20}, 8e-6, wanted);
  }
}

TEST(tiles_fit_the_shared_memory_of_every_supported_gpu) {
  for (int64_t dim : {1, 16, 128, 4096}) {
    check::Context what("d ", dim);
    for (size_t bytes :
         {SharedTiles<PlainMath<double>>::bytes(dim, true), SharedTiles<PlainMath<float>>::bytes(dim, true),
          SharedTiles<Tf32Math>::bytes(dim, true), SharedTiles<HalfMath<Half>>::bytes(dim, true)}) {
      CHECK(bytes <= 99 * 1024);
    }
  }
}

TEST_MAIN
