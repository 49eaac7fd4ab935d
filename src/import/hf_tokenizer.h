// tokenizer.json and tokenizer_config.json of a Hugging Face folder, as GGUF's tokenizer keys.
#pragma once

#include <cstdint>
#include <string>

#include "base/json_file.h"
#include "base/status.h"
#include "gguf/writer.h"

namespace hetero {

/// Reads the tokenizer files of `folder` and sets `tokenizer.*` of `writer`, chat templates included.
/// `vocabulary`: rows of the embedding; ids without a token get placeholders. `config`: config.json,
/// for ids that tokenizer_config.json does not name. `pre`: overrides the name found for the
/// pre-tokenizer (empty: find it). Byte-level BPE becomes model "gpt2"; BPE with byte fallback (what
/// SentencePiece models are converted to) becomes "llama", with scores that rank tokens as the merges
/// do. Other kinds, and pre-tokenizers that no name is known for, are errors.
Status import_tokenizer(const std::string& folder, const Json& config, int64_t vocabulary,
                        const std::string& pre, GgufWriter& writer);

/// The name in `tokenizer.ggml.pre` for a tokenizer.json's "pre_tokenizer"; an error that shows what
/// was found if none fits.
Result<std::string> pre_tokenizer_name(const Json& pre_tokenizer);

}  // namespace hetero
