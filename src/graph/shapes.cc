#include "graph/shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "gguf/file.h"
#include "gguf/writer.h"
#include "graph/model.h"

namespace hetero {
namespace {

struct Shape {
  const char* name;
  const char* architecture;
  uint32_t layers, width, heads, kv_heads, ffn, vocabulary, context;
  float rope_base;
  bool tied;    // the head is the embedding
  bool biases;  // of q, k and v
};

constexpr Bytes kPadding = 64;  // more than what lies between two tensors

// From the models' published config.json.
constexpr Shape kShapes[] = {
    {"llama-3-8b", "llama", 32, 4096, 32, 8, 14336, 128256, 8192, 500000.0f, false, false},
    {"llama-2-7b", "llama", 32, 4096, 32, 32, 11008, 32000, 4096, 10000.0f, false, false},
    {"llama-3.2-3b", "llama", 28, 3072, 24, 8, 8192, 128256, 131072, 500000.0f, true, false},
    {"llama-3.2-1b", "llama", 16, 2048, 32, 8, 8192, 128256, 131072, 500000.0f, true, false},
    {"internlm-1.8b", "internlm2", 24, 2048, 16, 8, 8192, 92544, 32768, 1000000.0f, false, false},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 12, 2, 8960, 151936, 32768, 1000000.0f, true, true},
    {"smollm2-135m", "llama", 30, 576, 9, 3, 1536, 49152, 8192, 100000.0f, true, false},
};

struct Header {
  std::string bytes;
  Bytes data = 0;  // of the tensors behind it
};

Header header(const Shape& s, DType dtype) {
  GgufWriter w;
  Bytes data = 0;
  const auto key = [&](const char* name) { return fmt::format("{}.{}", s.architecture, name); };
  w.set_string("general.architecture", s.architecture);
  w.set_string("general.name", s.name);
  w.set_uint(key("block_count"), s.layers);
  w.set_uint(key("embedding_length"), s.width);
  w.set_uint(key("feed_forward_length"), s.ffn);
  w.set_uint(key("context_length"), s.context);
  w.set_uint(key("attention.head_count"), s.heads);
  w.set_uint(key("attention.head_count_kv"), s.kv_heads);
  w.set_float(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  w.set_float(key("rope.freq_base"), s.rope_base);
  const TensorSource none = [](std::span<std::byte>) { return internal_error("a shape has no data"); };
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    w.add_tensor(name + ".weight", dtype, {cols, rows}, none);
    data += rows * row_bytes(dtype, cols) + kPadding;
  };
  const auto vector = [&](const std::string& name, int64_t cols) {
    data += cols * 4 + kPadding;
    w.add_tensor(name, DType::kF32, {cols}, none);
  };
  const int64_t kv = int64_t{s.width} / s.heads * s.kv_heads;
  matrix("token_embd", s.vocabulary, s.width);
  for (uint32_t i = 0; i < s.layers; ++i) {
    const std::string blk = fmt::format("blk.{}.", i);
    vector(blk + "attn_norm.weight", s.width);
    matrix(blk + "attn_q", s.width, s.width);
    matrix(blk + "attn_k", kv, s.width);
    matrix(blk + "attn_v", kv, s.width);
    if (s.biases) {
      vector(blk + "attn_q.bias", s.width);
      vector(blk + "attn_k.bias", kv);
      vector(blk + "attn_v.bias", kv);
    }
    matrix(blk + "attn_output", s.width, s.width);
    vector(blk + "ffn_norm.weight", s.width);
    matrix(blk + "ffn_gate", s.ffn, s.width);
    matrix(blk + "ffn_up", s.ffn, s.width);
    matrix(blk + "ffn_down", s.width, s.ffn);
  }
  vector("output_norm.weight", s.width);
  if (!s.tied) {
    matrix("output", s.vocabulary, s.width);
  }
  return {w.header_bytes(), data};
}

/// A file in memory of which only the header is ever written or read: what is never touched costs
/// nothing.
class SparseFile {
 public:
  ~SparseFile() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  Status create(const Header& header) {
    fd_ = memfd_create("hetero-shape", MFD_CLOEXEC);
    const auto size = static_cast<off_t>(header.bytes.size());
    const bool made = fd_ >= 0 && ftruncate(fd_, size + header.data) == 0 &&
                      pwrite(fd_, header.bytes.data(), header.bytes.size(), 0) == size;
    return made ? Status() : io_error(fmt::format("cannot make a file in memory: {}", std::strerror(errno)));
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd_); }

 private:
  int fd_ = -1;
};

}  // namespace

std::vector<std::string> shape_names() {
  std::vector<std::string> names;
  for (const Shape& s : kShapes) {
    names.emplace_back(s.name);
  }
  return names;
}

Result<Graph> graph_of_shape(const std::string& name, DType dtype, int64_t context,
                             std::optional<DType> kv_cache) {
  for (const Shape& s : kShapes) {
    if (name == s.name) {
      SparseFile sparse;
      HETERO_RETURN_IF_ERROR(sparse.create(header(s, dtype)));
      HETERO_TRY(const auto file, GgufFile::open(sparse.path()));
      HETERO_TRY(Graph graph, build_graph(*file, context, kv_cache));
      for (Weight& weight : graph.weights) {
        weight.data = nullptr;  // the file ends here
      }
      return graph;
    }
  }
  return not_found(
      fmt::format("no shape is called \"{}\" (known: {})", name, fmt::join(shape_names(), ", ")));
}

}  // namespace hetero
