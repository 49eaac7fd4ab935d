#include "text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetero {
namespace {

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";

// Bounds the work of looking for special tokens in a text; real ones are below 100 bytes.
constexpr size_t kLongestSpecialToken = 1024;

// Texts of tokens after which generation ends, in the files of the common model families; llama.cpp
// (src/llama-vocab.cpp) keeps such a list too. Files often give these tokens the wrong type.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

// Fill-in-the-middle marks: control tokens, but not the end of anything.
constexpr std::string_view kControlTexts[] = {
    "<|fim_prefix|>", "<fim-prefix>",    "<fim_prefix>",    "<｜fim▁begin｜>", "<PRE>",
    "▁<PRE>",         "<|code_prefix|>", "<|prefix|>",      "<|fim_suffix|>",  "<fim-suffix>",
    "<fim_suffix>",   "<｜fim▁hole｜>",  "<SUF>",           "▁<SUF>",          "<|code_suffix|>",
    "<|suffix|>",     "<|fim_middle|>",  "<fim-middle>",    "<fim_middle>",    "<｜fim▁end｜>",
    "<MID>",          "▁<MID>",          "<|code_middle|>", "<|middle|>",
};

Status wrong_count(const GgufFile& file, const char* key, size_t found, size_t expected) {
  return malformed(fmt::format("{}: '{}' has {} elements, expected {}, one for each of '{}'", file.path(),
                               key, found, expected, kTokensKey));
}

Status wrong_elements(const GgufFile& file, const char* key, const char* expected, const MetaArray& found) {
  return malformed(fmt::format("{}: '{}' must be an array of {}, found element type {}", file.path(), key,
                               expected, found.element_type));
}

Status load_types(const GgufFile& file, Vocabulary& v) {
  v.types.assign(v.texts.size(), TokenType::kNormal);
  if (file.find(kTypesKey) == nullptr) {
    return {};
  }
  HETERO_TRY(const MetaArray* types, file.get_array(kTypesKey));
  if (types->size != v.texts.size()) {
    return wrong_count(file, kTypesKey, types->size, v.texts.size());
  }
  if (types->signeds.size() != types->size && types->unsigneds.size() != types->size) {
    return wrong_elements(file, kTypesKey, "integers", *types);
  }
  for (size_t i = 0; i < types->size; ++i) {
    const int64_t type =
        types->signeds.empty() ? static_cast<int64_t>(types->unsigneds[i]) : types->signeds[i];
    if (type < 0 || type > static_cast<int64_t>(TokenType::kByte)) {
      return malformed(fmt::format("{}: '{}'[{}] is {}, expected a token type from 0 to 6", file.path(),
                                   kTypesKey, i, type));
    }
    v.types[i] = static_cast<TokenType>(type);
  }
  return {};
}

Status load_scores(const GgufFile& file, Vocabulary& v) {
  if (file.find(kScoresKey) == nullptr) {
    return {};
  }
  HETERO_TRY(const MetaArray* scores, file.get_array(kScoresKey));
  if (scores->floats.size() != scores->size && scores->signeds.size() != scores->size) {
    return wrong_elements(file, kScoresKey, "32-bit floats", *scores);
  }
  if (scores->size != v.texts.size()) {
    return wrong_count(file, kScoresKey, scores->size, v.texts.size());
  }
  v.scores.resize(scores->size);
  for (size_t i = 0; i < scores->size; ++i) {
    v.scores[i] = scores->floats.empty() ? static_cast<float>(scores->signeds[i])
                                         : static_cast<float>(scores->floats[i]);
    if (std::isnan(v.scores[i])) {
      return malformed(fmt::format("{}: '{}'[{}] is not a number", file.path(), kScoresKey, i));
    }
  }
  return {};
}

}  // namespace

TokenId Vocabulary::find(std::string_view t) const {
  const auto it = by_text.find(t);
  return it == by_text.end() ? -1 : it->second;
}

TokenId Vocabulary::find_ordinary(std::string_view t) const {
  const TokenId id = find(t);
  return id >= 0 && is_special(id) ? -1 : id;
}

