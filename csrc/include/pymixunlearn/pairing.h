// How forget and retain images make pairs.
#pragma once

namespace pymixunlearn {

// zip pairs forget image n with retain image n; grid pairs every forget image i with every retain image j, and the pair
// is row i * n_retain + j.
enum class Pairing : int { zip, grid };

}  // namespace pymixunlearn
