// hetero inspect: what a model file holds.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "graph/model.h"
#include "text/tokenizer.h"

namespace hetero {
namespace {

using Json = nlohmann::ordered_json;

/// A metadata value as JSON. Arrays longer than `limit` are cut to {count, first}.
Json meta_json(const MetaValue& value, size_t limit) {
  struct Visitor {
    size_t limit;
    Json operator()(uint64_t v) const { return v; }
    Json operator()(int64_t v) const { return v; }
    Json operator()(double v) const { return v; }
    Json operator()(bool v) const { return v; }
    Json operator()(const std::string& v) const { return v; }
    Json operator()(const std::shared_ptr<const MetaArray>& a) const {
      Json list = Json::array();
      const size_t count = std::min(limit, a->size);
      for (size_t i = 0; i < count; ++i) {
        if (!a->unsigneds.empty()) {
          list.push_back(a->unsigneds[i]);
        } else if (!a->signeds.empty()) {
          list.push_back(a->signeds[i]);
        } else if (!a->floats.empty()) {
          list.push_back(a->floats[i]);
        } else if (!a->bools.empty()) {
          list.push_back(static_cast<bool>(a->bools[i]));
        } else if (!a->strings.empty()) {
          list.push_back(a->strings[i]);
        } else {
          list.push_back((*this)(a->arrays[i]));
        }
      }
      if (a->size <= limit) {
        return list;
      }
      return {{"count", a->size}, {"first", list}};
    }
  };
  return std::visit(Visitor{limit}, value);
}

struct InspectOptions {
  std::string model;
  size_t array_limit = 16;
  bool json = false;
};

Status inspect(const InspectOptions& o) {
  HETERO_TRY(const auto file, GgufFile::open(o.model));
  // A model, rather than a vocabulary alone, must be one that can run.
  Status model;
  if (!file->tensors().empty()) {
    model = build_graph(*file).status();
    if (!model.ok() && model.code() != Code::kUnsupported) {
      return model;
    }
  }
  if (file->find("tokenizer.ggml.model") != nullptr) {
    if (const Status vocabulary = Tokenizer::load(*file).status(); vocabulary.code() == Code::kMalformed) {
      return vocabulary;
    }
  }
  Json metadata = Json::object();
  for (const auto& [key, value] : file->metadata()) {
    metadata[key] = meta_json(value, o.array_limit);
  }
  Json tensors = Json::array();
  int64_t parameters = 0;
  for (const Tensor& t : file->tensors()) {
    tensors.push_back(
        {{"name", t.name}, {"type", traits(t.dtype).name}, {"dims", t.dims}, {"bytes", t.bytes}});
    parameters += t.rows() * t.cols();
  }
  if (o.json) {
    print_json({{"path", file->path()},
                {"version", file->version()},
                {"file_bytes", file->file_bytes()},
                {"parameters", parameters},
                {"supported", model.ok()},
                {"reason", model.ok() ? Json(nullptr) : Json(model.message())},
                {"metadata", metadata},
                {"tensors", tensors}});
    return {};
  }
  fmt::print("{}: GGUF version {}, {:.1f} MB, {} tensors, {:.1f} M parameters\n", file->path(),
             file->version(), static_cast<double>(file->file_bytes()) / 1e6, file->tensors().size(),
             static_cast<double>(parameters) / 1e6);
  if (!model.ok()) {
    fmt::print("cannot be run: {}\n", model.message());
  }
  fmt::print("\n");
  for (const auto& [key, value] : metadata.items()) {
    std::string text = dump_json(value, -1);
    if (text.size() > 100) {
      text = dump_json(Json(text.substr(0, 97)), -1).substr(1);
      text.back() = '.';
      text += "..";
    }
    fmt::print("{} = {}\n", key, text);
  }
  fmt::print("\n");
  for (const Tensor& t : file->tensors()) {
    fmt::print("{:<32} {:<6} [{}]\n", t.name, traits(t.dtype).name, fmt::join(t.dims, ", "));
  }
  return {};
}

}  // namespace

Command register_inspect(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("inspect", "Show metadata and tensors of a model file, and check it");
  auto o = std::make_shared<InspectOptions>();
  command->add_option("model,-m,--model", o->model, "Model file (GGUF)")->required();
  command->add_option("--arrays", o->array_limit, "Show so many elements of each array")
      ->capture_default_str();
  command->add_flag("--json", o->json, "Print JSON");
  command->footer("Example:\n  hetero inspect model.gguf");
  return [o] { return inspect(*o); };
}

}  // namespace hetero
