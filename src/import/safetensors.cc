#include "import/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "base/json_file.h"

namespace hetero {
namespace {

constexpr uint64_t kMostHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMostDims = 4;

struct Parsed {
  SafeTensor tensor;
  uint64_t begin = 0;
  uint64_t end = 0;
};

Result<DType> dtype_of(const std::string& name, const std::string& where) {
  if (name == "F32") {
    return DType::kF32;
  }
  if (name == "F16") {
    return DType::kF16;
  }
  if (name == "BF16") {
    return DType::kBF16;
  }
  return unsupported(fmt::format("{}: type '{}', expected F32, F16 or BF16", where, name.substr(0, 20)));
}

bool is_count(const Json& j) {
  return j.is_number_unsigned() &&
         j.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

Result<Parsed> parse_tensor(const std::string& path, const std::string& name, const Json& entry,
                            uint64_t data_bytes) {
  const std::string where = fmt::format("{}: tensor {:.100}", path, name);
  const auto field = [&](const char* key) { return entry.is_object() ? entry.value(key, Json()) : Json(); };
  const Json type = field("dtype");
  const Json shape = field("shape");
  const Json offsets = field("data_offsets");
  if (!type.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2 ||
      !is_count(offsets[0]) || !is_count(offsets[1])) {
    return malformed(where + ": expected dtype, shape and two data_offsets");
  }
  Parsed p;
  p.tensor.name = name;
  p.tensor.file = path;
  p.begin = offsets[0].get<uint64_t>();
  p.end = offsets[1].get<uint64_t>();
  if (p.begin > p.end || p.end > data_bytes) {
    return malformed(fmt::format("{}: data at {} to {}, but the file holds {} bytes of data", where, p.begin,
                                 p.end, data_bytes));
  }
  HETERO_TRY(p.tensor.dtype, dtype_of(type.get<std::string>(), where));
  if (shape.empty() || shape.size() > kMostDims) {
    return malformed(fmt::format("{}: {} dimensions, expected 1 to {}", where, shape.size(), kMostDims));
  }
  int64_t bytes = traits(p.tensor.dtype).block_bytes;
  for (const Json& size : shape) {
    if (!is_count(size) || size.get<int64_t>() == 0 ||
        __builtin_mul_overflow(bytes, size.get<int64_t>(), &bytes)) {
      return malformed(where + ": a dimension is zero or too large");
    }
    p.tensor.shape.push_back(size.get<int64_t>());
  }
  if (static_cast<uint64_t>(bytes) != p.end - p.begin) {
    return malformed(
        fmt::format("{}: its shape needs {} bytes, but its offsets span {}", where, bytes, p.end - p.begin));
  }
  return p;
}

}  // namespace

int64_t SafeTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) {
    count *= size;
  }
  return count;
}

const SafeTensor* SafetensorsFolder::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

Status SafetensorsFolder::add_file(const std::string& path) {
  HETERO_TRY(MappedFile mapped, MappedFile::open(path));
  files_.push_back(std::move(mapped));
  const MappedFile& file = files_.back();
  const auto size = static_cast<uint64_t>(file.size());
  uint64_t header = 0;
  if (size >= sizeof header) {
    std::memcpy(&header, file.data(), sizeof header);
  }
  if (size < sizeof header || header > size - sizeof header || header > kMostHeaderBytes) {
    return malformed(fmt::format(
        "{}: not a safetensors file, or cut off: a header of {} bytes in a file of {}", path, header, size));
  }
  const auto* text = reinterpret_cast<const char*>(file.data()) + sizeof header;
  // A name that appears twice would silently hide a tensor.
  std::set<std::string> names;
  std::string twice;
  Json json;
  try {
    json = Json::parse(text, text + header, [&](int depth, Json::parse_event_t event, Json& parsed) {
      if (event == Json::parse_event_t::key && depth == 1 &&
          !names.insert(parsed.get<std::string>()).second) {
        twice = parsed.get<std::string>();
      }
      return true;
    });
  } catch (const nlohmann::json::exception& e) {
    return malformed(fmt::format("{}: the header is not JSON: {}", path, e.what()));
  }
  if (!json.is_object() || !twice.empty()) {
    return malformed(fmt::format("{}: {}", path,
                                 twice.empty()
                                     ? "the header is not an object"
                                     : fmt::format("tensor {:.100} appears twice in the header", twice)));
  }
  std::vector<Parsed> parsed;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      continue;
    }
    HETERO_TRY(Parsed p, parse_tensor(path, name, entry, size - sizeof header - header));
    p.tensor.data = file.data() + sizeof header + header + p.begin;
    parsed.push_back(std::move(p));
  }
  std::sort(parsed.begin(), parsed.end(), [](const Parsed& a, const Parsed& b) { return a.begin < b.begin; });
  for (size_t i = 0; i < parsed.size(); ++i) {
    if (i > 0 && parsed[i].begin < parsed[i - 1].end) {
      return malformed(fmt::format("{}: tensors {:.100} and {:.100} overlap", path, parsed[i - 1].tensor.name,
                                   parsed[i].tensor.name));
    }
    SafeTensor& t = parsed[i].tensor;
    if (const auto [it, added] = index_.emplace(t.name, tensors_.size()); !added) {
      return malformed(
          fmt::format("{}: tensor {:.100} is in {} too", path, t.name, tensors_[it->second].file));
    }
    tensors_.push_back(std::move(t));
  }
  return {};
}

Result<std::unique_ptr<const SafetensorsFolder>> SafetensorsFolder::open(const std::string& folder) {
  std::unique_ptr<SafetensorsFolder> opened(new SafetensorsFolder());
  const std::string index_path = folder + "/model.safetensors.index.json";
  HETERO_TRY(const Json index, read_json_file_if_there(index_path));
  if (index.is_null()) {
    HETERO_RETURN_IF_ERROR(opened->add_file(folder + "/model.safetensors"));
    return std::unique_ptr<const SafetensorsFolder>(std::move(opened));
  }
  const Json map = index.is_object() ? index.value("weight_map", Json()) : Json();
  if (!map.is_object()) {
    return malformed(index_path + ": expected an object 'weight_map'");
  }
  std::set<std::string> shards;
  for (const auto& [name, shard] : map.items()) {
    if (!shard.is_string() || shard.get<std::string>().find('/') != std::string::npos || shard == "" ||
        shard == "..") {
      return malformed(fmt::format("{}: tensor {:.100}: expected the name of a file in the same folder",
                                   index_path, name));
    }
    shards.insert(shard.get<std::string>());
  }
  opened->files_.reserve(shards.size());
  for (const std::string& shard : shards) {
    HETERO_RETURN_IF_ERROR(opened->add_file(folder + "/" + shard));
  }
  for (const auto& [name, shard] : map.items()) {
    const SafeTensor* t = opened->find(name);
    const std::string expected = folder + "/" + shard.get<std::string>();
    if (t == nullptr || t->file != expected) {
      return malformed(fmt::format("{}: tensor {:.100} should be in {}, but is {}", index_path, name,
                                   expected, t == nullptr ? "nowhere" : "in " + t->file));
    }
  }
  return std::unique_ptr<const SafetensorsFolder>(std::move(opened));
}

}  // namespace hetero
