#include "pymixunlearn/runtime.h"

#include "../cpu/isa.h"

namespace pymixunlearn {

void serial(int64_t count, int64_t, const Pieces& body) {
  if (count > 0) body(0, count);
}

const char* instruction_set() { return pmx::isa_name(pmx::chosen_isa()); }

}  // namespace pymixunlearn
