#include "import/import.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "cases.h"
#include "gguf/dequantize.h"
#include "gguf/file.h"
#include "gguf/quantize.h"
#include "import/hf_model.h"
#include "import/hf_tokenizer.h"
#include "import/safetensors.h"

namespace hetero {
namespace {

struct Exported {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::string data;
};

std::string safetensors(const std::vector<Exported>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const Exported& t : tensors) {
    header[t.name] = {{"dtype", traits(t.dtype).name},
                      {"shape", t.shape},
                      {"data_offsets", {data.size(), data.size() + t.data.size()}}};
    data += t.data;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + text + data;
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "import_" + std::to_string(getpid());
    std::filesystem::create_directory(path_);
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  void put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }
  void put(const std::string& name, const Json& json) const {
    put(name, json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  std::string out() const { return path_ + "/out.gguf"; }
  std::string import_error(const ImportOptions& options = {}) const {
    const auto result = import_folder(path_, out(), options);
    return result.ok() ? "imported" : result.status().message();
  }

  /// A tokenizer.json with byte tokens and some merges, `size` tokens at most.
  static Json spm_tokenizer() {
    Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
    for (int byte = 0; byte < 256; ++byte) {
      vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
    }
    for (const char* token : {"\u2581", "a", "b", "ab", "\u2581a"}) {
      vocab[token] = vocab.size();
    }
    return {{"added_tokens",
             {{{"id", 0}, {"content", "<unk>"}, {"special", true}},
              {{"id", 1}, {"content", "<s>"}, {"special", true}},
              {{"id", 2}, {"content", "</s>"}, {"special", true}}}},
            {"normalizer",
             {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}}}}},
            {"model",
             {{"type", "BPE"},
              {"unk_token", "<unk>"},
              {"byte_fallback", true},
              {"vocab", vocab},
              {"merges", {"a b", "\u2581 a"}}}}};
  }

  std::string path_;
};

// --- Models there and back -----------------------------------------------------------------------

