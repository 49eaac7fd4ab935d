// The methods of strings.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

bool is_markup(const Value& v) {
  return v.as<StringObject>().markup;
}

// Text work that looks at every code point through Unicode tables.
std::string_view costly(Renderer& r, const Value& self) {
  r.sandbox.scanned(4 * self.text().size());
  return self.text();
}

template <std::string (*Map)(std::string_view)>
Value mapped(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  return r.sandbox.string(Map(costly(r, self)), is_markup(self));
}

enum class Ends { kBoth, kLeft, kRight };

template <Ends ends>
Value stripped(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("strip", arguments, {""});
  r.sandbox.scanned(self.text().size());
  std::optional<std::string_view> chars;
  if (bound.some(0)) {
    chars = bound.text(0);
    r.sandbox.scanned(chars->size());
  }
  const std::string_view text = strip(self.text(), ends != Ends::kRight, ends != Ends::kLeft, chars);
  return r.sandbox.string(std::string(text), is_markup(self));
}

// s.islower() and its like: some code points count for it, none against.
template <bool (*For)(char32_t), bool (*Against)(char32_t)>
Value is_all(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  bool any = false;
  const std::string_view s = costly(r, self);
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    if (Against(c)) {
      return Value::boolean(false);
    }
    any = any || For(c);
  }
  return Value::boolean(any);
}

bool is_upper_or_title(char32_t c) {
  return is_upper(c) || is_title(c);
}
bool is_lower_or_title(char32_t c) {
  return is_lower(c) || is_title(c);
}
bool is_alnum(char32_t c) {
  return is_alpha(c) || is_numeric(c);
}
template <bool (*Is)(char32_t)>
bool is_not(char32_t c) {
  return !Is(c);
}

template <bool (*Is)(char32_t)>
Value all_are(Renderer& r, const Value& self, Arguments& arguments) {
  return is_all<Is, is_not<Is>>(r, self, arguments);
}

Value is_ascii_method(Renderer&, const Value& self, Arguments&) {
  return Value::boolean(is_ascii(self.text()));
}

Value is_printable_method(Renderer& r, const Value& self, Arguments& arguments) {
  return self.text().empty() ? Value::boolean(true) : all_are<is_printable>(r, self, arguments);
}

Value is_identifier_method(Renderer& r, const Value& self, Arguments&) {
  return Value::boolean(is_identifier(costly(r, self)));
}

Value is_title_method(Renderer& r, const Value& self, Arguments&) {
  bool any = false;
  bool cased_before = false;
  const std::string_view s = costly(r, self);
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = next_code_point(s, pos);
    const bool starts = is_upper_or_title(c);
    if ((starts && cased_before) || (is_lower(c) && !cased_before)) {
      return Value::boolean(false);
    }
    cased_before = starts || is_lower(c);
    any = any || cased_before;
  }
  return Value::boolean(any);
}

// The part of a string that optional start and end arguments select.
struct Window {
  std::string_view text;
  int64_t start = 0;  // in code points
  bool valid = true;  // false when it starts behind the end
};

Window window(Renderer& r, const Value& self, const Bound& bound, size_t first) {
  if (!bound.some(first) && !bound.some(first + 1)) {
    return {self.text(), 0, true};
  }
  r.sandbox.scanned(self.text().size());
  const int64_t size = length(self);
  const auto position = [&](size_t i, int64_t otherwise) {
    const int64_t at = bound.some(i) ? to_index(bound.at(i)) : otherwise;
    return std::max<int64_t>(at < 0 ? at + size : at, 0);
  };
  const int64_t start = position(first, 0);
  const int64_t end = std::min(position(first + 1, size), size);
  if (start > end) {
    return {{}, start, false};
  }
  const size_t from = byte_offset(self.text(), start);
  return {self.text().substr(from, byte_offset(self.text().substr(from), end - start)), start, true};
}

