// For tests of grammars: a vocabulary that is given in the test, and random texts of a grammar.
#pragma once

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "text/grammar.h"

namespace hetero {

/// Tokens with the given bytes, then one end token.
class ListedTokens final : public Tokenizer {
 public:
  explicit ListedTokens(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
    size_ = static_cast<int64_t>(pieces_.size()) + 1;
    eos_ = static_cast<TokenId>(pieces_.size());
    end_tokens_ = {eos_};
  }
  /// One token for each byte.
  static ListedTokens bytes() {
    std::vector<std::string> pieces;
    for (int byte = 0; byte < 256; ++byte) {
      pieces.emplace_back(1, static_cast<char>(byte));
    }
    return ListedTokens(std::move(pieces));
  }

  Result<std::vector<TokenId>> encode(std::string_view, bool, bool) const override {
    return unsupported("not in this test");
  }
  std::string piece(TokenId id, bool) const override {
    return static_cast<size_t>(id) < pieces_.size() ? pieces_[static_cast<size_t>(id)] : "";
  }
  std::string decode(const std::vector<TokenId>& ids, bool) const override {
    std::string text;
    for (const TokenId id : ids) {
      text += piece(id, false);
    }
    return text;
  }

 private:
  std::vector<std::string> pieces_;
};

/// Whether the whole text follows the grammar.
inline bool matches(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  static const auto trie = std::make_shared<const TokenTrie>(ListedTokens::bytes());
  GrammarMatcher m(grammar, trie);
  for (const char byte : text) {
    const auto id = static_cast<TokenId>(static_cast<uint8_t>(byte));
    if (!m.allows(id) || !m.accept(id).ok()) {
      return false;
    }
  }
  return m.may_end();
}

/// A text of the grammar, drawn byte by byte; empty if it was not complete after `limit` bytes.
inline std::string random_text(const std::shared_ptr<const Grammar>& grammar, std::mt19937_64& random,
                               size_t limit = 5000) {
  static const auto trie = std::make_shared<const TokenTrie>(ListedTokens::bytes());
  GrammarMatcher m(grammar, trie);
  std::string text;
  while (text.size() < limit) {
    const std::vector<bool>& allowed = m.allowed();
    std::vector<TokenId> ids;
    for (size_t id = 0; id < allowed.size(); ++id) {
      if (allowed[id]) {
        ids.push_back(static_cast<TokenId>(id));
      }
    }
    if (ids.empty() || m.must_end() || (m.may_end() && random() % 3 == 0)) {
      return m.may_end() ? text : "";
    }
    // Closing marks and quotes come up more often than one in 250, so that texts end.
    std::vector<TokenId> closing;
    for (const TokenId id : ids) {
      if (id == '"' || id == '}' || id == ']') {
        closing.push_back(id);
      }
    }
    const auto& from = !closing.empty() && random() % 4 == 0 ? closing : ids;
    const TokenId id = from[random() % from.size()];
    if (id == 256) {
      return text;
    }
    if (!m.accept(id).ok()) {
      return "";
    }
    text.push_back(static_cast<char>(id));
  }
  return "";
}

}  // namespace hetero