/// A model of the shared cases, exported as Hugging Face has it: the inverse of the import, written
/// apart from it.
class TinyModels : public Folder, public testing::WithParamInterface<const char*> {
 protected:
  void export_model(const GgufFile& f) {
    const std::string arch = f.get_string("general.architecture").value();
    const auto number = [&](const std::string& key) { return f.get_int(arch + "." + key).value(); };
    const auto real = [&](const std::string& key) { return f.get_float(arch + "." + key).value(); };
    const auto has = [&](const std::string& key) { return f.find(arch + "." + key) != nullptr; };
    const int64_t heads = number("attention.head_count");
    const int64_t kv_heads = number("attention.head_count_kv");
    const bool moe = has("expert_count");
    const bool mixtral = arch == "llama" && moe;
    const std::map<std::string, std::string> class_names = {
        {"llama", mixtral ? "MixtralForCausalLM" : "LlamaForCausalLM"},
        {"qwen2", "Qwen2ForCausalLM"},
        {"qwen2moe", "Qwen2MoeForCausalLM"},
        {"qwen3", "Qwen3ForCausalLM"},
        {"qwen3moe", "Qwen3MoeForCausalLM"},
        {"gemma2", "Gemma2ForCausalLM"},
        {"gemma3", "Gemma3ForCausalLM"},
        {"phi3", "Phi3ForCausalLM"}};
    Json config = {{"architectures", {class_names.at(arch)}},
                   {"num_hidden_layers", number("block_count")},
                   {"hidden_size", number("embedding_length")},
                   {"intermediate_size", number("feed_forward_length")},
                   {"num_attention_heads", heads},
                   {"num_key_value_heads", kv_heads},
                   {"vocab_size", f.find_tensor("token_embd.weight")->rows()},
                   {"max_position_embeddings", number("context_length")},
                   {"rms_norm_eps", real("attention.layer_norm_rms_epsilon")},
                   {"rope_theta", real("rope.freq_base")},
                   {"tie_word_embeddings", f.find_tensor("output.weight") == nullptr},
                   {"bos_token_id", 1},
                   {"eos_token_id", {2, 1}}};
    const std::pair<const char*, const char*> same[] = {
        {"attention.key_length", "head_dim"},
        {"attention.sliding_window", "sliding_window"},
        {"expert_used_count", "num_experts_per_tok"},
        {"expert_feed_forward_length", "moe_intermediate_size"},
        {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"}};
    for (const auto& [gguf, hf] : same) {
      if (has(gguf)) {
        config[hf] = number(gguf);
      }
    }
    if (moe) {
      config[mixtral ? "num_local_experts" : "num_experts"] = number("expert_count");
    }
    if (arch == "gemma2") {
      config["attn_logit_softcapping"] = real("attn_logit_softcapping");
      config["final_logit_softcapping"] = real("final_logit_softcapping");
    }
    if (has("rope.scaling.type")) {
      config["rope_scaling"] = {{"rope_type", f.get_string(arch + ".rope.scaling.type").value()},
                                {"factor", real("rope.scaling.factor")}};
    }
    const auto floats = [&](const char* name) {
      const Tensor* t = f.find_tensor(name);
      std::vector<float> values(static_cast<size_t>(t->cols()));
      std::memcpy(values.data(), t->data, values.size() * 4);
      return values;
    };
    if (f.find_tensor("rope_factors_long.weight") != nullptr) {
      config["rope_scaling"] = {{"type", "longrope"},
                                {"long_factor", floats("rope_factors_long.weight")},
                                {"short_factor", floats("rope_factors_short.weight")}};
      config["original_max_position_embeddings"] = number("rope.scaling.original_context_length");
    }
    if (f.find_tensor("rope_freqs.weight") != nullptr) {
      config["rope_scaling"] = llama3_;
    }
    put("config.json", config);
    put("tokenizer.json", spm_tokenizer());

    std::vector<Exported> tensors;
    for (const Tensor& t : f.tensors()) {
      if (t.name.rfind("rope_", 0) != 0) {
        export_tensor(t, arch, heads, kv_heads, moe, mixtral, tensors);
      }
    }
    // Two shards and an index.
    Json map;
    const size_t half = tensors.size() / 2;
    for (size_t i = 0; i < tensors.size(); ++i) {
      map[tensors[i].name] = i < half ? "model-1.safetensors" : "model-2.safetensors";
    }
    put("model.safetensors.index.json", {{"weight_map", map}});
    put("model-1.safetensors", safetensors({tensors.begin(), tensors.begin() + static_cast<int64_t>(half)}));
    put("model-2.safetensors", safetensors({tensors.begin() + static_cast<int64_t>(half), tensors.end()}));
  }

  static void export_tensor(const Tensor& t, const std::string& arch, int64_t heads, int64_t kv_heads,
                            bool moe, bool mixtral, std::vector<Exported>& out) {
    std::string data(reinterpret_cast<const char*>(t.data), static_cast<size_t>(t.bytes));
    std::vector<int64_t> shape(t.dims.rbegin(), t.dims.rend());
    const size_t row = data.size() / static_cast<size_t>(t.rows());
    const bool gemma = arch.rfind("gemma", 0) == 0;
    if (gemma && t.name.find("norm") != std::string::npos) {
      for (size_t i = 0; i < data.size(); i += 4) {
        float x;
        std::memcpy(&x, &data[i], 4);
        x -= 1.0f;
        std::memcpy(&data[i], &x, 4);
      }
    }
    if (t.name == "token_embd.weight" || t.name == "output.weight" || t.name == "output_norm.weight") {
      const std::map<std::string, std::string> names = {{"token_embd.weight", "model.embed_tokens.weight"},
                                                        {"output.weight", "lm_head.weight"},
                                                        {"output_norm.weight", "model.norm.weight"}};
      out.push_back({names.at(t.name), t.dtype, shape, data});
      return;
    }
    const size_t dot = t.name.find('.', 4);
    const size_t last = t.name.rfind('.');
    const std::string prefix = "model.layers." + t.name.substr(4, dot - 4) + ".";
    const std::string part = t.name.substr(dot + 1, last - dot - 1);
    const std::string suffix = t.name.substr(last);
    if (arch == "llama" && (part == "attn_q" || part == "attn_k")) {  // neighbours become halves
      const int64_t count = part == "attn_q" ? heads : kv_heads;
      const int64_t head = shape[0] / count;
      const size_t bytes = data.size() / static_cast<size_t>(shape[0]);
      std::string permuted(data.size(), '\0');
      for (int64_t h = 0; h < count; ++h) {
        for (int64_t pair = 0; pair < head / 2; ++pair) {
          for (int64_t second = 0; second < 2; ++second) {
            std::memcpy(&permuted[static_cast<size_t>(h * head + second * head / 2 + pair) * bytes],
                        &data[static_cast<size_t>(h * head + 2 * pair + second) * bytes], bytes);
          }
        }
      }
      data = permuted;
    }
    if (part.size() > 5 && part.substr(part.size() - 5) == "_exps") {
      const std::map<std::string, std::string> names = {{"ffn_gate_exps", mixtral ? "w1" : "gate_proj"},
                                                        {"ffn_down_exps", mixtral ? "w2" : "down_proj"},
                                                        {"ffn_up_exps", mixtral ? "w3" : "up_proj"}};
      const size_t bytes = row * static_cast<size_t>(shape[1]);
      for (int64_t e = 0; e < shape[0]; ++e) {
        out.push_back({fmt::format("{}{}.experts.{}.{}.weight", prefix, mixtral ? "block_sparse_moe" : "mlp",
                                   e, names.at(part)),
                       t.dtype,
                       {shape[1], shape[2]},
                       data.substr(static_cast<size_t>(e) * bytes, bytes)});
      }
      return;
    }
    if (part == "ffn_gate_inp_shexp" && shape.size() == 1) {
      shape.insert(shape.begin(), 1);
    }
    const bool post_norms = arch == "gemma2" || arch == "gemma3";
    const std::map<std::string, std::string> names = {
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm"},
        {"post_attention_norm", "post_attention_layernorm"},
        {"post_ffw_norm", "post_feedforward_layernorm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_qkv", "self_attn.qkv_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", arch == "phi3" ? "mlp.gate_up_proj" : "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
        {"ffn_gate_inp", mixtral ? "block_sparse_moe.gate" : "mlp.gate"},
        {"ffn_gate_shexp", "mlp.shared_expert.gate_proj"},
        {"ffn_up_shexp", "mlp.shared_expert.up_proj"},
        {"ffn_down_shexp", "mlp.shared_expert.down_proj"},
        {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"}};
    ASSERT_TRUE(names.count(part)) << t.name;
    EXPECT_EQ(moe, part.find("gate_inp") != std::string::npos || moe);
    out.push_back({prefix + names.at(part) + suffix, t.dtype, shape, data});
  }

  // What the cases' llama3 factors were made with is not in the file; these are Llama 3.2's, and the
  // factors are compared with the formula of its documentation instead.
  const Json llama3_ = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
};

TEST_P(TinyModels, ComeBackAsTheyWere) {
  HETERO_NEED_CASES("tiny");
  const auto original = GgufFile::open(cases_dir() + "/tiny/" + GetParam() + ".gguf");
  ASSERT_TRUE(original.ok()) << original.status().message();
  export_model(**original);
  ImportOptions options;
  options.threads = 2;
  const auto summary = import_folder(path_, out(), options);
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  const auto imported = GgufFile::open(out());
  ASSERT_TRUE(imported.ok()) << imported.status().message();

  const std::string arch = (*original)->get_string("general.architecture").value();
  EXPECT_EQ((*imported)->tensors().size(), (*original)->tensors().size());
  for (const Tensor& t : (*original)->tensors()) {
    const Tensor* found = (*imported)->find_tensor(t.name);
    ASSERT_NE(found, nullptr) << t.name;
    EXPECT_EQ(found->dims, t.dims) << t.name;
    ASSERT_EQ(found->dtype, t.dtype) << t.name;
    if (t.name == "rope_freqs.weight") {
      continue;
    }
    if (arch.rfind("gemma", 0) == 0 && t.name.find("norm") != std::string::npos) {
      std::vector<float> a(static_cast<size_t>(t.cols())), b(a.size());
      std::memcpy(a.data(), t.data, a.size() * 4);
      std::memcpy(b.data(), found->data, b.size() * 4);
      for (size_t i = 0; i < a.size(); ++i) {
        EXPECT_NEAR(a[i], b[i], 1.2e-7f) << t.name;  // minus one and plus one, rounded to f32 each
      }
      continue;
    }
    EXPECT_EQ(std::memcmp(found->data, t.data, static_cast<size_t>(t.bytes)), 0) << t.name;
  }
  // Every key of the architecture comes back with its value.
  for (const auto& [key, value] : (*original)->metadata()) {
    if (key.rfind(arch + ".", 0) != 0) {
      continue;
    }
    const MetaValue* found = (*imported)->find(key);
    ASSERT_NE(found, nullptr) << key;
    if (const auto* real = std::get_if<double>(&value)) {
      EXPECT_NEAR(std::get<double>(*found), *real, std::abs(*real) * 1e-6) << key;
    } else {
      EXPECT_EQ(*found == value, true) << key;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, TinyModels,
                         testing::Values("llama-gqa-untied-f32", "llama-tied-f16", "llama-rope-llama3-f32",
                                         "mistral-headdim-f16", "mixtral-4x-top2-f32", "qllama-bf16",
                                         "qwen2-bias-untied-f32", "qwen2moe-4x-top2-shared-f32",
                                         "qwen3-qknorm-tied-f32", "gemma2-softcap-swa16-f32",
                                         "gemma3-swa12-linear8-f32", "phi3-longrope-short-f32"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// --- A small model made here ---------------------------------------------------------------------

class SmallModel : public Folder {
 protected:
  void SetUp() override {
    Folder::SetUp();
    config_ = {{"architectures", {"LlamaForCausalLM"}},
               {"num_hidden_layers", 2},
               {"hidden_size", 32},
               {"intermediate_size", 64},
               {"num_attention_heads", 2},
               {"vocab_size", 270},
               {"max_position_embeddings", 128},
               {"rms_norm_eps", 1e-5}};
    add("model.embed_tokens.weight", {270, 32});
    for (int layer = 0; layer < 2; ++layer) {
      const std::string p = fmt::format("model.layers.{}.", layer);
      for (const char* name :
           {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}) {
        add(p + name + ".weight", {32, 32});
      }
      add(p + "mlp.gate_proj.weight", {64, 32});
      add(p + "mlp.up_proj.weight", {64, 32});
      add(p + "mlp.down_proj.weight", {32, 64});
      add(p + "input_layernorm.weight", {32});
      add(p + "post_attention_layernorm.weight", {32});
    }
    add("model.norm.weight", {32});
    tokenizer_ = spm_tokenizer();
  }
  void add(const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) {
      count *= size;
    }
    std::string data(static_cast<size_t>(count) * 4, '\0');
    for (size_t i = 0; i < data.size(); i += 4) {
      const float x = std::sin(static_cast<float>(i + name.size())) * 0.1f;
      std::memcpy(&data[i], &x, 4);
    }
    tensors_.push_back({name, DType::kF32, std::move(shape), std::move(data)});
  }
  void save() const {
    put("config.json", config_);
    put("tokenizer.json", tokenizer_);
    put("model.safetensors", safetensors(tensors_));
  }
  std::string error() const {
    save();
    return import_error();
  }

  Json config_;
  Json tokenizer_;
  std::vector<Exported> tensors_;
};

TEST_F(SmallModel, TokenizerAndIdsAreInTheFile) {
  put("tokenizer_config.json",
      {{"bos_token", {{"content", "<s>"}}}, {"eos_token", "</s>"}, {"chat_template", "{{ 1 }}"}});
  save();
  ASSERT_EQ(import_error(), "imported");
  const auto file = GgufFile::open(out());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->get_string("tokenizer.ggml.model").value(), "llama");
  EXPECT_EQ((*file)->get_int("tokenizer.ggml.bos_token_id").value(), 1);
  EXPECT_EQ((*file)->get_int("tokenizer.ggml.eos_token_id").value(), 2);
  EXPECT_EQ((*file)->get_int("tokenizer.ggml.unknown_token_id").value(), 0);
  EXPECT_TRUE((*file)->get_bool_or("tokenizer.ggml.add_space_prefix", false).value());
  EXPECT_EQ((*file)->get_string("tokenizer.chat_template").value(), "{{ 1 }}");
  const MetaArray* tokens = (*file)->get_array("tokenizer.ggml.tokens").value();
  ASSERT_EQ(tokens->size, 270u);
  EXPECT_EQ(tokens->strings[262], "ab");
  EXPECT_EQ(tokens->strings[269], "[PAD269]");
  const MetaArray* types = (*file)->get_array("tokenizer.ggml.token_type").value();
  EXPECT_EQ(types->signeds[0], 2);
  EXPECT_EQ(types->signeds[1], 3);
  EXPECT_EQ(types->signeds[3], 6);
  EXPECT_EQ(types->signeds[262], 1);
  EXPECT_EQ(types->signeds[269], 5);
  const MetaArray* scores = (*file)->get_array("tokenizer.ggml.scores").value();
  EXPECT_GT(scores->floats[262], scores->floats[263]);  // "a b" was merged before "_ a"
  put("chat_template.jinja", std::string("{{ 2 }}"));
  ASSERT_EQ(import_error(), "imported");
  EXPECT_EQ((*GgufFile::open(out()))->get_string("tokenizer.chat_template").value(), "{{ 2 }}");
}

TEST_F(SmallModel, BiasesOfRotatedHeadsMoveAsTheirMatricesDo) {
  config_["attention_bias"] = true;
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      add(layer + "self_attn." + name + ".bias", {32});
    }
  }
  save();
  ASSERT_EQ(import_error(), "imported");
  const auto file = GgufFile::open(out());
  ASSERT_TRUE(file.ok());
  const auto element = [&](const char* name, int i) {
    float x = 0;
    std::memcpy(&x, (*file)->find_tensor(name)->data + 4 * i, 4);
    return x;
  };
  // As add() fills them. Two heads of 16: element 1 was 8, the partner of 0; element 18 was the second
  // head's 1.
  const auto was = [](const char* name, int i) {
    return std::sin(static_cast<float>(4 * static_cast<size_t>(i) + std::string(name).size())) * 0.1f;
  };
  EXPECT_EQ(element("blk.1.attn_q.bias", 1), was("model.layers.1.self_attn.q_proj.bias", 8));
  EXPECT_EQ(element("blk.1.attn_k.bias", 18), was("model.layers.1.self_attn.k_proj.bias", 17));
  EXPECT_EQ(element("blk.1.attn_v.bias", 1), was("model.layers.1.self_attn.v_proj.bias", 1));
}

TEST_F(SmallModel, MatricesTakeTheTypeThatIsAskedFor) {
  save();
  ImportOptions options;
  options.type = DType::kQ8_0;
  ASSERT_EQ(import_error(options), "imported");
  const auto file = GgufFile::open(out());
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->find_tensor("blk.1.ffn_up.weight")->dtype, DType::kQ8_0);
  EXPECT_EQ((*file)->find_tensor("blk.1.ffn_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ((*file)->get_int("general.file_type").value(), 7);
}

TEST_F(SmallModel, Llama3RopeFactorsFollowTheirFormula) {
  config_["rope_theta"] = 500000.0;
  config_["rope_scaling"] = {{"rope_type", "llama3"},
                             {"factor", 8.0},
                             {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0},
                             {"original_max_position_embeddings", 8192}};
  save();
  ASSERT_EQ(import_error(), "imported");
  const auto file = GgufFile::open(out());
  ASSERT_TRUE(file.ok());
  const Tensor* t = (*file)->find_tensor("rope_freqs.weight");
  ASSERT_NE(t, nullptr);
  ASSERT_EQ(t->cols(), 8);
  std::vector<float> factors(8);
  std::memcpy(factors.data(), t->data, 32);
  EXPECT_EQ(factors[0], 1.0f);  // short waves stay
  EXPECT_EQ(factors[7], 8.0f);  // the longest, 2 pi 500000^(14/16), is above 8192
  // 2 pi 500000^(10/16) is 22909 > 8192; 2 pi 500000^(8/16) is 4443, between 2048 and 8192:
  EXPECT_EQ(factors[5], 8.0f);
  const double smooth = (8192.0 / 4442.8829381583661 - 1.0) / 3.0;
  EXPECT_NEAR(factors[4], 1.0 / ((1.0 - smooth) / 8.0 + smooth), 1e-5);
}

TEST_F(SmallModel, WhatDoesNotFitIsNamed) {
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  const std::vector<Exported> good = tensors_;
  add("model.layers.0.self_attn.sinks.weight", {32});
  contains(error(), "self_attn.sinks.weight is not part of llama");
  tensors_ = good;
  add("model.layers.2.input_layernorm.weight", {32});
  contains(error(), "model.layers.2.input_layernorm.weight is not part of llama with 2 layers");
  tensors_ = good;
  std::erase_if(tensors_, [](const Exported& t) { return t.name == "model.layers.1.mlp.up_proj.weight"; });
  contains(error(), "blk.1.ffn_up.weight is missing; other layers have it");
  tensors_ = good;
  std::erase_if(tensors_, [](const Exported& t) { return t.name == "model.norm.weight"; });
  contains(error(), "output_norm.weight is missing");
  tensors_ = good;
  config_["vocab_size"] = 271;
  contains(error(), "model.embed_tokens.weight has another shape than config.json's [271, 32]");
  config_["vocab_size"] = 100;
  contains(error(), "model.embed_tokens.weight has another shape");
  config_["vocab_size"] = 270;
  config_["architectures"] = {"MambaForCausalLM"};
  contains(error(), "architecture 'MambaForCausalLM', expected one of");
  config_["architectures"] = {"LlamaForCausalLM"};
  config_["hidden_size"] = "wide";
  contains(error(), "'hidden_size' is \"wide\", expected an integer");
  config_["hidden_size"] = 32;
  config_["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2}};
  contains(error(), "rope scaling 'dynamic' of llama");
  config_.erase("rope_scaling");
  tokenizer_["model"]["vocab"]["ab"] = 5000;
  contains(error(), "token 'ab' has id 5000, expected 0 to 269");
  tokenizer_["model"]["vocab"]["ab"] = 1;
  contains(error(), "have the same id 1");
  tokenizer_ = spm_tokenizer();
  tokenizer_["model"]["merges"] = {7};
  contains(error(), "merge 0 is 7");
  tokenizer_["model"]["type"] = "Unigram";
  contains(error(), "a tokenizer of type 'Unigram'");
  tokenizer_ = Json::array();
  contains(error(), "tokenizer.json: expected an object");
  std::filesystem::remove(path_ + "/tokenizer.json");
  contains(import_error(), "tokenizer.json: cannot be opened");
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(SmallModel, HostileSafetensorsAreRefusedWithoutACrash) {
  const auto error_for = [&](const std::string& header, size_t data, uint64_t size = 0) {
    size = size == 0 ? header.size() : size;
    put("model.safetensors",
        std::string(reinterpret_cast<const char*>(&size), 8) + header + std::string(data, 'x'));
    const auto opened = SafetensorsFolder::open(path_);
    return opened.ok() ? "opened" : opened.status().message();
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  EXPECT_EQ(error_for(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 8), "opened");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 7),
           "data at 0 to 8");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", 8),
           "its shape needs 12 bytes");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}})", 8),
           "data at 8 to 0");
  contains(
      error_for(R"({"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}})", 8),
      "too large");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})", 8),
           "zero or too large");
  contains(error_for(R"({"a": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}})", 8), "type 'I8'");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                         "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}})",
                     8),
           "overlap");
  contains(error_for(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                         "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
                     8),
           "appears twice");
  contains(error_for(R"({"a": 1})", 8), "expected dtype");
  contains(error_for("[]", 0), "not an object");
  contains(error_for("{", 0), "not JSON");
  contains(error_for("{}", 0, uint64_t{1} << 63), "not a safetensors file");
  put("model.safetensors", std::string("abc"));
  contains(SafetensorsFolder::open(path_).status().message(), "not a safetensors file");

  const std::string whole = safetensors(tensors_);
  std::mt19937_64 random(9);
  for (int round = 0; round < 500; ++round) {
    std::string bytes = whole.substr(0, 3000);
    for (size_t flips = 1 + random() % 3; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    put("model.safetensors", bytes);
    EXPECT_FALSE(SafetensorsFolder::open(path_).ok());  // it is cut off in any case
  }
}

