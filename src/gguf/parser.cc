// The container: header, metadata, tensor list. Nothing in it is trusted: every count is compared
// with what the rest of the file could hold before anything is allocated or multiplied.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "gguf/file.h"

namespace hetero {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

namespace {

// Metadata value types of the specification.
enum class MetaType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kCount
};

/// Least bytes that one value of a type takes in the file.
int64_t least_bytes(MetaType type) {
  constexpr int64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxDims = 4;

/// Reads forward through the mapping; after the first failure every read gives zeros.
class Reader {
 public:
  Reader(const MappedFile& file) : file_(file) {}  // NOLINT(google-explicit-constructor)

  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  Bytes position() const { return position_; }
  Bytes left() const { return file_.size() - position_; }

  void fail(const std::string& what) {
    if (status_.ok()) {
      status_ = malformed(fmt::format("{}: {}", file_.path(), what));
    }
  }
  Status error(const std::string& what) {
    fail(what);
    return status_;
  }

  template <class T>
  T number(const std::string& what) {
    T value{};
    if (ok() && left() < static_cast<Bytes>(sizeof value)) {
      fail(fmt::format("the file ends inside {} (at byte {} of {})", what, position_, file_.size()));
    }
    if (ok()) {
      std::memcpy(&value, file_.data() + position_, sizeof value);
      position_ += static_cast<Bytes>(sizeof value);
    }
    return value;
  }

  std::string string(const std::string& what) {
    const auto length = number<uint64_t>("the length of " + what);
    if (ok() && length > static_cast<uint64_t>(left())) {
      fail(fmt::format("{} claims {} bytes, but the file has {} left", what, length, left()));
    }
    if (!ok()) {
      return {};
    }
    std::string s(reinterpret_cast<const char*>(file_.data() + position_), static_cast<size_t>(length));
    position_ += static_cast<Bytes>(length);
    return s;
  }

 private:
  const MappedFile& file_;
  Bytes position_ = 0;
  Status status_;
};

MetaType meta_type(Reader& in, const std::string& what) {
  const auto type = in.number<uint32_t>("the type of " + what);
  if (type >= static_cast<uint32_t>(MetaType::kCount)) {
    in.fail(fmt::format("{} has value type {}, expected 0 to 12", what, type));
    return MetaType::kU8;
  }
  return static_cast<MetaType>(type);
}

template <class T>
MetaValue scalar(Reader& in, const std::string& what) {
  const T value = in.number<T>(what);
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<double>(value);
  } else if constexpr (std::is_signed_v<T>) {
    return static_cast<int64_t>(value);
  } else {
    return static_cast<uint64_t>(value);
  }
}

MetaValue meta_value(Reader& in, MetaType type, const std::string& what, int depth);

std::shared_ptr<const MetaArray> meta_array(Reader& in, const std::string& what, int depth) {
  auto array = std::make_shared<MetaArray>();
  const MetaType type = meta_type(in, "the elements of " + what);
  const auto count = in.number<uint64_t>("the length of " + what);
  if (in.ok() && count > static_cast<uint64_t>(in.left() / least_bytes(type))) {
    in.fail(fmt::format("{} claims {} elements, but the file has {} bytes left", what, count, in.left()));
  }
  if (in.ok() && type == MetaType::kArray && depth >= kMaxArrayDepth) {
    in.fail(fmt::format("{} nests arrays deeper than {}", what, kMaxArrayDepth));
  }
  if (!in.ok()) {
    return array;
  }
  array->element_type = static_cast<uint32_t>(type);
  array->size = static_cast<size_t>(count);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    MetaValue value = meta_value(in, type, what, depth + 1);
    if (auto* u = std::get_if<uint64_t>(&value)) {
      array->unsigneds.push_back(*u);
    } else if (auto* s = std::get_if<int64_t>(&value)) {
      array->signeds.push_back(*s);
    } else if (auto* f = std::get_if<double>(&value)) {
      array->floats.push_back(*f);
    } else if (auto* b = std::get_if<bool>(&value)) {
      array->bools.push_back(*b);
    } else if (auto* text = std::get_if<std::string>(&value)) {
      array->strings.push_back(std::move(*text));
    } else {
      array->arrays.push_back(std::get<std::shared_ptr<const MetaArray>>(value));
    }
  }
  return array;
}

