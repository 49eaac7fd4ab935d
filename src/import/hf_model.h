// config.json of a Hugging Face folder: which architecture it is, its GGUF metadata, and which GGUF
// tensor each of its tensors becomes. Keys and names are those of the GGUF specification; what the
// specification leaves open (permuted rotary weights, Gemma's norms) follows llama.cpp's files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json_file.h"
#include "base/status.h"
#include "gguf/writer.h"

namespace hetero {

struct HfModel {
  std::string architecture;  // in general.architecture
  Json config;               // of the text model
  int64_t layers = 0;
  int64_t width = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocabulary = 0;
  int64_t experts = 0;
  bool permuted_rotary = false;  // GGUF has neighbouring rotary pairs, Hugging Face halves
  bool norms_minus_one = false;  // stored norms are one less than what is multiplied
  bool tied = false;             // no output matrix of its own
};

/// Fails on architectures other than those of `hetero import --help`, naming key and value.
Result<HfModel> read_hf_model(const std::string& config_path, const Json& config);

/// Architecture keys ("llama.block_count", ...).
Status write_metadata(const HfModel& model, const std::string& config_path, GgufWriter& writer);

/// What becomes of one tensor.
struct TensorRole {
  std::string name;               // in the GGUF file; empty: left out on purpose
  std::optional<int64_t> expert;  // it is this one of a stack
  int64_t rotary_heads = 0;       // permute its rows as so many heads
  bool add_one = false;
};
/// Nothing for a name that the architecture does not have.
std::optional<TensorRole> role_of(const HfModel& model, const std::string& name);

/// Tensors that are computed from config.json: rope_freqs, rope_factors_long and _short.
struct MadeTensor {
  std::string name;
  std::vector<float> values;
};
Result<std::vector<MadeTensor>> made_tensors(const HfModel& model, const std::string& config_path);

}  // namespace hetero
