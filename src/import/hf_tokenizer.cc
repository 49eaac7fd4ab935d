#include "import/hf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <unordered_map>

#include "base/files.h"

namespace hetero {
namespace {

constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;
constexpr std::string_view kSpace = "\u2581";

/// Whether any part of a normalizer, pre-tokenizer or decoder has this type.
const Json* find_type(const Json& node, std::string_view type, int depth = 0) {
  if (!node.is_object() || depth > 8) {
    return nullptr;
  }
  if (node.contains("type") && node["type"] == type) {
    return &node;
  }
  for (const char* list : {"normalizers", "pretokenizers", "processors"}) {
    if (node.contains(list) && node[list].is_array()) {
      for (const Json& part : node[list]) {
        if (const Json* found = find_type(part, type, depth + 1)) {
          return found;
        }
      }
    }
  }
  return nullptr;
}

bool is_byte_token(const std::string& t) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return t.size() == 6 && t.starts_with("<0x") && t[5] == '>' && hex(t[3]) && hex(t[4]);
}

std::string with_spaces(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool space = text.compare(i, kSpace.size(), kSpace) == 0;
    out += space ? ' ' : text[i];
    i += space ? kSpace.size() : 1;
  }
  return out;
}

class Import {
 public:
  Import(const std::string& folder, const Json& config, int64_t vocabulary, const std::string& pre,
         GgufWriter& writer)
      : folder_(folder),
        path_(folder + "/tokenizer.json"),
        config_(config),
        vocabulary_(vocabulary),
        pre_(pre),
        writer_(writer) {}

  Status run() {
    HETERO_TRY(json_, read_json_file(path_));
    HETERO_TRY(tokenizer_config_, read_json_file_if_there(folder_ + "/tokenizer_config.json"));
    if (!json_.is_object()) {
      return malformed(path_ + ": expected an object");
    }
    const Json model = json_.value("model", Json());
    const std::string type = model.is_object() ? model.value("type", "BPE") : "";
    if (type != "BPE" || !model.contains("vocab") || !model["vocab"].is_object() ||
        !model.contains("merges") || !model["merges"].is_array()) {
      return unsupported(
          fmt::format("{}: a tokenizer of type '{}', expected BPE with 'vocab' and 'merges'", path_, type));
    }
    const Json pre_tokenizer = json_.value("pre_tokenizer", Json());
    const bool byte_level = find_type(pre_tokenizer, "ByteLevel") != nullptr;
    const bool byte_fallback = model.value("byte_fallback", false);
    if (!byte_level && !byte_fallback) {
      return unsupported(path_ + ": BPE that is neither byte-level nor has byte fallback");
    }
    HETERO_RETURN_IF_ERROR(tokens(model, !byte_level));
    HETERO_RETURN_IF_ERROR(merges(model["merges"]));
    if (byte_level) {
      std::string name = pre_;
      if (name.empty()) {
        auto found = pre_tokenizer_name(pre_tokenizer);
        HETERO_RETURN_IF_ERROR(found.status().with_prefix(path_));
        name = *found;
      }
      writer_.set_string("tokenizer.ggml.model", "gpt2");
      writer_.set_string("tokenizer.ggml.pre", name);
      write_tokens();
      writer_.set_strings("tokenizer.ggml.merges", merges_);
    } else {
      writer_.set_string("tokenizer.ggml.model", "llama");
      writer_.set_string("tokenizer.ggml.pre", "default");
      write_tokens();
      writer_.set_floats("tokenizer.ggml.scores", scores());
      writer_.set_bool("tokenizer.ggml.add_space_prefix", adds_space_prefix());
    }
    HETERO_RETURN_IF_ERROR(special_ids(byte_level));
    return chat_templates();
  }

 private:
  Status wrong_id(const std::string& token, const Json& id) const {
    return malformed(fmt::format("{}: token '{:.60}' has id {}, expected 0 to {} (the rows of the embedding)",
                                 path_, token, id.dump().substr(0, 30), vocabulary_ - 1));
  }
  bool is_id(const Json& id) const {
    return id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < vocabulary_;
  }