MetaValue meta_value(Reader& in, MetaType type, const std::string& what, int depth) {
  switch (type) {
    case MetaType::kU8:
      return scalar<uint8_t>(in, what);
    case MetaType::kI8:
      return scalar<int8_t>(in, what);
    case MetaType::kU16:
      return scalar<uint16_t>(in, what);
    case MetaType::kI16:
      return scalar<int16_t>(in, what);
    case MetaType::kU32:
      return scalar<uint32_t>(in, what);
    case MetaType::kI32:
      return scalar<int32_t>(in, what);
    case MetaType::kF32:
      return scalar<float>(in, what);
    case MetaType::kU64:
      return scalar<uint64_t>(in, what);
    case MetaType::kI64:
      return scalar<int64_t>(in, what);
    case MetaType::kF64:
      return scalar<double>(in, what);
    case MetaType::kBool: {
      const auto value = in.number<uint8_t>(what);
      if (value > 1) {
        in.fail(fmt::format("{} is a boolean of value {}, expected 0 or 1", what, value));
      }
      return value == 1;
    }
    case MetaType::kString:
      return in.string(what);
    case MetaType::kArray:
    case MetaType::kCount:
      break;
  }
  return meta_array(in, what, depth);
}

/// a * b, or nothing where it exceeds int64.
bool multiply(int64_t a, int64_t b, int64_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

}  // namespace

class GgufParser {
 public:
  GgufParser(GgufFile& out, const MappedFile& file, bool first_part)
      : out_(out), file_(file), in_(file), first_(first_part) {}

  Status parse() {
    HETERO_RETURN_IF_ERROR(header());
    HETERO_RETURN_IF_ERROR(metadata());
    HETERO_RETURN_IF_ERROR(tensors());
    return {};
  }

  /// split.count and split.no of this part; 1 and 0 where it is not split.
  int64_t split_count = 1;
  int64_t split_number = 0;
  int64_t split_tensors = -1;  // of all parts together; -1: not said

 private:
  Status header() {
    const auto magic = in_.number<uint32_t>("the header");
    if (in_.ok() && magic != 0x46554747u) {  // "GGUF"
      return in_.error(fmt::format("not a GGUF file: it starts with bytes {:08x}, expected 47475546",
                                   __builtin_bswap32(magic)));
    }
    out_.version_ = in_.number<uint32_t>("the header");
    HETERO_RETURN_IF_ERROR(in_.status());
    if (__builtin_bswap32(out_.version_) == 2 || __builtin_bswap32(out_.version_) == 3) {
      return unsupported(file_.path() + ": a big-endian GGUF file; only little-endian ones can be read");
    }
    if (out_.version_ != 2 && out_.version_ != 3) {
      return unsupported(
          fmt::format("{}: GGUF version {}; versions 2 and 3 can be read", file_.path(), out_.version_));
    }
    tensor_count_ = in_.number<uint64_t>("the header");
    metadata_count_ = in_.number<uint64_t>("the header");
    HETERO_RETURN_IF_ERROR(in_.status());
    // A key takes at least 13 bytes, a tensor 24 and a name.
    if (metadata_count_ > static_cast<uint64_t>(in_.left() / 13)) {
      return in_.error(fmt::format("the header claims {} metadata keys, but the file has {} bytes left",
                                   metadata_count_, in_.left()));
    }
    if (tensor_count_ > static_cast<uint64_t>(in_.left() / 24)) {
      return in_.error(fmt::format("the header claims {} tensors, but the file has {} bytes left",
                                   tensor_count_, in_.left()));
    }
    return {};
  }

  Status metadata() {
    for (uint64_t i = 0; i < metadata_count_; ++i) {
      std::string key = in_.string(fmt::format("metadata key {}", i));
      if (in_.ok() && key.empty()) {
        return in_.error(fmt::format("metadata key {} is empty", i));
      }
      if (in_.ok() && key.size() > 65535) {
        return in_.error(fmt::format("metadata key {} has {} bytes, the format allows 65535", i, key.size()));
      }
      const Bytes begin = in_.position();
      const MetaType type = meta_type(in_, "metadata key " + key);
      MetaValue value = meta_value(in_, type, "metadata key " + key, 0);
      HETERO_RETURN_IF_ERROR(in_.status());
      if (key == "general.alignment") {
        const auto* a = std::get_if<uint64_t>(&value);
        if (a == nullptr || *a == 0 || *a % 8 != 0 || *a > (1u << 20)) {
          return in_.error("general.alignment is not an unsigned multiple of 8 up to 2^20");
        }
        alignment_ = static_cast<int64_t>(*a);
      }
      if (key.starts_with("split.")) {
        int64_t number = -1;
        if (const auto* u = std::get_if<uint64_t>(&value)) {
          number = *u > INT32_MAX ? -1 : static_cast<int64_t>(*u);
        } else if (const auto* s = std::get_if<int64_t>(&value)) {
          number = *s;
        }
        if (number < 0) {
          return in_.error(key + " is not a small unsigned integer");
        }
        (key == "split.count"           ? split_count
         : key == "split.no"            ? split_number
         : key == "split.tensors.count" ? split_tensors
                                        : ignored_) = number;
      }
      if (!first_) {
        continue;  // later parts repeat or omit what the first one says
      }
      if (!out_.metadata_index_.emplace(key, out_.metadata_.size()).second) {
        return in_.error("metadata key " + key + " appears twice");
      }
      out_.metadata_.emplace_back(std::move(key), std::move(value));
      out_.metadata_bytes_.emplace_back(file_.data() + begin, static_cast<size_t>(in_.position() - begin));
    }
    return {};
  }

