#include "import/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "base/threads.h"
#include "gguf/dequantize.h"
#include "gguf/quantize.h"
#include "gguf/quantize_file.h"
#include "import/hf_model.h"
#include "import/hf_tokenizer.h"
#include "import/safetensors.h"

namespace hetero {
namespace {

/// One tensor of the new file: a source, or a stack of them.
struct Planned {
  std::vector<const SafeTensor*> sources;
  TensorRole role;
  Tensor target;  // without data
};

/// Row of the source that becomes row `r`: rotary pairs (i, i + half) of a head become neighbours.
int64_t source_row(int64_t r, int64_t rows, int64_t heads) {
  if (heads == 0) {
    return r;
  }
  const int64_t head_rows = rows / heads;
  const int64_t in_head = r % head_rows;
  return r - in_head + in_head % 2 * (head_rows / 2) + in_head / 2;
}

Status convert(const Planned& p, ThreadPool& pool, std::span<std::byte> out) {
  // The elements of a rotated bias change places as the rows of its matrix do.
  const int64_t cols = p.role.rotary_heads > 0 && p.target.dims.size() == 1 ? 1 : p.target.cols();
  const int64_t rows = p.sources[0]->elements() / cols;  // of each source
  const int64_t out_row = row_bytes(p.target.dtype, cols);
  std::mutex mutex;
  Status status;
  pool.parallel_for(rows * static_cast<int64_t>(p.sources.size()), 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      const SafeTensor& source = *p.sources[static_cast<size_t>(r / rows)];
      const int64_t from = source_row(r % rows, rows, p.role.rotary_heads);
      dequantize(source.dtype, source.data + from * row_bytes(source.dtype, cols), cols, row.data());
      if (p.role.add_one) {
        std::for_each(row.begin(), row.end(), [](float& x) { x += 1.0f; });
      }
      if (const Status s = quantize(p.target.dtype, row.data(), cols, out.data() + r * out_row); !s.ok()) {
        const std::lock_guard lock(mutex);
        status = status.ok() ? s.with_prefix(fmt::format("{}, row {}", source.name, from)) : status;
        return;
      }
    }
  });
  return status;
}

/// Names and shapes of the new file's tensors, and what each is made of.
Result<std::vector<Planned>> plan(const HfModel& m, const SafetensorsFolder& files, int& left_out) {
  std::map<std::string, Planned> by_name;
  std::vector<std::string> order;
  for (const SafeTensor& t : files.tensors()) {
    const std::optional<TensorRole> role = role_of(m, t.name);
    if (!role) {
      return unsupported(fmt::format("{}: tensor {:.100} is not part of {} with {} layers", t.file, t.name,
                                     m.architecture, m.layers));
    }
    if (role->name.empty()) {
      ++left_out;
      continue;
    }
    Planned& p = by_name[role->name];
    const size_t place = static_cast<size_t>(role->expert.value_or(0));
    if (p.sources.empty()) {
      order.push_back(role->name);
      p.role = *role;
      p.sources.assign(role->expert ? static_cast<size_t>(m.experts) : 1, nullptr);
    }
    if (p.sources[place] != nullptr) {
      return malformed(fmt::format("{}: tensors {:.100} and {:.100} are the same part of the model", t.file,
                                   p.sources[place]->name, t.name));
    }
    p.sources[place] = &t;
  }
  std::vector<Planned> planned;
  for (const std::string& name : order) {
    Planned& p = by_name[name];
    const auto missing = std::find(p.sources.begin(), p.sources.end(), nullptr);
    if (missing != p.sources.end()) {
      return malformed(fmt::format("{}: expert {} of {} is missing", files.tensors()[0].file,
                                   missing - p.sources.begin(), name));
    }
    const SafeTensor& first = *p.sources[0];
    for (const SafeTensor* other : p.sources) {
      if (other->shape != first.shape) {
        return malformed(fmt::format("{}: tensors {:.100} and {:.100} have different shapes", other->file,
                                     first.name, other->name));
      }
    }
    p.target.name = name;
    p.target.dtype = first.dtype;
    p.target.dims.assign(first.shape.rbegin(), first.shape.rend());
    while (p.target.dims.size() > 1 && p.target.dims.back() == 1 &&
           name.find("gate_inp_shexp") != std::string::npos) {
      p.target.dims.pop_back();  // [1, width]: a vector in GGUF
    }
    if (p.role.expert) {
      p.target.dims.push_back(m.experts);
    }
    const int64_t rows = first.shape.size() > 1 ? first.shape[0] : first.elements();
    if (p.role.rotary_heads > 0 && rows != p.role.rotary_heads * m.head_dim) {
      return malformed(fmt::format("{}: tensor {:.100} has {} rows, expected {} heads of {}", first.file,
                                   first.name, rows, p.role.rotary_heads, m.head_dim));
    }
    planned.push_back(p);
  }
  return planned;
}

