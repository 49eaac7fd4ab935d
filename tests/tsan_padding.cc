// For ThreadSanitizer only. Kernels of OpenVINO's CPU plugin read up to a vector beyond blocks that the plugin
// allocated itself (seen with guard pages behind its blocks, OpenVINO 2026.4.1). In an ordinary heap something
// always follows; ThreadSanitizer's ends at a page that is not there, and the program with it. So blocks of this
// kind are longer here.
#include <cstddef>

extern "C" int __interceptor_posix_memalign(void** block, size_t alignment, size_t size);

extern "C" int posix_memalign(void** block, size_t alignment, size_t size) {
  return __interceptor_posix_memalign(block, alignment, size + 64);
}
