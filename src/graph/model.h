// From a model file to a graph. One file for each architecture family (llama.cc, ...) on top of
// the shared blocks of builder.h.
#pragma once

#include "graph/graph.h"

#include "base/status.h"
#include "gguf/file.h"

namespace hetero {

/// Describes the model of `file`, which must outlive the graph: weights stay where the file has
/// them. Everything that the metadata says is checked against its own limits and against the
/// tensors' shapes; errors name file, key or tensor, what was expected and what was found.
Result<Graph> build_graph(const GgufFile& file);

}  // namespace hetero
