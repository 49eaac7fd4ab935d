#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cases.h"
#include "gguf/file.h"

namespace hetero {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

Result<std::string> render(std::string_view source, const Json& context = Json::object(),
                           const TemplateLimits& limits = {}) {
  HETERO_TRY(const ChatTemplate parsed, ChatTemplate::parse(source, limits));
  return parsed.render(context);
}

std::string error_of(std::string_view source, const Json& context = Json::object(),
                     const TemplateLimits& limits = {}) {
  const auto text = render(source, context, limits);
  return text.ok() ? "no error, but: " + text->substr(0, 100) : text.status().message();
}

Json read(const std::filesystem::path& path) {
  std::ifstream stream(path);
  return Json::parse(stream);
}

/// The variables of one case of the shared data, as its "context_rule" says.
Json context_of(const Json& file, const Json& test) {
  Json context = {{"messages", test.contains("messages") ? test["messages"] : file["messages"]},
                  {"tools", test.value("tools", Json())},
                  {"documents", nullptr},
                  {"add_generation_prompt", test.value("add_generation_prompt", false)},
                  {"bos_token", file["bos_token"]},
                  {"eos_token", file["eos_token"]},
                  {"now", file["now"]}};
  if (test.contains("extra")) {
    context.update(test["extra"]);
  }
  return context;
}

/// Renders a case: the expected text byte for byte, or an error where one is expected, which for
/// raise_exception carries the template's own words.
void check(const Json& file, const Json& test, const std::string& source, const std::string& name) {
  SCOPED_TRACE(name);
  const auto text = render(source, context_of(file, test));
  if (test.contains("expected")) {
    ASSERT_TRUE(text.ok()) << text.status().message();
    EXPECT_EQ(*text, test["expected"].get<std::string>());
    return;
  }
  ASSERT_FALSE(text.ok()) << "expected: " << test["expected_error"] << "\nrendered: " << *text;
  if (test["error_kind"] == "raise_exception") {
    EXPECT_THAT(text.status().message(), HasSubstr(test["expected_error"].get<std::string>()));
  }
}

TEST(ChatTemplateCases, EveryModelsTemplateRendersAsJinja2Does) {
  HETERO_NEED_CASES("chat");
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cases_dir() + "/chat")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".json" || name[0] == '_') {
      continue;
    }
    const Json file = read(entry.path());
    for (const Json& test : file["cases"]) {
      check(file, test, file["template"], name + ", case " + test["id"].get<std::string>());
      ++cases;
    }
  }
  EXPECT_GE(cases, 1000);
}

TEST(ChatTemplateCases, UnitsOfTheLanguage) {
  HETERO_NEED_CASES("chat");
  const Json file = read(cases_dir() + "/chat/_jinja_units.json");
  for (const Json& test : file["cases"]) {
    check(file, test, test["template"], test["template"]);
  }
  EXPECT_GE(file["cases"].size(), 100U);
}

TEST(ChatTemplateCases, HostileTemplatesEndInAnErrorWithinTheLimits) {
  HETERO_NEED_CASES("hostile");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(cases_dir() + "/hostile")) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("ct-", 0) != 0) {
      continue;
    }
    SCOPED_TRACE(name);
    ++files;
    const auto model = GgufFile::open(entry.path().string());
    ASSERT_TRUE(model.ok()) << model.status().message();
    const auto source = (*model)->get_string("tokenizer.chat_template");
    if (!source.ok()) {
      EXPECT_EQ(name, "ct-type-u32.gguf") << source.status().message();
      continue;
    }
    const auto text = render(*source, {{"messages", {{{"role", "user"}, {"content", "Hi"}}}},
                                       {"add_generation_prompt", true},
                                       {"bos_token", "<s>"},
                                       {"eos_token", "</s>"}});
    EXPECT_FALSE(text.ok()) << *source << "\nrendered: " << text->substr(0, 200);
  }
  EXPECT_GE(files, 15);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  EXPECT_LT(usage.ru_maxrss, 512 << 10) << "KiB, the manifest's limit, of this whole process";
#endif
}

TEST(ChatTemplate, ErrorsCarryTheLine) {
  EXPECT_THAT(error_of("a\nb\n{% if x %}\n"), HasSubstr("line"));
  EXPECT_THAT(error_of("a\n{{ raise_exception('no system') }}"), HasSubstr("line 2: no system"));
  EXPECT_THAT(error_of("{{ x.y.z }}", {{"x", Json::object()}}), HasSubstr("y"));
  EXPECT_THAT(error_of(std::string_view("a\n\0", 3)), HasSubstr("line 2: a NUL byte"));
  EXPECT_THAT(error_of("{{ x }}", Json::array()), HasSubstr("must be an object"));
  EXPECT_THAT(error_of("{{ strftime_now('%Y') }}", {{"now", "yesterday"}}), HasSubstr("'now'"));
}

