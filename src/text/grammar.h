// Grammars that generated text must follow: GBNF (llama.cpp's notation, grammars/README.md there) or
// JSON schema, compiled into a pushdown automaton over UTF-8 bytes.
//
//   auto grammar = Grammar::from_gbnf("root ::= \"yes\" | \"no\"");
//   GrammarMatcher matcher(*grammar, std::make_shared<TokenTrie>(tokenizer));
//   TokenId id = sampler.sample(logits, &matcher);
//   matcher.accept(id);
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace hetero {

namespace grammar {
struct Automaton;
}

struct GrammarLimits {
  size_t source_bytes = 1 << 20;
  int depth = 200;          // of nesting in the source
  size_t states = 500'000;  // of the automaton
  size_t threads = 2'000;   // ways at once in which a text can be read
  uint32_t stack = 1'000;   // rules within rules while matching; deeper nesting is not allowed
};

/// Immutable; any number of matchers on any threads may share it.
class Grammar {
 public:
  /// Rules `name ::= ...` with literals, [classes], ., groups, |, * + ? {m,n} and # comments; the
  /// text must match `root`. Errors name line and rule: undefined and left-recursive rules, rules
  /// that can never end, token references (not supported), exceeded limits.
  static Result<std::shared_ptr<const Grammar>> from_gbnf(std::string_view source,
                                                          const GrammarLimits& limits = {});

  /// Every text of the grammar is one JSON document that is valid under the schema; not every valid
  /// document is such a text (properties come in the schema's order, white space is sparing, objects
  /// with `properties` have no others unless additionalProperties asks for them). A keyword that
  /// cannot be enforced is an error naming its path ("#/properties/a/not"). grammar_schema.cc lists
  /// what is supported.
  static Result<std::shared_ptr<const Grammar>> from_json_schema(const nlohmann::ordered_json& schema,
                                                                 const GrammarLimits& limits = {});

  explicit Grammar(std::shared_ptr<const grammar::Automaton> automaton, const GrammarLimits& limits);
  const grammar::Automaton& automaton() const { return *automaton_; }
  const GrammarLimits& limits() const { return limits_; }

 private:
  std::shared_ptr<const grammar::Automaton> automaton_;
  GrammarLimits limits_;
};

/// The bytes of every token of a vocabulary, as a tree of common beginnings in preorder. Immutable,
/// any number of threads. Tokens without bytes of their own (control tokens) are not in it.
class TokenTrie {
 public:
  explicit TokenTrie(const Tokenizer& tokenizer);

  struct Node {
    uint32_t end = 0;    // the first node behind this one's subtree
    TokenId token = -1;  // -1: only a beginning of others
    uint16_t depth = 0;  // bytes before this one
    uint8_t byte = 0;
  };
  std::span<const Node> nodes() const { return nodes_; }
  size_t depth() const { return depth_; }
  int64_t vocabulary() const { return static_cast<int64_t>(pieces_.size()); }
  const std::string& piece(TokenId id) const { return pieces_[static_cast<size_t>(id)]; }
  bool is_end(TokenId id) const { return ends_[static_cast<size_t>(id)]; }

 private:
  std::vector<std::string> pieces_;
  std::vector<bool> ends_;
  std::vector<Node> nodes_;
  size_t depth_ = 0;
};

/// Follows one generated text. The automaton's reachable sets of positions become states of a table
/// that is filled as they are met, so that most bytes cost one look-up. Not thread-safe.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);

  /// Whether the token may come next. Tokens that end the generation may where the text is complete.
  bool allows(TokenId id);
  /// The same for all tokens at once, by id; valid until the next call of any member.
  const std::vector<bool>& allowed();
  /// Appends an allowed token.
  Status accept(TokenId id);

  /// The text so far is complete.
  bool may_end() const { return states_[current_].may_end; }
  /// ... and nothing can follow it.
  bool must_end() const { return may_end() && states_[current_].configurations.empty(); }

  /// Whether these bytes may come next, without going there. For tests.
  bool allows_text(std::string_view bytes);

 private:
  // A position: a state of the automaton, and where to go on when its rule ends.
  struct Configuration {
    uint32_t state;
    uint32_t stack;
    bool operator==(const Configuration&) const = default;
  };
  struct StackNode {
    uint32_t state;  // to go on at
    uint32_t below;
    uint32_t depth;
  };
  struct SetOfPositions {
    std::vector<Configuration> configurations;  // sorted; only those with a byte to read
    bool may_end = false;
  };
  struct Hash {
    size_t operator()(const std::vector<Configuration>& set) const;
  };

  uint32_t step(uint32_t set, uint8_t byte);
  uint32_t walk(uint32_t set, std::string_view bytes);
  uint32_t push(uint32_t state, uint32_t below);
  uint32_t close(std::vector<Configuration> work);
  void forget();

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::vector<StackNode> stack_;
  std::unordered_map<uint64_t, uint32_t> stack_index_;
  std::vector<SetOfPositions> states_;  // 0: nothing matches
  std::unordered_map<std::vector<Configuration>, uint32_t, Hash> ending_, going_on_;
  std::vector<int32_t> transitions_;  // [state, byte class]; -1: not known yet
  std::unordered_map<uint32_t, std::vector<bool>> masks_;
  std::vector<uint32_t> path_;  // of allowed(): the state after each byte
  uint32_t current_ = 0;
  bool too_ambiguous_ = false;
};

}  // namespace hetero
