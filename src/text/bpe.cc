#include "text/bpe.h"

#include <fmt/format.h>

#include <bit>
#include <limits>
#include <utility>

#include "text/unicode.h"

namespace hetero {
namespace {

constexpr const char* kMergesKey = "tokenizer.ggml.merges";

bool never_in_utf8(uint8_t byte) {
  return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
}

// Undoes the spaces that a word-level tokenizer puts in front of punctuation, in the three passes of
// Hugging Face's clean_up_tokenization as llama.cpp's detokenizer performs them.
std::string clean_spaces(const std::string& text) {
  const auto drop_spaces = [](const std::string& in, auto&& drop_before) {
    std::string out;
    out.reserve(in.size());
    for (size_t i = 0; i < in.size(); ++i) {
      if (i > 0 && in[i - 1] == ' ' && drop_before(in, i)) {
        out.pop_back();
      }
      out.push_back(in[i]);
    }
    return out;
  };
  std::string out = drop_spaces(text, [](const std::string& s, size_t i) {
    return s[i] == '?' || s[i] == '!' || s[i] == '.' || s[i] == ',';
  });

  std::string joined;  // " ' " becomes "'"
  joined.reserve(out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    if (out.compare(i, 3, " ' ") == 0) {
      joined.push_back('\'');
      i += 2;
    } else {
      joined.push_back(out[i]);
    }
  }

  return drop_spaces(joined, [](const std::string& s, size_t i) {
    return s.compare(i, 2, "'s") == 0 || s.compare(i, 2, "'m") == 0 || s.compare(i, 3, "'re") == 0 ||
           s.compare(i, 3, "'ve") == 0;
  });
}

}  // namespace

void BpeTokenizer::MergeTable::reserve(size_t merges) {
  slots_.assign(std::bit_ceil(2 * merges + 1), {});
}

size_t BpeTokenizer::MergeTable::slot(uint64_t key) const {
  size_t i = (key * 0x9E3779B97F4A7C15u) >> 32;  // Fibonacci hashing, upper bits
  for (;; ++i) {
    i &= slots_.size() - 1;
    if (slots_[i].key == key || slots_[i].key == kFree) {
      return i;
    }
  }
}

void BpeTokenizer::MergeTable::insert(int32_t left, int32_t right, int32_t rank, int32_t id) {
  Slot& s = slots_[slot(key(left, right))];
  if (s.key == kFree) {
    s = {key(left, right), rank, id};
  }
}

std::optional<Merge> BpeTokenizer::MergeTable::find(int32_t left, int32_t right) const {
  const Slot& s = slots_[slot(key(left, right))];
  if (s.key == kFree) {
    return std::nullopt;
  }
  return Merge{static_cast<double>(s.rank), s.id};
}

BpeTokenizer::BpeTokenizer(Vocabulary vocabulary, PreTokenizer pretokenizer)
    : VocabTokenizer(std::move(vocabulary)), pretokenizer_(std::move(pretokenizer)) {}

Result<std::unique_ptr<BpeTokenizer>> BpeTokenizer::create(const GgufFile& file, Vocabulary vocabulary) {
  HETERO_TRY(const std::string model, file.get_string("tokenizer.ggml.model"));
  HETERO_TRY(const std::string pre, model == "gemma4" ? Result<std::string>(model)
                                                      : file.get_string_or("tokenizer.ggml.pre", "default"));
  auto pretokenizer = PreTokenizer::create(pre);
  if (!pretokenizer.ok()) {
    return pretokenizer.status().with_prefix(file.path());
  }
  HETERO_TRY(const MetaArray* merges, file.get_array(kMergesKey));
  if (merges->strings.size() != merges->size) {
    return malformed(fmt::format("{}: '{}' must be an array of strings, found element type {}", file.path(),
                                 kMergesKey, merges->element_type));
  }
  if (merges->size > static_cast<size_t>(std::numeric_limits<int32_t>::max()) / 4) {
    return malformed(fmt::format("{}: '{}' has {} elements, expected fewer than 2^29", file.path(),
                                 kMergesKey, merges->size));
  }

  std::unique_ptr<BpeTokenizer> t(new BpeTokenizer(std::move(vocabulary), std::move(*pretokenizer)));
  std::unordered_map<std::string, int32_t> tokenless;
  const auto symbol = [&](std::string text) {
    const TokenId id = t->vocabulary().find_ordinary(text);
    if (id >= 0) {
      return id;
    }
    const auto next = static_cast<int32_t>(t->vocabulary().texts.size() + tokenless.size());
    return tokenless.emplace(std::move(text), next).first->second;
  };
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(text, byte_alphabet_char(static_cast<uint8_t>(byte)));
    const TokenId id = t->vocabulary().find(text);
    // A user-defined token of that text means the character, not the byte.
    const bool character = id >= 0 && t->vocabulary().type(id) == TokenType::kUserDefined;
    t->byte_symbols_[byte] = symbol(character ? "<byte> " + text : std::move(text));
  }
  t->merges_.reserve(merges->size);
  for (size_t rank = 0; rank < merges->size; ++rank) {
    const std::string& merge = merges->strings[rank];
    const size_t space = merge.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string::npos) {
      return malformed(fmt::format("{}: '{}'[{}] is '{:.64}', expected two parts with one space between them",
                                   file.path(), kMergesKey, rank, merge));
    }
    const std::string left = merge.substr(0, space);
    const std::string right = merge.substr(space + 1);
    t->merges_.insert(symbol(left), symbol(right), static_cast<int32_t>(rank), symbol(left + right));
  }
  std::string replacement;
  append_utf8(replacement, kReplacementCharacter);
  Merger merger;
  std::string spelled;
  std::vector<TokenId> ids;
  t->encode_word(replacement, merger, spelled, ids);
  t->replacement_ = std::move(ids);
  return t;
}

