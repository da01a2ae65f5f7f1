// Old name of <pymixunlearn/mask_mix.h>, removed in the next minor version.
#pragma once

#if defined(__GNUC__) && !defined(PYMIXUNLEARN_NO_DEPRECATION_WARNINGS)
#pragma GCC warning "<pymixunlearn/mixing.h> is now <pymixunlearn/mask_mix.h>; the old name goes in the next version"
#endif

#include "mask_mix.h"
