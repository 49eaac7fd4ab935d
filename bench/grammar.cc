// What a grammar costs for each generated token, apart from the model: time of Sampler::sample() and
// GrammarMatcher::accept() with a grammar, less the time of sample() without one.
//
//   grammar_bench MODEL.gguf      (a vocabulary-only file will do)
//
// The texts are given, so that every grammar is followed through a real text; the logits are noise
// (the worst case: the likeliest tokens are mostly not allowed) or noise with the text's token on top
// (what a model that knows the format gives).
#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "gguf/file.h"
#include "text/sampler.h"

namespace hetero {
namespace {

using Clock = std::chrono::steady_clock;

double micros(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

struct Case {
  const char* name;
  Result<std::shared_ptr<const Grammar>> grammar;
  std::string text;
};

std::string people(int count) {
  std::string text = "[";
  for (int i = 0; i < count; ++i) {
    text += fmt::format(
        "{}{{\"name\": \"Person number {} of the town\",\"age\": {},\"skills\": [\"cooking, slowly\", "
        "\"chess\"]}}",
        i == 0 ? "" : ", ", i, i % 90);
  }
  return text + "]";
}

int run(const char* path) {
  const auto file = GgufFile::open(path);
  if (!file.ok()) {
    fmt::print(stderr, "{}\n", file.status().message());
    return 1;
  }
  const auto tokenizer = Tokenizer::load(**file);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.status().message());
    return 1;
  }
  const auto begin = Clock::now();
  const auto trie = std::make_shared<const TokenTrie>(**tokenizer);
  fmt::print("{} tokens; the tree of tokens took {:.0f} ms, once for each model\n", (*tokenizer)->size(),
             micros(Clock::now() - begin) / 1e3);
  const auto schema =
      nlohmann::ordered_json::parse(R"({"type": "array", "items": {"type": "object", "properties": {
      "name": {"type": "string", "maxLength": 60}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
      "skills": {"type": "array", "items": {"type": "string"}}}, "required": ["name", "age", "skills"]}})");
  const Case cases[] = {{"any text", Grammar::from_gbnf("root ::= .*"), people(20)},
                        {"any JSON", Grammar::from_json_schema(nlohmann::ordered_json::object()), people(20)},
                        {"schema of people", Grammar::from_json_schema(schema), people(20)},
                        {"2000 characters", Grammar::from_gbnf("root ::= [^\\x00]{0,2000}"), people(20)}};
  fmt::print("{:<18} {:<8} {:<7} {:>12} {:>14} {:>14}\n", "grammar", "logits", "temp", "tokens",
             "median us more", "mean us more");
  for (const Case& c : cases) {
    if (!c.grammar.ok()) {
      fmt::print(stderr, "{}: {}\n", c.name, c.grammar.status().message());
      return 1;
    }
    const auto ids = (*tokenizer)->encode(c.text, false, false);
    for (const bool knows : {true, false}) {
      for (const float temperature : {0.0f, 0.8f}) {
        SamplerOptions options;
        options.temperature = temperature;
        Sampler plain(options);
        Sampler constrained(options);
        GrammarMatcher matcher(*c.grammar, trie);
        std::mt19937 random(1);
        std::normal_distribution<float> normal(0.0f, 2.0f);
        std::vector<float> logits(static_cast<size_t>((*tokenizer)->size()));
        std::vector<double> more;
        for (const TokenId id : *ids) {
          std::generate(logits.begin(), logits.end(), [&] { return normal(random); });
          logits[static_cast<size_t>(id)] += knows ? 20.0f : 0.0f;
          const auto t0 = Clock::now();
          plain.sample(logits);
          const auto t1 = Clock::now();
          constrained.sample(logits, &matcher);
          if (const Status s = matcher.accept(id); !s.ok()) {
            fmt::print(stderr, "{}: {}\n", c.name, s.message());
            return 1;
          }
          more.push_back(micros(Clock::now() - t1) - micros(t1 - t0));
        }
        double sum = 0.0;
        for (const double x : more) {
          sum += x;
        }
        const size_t count = more.size();
        std::nth_element(more.begin(), more.begin() + static_cast<int64_t>(count / 2), more.end());
        fmt::print("{:<18} {:<8} {:<7} {:>12} {:>14.0f} {:>14.0f}\n", c.name, knows ? "peaked" : "noise",
                   temperature, count, more[count / 2], sum / static_cast<double>(count));
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: grammar_bench MODEL.gguf\n", stderr);
    return 2;
  }
  return hetero::run(argv[1]);
}
