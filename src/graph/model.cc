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
    {"llama", build_llama},  {"internlm2", build_llama}, {"qwen2", build_qwen},  {"qwen2moe", build_qwen},
    {"qwen3", build_qwen},   {"qwen3moe", build_qwen},   {"gemma", build_gemma}, {"gemma2", build_gemma},
    {"gemma3", build_gemma}, {"phi3", build_phi3},
};

}  // namespace

Result<Graph> build_graph(const GgufFile& file, int64_t context, std::optional<DType> kv_cache) {
  GraphBuilder builder(file, context, kv_cache);
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
  return unsupported(fmt::format("{}: architecture \"{}\" is not supported (supported: {})", file.path(),
                                 architecture, fmt::join(supported_architectures(), ", ")));
}

std::vector<std::string> supported_architectures() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.emplace_back(family.architecture);
  }
  return names;
}

}  // namespace hetero
