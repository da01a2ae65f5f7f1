// Checks of the C++ tests. A failed check prints what was tested (the open Contexts) and goes on; main() counts.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace check {

inline std::vector<std::pair<const char*, void (*)()>>& tests() {
  static std::vector<std::pair<const char*, void (*)()>> all;
  return all;
}
inline std::vector<std::string>& contexts() {
  static std::vector<std::string> open;
  return open;
}
inline long& failures() {
  static long count = 0;
  return count;
}

struct Registration {
  Registration(const char* name, void (*test)()) { tests().push_back({name, test}); }
};

// Says what is being tested for as long as it lives: Context here("rows ", rows).
struct Context {
  template <class... Parts>
  explicit Context(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    contexts().push_back(text.str());
  }
  ~Context() { contexts().pop_back(); }
  Context(const Context&) = delete;
};

inline void fail(const char* file, int line, const std::string& message) {
  if (++failures() > 20) return;  // the first ones tell the story
  std::printf("%s:%d: %s\n", file, line, message.c_str());
  for (const std::string& context : contexts()) std::printf("    in %s\n", context.c_str());
}

// actual[i] within allowed(i) of expected[i], and NaN exactly where a NaN is expected. One message per array.
template <class Actual, class Expected, class Allowed>
void close(const char* file, int line, const char* what, size_t count, Actual actual, Expected expected,
           Allowed allowed) {
  size_t failed = 0, worst = 0;
  long double worst_ratio = -1;
  for (size_t i = 0; i < count; ++i) {
    const long double a = actual(i), e = expected(i), error = std::fabs(a - e), limit = allowed(i);
    const bool both_nan = std::isnan(a) && std::isnan(e);
    if (both_nan || a == e || error <= limit) continue;
    const long double ratio = std::isnan(error) ? INFINITY : error / limit;
    ++failed;
    if (ratio > worst_ratio) worst = i, worst_ratio = ratio;
  }
  if (failed == 0) return;
  char text[256];
  std::snprintf(text, sizeof text,
                "%s: worst at [%zu]: got %.17Lg, expected %.17Lg, allowed %.3Lg; %zu of %zu fail (%.1f %%)", what,
                worst, static_cast<long double>(actual(worst)), static_cast<long double>(expected(worst)),
                static_cast<long double>(allowed(worst)), failed, count, 100.0 * failed / count);
  fail(file, line, text);
}

inline int run(int argc, char** argv) {
  for (const auto& [name, test] : tests()) {
    if (argc > 1 && std::strstr(name, argv[1]) == nullptr) continue;
    const long before = failures();
    try {
      test();
    } catch (const std::exception& error) {
      fail(name, 0, std::string("threw: ") + error.what());
      contexts().clear();
    }
    std::printf("%-6s %s\n", failures() == before ? "ok" : "FAILED", name);
  }
  return failures() == 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                 \
  static void name();                                              \
  static const check::Registration registered_##name(#name, name); \
  static void name()
#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) check::fail(__FILE__, __LINE__, "expected " #condition); \
  } while (0)
#define CHECK_CLOSE(what, count, actual, expected, allowed) \
  check::close(__FILE__, __LINE__, what, count, actual, expected, allowed)
#define TEST_MAIN \
  int main(int argc, char** argv) { return check::run(argc, argv); }
