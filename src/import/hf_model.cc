#include "import/hf_model.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <numbers>

namespace hetero {
namespace {

const std::map<std::string, std::string> kArchitectures = {{"LlamaForCausalLM", "llama"},
                                                           {"MistralForCausalLM", "llama"},
                                                           {"MixtralForCausalLM", "llama"},
                                                           {"Qwen2ForCausalLM", "qwen2"},
                                                           {"Qwen2MoeForCausalLM", "qwen2moe"},
                                                           {"Qwen3ForCausalLM", "qwen3"},
                                                           {"Qwen3MoeForCausalLM", "qwen3moe"},
                                                           {"GemmaForCausalLM", "gemma"},
                                                           {"Gemma2ForCausalLM", "gemma2"},
                                                           {"Gemma3ForCausalLM", "gemma3"},
                                                           {"Gemma3ForConditionalGeneration", "gemma3"},
                                                           {"Phi3ForCausalLM", "phi3"}};

/// Typed look-ups that name file and key.
class Config {
 public:
  Config(const std::string& path, const Json& json) : path_(path), json_(json) {}

  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  Result<int64_t> integer(const char* key, std::optional<int64_t> fallback = std::nullopt) const {
    if (!has(key) && fallback) {
      return *fallback;
    }
    if (!has(key) || !json_[key].is_number_integer() || json_[key].get<int64_t>() < 0 ||
        json_[key].get<int64_t>() > INT32_MAX) {
      return wrong(key, "an integer from 0 to 2^31");
    }
    return json_[key].get<int64_t>();
  }
  Result<double> number(const char* key, std::optional<double> fallback = std::nullopt) const {
    if (!has(key) && fallback) {
      return *fallback;
    }
    if (!has(key) || !json_[key].is_number()) {
      return wrong(key, "a number");
    }
    return json_[key].get<double>();
  }
  Status wrong(const char* key, const char* expected) const {
    return malformed(fmt::format(
        "{}: '{}' is {}, expected {}", path_, key,
        has(key) ? json_[key].dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60) : "missing",
        expected));
  }

 private:
  const std::string& path_;
  const Json& json_;
};

bool is_gemma(const HfModel& m) {
  return m.architecture.starts_with("gemma");
}

/// The rope_scaling object, by either of its names; null where there is none.
Json rope_of(const HfModel& m) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    Json rope = m.config.value(key, Json());
    if (rope.is_object() && rope.contains("full_attention")) {  // one for each kind of layer (Gemma 3)
      rope = rope["full_attention"];
    }
    if (rope.is_object()) {
      return rope;
    }
  }
  return {};
}

std::string rope_type(const Json& rope) {
  if (!rope.is_object()) {
    return "default";
  }
  const Json type = rope.contains("rope_type") ? rope["rope_type"] : rope.value("type", Json("default"));
  return type.is_string() ? (type == "su" ? "longrope" : type.get<std::string>()) : "?";
}

Result<double> rope_base(const HfModel& m, const std::string& path) {
  const Json rope = rope_of(m);
  if (rope.is_object() && rope.contains("rope_theta")) {
    return Config(path, rope).number("rope_theta");
  }
  return Config(path, m.config).number("rope_theta", m.architecture == "gemma3" ? 1e6 : 1e4);
}

int64_t rotary_dims(const HfModel& m) {
  const Json part = m.config.value("partial_rotary_factor", Json(1.0));
  return static_cast<int64_t>(static_cast<double>(m.head_dim) *
                              (part.is_number() ? part.get<double>() : 1.0));
}

Result<int64_t> original_context(const HfModel& m, const std::string& path, const Json& rope) {
  if (rope.is_object() && rope.contains("original_max_position_embeddings")) {
    return Config(path, rope).integer("original_max_position_embeddings");
  }
  return Config(path, m.config).integer("original_max_position_embeddings");
}

