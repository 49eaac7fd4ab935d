#include "graph/model.h"

#include <fmt/format.h>

#include "graph/builder.h"

namespace hetero {
namespace {

struct Family {
  const char* architecture;
  void (*build)(GraphBuilder&);
};

constexpr Family kFamilies[] = {
    {"llama", build_llama},
};

}  // namespace

Result<Graph> build_graph(const GgufFile& file) {
  GraphBuilder builder(file);
  HETERO_TRY(const std::string architecture, file.get_string("general.architecture"));
  for (const Family& family : kFamilies) {
    if (architecture == family.architecture) {
      builder.read_shape();
      if (builder.ok()) {
        family.build(builder);
      }
      return std::move(builder).finish();
    }
  }
  std::string known;
  for (const Family& family : kFamilies) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", family.architecture);
  }
  return unsupported(fmt::format("{}: architecture \"{}\" is not supported (supported: {})", file.path(),
                                 architecture, known));
}

}  // namespace hetero
