// From a model file to a graph. One file for each architecture family (llama.cc, ...) on top of
// the shared blocks of builder.h.
#pragma once

#include <optional>

#include "base/status.h"
#include "gguf/file.h"
#include "graph/graph.h"

namespace hetero {

/// Describes the model of `file`, which must outlive the graph: weights stay where the file has
/// them. Everything that the metadata says is checked against its own limits and against the
/// tensors' shapes; errors name file, key or tensor, what was expected and what was found.
/// `context`: tokens that sessions will hold; 0: the model's default. Some models rotate otherwise
/// in long contexts (longrope). `kv_cache`: F16 or Q8_0; nullopt: F16, or F32 for models in F32.
Result<Graph> build_graph(const GgufFile& file, int64_t context = 0, std::optional<DType> kv_cache = {});

/// Names of the architectures that build_graph() knows, as files have them.
std::vector<std::string> supported_architectures();

}  // namespace hetero