Result<Vocabulary> load_vocabulary(const GgufFile& file) {
  Vocabulary v;
  HETERO_TRY(const MetaArray* tokens, file.get_array(kTokensKey));
  if (tokens->size == 0) {
    return malformed(fmt::format("{}: '{}' is empty, expected at least one token", file.path(), kTokensKey));
  }
  if (tokens->strings.size() != tokens->size) {
    return wrong_elements(file, kTokensKey, "strings", *tokens);
  }
  if (tokens->size > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    return malformed(fmt::format("{}: '{}' has {} tokens, expected fewer than 2^31", file.path(), kTokensKey,
                                 tokens->size));
  }
  v.texts = tokens->strings;
  v.by_text.reserve(v.texts.size());
  for (size_t i = 0; i < v.texts.size(); ++i) {
    if (v.texts[i].empty()) {
      continue;  // placeholders of some converters: no text becomes them
    }
    const auto [it, added] = v.by_text.emplace(v.texts[i], static_cast<TokenId>(i));
    if (!added) {
      return malformed(
          fmt::format("{}: '{}'[{}] and [{}] are the same token '{:.64}', expected distinct texts",
                      file.path(), kTokensKey, it->second, i, v.texts[i]));
    }
  }
  HETERO_RETURN_IF_ERROR(load_types(file, v));
  HETERO_RETURN_IF_ERROR(load_scores(file, v));
  // A vocabulary-only file has no embedding; a model's must have a row for each token.
  if (const Tensor* embedding = file.find_tensor("token_embd.weight");
      embedding != nullptr && embedding->rows() != static_cast<int64_t>(v.texts.size())) {
    return malformed(
        fmt::format("{}: '{}' has {} tokens, but tensor 'token_embd.weight' has {} rows, expected as many",
                    file.path(), kTokensKey, v.texts.size(), embedding->rows()));
  }
  const auto make_control = [&](std::string_view text) {
    if (const TokenId id = v.find(text); id >= 0 && v.type(id) != TokenType::kUnknown) {
      v.types[static_cast<size_t>(id)] = TokenType::kControl;
    }
  };
  std::for_each(std::begin(kEndTexts), std::end(kEndTexts), make_control);
  std::for_each(std::begin(kControlTexts), std::end(kControlTexts), make_control);
  return v;
}

std::string write_spaces(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    c == ' ' ? out += kWrittenSpace : out += c;
  }
  return out;
}

std::string read_spaces(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool space = text.substr(i, kWrittenSpace.size()) == kWrittenSpace;
    out += space ? ' ' : text[i];
    i += space ? kWrittenSpace.size() : 1;
  }
  return out;
}

int byte_of_token(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>' || digit(text[3]) < 0 ||
      digit(text[4]) < 0) {
    return -1;
  }
  return digit(text[3]) * 16 + digit(text[4]);
}

std::vector<TokenId> known_end_tokens(const Vocabulary& v) {
  const auto has = [&](std::string_view text) { return v.find(text) >= 0; };
  std::vector<TokenId> ids;
  for (const std::string_view text : kEndTexts) {
    // Where a format has marks for the end of a turn beside it, <|end|> only ends one message of
    // several (OpenAI's harmony, Solar Open); Gemma 4 keeps </s> without using it.
    if (text == "<|end|>" &&
        ((has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>")))) {
      continue;
    }
    if (text == "</s>" && has("<|tool_response>")) {
      continue;
    }
    if (const TokenId id = v.find(text); id >= 0) {
      ids.push_back(id);
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Result<SpecialTokens> SpecialTokens::build(const GgufFile& file, const Vocabulary& v,
                                           std::vector<bool> strip_after) {
  SpecialTokens result;
  result.strip_after_ = std::move(strip_after);
  for (size_t i = 0; i < v.texts.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const bool user_defined = v.type(id) == TokenType::kUserDefined;
    const std::string& text = v.texts[i];
    if ((!user_defined && !v.is_special(id)) || text.empty()) {
      continue;
    }
    if (text.size() > kLongestSpecialToken) {
      return unsupported(fmt::format("{}: '{}'[{}] is a special token of {} bytes, expected at most {}",
                                     file.path(), kTokensKey, i, text.size(), kLongestSpecialToken));
    }
    uint32_t node = 0;
    for (const char byte : text) {
      const auto [it, added] =
          result.edges_.emplace(edge(node, byte), static_cast<uint32_t>(result.nodes_.size()));
      if (added) {
        result.nodes_.emplace_back();
      }
      node = it->second;
    }
    result.nodes_[node] = {id, user_defined};
    result.begins_[static_cast<uint8_t>(text[0])] = true;
  }
  return result;
}

std::vector<SpecialTokens::Fragment> SpecialTokens::split(std::string_view text, bool parse_special) const {
  std::vector<Fragment> fragments;
  size_t ordinary = 0;  // where the ordinary text before `i` begins
  size_t i = 0;
  while (i < text.size()) {
    TokenId found = -1;
    size_t found_end = i;
    if (begins_[static_cast<uint8_t>(text[i])]) {
      uint32_t node = 0;
      for (size_t j = i; j < text.size(); ++j) {
        const auto it = edges_.find(edge(node, text[j]));
        if (it == edges_.end()) {
          break;
        }
        node = it->second;
        if (nodes_[node].id >= 0 && (parse_special || nodes_[node].user_defined)) {
          found = nodes_[node].id;
          found_end = j + 1;
        }
      }
    }
    if (found < 0) {
      ++i;
      continue;
    }
    if (i > ordinary) {
      fragments.push_back({text.substr(ordinary, i - ordinary), -1});
    }
    fragments.push_back({text.substr(i, found_end - i), found});
    i = found_end;
    if (!strip_after_.empty() && strip_after_[static_cast<size_t>(found)]) {
      while (i < text.size() && (text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r'))) {
        ++i;
      }
    }
    ordinary = i;
  }
  if (ordinary < text.size()) {
    fragments.push_back({text.substr(ordinary), -1});
  }
  return fragments;
}

}  // namespace hetero
