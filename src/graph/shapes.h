// Models by name, without their weights: enough to plan for and to simulate, not to run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "gguf/dtype.h"
#include "graph/graph.h"

namespace hetero {

/// llama-3-8b, llama-2-7b, llama-3.2-3b, llama-3.2-1b, internlm-1.8b, qwen2.5-1.5b, smollm2-135m.
std::vector<std::string> shape_names();

/// The graph of a named shape with all matrices in `dtype`, built by build_graph() from a file
/// of zeros in memory that is never read. Weight::data is nullptr. An unknown name is an error that lists
/// the known ones. `context` and `kv_cache`: as for build_graph().
Result<Graph> graph_of_shape(const std::string& name, DType dtype = DType::kQ4_0, int64_t context = 0,
                             std::optional<DType> kv_cache = {});

}  // namespace hetero