TEST_F(SmallModel, AnIndexThatDisagreesWithTheShardsIsRefused) {
  put("config.json", config_);
  put("tokenizer.json", tokenizer_);
  put("a.safetensors", safetensors(tensors_));
  const auto error_for = [&](const Json& map) {
    put("model.safetensors.index.json", {{"weight_map", map}});
    return import_error();
  };
  EXPECT_NE(error_for({{"nothing", "a.safetensors"}}).find("tensor nothing should be in"), std::string::npos);
  EXPECT_NE(error_for({{"x", "../a.safetensors"}}).find("a file in the same folder"), std::string::npos);
  EXPECT_NE(error_for({{"x", "b.safetensors"}}).find("b.safetensors: cannot open"), std::string::npos);
}

// --- Pre-tokenizers ------------------------------------------------------------------------------

TEST(PreTokenizerName, IsFoundFromThePatterns) {
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto split = [&](const std::string& regex) {
    return Json{{"type", "Sequence"},
                {"pretokenizers", Json::array({{{"type", "Split"},
                                                {"pattern", {{"Regex", regex}}},
                                                {"behavior", "Isolated"},
                                                {"invert", false}},
                                               bytes})}};
  };
  EXPECT_EQ(pre_tokenizer_name({{"type", "ByteLevel"}, {"add_prefix_space", false}}).value(), "gpt-2");
  EXPECT_EQ(
      pre_tokenizer_name({{"type", "Sequence"},
                          {"pretokenizers", Json::array({{{"type", "Digits"}, {"individual_digits", true}},
                                                         {{"type", "ByteLevel"}, {"use_regex", true}}})}})
          .value(),
      "smollm");
  EXPECT_EQ(
      pre_tokenizer_name(
          split(
              R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"))
          .value(),
      "llama-bpe");
  EXPECT_EQ(
      pre_tokenizer_name(
          split(
              R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"))
          .value(),
      "qwen2");
  const auto unknown = pre_tokenizer_name(split("[a-z]+"));
  EXPECT_NE(unknown.status().message().find("split [a-z]+ + bytes"), std::string::npos)
      << unknown.status().message();
  EXPECT_FALSE(pre_tokenizer_name(Json(nullptr)).ok());
  EXPECT_FALSE(pre_tokenizer_name({{"type", 7}}).ok());
}

}  // namespace
}  // namespace hetero