Status write_rope(const HfModel& m, const std::string& path, const std::string& prefix, GgufWriter& w) {
  HETERO_TRY(const double base, rope_base(m, path));
  w.set_float(prefix + "rope.freq_base", static_cast<float>(base));
  w.set_uint(prefix + "rope.dimension_count", static_cast<uint32_t>(rotary_dims(m)));
  const Json rope = rope_of(m);
  const std::string type = rope_type(rope);
  if (type == "default" || type == "llama3") {  // llama3: factors in a tensor
    return {};
  }
  if (type == "linear" || type == "yarn") {
    HETERO_TRY(const double factor, Config(path, rope).number("factor"));
    w.set_string(prefix + "rope.scaling.type", type);
    w.set_float(prefix + "rope.scaling.factor", static_cast<float>(factor));
    if (type == "yarn") {
      HETERO_TRY(const int64_t context, original_context(m, path, rope));
      w.set_uint(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(context));
    }
    return {};
  }
  if (type == "longrope" && m.architecture == "phi3") {
    HETERO_TRY(const int64_t original, original_context(m, path, rope));
    HETERO_TRY(const int64_t context, Config(path, m.config).integer("max_position_embeddings"));
    const double scale = static_cast<double>(context) / static_cast<double>(original);
    const double attention =
        scale <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(scale) / std::log(static_cast<double>(original)));
    w.set_uint(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(original));
    w.set_float(prefix + "rope.scaling.attn_factor", static_cast<float>(attention));
    return {};
  }
  return unsupported(
      fmt::format("{}: rope scaling '{}' of {}, expected linear, yarn, llama3, or longrope with phi3", path,
                  type, m.architecture));
}

/// Frequencies of Llama 3.1's rope, as divisors of the plain ones.
Result<std::vector<float>> llama3_factors(const HfModel& m, const std::string& path, const Json& rope) {
  const Config c(path, rope);
  HETERO_TRY(const double base, rope_base(m, path));
  HETERO_TRY(const double factor, c.number("factor"));
  HETERO_TRY(const double low, c.number("low_freq_factor"));
  HETERO_TRY(const double high, c.number("high_freq_factor"));
  HETERO_TRY(const double original, c.number("original_max_position_embeddings"));
  if (!(factor > 0 && low > 0 && high > low && original > 0)) {
    return malformed(path +
                     ": rope_scaling of type llama3 with factors that are not positive, or low above high");
  }
  const auto dims = rotary_dims(m);
  std::vector<float> factors;
  for (int64_t i = 0; i < dims / 2; ++i) {
    const double frequency = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
    const double length = 2.0 * std::numbers::pi / frequency;
    double divisor = factor;
    if (length < original / high) {
      divisor = 1.0;
    } else if (length <= original / low) {
      const double smooth = (original / length - low) / (high - low);
      divisor = 1.0 / ((1.0 - smooth) / factor + smooth);
    }
    factors.push_back(static_cast<float>(divisor));
  }
  return factors;
}

}  // namespace

Result<HfModel> read_hf_model(const std::string& path, const Json& config) {
  if (!config.is_object()) {
    return malformed(path + ": expected an object");
  }
  const Json names = config.value("architectures", Json());
  const std::string name =
      names.is_array() && !names.empty() && names[0].is_string() ? names[0].get<std::string>() : "";
  const auto known = kArchitectures.find(name);
  if (known == kArchitectures.end()) {
    std::string all;
    for (const auto& [hf, gguf] : kArchitectures) {
      all += (all.empty() ? "" : ", ") + hf;
    }
    return unsupported(fmt::format("{}: architecture '{}', expected one of {}", path, name, all));
  }
  HfModel m;
  m.architecture = known->second;
  m.config = config;
  if (config.contains("text_config") && config["text_config"].is_object()) {  // beside a vision model
    m.config = config["text_config"];
  }
  const Config c(path, m.config);
  HETERO_TRY(m.layers, c.integer("num_hidden_layers"));
  HETERO_TRY(m.width, c.integer("hidden_size"));
  HETERO_TRY(m.heads, c.integer("num_attention_heads",
                                m.architecture == "gemma3" ? std::optional<int64_t>(8) : std::nullopt));
  HETERO_TRY(m.kv_heads, c.integer("num_key_value_heads", m.architecture == "gemma3" ? 4 : m.heads));
  if (m.heads == 0 || m.kv_heads == 0 || m.heads % m.kv_heads != 0 || m.layers == 0 || m.layers > 100'000) {
    return malformed(fmt::format("{}: {} layers, {} heads, {} of them for keys and values", path, m.layers,
                                 m.heads, m.kv_heads));
  }
  HETERO_TRY(m.head_dim, c.integer("head_dim", is_gemma(m) ? 256 : m.width / m.heads));
  HETERO_TRY(m.vocabulary, c.integer("vocab_size", m.architecture == "gemma3" ? std::optional<int64_t>(262208)
                                                                              : std::nullopt));
  if (m.head_dim == 0 || m.head_dim % 2 != 0 || m.vocabulary == 0) {
    return malformed(fmt::format("{}: heads of {} elements, expected an even number; {} tokens", path,
                                 m.head_dim, m.vocabulary));
  }
  for (const char* key : {"num_local_experts", "num_experts"}) {
    if (c.has(key)) {
      HETERO_TRY(m.experts, c.integer(key));
    }
  }
  m.permuted_rotary = m.architecture == "llama";
  m.norms_minus_one = is_gemma(m);
  const Json tied = m.config.value("tie_word_embeddings", config.value("tie_word_embeddings", Json()));
  m.tied = tied.is_boolean() ? tied.get<bool>() : is_gemma(m);
  return m;
}