template <bool at_end>
Value has_affix(Renderer& r, const Value& self, Arguments& arguments) {
  const std::string_view name = at_end ? "endswith" : "startswith";
  const Bound bound(name, arguments, {"", "", ""}, 1);
  const Window w = window(r, self, bound, 1);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string()) {
      fail("TypeError",
           fmt::format("{} first arg must be str or a tuple of str, not {}", name, type_name(affix)));
    }
    const std::string_view a = affix.text();
    r.sandbox.copied(a.size());
    return w.valid && a.size() <= w.text.size() &&
           (at_end ? w.text.substr(w.text.size() - a.size()) : w.text.substr(0, a.size())) == a;
  };
  if (!bound.at(0).is(Kind::kTuple)) {
    return Value::boolean(matches(bound.at(0)));
  }
  const auto& affixes = bound.at(0).items();
  r.sandbox.step(static_cast<int64_t>(affixes.size()));
  return Value::boolean(std::any_of(affixes.begin(), affixes.end(), matches));
}

template <bool from_right, bool must_exist>
Value find_text(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("find", arguments, {"", "", ""}, 1);
  const std::string_view what = bound.text(0);
  const Window w = window(r, self, bound, 1);
  r.sandbox.scanned(w.text.size() + what.size());
  const size_t at = !w.valid ? kNotFound : from_right ? rfind(w.text, what) : find(w.text, what);
  if (at != kNotFound) {
    return Value::integer(w.start + count_code_points(w.text.substr(0, at)));
  }
  if (must_exist) {
    fail("ValueError", "substring not found");
  }
  return Value::integer(-1);
}

Value count(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"", "", ""}, 1);
  const std::string_view what = bound.text(0);
  const Window w = window(r, self, bound, 1);
  r.sandbox.scanned(w.text.size() + what.size());
  if (!w.valid) {
    return Value::integer(0);
  }
  if (what.empty()) {
    return Value::integer(count_code_points(w.text) + 1);
  }
  int64_t n = 0;
  for (size_t at = 0; (at = find(w.text, what, at)) != kNotFound; at += what.size()) {
    r.sandbox.scanned(what.size());
    ++n;
  }
  return Value::integer(n);
}

Value replace(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"", "", "count"}, 2);
  return replace_text(r.sandbox, self.text(), bound.text(0), bound.text(1), bound.integer(2, -1));
}