/// What every model needs, and that all layers have the same parts.
Status check_complete(const HfModel& m, const std::vector<Planned>& planned, const std::string& folder) {
  std::map<std::string, std::set<int64_t>> layers;  // of each part
  std::set<std::string> names;
  for (const Planned& p : planned) {
    names.insert(p.target.name);
    if (p.target.name.starts_with("blk.")) {
      const size_t dot = p.target.name.find('.', 4);
      layers[p.target.name.substr(dot + 1)].insert(std::stoll(p.target.name.substr(4, dot - 4)));
    }
    if (p.target.name == "token_embd.weight" &&
        p.target.dims != std::vector<int64_t>{m.width, m.vocabulary}) {
      return malformed(fmt::format("{}: tensor {} has another shape than config.json's [{}, {}]",
                                   p.sources[0]->file, p.sources[0]->name, m.vocabulary, m.width));
    }
  }
  for (const char* needed :
       {"token_embd.weight", "output_norm.weight", m.tied ? "token_embd.weight" : "output.weight"}) {
    if (!names.contains(needed)) {
      return malformed(fmt::format("{}: the tensor for {} is missing", folder, needed));
    }
  }
  const bool experts_mixed = m.config.contains("mlp_only_layers") || m.config.contains("decoder_sparse_step");
  for (const auto& [part, found] : layers) {
    const bool may_vary = experts_mixed && part.starts_with("ffn_") && part != "ffn_norm.weight";
    for (int64_t layer = 0; layer < m.layers && !may_vary; ++layer) {
      if (!found.contains(layer)) {
        return malformed(fmt::format("{}: the tensor for blk.{}.{} is missing; other layers have it", folder,
                                     layer, part));
      }
    }
  }
  for (const char* needed : {"attn_norm.weight", "attn_output.weight", "ffn_norm.weight"}) {
    if (!layers.contains(needed)) {
      return malformed(fmt::format("{}: no layer has a tensor for {}", folder, needed));
    }
  }
  return {};
}

uint32_t file_type(DType type) {  // general.file_type, as in gguf/quantize_file.cc
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kBF16:
      return 32;
    default:
      return quantized_file_type(type).value_or(0);
  }
}

}  // namespace

Result<ImportSummary> import_folder(const std::string& folder, const std::string& out,
                                    const ImportOptions& o) {
  const std::string config_path = folder + "/config.json";
  HETERO_TRY(const Json config, read_json_file(config_path));
  HETERO_TRY(const Json generation, read_json_file_if_there(folder + "/generation_config.json"));
  HETERO_TRY(HfModel model, read_hf_model(config_path, config));
  HETERO_TRY(const auto files, SafetensorsFolder::open(folder));
  ImportSummary summary;
  summary.architecture = model.architecture;
  if (files->find("lm_head.weight") == nullptr && files->find("language_model.lm_head.weight") == nullptr) {
    model.tied = true;  // the key has a default that differs from family to family
  }
  HETERO_TRY(const std::vector<Planned> planned, plan(model, *files, summary.left_out));
  HETERO_RETURN_IF_ERROR(check_complete(model, planned, folder));

  GgufWriter writer;
  writer.set_string("general.architecture", model.architecture);
  std::string name = std::filesystem::weakly_canonical(folder).filename().string();
  if (config.contains("_name_or_path") && config["_name_or_path"].is_string() &&
      config["_name_or_path"] != "") {
    name = std::filesystem::path(config["_name_or_path"].get<std::string>()).filename().string();
  }
  writer.set_string("general.name", name);
  HETERO_RETURN_IF_ERROR(write_metadata(model, config_path, writer));
  Json ids = model.config;  // token ids: the generation's own file says it best
  for (const Json* source : {&config, &generation}) {
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
      if (source->is_object() && source->contains(key) && !(*source)[key].is_null()) {
        ids[key] = (*source)[key];
      }
    }
  }
  HETERO_RETURN_IF_ERROR(import_tokenizer(folder, ids, model.vocabulary, o.pre, writer));

  auto pool = std::make_shared<ThreadPool>(std::max(1, o.threads));
  std::map<DType, Bytes> by_type;
  for (const Planned& p : planned) {
    const DType wanted = o.type.value_or(p.target.dtype);
    const bool is_output = p.target.name == (model.tied ? "token_embd.weight" : "output.weight");
    auto converted = std::make_shared<Planned>(p);
    converted->target.dtype = quantized_type(p.target, wanted, is_output);
    const Tensor& t = converted->target;
    const Bytes bytes = row_bytes(t.dtype, t.cols()) * t.rows();
    by_type[t.dtype] += bytes;
    summary.bytes += bytes;
    ++summary.tensors;
    writer.add_tensor(t.name, t.dtype, t.dims, [converted, pool](std::span<std::byte> data) {
      return convert(*converted, *pool, data);
    });
  }
  HETERO_TRY(const std::vector<MadeTensor> made, made_tensors(model, config_path));
  for (const MadeTensor& t : made) {
    const auto* data = reinterpret_cast<const std::byte*>(t.values.data());
    writer.add_tensor(t.name, DType::kF32, {static_cast<int64_t>(t.values.size())},
                      std::vector<std::byte>(data, data + t.values.size() * sizeof(float)));
    ++summary.tensors;
  }
  const auto most = std::max_element(by_type.begin(), by_type.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  writer.set_uint("general.file_type", file_type(o.type.value_or(most->first)));
  writer.set_uint("general.quantization_version", 2);
  HETERO_RETURN_IF_ERROR(writer.write(out, o.progress).with_prefix(folder));
  return summary;
}

}  // namespace hetero
