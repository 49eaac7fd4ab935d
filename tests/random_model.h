// Model files of every family with random weights, small enough to write and run in milliseconds.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gguf/file.h"
#include "gguf/random_blocks.h"
#include "gguf/writer.h"

namespace hetero {

/// Settings of a file. Sizes are by default multiples of the 256 that blocks of some types hold.
struct RandomModel {
  std::string architecture = "llama";
  DType dtype = DType::kF32;  // of the matrices
  int layers = 2;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 64;
  int width = 256;
  int ffn = 256;
  int vocabulary = 64;
  int context = 256;
  bool tied = false;
  bool biases = false;  // of every matrix but the embeddings
  int experts = 0;
  int experts_used = 0;
  /// Further keys, without "<architecture>.".
  std::map<std::string, uint32_t> numbers;
  std::map<std::string, float> reals;
  std::map<std::string, std::string> strings;
  /// Further vectors, by tensor name.
  std::map<std::string, std::vector<float>> vectors;

  bool is(const std::string& prefix) const { return architecture.starts_with(prefix); }

  /// Writes the file and opens it. Elements are about 1 in size, and norms' weights about
  /// width^-1/2, so that scores, routes and logits are about 1, too.
  std::shared_ptr<const GgufFile> file() const {
    GgufWriter w;
    w.set_string("general.architecture", architecture);
    std::map<std::string, uint32_t> all = {
        {"block_count", layers},     {"embedding_length", width},     {"feed_forward_length", ffn},
        {"context_length", context}, {"attention.head_count", heads}, {"attention.head_count_kv", kv_heads}};
    if (head_dim * heads != width) {
      all["attention.key_length"] = all["attention.value_length"] = static_cast<uint32_t>(head_dim);
    }
    if (experts > 0) {
      all["expert_count"] = static_cast<uint32_t>(experts);
      all["expert_used_count"] = static_cast<uint32_t>(experts_used);
    }
    if (is("qwen") && experts > 0) {
      all["expert_feed_forward_length"] = static_cast<uint32_t>(ffn);
    }
    for (const auto& [key, value] : numbers) {
      all[key] = value;
    }
    for (const auto& [key, value] : all) {
      w.set_uint(architecture + "." + key, value);
    }
    w.set_float(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
    for (const auto& [key, value] : reals) {
      w.set_float(architecture + "." + key, value);
    }
    for (const auto& [key, value] : strings) {
      w.set_string(architecture + "." + key, value);
    }
    uint32_t seed = 1;
    const auto add_vector = [&](const std::string& name, const std::vector<float>& values) {
      const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
      w.add_tensor(name, DType::kF32, {static_cast<int64_t>(values.size())},
                   {bytes, bytes + values.size() * sizeof(float)});
    };
    const auto random_vector = [&](const std::string& name, int size, float mean, float spread) {
      std::mt19937 random(++seed);
      std::vector<float> values(static_cast<size_t>(size));
      for (float& v : values) {
        v = mean + spread * (static_cast<float>(random()) * 0x1p-31f - 1.0f);
      }
      add_vector(name, values);
    };
    const auto matrix = [&](const std::string& name, DType type, int rows, int cols, int stack = 0) {
      const int64_t count = int64_t{rows} * cols * std::max(stack, 1);
      std::vector<int64_t> dims = {cols, rows};
      if (stack > 0) {
        dims.push_back(stack);
      }
      w.add_tensor(name + ".weight", type, dims, random_blocks(type, count, ++seed));
      if (biases && name != "token_embd" && stack == 0 && name.find("gate_inp") == std::string::npos) {
        random_vector(name + ".bias", rows, 0.0f, 1.0f);
      }
    };
    const float small = 1.0f / std::sqrt(static_cast<float>(width));
    const auto norm = [&](const std::string& name, int size, float mean) {
      random_vector(name + ".weight", size, mean, 0.3f * mean);
    };
    matrix("token_embd", dtype, vocabulary, width);
    norm("output_norm", width, small);
    if (!tied && !is("gemma")) {
      matrix("output", dtype, vocabulary, width);
    }
    const int q = heads * head_dim;
    const int kv = kv_heads * head_dim;
    for (int i = 0; i < layers; ++i) {
      const std::string blk = "blk." + std::to_string(i) + ".";
      norm(blk + "attn_norm", width, small);
      norm(blk + "ffn_norm", width, small);
      if (is("gemma2") || is("gemma3")) {
        norm(blk + "post_attention_norm", width, 1.0f);
        norm(blk + "post_ffw_norm", width, 1.0f);
      }
      if (is("gemma3") || is("qwen3")) {
        norm(blk + "attn_q_norm", head_dim, 1.0f);
        norm(blk + "attn_k_norm", head_dim, 1.0f);
      }
      if (is("phi3")) {
        matrix(blk + "attn_qkv", dtype, q + 2 * kv, width);
      } else {
        matrix(blk + "attn_q", dtype, q, width);
        matrix(blk + "attn_k", dtype, kv, width);
        matrix(blk + "attn_v", dtype, kv, width);
      }
      matrix(blk + "attn_output", dtype, width, q);
      if (experts > 0) {
        matrix(blk + "ffn_gate_inp", DType::kF32, experts, width);
        matrix(blk + "ffn_gate_exps", dtype, ffn, width, experts);
        matrix(blk + "ffn_up_exps", dtype, ffn, width, experts);
        matrix(blk + "ffn_down_exps", dtype, width, ffn, experts);
        if (is("qwen2moe")) {
          random_vector(blk + "ffn_gate_inp_shexp.weight", width, 0.0f, 1.0f);
          matrix(blk + "ffn_gate_shexp", dtype, ffn, width);
          matrix(blk + "ffn_up_shexp", dtype, ffn, width);
          matrix(blk + "ffn_down_shexp", dtype, width, ffn);
        }
      } else if (is("phi3")) {
        matrix(blk + "ffn_up", dtype, 2 * ffn, width);
        matrix(blk + "ffn_down", dtype, width, ffn);
      } else {
        matrix(blk + "ffn_gate", dtype, ffn, width);
        matrix(blk + "ffn_up", dtype, ffn, width);
        matrix(blk + "ffn_down", dtype, width, ffn);
      }
    }
    for (const auto& [name, values] : vectors) {
      add_vector(name, values);
    }
    const std::string path = testing::TempDir() + "random_model_" + std::to_string(getpid()) + ".gguf";
    EXPECT_TRUE(w.write(path).ok());
    auto opened = GgufFile::open(path);
    unlink(path.c_str());  // the mapping stays
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return opened.ok() ? std::move(opened).value() : nullptr;
  }
};

}  // namespace hetero
