// The token table of a model file, checked, and the special tokens in running text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "gguf/file.h"
#include "text/tokenizer.h"

namespace hetero {

/// Numbers as in `tokenizer.ggml.token_type`.
enum class TokenType : uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

/// Tokens as the file lists them. Movable, not copyable: the map's keys point into `texts`.
struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<TokenType> types;
  std::vector<float> scores;  // empty where the file has none

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  TokenType type(TokenId id) const { return types[static_cast<size_t>(id)]; }
  const std::string& text(TokenId id) const { return texts[static_cast<size_t>(id)]; }
  bool contains(int64_t id) const { return id >= 0 && id < static_cast<int64_t>(texts.size()); }
  /// Control and unknown tokens: named in prompts on purpose, never spelled by ordinary text.
  bool is_special(TokenId id) const {
    return type(id) == TokenType::kControl || type(id) == TokenType::kUnknown;
  }
  /// The token of any type with exactly this text; -1 if there is none.
  TokenId find(std::string_view text) const;
  /// The same among the tokens that ordinary text can turn into.
  TokenId find_ordinary(std::string_view text) const;

  std::unordered_map<std::string_view, TokenId> by_text;
};

/// Reads and checks tokens, types and scores. Tokens that are known to end a turn or to steer
/// fill-in-the-middle count as control tokens whatever their type in the file says.
Result<Vocabulary> load_vocabulary(const GgufFile& file);

/// Ids of the tokens whose text is known to end a turn, ascending.
std::vector<TokenId> known_end_tokens(const Vocabulary& vocabulary);

/// Finds special and user-defined tokens in text: at each place the longest one.
class SpecialTokens {
 public:
  /// A part of a text: one special token, or (id -1) ordinary text.
  struct Fragment {
    std::string_view text;
    TokenId id = -1;
  };

  /// `strip_after`: tokens that swallow the white space behind them.
  static Result<SpecialTokens> build(const GgufFile& file, const Vocabulary& vocabulary,
                                     std::vector<bool> strip_after);

  /// Without `parse_special` only user-defined tokens are found. O(text size * longest token).
  std::vector<Fragment> split(std::string_view text, bool parse_special) const;

 private:
  struct Node {
    TokenId id = -1;
    bool user_defined = false;
  };
  static uint64_t edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

  std::vector<Node> nodes_{1};
  std::unordered_map<uint64_t, uint32_t> edges_;
  std::array<bool, 256> begins_{};  // bytes that begin some token: most text is passed over quickly
  std::vector<bool> strip_after_;   // by token id; empty: none does
};

/// What a space is written as in the tokens of SentencePiece: U+2581.
inline constexpr std::string_view kWrittenSpace = "\u2581";
/// `text` with its spaces written as in tokens, and back.
std::string write_spaces(std::string_view text);
std::string read_spaces(std::string_view text);
/// The byte that "<0x41>" names; -1 for any other text.
int byte_of_token(std::string_view text);

}  // namespace hetero
