// Neighbouring elements that a thread loads and stores in one go.
#pragma once

#include "../core/macros.h"

namespace pmx {

// `pack` neighbouring elements, loaded in one go.
template <class T, int pack>
struct alignas(sizeof(T) * pack < 16 ? sizeof(T) * pack : 16) Pack {
  T at[pack];
};

template <class T, int pack>
PMX_HD Pack<T, pack> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, pack>*>(from);
}

}  // namespace pmx