template <bool from_right>
Value split(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound(from_right ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  int64_t left = bound.integer(1, -1);
  std::string_view rest = self.text();
  r.sandbox.scanned(rest.size());
  std::vector<std::string_view> parts;
  if (bound.some(0)) {
    const std::string_view separator = bound.text(0);
    if (separator.empty()) {
      fail("ValueError", "empty separator");
    }
    for (; left != 0; --left) {
      if (from_right && separator.size() > 16) {
        r.sandbox.scanned(rest.size());  // rfind turns the text around
      }
      const size_t at = from_right ? rfind(rest, separator) : find(rest, separator);
      if (at == kNotFound) {
        break;
      }
      r.sandbox.step();
      r.sandbox.scanned(separator.size());
      parts.push_back(from_right ? rest.substr(at + separator.size()) : rest.substr(0, at));
      rest = from_right ? rest.substr(0, at) : rest.substr(at + separator.size());
    }
    parts.push_back(rest);
  } else {
    for (rest = strip(rest, !from_right, from_right); !rest.empty(); --left) {
      r.sandbox.step();
      size_t at = 0;  // where the word ends, or starts when looking from the right
      if (left == 0) {
        parts.push_back(rest);
        break;
      }
      if (from_right) {
        at = rest.size();
        while (at > 0) {
          const std::string_view shorter = strip(rest.substr(0, at), false, true);
          if (shorter.size() != at) {
            break;
          }
          do {
            --at;
          } while (at > 0 && (static_cast<unsigned char>(rest[at]) & 0xc0u) == 0x80);
        }
        parts.push_back(rest.substr(at));
        rest = strip(rest.substr(0, at), false, true);
      } else {
        while (at < rest.size()) {
          size_t next = at;
          if (is_space(next_code_point(rest, next))) {
            break;
          }
          at = next;
        }
        parts.push_back(rest.substr(0, at));
        rest = strip(rest.substr(at), true, false);
      }
    }
  }
  if (from_right) {
    std::reverse(parts.begin(), parts.end());
  }
  Ref<ListObject> out = r.sandbox.list();
  for (const std::string_view part : parts) {
    out->add(r.sandbox.string(std::string(part)));
  }
  return out;
}

Value split_lines_method(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  r.sandbox.scanned(self.text().size());
  Ref<ListObject> out = r.sandbox.list();
  for (const std::string_view line : split_lines(self.text(), bound.flag(0))) {
    r.sandbox.step();
    out->add(r.sandbox.string(std::string(line)));
  }
  return out;
}

template <bool from_right>
Value partition(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("partition", arguments, {""}, 1);
  const std::string_view separator = bound.text(0);
  if (separator.empty()) {
    fail("ValueError", "empty separator");
  }
  const std::string_view s = self.text();
  r.sandbox.scanned(s.size() + separator.size());
  const size_t at = from_right ? rfind(s, separator) : find(s, separator);
  Ref<ListObject> out = r.sandbox.tuple();
  const auto add = [&](std::string_view part) { out->add(r.sandbox.string(std::string(part))); };
  if (at == kNotFound) {
    add(from_right ? "" : s);
    add("");
    add(from_right ? s : "");
  } else {
    add(s.substr(0, at));
    add(separator);
    add(s.substr(at + separator.size()));
  }
  return out;
}

Value join(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {""}, 1);
  if (!is_iterable(bound.at(0))) {
    fail("TypeError", "can only join an iterable");
  }
  TextBuilder out(r.sandbox);
  const Ref<IteratorObject> it = iterate(r.sandbox, bound.at(0));
  int64_t i = 0;
  for (Value item; it->next(item); ++i) {
    if (!item.is_string()) {
      fail("TypeError", fmt::format("sequence item {}: expected str instance, {} found", i, type_name(item)));
    }
    if (i > 0) {
      out.add(self.text());
    }
    out.add(item.text());
  }
  return out.take();
}

template <bool at_end>
Value remove_affix(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound(at_end ? "removesuffix" : "removeprefix", arguments, {""}, 1);
  std::string_view s = self.text();
  const std::string_view affix = bound.text(0);
  if (affix.size() <= s.size()) {
    if (at_end && s.substr(s.size() - affix.size()) == affix) {
      s.remove_suffix(affix.size());
    } else if (!at_end && s.substr(0, affix.size()) == affix) {
      s.remove_prefix(affix.size());
    }
  }
  r.sandbox.copied(s.size());
  return r.sandbox.string(std::string(s));
}

template <char side>
Value padded(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("justify", arguments, {"", ""}, 1);
  const std::string_view fill = bound.text(1, " ");
  if (count_code_points(fill.substr(0, 8)) != 1) {
    fail("TypeError", "The fill character must be exactly one character long");
  }
  return pad_text(r.sandbox, self, to_index(bound.at(0)), side, fill);
}

Value zero_fill(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("zfill", arguments, {""}, 1);
  const std::string_view s = self.text();
  const size_t sign = !s.empty() && (s[0] == '-' || s[0] == '+') ? 1 : 0;
  TextBuilder out(r.sandbox);
  out.add(s.substr(0, sign));
  out.add(static_cast<size_t>(std::max<int64_t>(0, to_index(bound.at(0)) - length(self))), "0");
  out.add(s.substr(sign));
  return out.take();
}

