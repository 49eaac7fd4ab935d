#include "gguf/quantize_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "base/threads.h"
#include "gguf/dequantize.h"
#include "gguf/quantize.h"

namespace hetero {
namespace {

bool is_plain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

bool fits(const Tensor& t, DType type) {
  return t.cols() % traits(type).block_elements == 0;
}

/// Rows of `t` as `type`, in parallel.
Status convert(const Tensor& t, DType type, ThreadPool& pool, std::span<std::byte> out) {
  if (t.dtype == type) {
    std::memcpy(out.data(), t.data, out.size());
    return {};
  }
  const int64_t cols = t.cols();
  const int64_t in_row = row_bytes(t.dtype, cols);
  const int64_t out_row = row_bytes(type, cols);
  std::mutex mutex;
  Status status;
  pool.parallel_for(t.rows(), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      dequantize(t.dtype, t.data + r * in_row, cols, row.data());
      if (const Status s = quantize(type, row.data(), cols, out.data() + r * out_row); !s.ok()) {
        const std::lock_guard lock(mutex);
        status = status.ok() ? s.with_prefix(fmt::format("row {}", r)) : status;
        return;
      }
    }
  });
  return status;
}

Status check_not_in_place(const GgufFile& in, const std::string& out) {
  std::error_code ignored;
  for (const std::string& part : in.part_paths()) {
    if (std::filesystem::equivalent(part, out, ignored)) {
      return invalid_argument(out + ": cannot be overwritten while it is read; name another file");
    }
  }
  return {};
}

}  // namespace

std::optional<uint32_t> quantized_file_type(DType type) {
  switch (type) {  // llama.cpp's enum llama_ftype
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ5_0:
      return 8;
    case DType::kQ5_1:
      return 9;
    case DType::kQ4_K:
      return 14;  // "small": no matrix but the output has more bits
    case DType::kQ6_K:
      return 18;
    default:
      return std::nullopt;
  }
}

DType quantized_type(const Tensor& t, DType type, bool is_output) {
  if (t.dtype == DType::kI32) {
    return t.dtype;
  }
  if (t.dims.size() < 2 || t.name.ends_with("_norm.weight") || t.name.ends_with("ffn_gate_inp.weight")) {
    return DType::kF32;
  }
  if (is_output && !is_plain(type) && type != DType::kQ8_0) {
    type = DType::kQ6_K;
  }
  if (!fits(t, type)) {
    type = type == DType::kQ4_K ? DType::kQ5_0 : type == DType::kQ6_K ? DType::kQ8_0 : DType::kF16;
  }
  return fits(t, type) ? type : DType::kF16;
}

Result<QuantizeSummary> quantize_file(const GgufFile& in, const std::string& out, DType type, int threads,
                                      const GgufWriter::Progress& progress) {
  if (!quantized_file_type(type)) {
    return invalid_argument(
        fmt::format("type {}: expected F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K or Q6_K", traits(type).name));
  }
  HETERO_RETURN_IF_ERROR(check_not_in_place(in, out));
  GgufWriter writer;
  for (size_t i = 0; i < in.metadata().size(); ++i) {
    const std::string& key = in.metadata()[i].first;
    // What describes the old file's layout.
    if (!key.starts_with("split.") && key != "general.file_type" && key != "general.quantization_version" &&
        key != "general.alignment") {
      writer.set_raw(key, in.metadata_bytes(i));
    }
  }
  writer.set_uint("general.quantization_version", 2);
  writer.set_uint("general.file_type", *quantized_file_type(type));

  auto pool = std::make_shared<ThreadPool>(std::max(1, threads));
  QuantizeSummary summary;
  const bool tied = in.find_tensor("output.weight") == nullptr;
  for (const Tensor& t : in.tensors()) {
    const bool is_output = t.name == (tied ? "token_embd.weight" : "output.weight");
    const DType to = quantized_type(t, type, is_output);
    if (to != t.dtype && !is_plain(t.dtype)) {
      return unsupported(fmt::format("{}: tensor {} is {}, expected F32, F16 or BF16 to make {} of it",
                                     in.path(), t.name, traits(t.dtype).name, traits(to).name));
    }
    summary.fallbacks += t.dims.size() > 1 && to == DType::kF16 && type != DType::kF16 ? 1 : 0;
    summary.fallbacks +=
        (type == DType::kQ4_K && to == DType::kQ5_0) || (type == DType::kQ6_K && to == DType::kQ8_0);
    summary.types[std::string(traits(to).name)]++;
    summary.bytes_before += t.bytes;
    summary.bytes_after += row_bytes(to, t.cols()) * t.rows();
    writer.add_tensor(t.name, to, t.dims,
                      [&t, to, pool](std::span<std::byte> bytes) { return convert(t, to, *pool, bytes); });
  }
  HETERO_RETURN_IF_ERROR(writer.write(out, progress).with_prefix(in.path()));
  return summary;
}

}  // namespace hetero