  Status tensors() {
    struct Extent {
      uint64_t offset;
      size_t index;
    };
    std::vector<Extent> extents;
    for (uint64_t i = 0; i < tensor_count_; ++i) {
      HETERO_TRY(const uint64_t offset, tensor(i));
      extents.push_back({offset, out_.tensors_.size() - 1});
    }
    const Bytes header = in_.position();
    const Bytes data = (header + alignment_ - 1) / alignment_ * alignment_;
    const Bytes room = std::max<Bytes>(0, file_.size() - data);
    for (const Extent& e : extents) {
      Tensor& t = out_.tensors_[e.index];
      if (e.offset > static_cast<uint64_t>(room) || t.bytes > room - static_cast<Bytes>(e.offset)) {
        return in_.error(
            fmt::format("tensor {} needs {} bytes at offset {} of the data, but the file holds only {}; "
                        "it is incomplete",
                        t.name, t.bytes, e.offset, room));
      }
      t.data = file_.data() + data + e.offset;
    }
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
    for (size_t i = 1; i < extents.size(); ++i) {
      const Tensor& before = out_.tensors_[extents[i - 1].index];
      if (extents[i - 1].offset + static_cast<uint64_t>(before.bytes) > extents[i].offset) {
        return in_.error(
            fmt::format("tensors {} and {} overlap", before.name, out_.tensors_[extents[i].index].name));
      }
    }
    return {};
  }

  /// Appends one tensor without its data; returns its offset.
  Result<uint64_t> tensor(uint64_t number) {
    Tensor t;
    t.name = in_.string(fmt::format("the name of tensor {}", number));
    HETERO_RETURN_IF_ERROR(in_.status());
    if (t.name.empty() || t.name.size() > 255) {
      return in_.error(
          fmt::format("tensor {} has a name of {} bytes, expected 1 to 255", number, t.name.size()));
    }
    const auto dims = in_.number<uint32_t>("tensor " + t.name);
    if (in_.ok() && (dims == 0 || dims > kMaxDims)) {
      return in_.error(fmt::format("tensor {} has {} dimensions, expected 1 to {}", t.name, dims, kMaxDims));
    }
    int64_t elements = 1;
    for (uint32_t d = 0; d < dims && in_.ok(); ++d) {
      const auto size = in_.number<uint64_t>("tensor " + t.name);
      if (in_.ok() && (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
                       !multiply(elements, static_cast<int64_t>(size), elements))) {
        return in_.error(
            fmt::format("tensor {} has a dimension of {}, which is zero or too large", t.name, size));
      }
      t.dims.push_back(static_cast<int64_t>(size));
    }
    const auto type = in_.number<uint32_t>("tensor " + t.name);
    const auto offset = in_.number<uint64_t>("tensor " + t.name);
    HETERO_RETURN_IF_ERROR(in_.status());
    const DTypeTraits* found = find_dtype(type);
    if (found == nullptr) {
      return unsupported(fmt::format("{}: tensor {} has type {}, which is not supported", file_.path(),
                                     t.name, gguf_type_name(type)));
    }
    t.dtype = found->dtype;
    if (t.cols() % found->block_elements != 0) {
      return in_.error(
          fmt::format("tensor {} has rows of {} elements, which is not a multiple of {}'s block of {}",
                      t.name, t.cols(), found->name, found->block_elements));
    }
    if (!multiply(elements / found->block_elements, found->block_bytes, t.bytes)) {
      return in_.error(fmt::format("tensor {} has {} elements, which is too large", t.name, elements));
    }
    if (offset % static_cast<uint64_t>(alignment_) != 0) {
      return in_.error(
          fmt::format("tensor {} starts at offset {}, which is not a multiple of the alignment {}", t.name,
                      offset, alignment_));
    }
    if (!out_.tensor_index_.emplace(t.name, out_.tensors_.size()).second) {
      return in_.error("tensor " + t.name + " appears twice");
    }
    out_.tensors_.push_back(std::move(t));
    return offset;
  }