  Status tokens(const Json& model, bool spm) {
    texts_.assign(static_cast<size_t>(vocabulary_), "");
    types_.assign(static_cast<size_t>(vocabulary_), kUnused);
    std::vector<bool> taken(texts_.size(), false);
    for (const auto& [token, id] : model["vocab"].items()) {
      if (!is_id(id)) {
        return wrong_id(token, id);
      }
      const auto i = id.get<size_t>();
      if (taken[i]) {
        return malformed(
            fmt::format("{}: tokens '{:.60}' and '{:.60}' have the same id {}", path_, texts_[i], token, i));
      }
      taken[i] = true;
      texts_[i] = token;
      types_[i] = spm && is_byte_token(token) ? kByte : kNormal;
    }
    const std::string unknown =
        model.contains("unk_token") && model["unk_token"].is_string() ? model["unk_token"] : "";
    const Json added = json_.value("added_tokens", Json::array());
    for (const Json& token : added.is_array() ? added : Json::array()) {
      if (!token.is_object() || !token.value("content", Json()).is_string() ||
          !is_id(token.value("id", Json()))) {
        return wrong_id(token.dump(-1, ' ', false, Json::error_handler_t::replace),
                        token.is_object() ? token.value("id", Json()) : Json());
      }
      const auto i = token["id"].get<size_t>();
      const bool special = token.value("special", false);
      texts_[i] = token["content"].get<std::string>();
      if (texts_[i].empty()) {
        return malformed(fmt::format("{}: added token {} is empty", path_, i));
      }
      types_[i] = special ? kControl : kUserDefined;
      if (types_[i] == kUserDefined && spm) {
        texts_[i] = with_spaces(texts_[i]);  // they are found in the text as it is
      }
      taken[i] = true;
      added_[texts_[i]] = static_cast<int64_t>(i);
    }
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (!taken[i]) {
        texts_[i] = fmt::format("[PAD{}]", i);
      }
      if (spm && !unknown.empty() && texts_[i] == unknown) {
        types_[i] = kUnknown;
        unknown_ = static_cast<int64_t>(i);
      }
    }
    return {};
  }

  Status merges(const Json& list) {
    for (const Json& merge : list) {
      if (merge.is_string()) {
        merges_.push_back(merge.get<std::string>());
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        merges_.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
      } else {
        return malformed(
            fmt::format("{}: merge {} is {}, expected two parts", path_, merges_.size(),
                        merge.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60)));
      }
    }
    return {};
  }

  /// SentencePiece joins the pair whose joined text has the highest score. The merges were made from
  /// those scores, so the first merge that gives a token ranks it.
  std::vector<float> scores() const {
    std::unordered_map<std::string, size_t> rank;
    for (size_t i = 0; i < merges_.size(); ++i) {
      std::string joined = merges_[i];
      joined.erase(joined.find(' '), 1);
      rank.emplace(std::move(joined), i);
    }
    std::vector<float> scores(texts_.size(), 0.0f);
    for (size_t i = 0; i < texts_.size(); ++i) {
      const auto found = rank.find(texts_[i]);
      scores[i] = types_[i] != kNormal  ? 0.0f
                  : found == rank.end() ? -static_cast<float>(merges_.size())
                                        : -static_cast<float>(found->second);
    }
    return scores;
  }

  bool adds_space_prefix() const {
    const Json normalizer = json_.value("normalizer", Json());
    const Json pre_tokenizer = json_.value("pre_tokenizer", Json());
    if (const Json* metaspace = find_type(pre_tokenizer, "Metaspace")) {
      return metaspace->value("prepend_scheme",
                              metaspace->value("add_prefix_space", true) ? "always" : "never") != "never";
    }
    return find_type(normalizer, "Prepend") != nullptr;
  }

  void write_tokens() {
    writer_.set_strings("tokenizer.ggml.tokens", texts_);
    writer_.set_ints("tokenizer.ggml.token_type", types_);
  }

  /// The id behind a name such as "bos_token": by tokenizer_config.json, or else by config.json.
  std::optional<int64_t> special_id(const std::string& name) const {
    if (tokenizer_config_.is_object() && tokenizer_config_.contains(name)) {
      const Json& token = tokenizer_config_[name];
      const Json content = token.is_object() ? token.value("content", Json()) : token;
      if (content.is_string()) {
        const auto found = added_.find(content.get<std::string>());
        if (found != added_.end()) {
          return found->second;
        }
        const auto in_texts = std::find(texts_.begin(), texts_.end(), content.get<std::string>());
        if (in_texts != texts_.end()) {
          return in_texts - texts_.begin();
        }
      }
    }
    Json id = config_.value(name + "_id", Json());
    if (id.is_array() && !id.empty()) {
      id = Json(id[0]);
    }
    return is_id(id) ? std::optional(id.get<int64_t>()) : std::nullopt;
  }

  Status special_ids(bool byte_level) {
    const std::optional<int64_t> bos = special_id("bos_token");
    const std::optional<int64_t> eos = special_id("eos_token");
    const auto write = [&](const char* key, std::optional<int64_t> id) {
      if (id) {
        writer_.set_uint(key, static_cast<uint32_t>(*id));
      }
    };
    write("tokenizer.ggml.bos_token_id", bos);
    write("tokenizer.ggml.eos_token_id", eos);
    write("tokenizer.ggml.unknown_token_id", unknown_ ? unknown_ : special_id("unk_token"));
    write("tokenizer.ggml.padding_token_id", special_id("pad_token"));
    const auto flag = [&](const char* key, std::optional<int64_t> id, const char* gguf_key, bool first) {
      std::optional<bool> adds;
      if (tokenizer_config_.is_object() && tokenizer_config_.contains(key) &&
          tokenizer_config_[key].is_boolean()) {
        adds = tokenizer_config_[key].get<bool>();
      } else if (const auto from_template = template_adds(id, first)) {
        adds = from_template;
      } else if (byte_level) {
        adds = false;
      }
      if (adds) {
        writer_.set_bool(gguf_key, *adds && id.has_value());
      }
    };
    flag("add_bos_token", bos, "tokenizer.ggml.add_bos_token", true);
    flag("add_eos_token", eos, "tokenizer.ggml.add_eos_token", false);
    return {};
  }

  /// Whether the post-processor puts the token at the beginning (or end) of a text.
  std::optional<bool> template_adds(std::optional<int64_t> id, bool first) const {
    const Json post = json_.value("post_processor", Json());
    const Json* found = find_type(post, "TemplateProcessing");
    if (found == nullptr || !found->contains("single") || !(*found)["single"].is_array() ||
        (*found)["single"].empty()) {
      return std::nullopt;
    }
    const Json& edge = first ? (*found)["single"].front() : (*found)["single"].back();
    if (!id || !edge.is_object() || !edge.contains("SpecialToken") || !edge["SpecialToken"].is_object()) {
      return false;
    }
    return edge["SpecialToken"].value("id", "") == texts_[static_cast<size_t>(*id)];
  }

  Status chat_templates() {
    auto file = read_text_file(folder_ + "/chat_template.jinja");
    if (file.ok()) {
      writer_.set_string("tokenizer.chat_template", *file);
      return {};
    }
    if (file.status().code() != Code::kNotFound) {
      return file.status();
    }
    const Json given =
        tokenizer_config_.is_object() ? tokenizer_config_.value("chat_template", Json()) : Json();
    if (given.is_string()) {
      writer_.set_string("tokenizer.chat_template", given.get<std::string>());
    }
    for (const Json& named : given.is_array() ? given : Json::array()) {  // [{name, template}]
      if (named.is_object() && named.value("name", Json()).is_string() &&
          named.value("template", Json()).is_string()) {
        const auto name = named["name"].get<std::string>();
        writer_.set_string(name == "default" ? "tokenizer.chat_template" : "tokenizer.chat_template." + name,
                           named["template"].get<std::string>());
      }
    }
    return {};
  }

  const std::string& folder_;
  const std::string path_;
  const Json& config_;
  const int64_t vocabulary_;
  const std::string& pre_;
  GgufWriter& writer_;
  Json json_;
  Json tokenizer_config_;
  std::vector<std::string> texts_;
  std::vector<int32_t> types_;
  std::vector<std::string> merges_;
  std::map<std::string, int64_t> added_;
  std::optional<int64_t> unknown_;
};

}  // namespace

Status import_tokenizer(const std::string& folder, const Json& config, int64_t vocabulary,
                        const std::string& pre, GgufWriter& writer) {
  try {
    return Import(folder, config, vocabulary, pre, writer).run();
  } catch (const nlohmann::json::exception& e) {  // a member of another type than the format's
    return malformed(fmt::format("{}/tokenizer.json or tokenizer_config.json: {}", folder, e.what()));
  }
}

}  // namespace hetero
