// hetero tokenize and hetero detokenize.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/files.h"
#include "base/json_file.h"
#include "cli/commands.h"

namespace hetero {
namespace {

Result<std::unique_ptr<const Tokenizer>> load_tokenizer(const std::string& path) {
  HETERO_TRY(const auto file, GgufFile::open(path));
  return Tokenizer::load(*file);
}

struct TokenizeOptions {
  std::string model;
  std::string prompt;
  std::string file;
  std::string batch;
  bool no_special = false;
  bool json = false;
};

Status tokenize(const TokenizeOptions& o) {
  HETERO_TRY(const auto tokenizer, load_tokenizer(o.model));
  const auto encode = [&](const std::string& text) {
    return tokenizer->encode(text, !o.no_special, !o.no_special);
  };
  if (!o.batch.empty()) {
    HETERO_TRY(const nlohmann::ordered_json texts, read_json_file(o.batch));
    if (!texts.is_array()) {
      return malformed(o.batch + ": expected a JSON list of texts");
    }
    auto lists = nlohmann::ordered_json::array();
    for (const auto& text : texts) {
      if (!text.is_string()) {
        return malformed(fmt::format("{}: entry {}: expected a text", o.batch, lists.size()));
      }
      HETERO_TRY(const std::vector<TokenId> ids, encode(text.get<std::string>()));
      lists.push_back(ids);
    }
    fmt::print("{}\n", o.json ? dump_json({{"ids", lists}}, -1) : dump_json(lists, -1));
    return {};
  }
  std::string text = o.prompt;
  if (!o.file.empty()) {
    HETERO_TRY(text, read_text_file(o.file));
  }
  HETERO_TRY(const std::vector<TokenId> ids, encode(text));
  if (o.json) {
    fmt::print("{}\n", dump_json({{"ids", ids}}, -1));
    return {};
  }
  for (const TokenId id : ids) {
    fmt::print("{:>8}  {}\n", id, dump_json(tokenizer->piece(id, true), -1));
  }
  return {};
}

struct DetokenizeOptions {
  std::string model;
  std::string ids;
  bool json = false;
};

Status detokenize(const DetokenizeOptions& o) {
  HETERO_TRY(const nlohmann::ordered_json json, read_json_file(o.ids));
  HETERO_TRY(const auto tokenizer, load_tokenizer(o.model));
  const auto decode = [&](const nlohmann::ordered_json& list) -> Result<std::string> {
    std::vector<TokenId> ids;
    for (const auto& id : list) {
      if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= tokenizer->size()) {
        return malformed(fmt::format("{}: {} is not a token id of this model (0 to {})", o.ids,
                                     shortened(dump_json(id, -1)), tokenizer->size() - 1));
      }
      ids.push_back(id.get<TokenId>());
    }
    return tokenizer->decode(ids, true);
  };
  if (!json.is_array()) {
    return malformed(o.ids + ": expected a JSON list of token ids, or a list of such lists");
  }
  const bool batch = !json.empty() && json[0].is_array();
  if (!batch) {
    HETERO_TRY(const std::string text, decode(json));
    fmt::print("{}\n", o.json ? dump_json({{"text", text}}) : text);
    return {};
  }
  auto texts = nlohmann::ordered_json::array();
  for (const auto& list : json) {
    if (!list.is_array()) {
      return malformed(fmt::format("{}: entry {}: expected a list of token ids", o.ids, texts.size()));
    }
    HETERO_TRY(const std::string text, decode(list));
    texts.push_back(text);
  }
  fmt::print("{}\n", o.json ? dump_json({{"text", texts}}) : dump_json(texts));
  return {};
}

}  // namespace

Command register_tokenize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids");
  auto o = std::make_shared<TokenizeOptions>();
  command->add_option("-m,--model", o->model, "Model or vocabulary file (GGUF)")->required();
  auto* source = command->add_option_group("text");
  source->add_option("-p,--prompt", o->prompt, "The text");
  source->add_option("-f,--file", o->file, "Read the text from FILE");
  source->add_option("--batch", o->batch, "Read a JSON list of texts from FILE");
  source->require_option(1);
  command->add_flag("--no-special", o->no_special, "Neither add nor parse special tokens");
  command->add_flag("--json", o->json, "Print JSON");
  command->footer(
      "Examples:\n"
      "  hetero tokenize -m model.gguf -p \"Hello world\"\n"
      "  hetero tokenize -m model.gguf --batch texts.json --no-special --json");
  return [o] { return tokenize(*o); };
}

Command register_detokenize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("detokenize", "Token ids to text");
  auto o = std::make_shared<DetokenizeOptions>();
  command->add_option("-m,--model", o->model, "Model or vocabulary file (GGUF)")->required();
  command->add_option("--ids", o->ids, "JSON file: a list of token ids, or a list of such lists")->required();
  command->add_flag("--json", o->json, "Print JSON");
  command->footer("Example:\n  hetero detokenize -m model.gguf --ids ids.json");
  return [o] { return detokenize(*o); };
}

}  // namespace hetero