Status write_metadata(const HfModel& m, const std::string& path, GgufWriter& w) {
  const std::string p = m.architecture + ".";
  const Config c(path, m.config);
  const auto copy = [&](const char* key, const std::string& gguf,
                        std::optional<int64_t> fallback = std::nullopt) -> Status {
    HETERO_TRY(const int64_t value, c.integer(key, fallback));
    w.set_uint(p + gguf, static_cast<uint32_t>(value));
    return {};
  };
  w.set_uint(p + "block_count", static_cast<uint32_t>(m.layers));
  w.set_uint(p + "vocab_size", static_cast<uint32_t>(m.vocabulary));
  HETERO_RETURN_IF_ERROR(copy("max_position_embeddings", "context_length",
                              m.architecture == "gemma3" ? std::optional<int64_t>(131072) : std::nullopt));
  w.set_uint(p + "embedding_length", static_cast<uint32_t>(m.width));
  HETERO_RETURN_IF_ERROR(copy("intermediate_size", "feed_forward_length"));
  w.set_uint(p + "attention.head_count", static_cast<uint32_t>(m.heads));
  w.set_uint(p + "attention.head_count_kv", static_cast<uint32_t>(m.kv_heads));
  HETERO_TRY(const double epsilon, c.number("rms_norm_eps", 1e-6));
  w.set_float(p + "attention.layer_norm_rms_epsilon", static_cast<float>(epsilon));
  if (m.head_dim * m.heads != m.width || is_gemma(m) || m.architecture.starts_with("qwen3")) {
    w.set_uint(p + "attention.key_length", static_cast<uint32_t>(m.head_dim));
    w.set_uint(p + "attention.value_length", static_cast<uint32_t>(m.head_dim));
  }
  HETERO_RETURN_IF_ERROR(write_rope(m, path, p, w));
  if (m.experts > 0) {
    w.set_uint(p + "expert_count", static_cast<uint32_t>(m.experts));
    HETERO_RETURN_IF_ERROR(copy("num_experts_per_tok", "expert_used_count"));
    if (c.has("moe_intermediate_size")) {
      HETERO_RETURN_IF_ERROR(copy("moe_intermediate_size", "expert_feed_forward_length"));
    }
    if (c.has("shared_expert_intermediate_size")) {
      HETERO_RETURN_IF_ERROR(copy("shared_expert_intermediate_size", "expert_shared_feed_forward_length"));
    }
  }
  const bool windowed = m.architecture != "qwen2" && m.architecture != "qwen2moe" &&
                        m.architecture != "qwen3" &&
                        m.architecture != "qwen3moe";  // those carry the key without using it
  if (c.has("sliding_window") && windowed) {
    HETERO_RETURN_IF_ERROR(copy("sliding_window", "attention.sliding_window"));
  }
  if (m.architecture == "gemma2") {
    HETERO_TRY(const double attention, c.number("attn_logit_softcapping", 50.0));
    HETERO_TRY(const double logits, c.number("final_logit_softcapping", 30.0));
    w.set_float(p + "attn_logit_softcapping", static_cast<float>(attention));
    w.set_float(p + "final_logit_softcapping", static_cast<float>(logits));
  }
  return {};
}