  GgufFile& out_;
  const MappedFile& file_;
  Reader in_;
  const bool first_;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  int64_t alignment_ = 32;
  int64_t ignored_ = 0;
};

namespace {

/// "PREFIX-00002-of-00003.gguf"
struct SplitName {
  std::string prefix;
  int64_t number = 0;  // from 1
  int64_t count = 0;

  std::string part(int64_t i) const { return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, i, count); }
};

std::optional<SplitName> split_name(const std::string& path) {
  constexpr size_t kTail = sizeof("-00001-of-00001.gguf") - 1;
  if (path.size() < kTail) {
    return std::nullopt;
  }
  const std::string tail = path.substr(path.size() - kTail);
  const auto number = [&](size_t at) {
    int64_t n = 0;
    for (const char c : tail.substr(at, 5)) {
      n = c < '0' || c > '9' || n < 0 ? -1 : 10 * n + (c - '0');
    }
    return n;
  };
  SplitName name{path.substr(0, path.size() - kTail), number(1), number(10)};
  if (name.number < 1 || name.count < name.number || name.part(name.number) != path) {
    return std::nullopt;
  }
  return name;
}

Result<MappedFile> load(const std::string& path, const GgufOpen& how) {
  return how.map ? MappedFile::open(path) : MappedFile::read(path, how.progress);
}

}  // namespace

Result<std::shared_ptr<const GgufFile>> GgufFile::open(const std::string& path, const GgufOpen& how) {
  auto file = std::make_shared<GgufFile>();
  file->path_ = path;
  HETERO_TRY(MappedFile mapped, load(path, how));
  file->parts_.push_back(std::move(mapped));
  GgufParser whole(*file, file->parts_[0], true);
  HETERO_RETURN_IF_ERROR(whole.parse());
  const int64_t count = whole.split_count;
  if (count <= 1) {
    return std::shared_ptr<const GgufFile>(std::move(file));
  }
  const std::optional<SplitName> name = split_name(path);
  if (!name || name->count != count || name->number != whole.split_number + 1) {
    return malformed(
        fmt::format("{}: says that it is part {} of {}, expected a name that ends in "
                    "\"-{:05}-of-{:05}.gguf\"",
                    path, whole.split_number + 1, count, whole.split_number + 1, count));
  }
  // From the first part on, whichever was named: it has the metadata.
  MappedFile given = std::move(file->parts_[0]);
  file = std::make_shared<GgufFile>();
  file->path_ = path;
  file->parts_.reserve(static_cast<size_t>(count));
  int64_t tensors = -1;
  for (int64_t i = 1; i <= count; ++i) {
    if (i == name->number) {
      file->parts_.push_back(std::move(given));
    } else {
      auto part = load(name->part(i), how);
      if (part.status().code() == Code::kNotFound) {
        return not_found(
            fmt::format("{}: part {} of {} is missing; \"{}\" needs it", name->part(i), i, count, path));
      }
      HETERO_RETURN_IF_ERROR(part.status());
      file->parts_.push_back(std::move(part).value());
    }
    GgufParser part(*file, file->parts_.back(), i == 1);
    HETERO_RETURN_IF_ERROR(part.parse());
    if (part.split_number + 1 != i || part.split_count != count) {
      return malformed(fmt::format("{}: says that it is part {} of {}, expected {} of {}", name->part(i),
                                   part.split_number + 1, part.split_count, i, count));
    }
    if (part.split_tensors >= 0 && tensors >= 0 && part.split_tensors != tensors) {
      return malformed(fmt::format("{}: split.tensors.count is {}, but the parts before say {}",
                                   name->part(i), part.split_tensors, tensors));
    }
    tensors = std::max(tensors, part.split_tensors);
  }
  if (tensors >= 0 && tensors != static_cast<int64_t>(file->tensors_.size())) {
    return malformed(fmt::format("{}: split.tensors.count is {}, but the {} parts have {} tensors", path,
                                 tensors, count, file->tensors_.size()));
  }
  return std::shared_ptr<const GgufFile>(std::move(file));
}

}  // namespace hetero