Value expand_tabs(Renderer& r, const Value& self, Arguments& arguments) {
  const Bound bound("expandtabs", arguments, {"tabsize"});
  const int64_t size = bound.integer(0, 8);
  TextBuilder out(r.sandbox);
  int64_t column = 0;
  const std::string_view s = costly(r, self);
  for (size_t pos = 0; pos < s.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(s, pos);
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out.add(static_cast<size_t>(spaces), " ");
      column += spaces;
    } else {
      out.add(s.substr(start, pos - start));
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return out.take();
}

Value format(Renderer& r, const Value& self, Arguments& arguments) {
  return brace_format(r, self.text(), arguments);
}

Value unsupported(Renderer&, const Value&, Arguments&) {
  fail("TypeError", "this method of strings is not supported in chat templates");
}

}  // namespace

Value replace_text(Sandbox& sandbox, std::string_view s, std::string_view from, std::string_view to,
                   int64_t count) {
  sandbox.scanned(s.size() + from.size());
  TextBuilder out(sandbox);
  if (from.empty()) {
    // Python puts `to` around every code point.
    size_t pos = 0;
    for (; count != 0; --count) {
      out.add(to);
      if (pos >= s.size()) {
        return out.take();
      }
      const size_t start = pos;
      next_code_point(s, pos);
      out.add(s.substr(start, pos - start));
      sandbox.step();
    }
    out.add(s.substr(pos));
    return out.take();
  }
  size_t start = 0;
  for (; count != 0; --count) {
    const size_t at = find(s, from, start);
    if (at == kNotFound) {
      break;
    }
    sandbox.scanned(from.size() + 8);
    out.add(s.substr(start, at - start));
    out.add(to);
    start = at + from.size();
  }
  out.add(s.substr(start));
  return out.take();
}

Value pad_text(Sandbox& sandbox, const Value& v, int64_t width, char side, std::string_view fill) {
  const int64_t missing = std::max<int64_t>(0, width - length(v));
  // As CPython's str.center splits an odd number.
  const int64_t left = side == 'r' ? missing : side == 'l' ? 0 : missing / 2 + (missing & width & 1);
  TextBuilder out(sandbox);
  out.add(static_cast<size_t>(left), fill);
  out.add(v.text());
  out.add(static_cast<size_t>(missing - left), fill);
  return out.take();
}

Method find_string_method(std::string_view name) {
  static const std::unordered_map<std::string_view, Method> kMethods = {
      {"capitalize", mapped<capitalize>},
      {"casefold", mapped<case_fold>},
      {"center", padded<'c'>},
      {"count", count},
      {"encode", unsupported},
      {"endswith", has_affix<true>},
      {"expandtabs", expand_tabs},
      {"find", find_text<false, false>},
      {"format", format},
      {"format_map", unsupported},
      {"index", find_text<false, true>},
      {"isalnum", all_are<is_alnum>},
      {"isalpha", all_are<is_alpha>},
      {"isascii", is_ascii_method},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isidentifier", is_identifier_method},
      {"islower", is_all<is_lower, is_upper_or_title>},
      {"isnumeric", all_are<is_numeric>},
      {"isprintable", is_printable_method},
      {"isspace", all_are<is_space>},
      {"istitle", is_title_method},
      {"isupper", is_all<is_upper, is_lower_or_title>},
      {"join", join},
      {"ljust", padded<'l'>},
      {"lower", mapped<to_lower>},
      {"lstrip", stripped<Ends::kLeft>},
      {"maketrans", unsupported},
      {"partition", partition<false>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace},
      {"rfind", find_text<true, false>},
      {"rindex", find_text<true, true>},
      {"rjust", padded<'r'>},
      {"rpartition", partition<true>},
      {"rsplit", split<true>},
      {"rstrip", stripped<Ends::kRight>},
      {"split", split<false>},
      {"splitlines", split_lines_method},
      {"startswith", has_affix<false>},
      {"strip", stripped<Ends::kBoth>},
      {"swapcase", mapped<swap_case>},
      {"title", mapped<to_title>},
      {"translate", unsupported},
      {"upper", mapped<to_upper>},
      {"zfill", zero_fill},
  };
  const auto it = kMethods.find(name);
  return it != kMethods.end() ? it->second : nullptr;
}

}  // namespace hetero::jinja