Status BpeTokenizer::encode_text(std::string_view text, bool /*at_start*/, std::vector<TokenId>& ids) const {
  std::string written;
  if (traits().characters) {
    written = write_spaces(text);
    text = written;
  }
  HETERO_TRY(const std::vector<std::string_view> words, pretokenizer_.split(text));
  Merger merger;
  std::string spelled;
  for (const std::string_view word : words) {
    if (traits().characters) {
      encode_characters(word, merger, ids);
    } else {
      encode_word(word, merger, spelled, ids);
    }
  }
  return {};
}

void BpeTokenizer::encode_characters(std::string_view word, Merger& merger, std::vector<TokenId>& ids) const {
  const Vocabulary& v = vocabulary();
  if (word.find_first_not_of('\n') == std::string_view::npos) {  // merges know nothing of line ends
    if (const TokenId id = v.find_ordinary(word); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  merger.symbols().clear();
  for (size_t i = 0; i < word.size();) {
    const uint32_t length = decode_utf8(word.substr(i)).length;
    merger.add(static_cast<uint32_t>(i), length, v.find_ordinary(word.substr(i, length)));
    i += length;
  }
  merger.run([&](const Symbol& left, const Symbol& right) { return merges_.find(left.id, right.id); });
  for (const Symbol& s : merger.symbols()) {
    if (s.length > 0 && v.contains(s.id)) {
      ids.push_back(s.id);
    } else {
      for (const char byte : word.substr(s.begin, s.length)) {
        if (const TokenId id = v.find(fmt::format("<0x{:02X}>", static_cast<uint8_t>(byte))); id >= 0) {
          ids.push_back(id);
        }
      }
    }
  }
}

void BpeTokenizer::encode_word(std::string_view word, Merger& merger, std::string& spelled,
                               std::vector<TokenId>& ids) const {
  if (pretokenizer_.traits().whole_words) {
    spelled.clear();
    for (const char byte : word) {
      append_utf8(spelled, byte_alphabet_char(static_cast<uint8_t>(byte)));
    }
    if (const TokenId id = vocabulary().find_ordinary(spelled); id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  merger.symbols().clear();
  for (size_t i = 0; i < word.size(); ++i) {
    merger.add(static_cast<uint32_t>(i), 1, byte_symbols_[static_cast<uint8_t>(word[i])]);
  }
  merger.run([&](const Symbol& left, const Symbol& right) { return merges_.find(left.id, right.id); });
  for (const Symbol& s : merger.symbols()) {
    if (s.length == 0) {
      continue;
    }
    if (vocabulary().contains(s.id)) {
      ids.push_back(s.id);
      continue;
    }
    // A text that has no token is spelled in bytes. A byte without a token is left out, as the
    // models' own tokenizers do, unless it never occurs in UTF-8 (most vocabularies lack exactly
    // those bytes): then U+FFFD stands for it.
    for (const char byte : word.substr(s.begin, s.length)) {
      if (const int32_t id = byte_symbols_[static_cast<uint8_t>(byte)]; vocabulary().contains(id)) {
        ids.push_back(id);
      } else if (never_in_utf8(static_cast<uint8_t>(byte))) {
        ids.insert(ids.end(), replacement_.begin(), replacement_.end());
      }
    }
  }
}

std::string BpeTokenizer::piece(TokenId id, bool with_special) const {
  if (!vocabulary().contains(id) || (!with_special && vocabulary().is_special(id))) {
    return {};
  }
  const std::string& text = vocabulary().text(id);
  if (vocabulary().is_special(id) || vocabulary().type(id) == TokenType::kUserDefined) {
    return text;  // stands in the file as it is
  }
  if (traits().characters) {
    return vocabulary().type(id) == TokenType::kByte ? std::string(1, static_cast<char>(byte_of_token(text)))
                                                     : read_spaces(text);
  }
  std::string bytes;
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = std::string_view(text).substr(i);
    const Utf8Char c = decode_utf8(rest);
    const int byte = c.valid ? byte_of_alphabet_char(c.code) : -1;
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      bytes.append(rest.substr(0, c.length));  // outside the alphabet: stands for itself
    }
    i += c.length;
  }
  return bytes;
}

std::string BpeTokenizer::decode(const std::vector<TokenId>& ids, bool with_special) const {
  std::string text;
  for (const TokenId id : ids) {
    text += piece(id, with_special);
  }
  return traits().cleans_spaces ? clean_spaces(text) : text;
}

}  // namespace hetero
