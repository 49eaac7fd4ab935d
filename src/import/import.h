// A Hugging Face folder, written as one GGUF file.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "gguf/dtype.h"
#include "gguf/writer.h"

namespace hetero {

struct ImportOptions {
  std::optional<DType> type;  // of matrices; none: as they are. Others follow quantized_type()
  std::string pre;            // name of the pre-tokenizer; empty: found from tokenizer.json
  int threads = 1;
  GgufWriter::Progress progress;
};

struct ImportSummary {
  std::string architecture;
  int tensors = 0;
  int left_out = 0;  // vision parts and buffers
  Bytes bytes = 0;   // of tensor data
};

/// Reads config.json, *.safetensors, tokenizer.json, tokenizer_config.json, generation_config.json and
/// chat_template.jinja of `folder` and writes `out` through a temporary file. A tensor that the
/// architecture does not have, one that is missing in some layer, or a shape that does not fit
/// config.json is an error naming it.
Result<ImportSummary> import_folder(const std::string& folder, const std::string& out,
                                    const ImportOptions& options);

}  // namespace hetero