TEST(ChatTemplate, FormatsAsPythonDoes) {
  EXPECT_EQ(*render("{{ '{:5}|{:+}|{:,}'.format(true, 5, 12345) }}"), "    1|+5|12,345");
  EXPECT_EQ(*render("{{ '{!a} {!r}'.format('\u00fc', '\u00fc') }}{{ '%a' % '\U0001F600' }}"),
            "'\\xfc' '\u00fc''\\U0001f600'");
  EXPECT_EQ(*render("{{ '%x %X %#o' % (255, 48879, 8) }} {{ '{:b}'.format(5) }}"), "ff BEEF 0o10 101");
  for (const char* wrong : {"{{ '{}{0}'.format(1) }}", "{{ '{0}{}'.format(1) }}", "{{ '{:+}'.format('x') }}",
                            "{{ '{:,}'.format('x') }}", "{{ '{:c}'.format(1114112) }}"}) {
    EXPECT_FALSE(render(wrong).ok()) << wrong;
  }
}

TEST(ChatTemplate, StepsAreLimited) {
  TemplateLimits limits;
  limits.steps = 1000;
  EXPECT_TRUE(render("{% for i in range(10) %}{{ i }}{% endfor %}", Json::object(), limits).ok());
  EXPECT_THAT(error_of("{% for i in range(10000) %}{{ i }}{% endfor %}", Json::object(), limits),
              HasSubstr("line 1"));
}

TEST(ChatTemplate, OutputIsLimited) {
  TemplateLimits limits;
  limits.output_bytes = 1000;
  EXPECT_TRUE(render("{{ 'x' * 1000 }}", Json::object(), limits).ok());
  EXPECT_FALSE(render("{{ 'x' * 1001 }}", Json::object(), limits).ok());
  EXPECT_FALSE(render("{% for i in range(200) %}{{ 'xxxxxx' }}{% endfor %}", Json::object(), limits).ok());
  EXPECT_FALSE(render("{{ ('x' * 900 ~ 'y' * 900) | length }}", Json::object(), limits).ok());
}

TEST(ChatTemplate, ValuesAreLimited) {
  TemplateLimits limits;
  limits.value_bytes = 100'000;
  EXPECT_TRUE(render("{{ ([0] * 100) | length }}", Json::object(), limits).ok());
  EXPECT_FALSE(render("{{ ([0] * 1000000) | length }}", Json::object(), limits).ok());
  EXPECT_FALSE(
      render(
          "{% set ns = namespace(l=[0]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
          Json::object(), limits)
          .ok());
}

TEST(ChatTemplate, DepthIsLimitedInParsingAndInEvaluation) {
  const auto nested = [](size_t n) {
    return "{{ " + std::string(n, '(') + "1" + std::string(n, ')') + " }}";
  };
  EXPECT_EQ(*render(nested(50)), "1");
  EXPECT_FALSE(render(nested(100'000)).ok());
  std::string lists;
  for (int i = 0; i < 100'000; ++i) {
    lists += "[";
  }
  EXPECT_FALSE(render("{{ " + lists).ok());
  std::string nots;
  for (int i = 0; i < 100'000; ++i) {
    nots += "not ";
  }
  EXPECT_FALSE(render("{{ " + nots + "x }}").ok());
  EXPECT_FALSE(render("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}").ok());
  // A value that is nested more deeply than templates may recurse.
  Json deep = 1;
  for (int i = 0; i < 10'000; ++i) {
    deep = Json::array({std::move(deep)});
  }
  Json context;
  context["deep"] = std::move(deep);
  EXPECT_FALSE(render("{{ deep }}", context).ok());
  EXPECT_FALSE(render("{{ deep | tojson }}", context).ok());
}

TEST(ChatTemplate, ManyThreadsRenderOneTemplate) {
  const auto parsed =
      ChatTemplate::parse("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] {
      const auto text =
          parsed->render({{"messages", {{{"role", "user"}, {"content", " " + std::to_string(i) + " "}}}}});
      texts[i] = text.ok() ? *text : text.status().message();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(texts, testing::ElementsAre("<user>0", "<user>1", "<user>2", "<user>3"));
}

}  // namespace
}  // namespace hetero