std::optional<TensorRole> role_of(const HfModel& m, const std::string& full) {
  std::string name = full;
  for (const char* prefix : {"language_model.", "model.language_model."}) {  // beside a vision model
    if (name.starts_with(prefix)) {
      name = name.substr(std::string(prefix).size());
      name = name.starts_with("model.") || name.starts_with("lm_head.") ? name : "model." + name;
    }
  }
  if (name == "model.embed_tokens.weight") {
    return TensorRole{.name = "token_embd.weight"};
  }
  if (name == "lm_head.weight") {
    return TensorRole{.name = m.tied ? "" : "output.weight"};
  }
  if (name == "model.norm.weight") {
    return TensorRole{.name = "output_norm.weight", .add_one = m.norms_minus_one};
  }
  // Buffers of old files, and vision parts, which this engine does not run.
  if (name.ends_with("rotary_emb.inv_freq") || name.starts_with("vision_tower.") ||
      name.starts_with("multi_modal_projector.") || name.starts_with("model.vision_tower.") ||
      name.starts_with("model.multi_modal_projector.")) {
    return TensorRole{};
  }
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) {
    return std::nullopt;
  }
  const auto number = [](std::string& rest) -> std::optional<int64_t> {
    const size_t dot = rest.find('.');
    if (dot == 0 || dot == std::string::npos || dot > 6 || rest.find_first_not_of("0123456789") != dot) {
      return std::nullopt;
    }
    const int64_t n = std::stoll(rest.substr(0, dot));
    rest = rest.substr(dot + 1);
    return n;
  };
  std::string rest = name.substr(kLayers.size());
  const std::optional<int64_t> layer = number(rest);
  if (!layer || *layer >= m.layers) {
    return std::nullopt;
  }
  TensorRole role;
  const size_t dot = rest.rfind('.');
  const std::string suffix = dot == std::string::npos ? "" : rest.substr(dot);  // .weight or .bias
  std::string stem = rest.substr(0, dot);
  if (suffix != ".weight" && suffix != ".bias") {
    return std::nullopt;
  }
  for (const char* experts : {"block_sparse_moe.experts.", "mlp.experts."}) {
    if (m.experts > 0 && stem.starts_with(experts)) {
      std::string inside = stem.substr(std::string(experts).size());
      role.expert = number(inside);
      if (!role.expert || *role.expert >= m.experts) {
        return std::nullopt;
      }
      stem = std::string(experts) + inside;
    }
  }
  static const std::map<std::string, std::string> kCommon = {
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.qkv_proj", "attn_qkv"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate_up_proj", "ffn_up"},
      {"block_sparse_moe.gate", "ffn_gate_inp"},
      {"block_sparse_moe.experts.w1", "ffn_gate_exps"},
      {"block_sparse_moe.experts.w2", "ffn_down_exps"},
      {"block_sparse_moe.experts.w3", "ffn_up_exps"},
      {"mlp.gate", "ffn_gate_inp"},
      {"mlp.experts.gate_proj", "ffn_gate_exps"},
      {"mlp.experts.down_proj", "ffn_down_exps"},
      {"mlp.experts.up_proj", "ffn_up_exps"},
      {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
      {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
      {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
      {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
      {"pre_feedforward_layernorm", "ffn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
  };
  const auto found = kCommon.find(stem);
  std::string target = found == kCommon.end() ? "" : found->second;
  if (stem == "post_attention_layernorm") {  // Gemma 2 and 3 have a norm of this name behind attention
    target = m.architecture == "gemma2" || m.architecture == "gemma3" ? "post_attention_norm" : "ffn_norm";
  }
  if (target.empty()) {
    return std::nullopt;
  }
  role.name = fmt::format("blk.{}.{}{}", *layer, target, suffix);
  role.add_one = m.norms_minus_one && target.ends_with("norm");
  if (m.permuted_rotary && (target == "attn_q" || target == "attn_k")) {
    role.rotary_heads = target == "attn_q" ? m.heads : m.kv_heads;
  }
  return role;
}

Result<std::vector<MadeTensor>> made_tensors(const HfModel& m, const std::string& path) {
  std::vector<MadeTensor> made;
  const Json rope = rope_of(m);
  const std::string type = rope_type(rope);
  if (type == "llama3") {
    HETERO_TRY(std::vector<float> factors, llama3_factors(m, path, rope));
    made.push_back({"rope_freqs.weight", std::move(factors)});
  }
  if (type == "longrope") {
    for (const char* length : {"long", "short"}) {
      const Json list = rope.value(std::string(length) + "_factor", Json());
      MadeTensor t{fmt::format("rope_factors_{}.weight", length), {}};
      for (const Json& value : list.is_array() ? list : Json::array()) {
        if (!value.is_number()) {
          return malformed(fmt::format("{}: {}_factor holds something that is not a number", path, length));
        }
        t.values.push_back(value.get<float>());
      }
      if (static_cast<int64_t>(t.values.size()) != rotary_dims(m) / 2) {
        return malformed(fmt::format("{}: {}_factor has {} numbers, expected {}", path, length,
                                     t.values.size(), rotary_dims(m) / 2));
      }
      made.push_back(std::move(t));
    }
  }
  return made;
}

}  // namespace hetero
