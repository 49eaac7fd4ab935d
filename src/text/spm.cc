#include "text/spm.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "text/merge.h"
#include "text/unicode.h"

namespace hetero {
namespace {

constexpr std::string_view kSpace = kWrittenSpace;

// The end of the word that begins at `begin`: where the next space follows another character.
size_t next_word(std::string_view text, size_t begin) {
  size_t i = begin;
  while (text.substr(i, kSpace.size()) == kSpace) {
    i += kSpace.size();
  }
  return std::min(text.find(kSpace, i), text.size());
}

}  // namespace

Result<std::unique_ptr<SpmTokenizer>> SpmTokenizer::create(const GgufFile& file, Vocabulary vocabulary) {
  std::unique_ptr<SpmTokenizer> t(new SpmTokenizer(std::move(vocabulary)));
  const Vocabulary& v = t->vocabulary();
  if (v.scores.empty()) {
    return malformed(fmt::format(
        "{}: 'tokenizer.ggml.scores' is missing, expected a score for each token of a '{}' vocabulary",
        file.path(), "llama"));
  }
  HETERO_TRY(t->add_space_prefix_, file.get_bool_or("tokenizer.ggml.add_space_prefix", true));
  HETERO_TRY(t->remove_extra_whitespaces_,
             file.get_bool_or("tokenizer.ggml.remove_extra_whitespaces", false));

  t->byte_tokens_.fill(-1);
  for (size_t i = 0; i < v.texts.size(); ++i) {
    t->longest_token_ = std::max(t->longest_token_, v.texts[i].size());
    if (v.types[i] != TokenType::kByte) {
      const bool ordinary = !v.is_special(static_cast<TokenId>(i));
      t->words_are_separate_ &= !ordinary || next_word(v.texts[i], 0) == v.texts[i].size();
      continue;
    }
    const int byte = byte_of_token(v.texts[i]);
    if (byte < 0) {
      return malformed(
          fmt::format("{}: 'tokenizer.ggml.tokens'[{}] is a byte token '{:.64}', expected the form '<0x41>'",
                      file.path(), i, v.texts[i]));
    }
    t->byte_tokens_[static_cast<size_t>(byte)] = static_cast<TokenId>(i);
  }
  return t;
}

std::string SpmTokenizer::normalize(std::string_view text, bool at_start) const {
  std::string out;
  out.reserve(text.size() + text.size() / 4 + kSpace.size());
  if (remove_extra_whitespaces_) {
    const size_t first = std::min(text.find_first_not_of(' '), text.size());
    text = text.substr(first, text.find_last_not_of(' ') + 1 - first);
  }
  if (add_space_prefix_ && at_start && !text.empty()) {
    out += kSpace;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      out.push_back(text[i]);
    } else if (!remove_extra_whitespaces_ || text[i - 1] != ' ') {  // trimmed: never at 0
      out += kSpace;
    }
  }
  return out;
}

Status SpmTokenizer::encode_text(std::string_view raw, bool at_start, std::vector<TokenId>& ids) const {
  const std::string text = normalize(raw, at_start);
  if (text.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return invalid_argument(
        fmt::format("a text of {} bytes is too long, expected fewer than 2^31", text.size()));
  }
  const std::string_view view = text;
  Merger merger;
  size_t begin = 0;
  while (begin < view.size()) {
    const size_t end = words_are_separate_ ? next_word(view, begin) : view.size();
    encode_part(view.substr(begin, end - begin), merger, ids);
    begin = end;
  }
  return {};
}

void SpmTokenizer::encode_part(std::string_view part, Merger& merger, std::vector<TokenId>& ids) const {
  const Vocabulary& v = vocabulary();
  // Byte tokens are a fallback; the text "<0x41>" does not spell one.
  const auto find = [&](std::string_view text) -> TokenId {
    const TokenId id = v.find_ordinary(text);
    return id >= 0 && v.type(id) == TokenType::kByte ? -1 : id;
  };
  merger.symbols().clear();
  for (size_t i = 0; i < part.size();) {
    const uint32_t length = decode_utf8(part.substr(i)).length;
    merger.add(static_cast<uint32_t>(i), length, find(part.substr(i, length)));
    i += length;
  }
  merger.run([&](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    const size_t length = size_t{left.length} + right.length;
    if (length > longest_token_) {
      return std::nullopt;
    }
    const TokenId id = find(part.substr(left.begin, length));
    if (id < 0) {
      return std::nullopt;
    }
    return Merge{-static_cast<double>(v.scores[static_cast<size_t>(id)]), id};
  });
  for (const Symbol& s : merger.symbols()) {
    if (s.length == 0) {
      continue;
    }
    if (s.id >= 0) {
      ids.push_back(s.id);
      continue;
    }
    // A character without a token: its bytes, or the unknown token where a byte has none.
    const std::string_view bytes = part.substr(s.begin, s.length);
    const auto token_of = [&](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)]; };
    if (std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return token_of(byte) >= 0; })) {
      std::transform(bytes.begin(), bytes.end(), std::back_inserter(ids), token_of);
    } else if (unknown_ >= 0) {
      ids.push_back(unknown_);
    }
  }
}

std::string SpmTokenizer::piece(TokenId id, bool with_special) const {
  const Vocabulary& v = vocabulary();
  if (!v.contains(id) || (!with_special && v.is_special(id))) {
    return {};
  }
  const std::string& text = v.text(id);
  if (v.type(id) == TokenType::kByte) {
    return std::string(1, static_cast<char>(byte_of_token(text)));
  }
  if (v.is_special(id) || v.type(id) == TokenType::kUserDefined) {
    return text;
  }
  return read_spaces(text);
}

std::string SpmTokenizer::decode(const std::vector<TokenId>& ids, bool with_special) const {
  std::string text;
  bool first = true;
  for (const TokenId id : ids) {
    std::string part = piece(id, with_special);
    if (!vocabulary().contains(id) || (part.empty() && vocabulary().is_special(id))) {
      continue;
    }
    if (first && add_space_prefix_ && !part.empty() && part[0] == ' ') {
      part.erase(0, 1);  // the prefix that encoding added
    }
    first = false;
    text += part;
  }
  return text;
}

}  // namespace hetero
