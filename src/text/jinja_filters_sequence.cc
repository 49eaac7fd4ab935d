// Filters on sequences and dicts.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/jinja_builtins.h"
#include "text/jinja_eval.h"
#include "text/jinja_ops.h"

namespace hetero::jinja {
namespace {

Value lowered(Sandbox& sandbox, const Value& v) {
  if (!v.is_string()) {
    return v;
  }
  sandbox.scanned(4 * v.text().size());
  return sandbox.string(to_lower(v.text()));
}

// Reads "a.b.0" from an item, as the `attribute` arguments of filters mean it.
class Getter {
 public:
  /// `otherwise` takes the place of what is undefined on the way, unless it is None.
  Getter(Renderer& r, const Value& attribute, bool lower = false, Value otherwise = {})
      : renderer_(r), lower_(lower), otherwise_(std::move(otherwise)) {
    if (!attribute.is_string()) {
      if (!attribute.is_none()) {
        parts_.push_back(attribute);
      }
      return;
    }
    for (size_t start = 0; start <= attribute.text().size();) {
      const size_t end = std::min(attribute.text().find('.', start), attribute.text().size());
      const std::string_view part = attribute.text().substr(start, end - start);
      bool overflow = false;
      const bool digits = !part.empty() && part.find_first_not_of("0123456789") == kNotFound;
      const std::optional<Int> index = digits ? parse_int(part, 10, overflow) : std::nullopt;
      parts_.push_back(index ? Value::integer(*index) : r.sandbox.string(std::string(part)));
      start = end + 1;
    }
  }

  Value operator()(Value item) const {
    for (const Value& part : parts_) {
      item = renderer_.item(item, part);
      if (item.is_undefined() && !otherwise_.is_none()) {
        item = otherwise_;
      }
    }
    return lower_ ? lowered(renderer_.sandbox, item) : item;
  }

 private:
  Renderer& renderer_;
  std::vector<Value> parts_;
  const bool lower_;
  Value otherwise_;
};

// A generator over values that are already there.
class Prepared : public IteratorObject {
 public:
  Prepared(Sandbox& s, std::string_view type, Ref<ListObject> list)
      : IteratorObject(s, type), list_(std::move(list)) {}
  bool next(Value& out) override {
    if (!list_ || index_ >= list_->items.size()) {
      return false;
    }
    sandbox.step();
    out = list_->items[index_++];
    return true;
  }
  void drop_references() override { list_ = {}; }

 private:
  Ref<ListObject> list_;
  size_t index_ = 0;
};

Value generator(Sandbox& sandbox, Ref<ListObject> list) {
  return sandbox.make<Prepared>("generator", std::move(list));
}

// map, select, reject, selectattr, rejectattr: lazy, as generators are. Nothing is looked at, the
// arguments included, before the first item is asked for.
class Transform : public IteratorObject {
 public:
  enum class Mode { kMap, kSelect, kReject, kSelectAttribute, kRejectAttribute };

  Transform(Sandbox& s, Renderer& r, Mode mode, Value source, Arguments arguments)
      : IteratorObject(s, "generator"),
        renderer_(r),
        mode_(mode),
        source_(std::move(source)),
        arguments_(std::move(arguments)) {}

  bool next(Value& out) override {
    const Sandbox::Depth depth(sandbox, 5);
    if (!started_) {
      start();
    }
    while (iterator_ && iterator_->next(out)) {
      if (mode_ == Mode::kMap) {
        out = mapped(out);
        return true;
      }
      if (accepts(out) == (mode_ == Mode::kSelect || mode_ == Mode::kSelectAttribute)) {
        return true;
      }
    }
    iterator_ = {};
    return false;
  }

  void drop_references() override {
    source_ = Value();
    iterator_ = {};
    arguments_ = {};
    getter_.reset();
  }

 private:
  void start() {
    started_ = true;
    if (!truth(source_)) {
      return;
    }
    if (mode_ == Mode::kMap) {
      start_map();
    } else {
      const size_t name = mode_ == Mode::kSelect || mode_ == Mode::kReject ? 0 : 1;
      if (arguments_.positional.size() < name) {
        fail("FilterArgumentError", "Missing parameter for attribute name");
      }
      if (name == 1) {
        getter_.emplace(renderer_, arguments_.positional[0]);
      }
      take_name(name);
    }
    iterator_ = iterate(sandbox, source_);
  }

  void start_map() {
    const auto attribute = std::find_if(arguments_.named.begin(), arguments_.named.end(),
                                        [](const auto& n) { return n.first == "attribute"; });
    if (!arguments_.positional.empty() || attribute == arguments_.named.end()) {
      if (arguments_.positional.empty()) {
        fail("FilterArgumentError", "map requires a filter argument");
      }
      take_name(0);
      return;
    }
    Value otherwise;
    for (const auto& [name, value] : arguments_.named) {
      if (name == "default") {
        otherwise = value;
      } else if (name != "attribute") {
        fail("FilterArgumentError", fmt::format("Unexpected keyword argument '{}'", name));
      }
    }
    getter_.emplace(renderer_, attribute->second, false, otherwise);
  }

  // The name of the filter or test; what follows it are that one's arguments.
  void take_name(size_t i) {
    if (i < arguments_.positional.size()) {
      if (!arguments_.positional[i].is_string()) {
        fail("TemplateRuntimeError",
             fmt::format("no filter or test named by a {}", jinja::type_name(arguments_.positional[i])));
      }
      name_ = std::string(arguments_.positional[i].text());
      ++i;
    }
    arguments_.positional.erase(arguments_.positional.begin(),
                                arguments_.positional.begin() +
                                    static_cast<std::ptrdiff_t>(std::min(i, arguments_.positional.size())));
  }

  Value mapped(const Value& item) {
    if (getter_) {
      return (*getter_)(item);
    }
    Arguments arguments = arguments_;
    return renderer_.filter(*name_, item, arguments);
  }

  bool accepts(const Value& item) {
    const Value v = getter_ ? (*getter_)(item) : item;
    if (!name_) {
      return truth(v);
    }
    Arguments arguments = arguments_;
    return renderer_.test(*name_, v, arguments);
  }

  Renderer& renderer_;
  const Mode mode_;
  Value source_;
  Arguments arguments_;
  bool started_ = false;
  Ref<IteratorObject> iterator_;
  std::optional<Getter> getter_;
  std::optional<std::string> name_;
};

template <Transform::Mode mode>
Value transform(Renderer& r, const Value& v, Arguments& arguments) {
  return r.sandbox.make<Transform>(r, mode, v, arguments);
}

struct Keyed {
  Value key;
  Value item;
};

// sorted(): stable, also backwards.
Ref<ListObject> sorted(Renderer& r, std::vector<Keyed>& items, bool reverse) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    r.sandbox.step();
    return reverse ? less(b.key, a.key) : less(a.key, b.key);
  });
  Ref<ListObject> out = r.sandbox.list();
  for (Keyed& item : items) {
    out->add(std::move(item.item));
  }
  return out;
}

Value sort(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Getter> getters;
  if (bound.has(2) && bound.at(2).is_string()) {
    const std::string_view names = bound.at(2).text();
    for (size_t start = 0; start <= names.size();) {
      const size_t end = std::min(names.find(',', start), names.size());
      getters.emplace_back(r, r.sandbox.string(std::string(names.substr(start, end - start))),
                           !bound.flag(1));
      start = end + 1;
    }
  } else {
    getters.emplace_back(r, bound.get(2, Value()), !bound.flag(1));
  }
  const Ref<ListObject> list = to_list(r.sandbox, v);
  std::vector<Keyed> items;
  for (const Value& item : list->items) {
    Ref<ListObject> key = r.sandbox.list();
    for (const Getter& getter : getters) {
      key->add(getter(item));
    }
    items.push_back({key, item});
  }
  return sorted(r, items, bound.flag(0));
}

Value dict_sort(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string_view by = bound.text(1, "key");
  if (by != "key" && by != "value") {
    fail("FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
  }
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (!v.is(Kind::kDict)) {
    fail("AttributeError", fmt::format("'{}' object has no attribute 'items'", type_name(v)));
  }
  std::vector<Keyed> items;
  for (const auto& [key, value] : v.as<DictObject>().entries) {
    r.sandbox.step();
    const Value& sort_by = by == "key" ? key : value;
    items.push_back({bound.flag(0) ? sort_by : lowered(r.sandbox, sort_by), r.sandbox.pair(key, value)});
  }
  return sorted(r, items, bound.flag(2));
}

Value group_by(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const Value otherwise = bound.get(1, Value());
  const Getter key_of(r, bound.at(0), !bound.flag(2), otherwise);
  const Getter shown_key_of(r, bound.at(0), false, otherwise);
  const Ref<ListObject> list = to_list(r.sandbox, v);
  std::vector<Keyed> items;
  for (const Value& item : list->items) {
    items.push_back({key_of(item), item});
  }
  const Ref<ListObject> in_order = sorted(r, items, false);
  Ref<ListObject> out = r.sandbox.list();
  Ref<ListObject> group;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i == 0 || !equal(items[i].key, items[i - 1].key)) {
      group = r.sandbox.list();
      Ref<GroupObject> entry = r.sandbox.make<GroupObject>();
      entry->add(shown_key_of(in_order->items[i]));
      entry->add(group);
      out->add(entry);
    }
    group->add(in_order->items[i]);
  }
  return out;
}

class Unique : public IteratorObject {
 public:
  Unique(Sandbox& s, Ref<IteratorObject> source, Getter getter)
      : IteratorObject(s, "generator"),
        source_(std::move(source)),
        getter_(std::move(getter)),
        seen_(s.make<DictObject>()) {}
  bool next(Value& out) override {
    const Sandbox::Depth depth(sandbox, 5);
    while (source_ && source_->next(out)) {
      const Value key = getter_(out);
      if (seen_->find(key) == nullptr) {
        seen_->set(key, Value());
        return true;
      }
    }
    return false;
  }
  void drop_references() override {
    source_ = {};
    seen_ = {};
  }

 private:
  Ref<IteratorObject> source_;
  const Getter getter_;
  Ref<DictObject> seen_;
};

Value unique(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  return r.sandbox.make<Unique>(iterate(r.sandbox, v), Getter(r, bound.get(1, Value()), !bound.flag(0)));
}

template <bool smallest>
Value extreme(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("min", arguments, {"case_sensitive", "attribute"});
  const Getter getter(r, bound.get(1, Value()), !bound.flag(0));
  const Ref<IteratorObject> it = iterate(r.sandbox, v);
  Value best;
  if (!it->next(best)) {
    return r.sandbox.undefined("No aggregated item, sequence was empty.");
  }
  Value best_key = getter(best);
  for (Value item; it->next(item);) {
    Value key = getter(item);
    if (smallest ? less(key, best_key) : compare(Operator::kGreater, key, best_key)) {
      best = item;
      best_key = std::move(key);
    }
  }
  return best;
}

Value sum(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const Getter getter(r, bound.get(0, Value()));
  Value total = bound.get(1, Value::integer(0));
  if (total.is_string()) {
    fail("TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
  }
  const Ref<IteratorObject> it = iterate(r.sandbox, v);
  for (Value item; it->next(item);) {
    total = arithmetic(r.sandbox, Operator::kAdd, total, getter(item));
  }
  return total;
}

Value join(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const Getter getter(r, bound.get(1, Value()));
  const Value separator = bound.has(0) ? to_string(r.sandbox, bound.at(0)) : r.sandbox.string("");
  const Ref<IteratorObject> it = iterate(r.sandbox, v);
  TextBuilder out(r.sandbox);
  bool first = true;
  for (Value item; it->next(item);) {
    if (!std::exchange(first, false)) {
      out.add(separator.text());
    }
    print(out, getter(item));
  }
  return out.take();
}

Value list(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return to_list(r.sandbox, v);
}

Value items(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("items", arguments, {});
  Ref<ListObject> out = r.sandbox.list();
  if (v.is(Kind::kDict)) {
    for (const auto& [key, value] : v.as<DictObject>().entries) {
      r.sandbox.step();
      out->add(r.sandbox.pair(key, value));
    }
  } else if (!v.is_undefined()) {
    fail("TypeError", "Can only get item pairs from a mapping.");
  }
  return generator(r.sandbox, out);
}

Value first(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("first", arguments, {});
  Value out;
  return iterate(r.sandbox, v)->next(out) ? out : r.sandbox.undefined("No first item, sequence was empty.");
}

bool is_reversible(const Value& v) {
  return has_length(v);
}

Value last(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("last", arguments, {});
  if (!is_reversible(v)) {
    fail("TypeError", fmt::format("'{}' object is not reversible", type_name(v)));
  }
  if (v.is_string() || v.is_sequence() || v.is(Kind::kRange)) {
    if (std::optional<Value> found = find_item(v, Value::integer(-1))) {
      return std::move(*found);
    }
  }
  const Ref<ListObject> all = to_list(r.sandbox, v);
  return all->items.empty() ? r.sandbox.undefined("No last item, sequence was empty.") : all->items.back();
}

Value reverse(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (v.is_string()) {
    return slice(r.sandbox, v, Value(), Value(), Value::integer(-1));
  }
  Ref<ListObject> all = to_list(r.sandbox, v);
  std::reverse(all->items.begin(), all->items.end());
  if (!is_reversible(v)) {
    return all;
  }
  return r.sandbox.make<Prepared>("list_reverseiterator", all);
}

Value batch(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = to_index(bound.at(0));
  Ref<ListObject> out = r.sandbox.list();
  Ref<ListObject> row = r.sandbox.list();
  const Ref<IteratorObject> it = iterate(r.sandbox, v);
  for (Value item; it->next(item);) {
    if (static_cast<int64_t>(row->items.size()) == size) {
      out->add(row);
      row = r.sandbox.list();
    }
    row->add(item);
  }
  if (!row->items.empty()) {
    while (bound.some(1) && static_cast<int64_t>(row->items.size()) < size) {
      r.sandbox.step();
      row->add(bound.at(1));
    }
    out->add(row);
  }
  return generator(r.sandbox, out);
}

Value slice_filter(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t slices = to_index(bound.at(0));
  const Ref<ListObject> all = to_list(r.sandbox, v);
  const int64_t size = static_cast<int64_t>(all->items.size());
  if (slices == 0) {
    fail("ZeroDivisionError", "integer division or modulo by zero");
  }
  Ref<ListObject> out = r.sandbox.list();
  int64_t next = 0;
  for (int64_t i = 0; i < slices; ++i) {
    r.sandbox.step();
    Ref<ListObject> part = r.sandbox.list();
    const int64_t end = next + size / slices + (i < size % slices ? 1 : 0);
    for (; next < end; ++next) {
      part->add(all->items[static_cast<size_t>(next)]);
    }
    if (bound.some(1) && i >= size % slices) {
      part->add(bound.at(1));
    }
    out->add(part);
  }
  return generator(r.sandbox, out);
}

Value attr(Renderer& r, const Value& v, Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  if (v.is_undefined()) {
    v.as<UndefinedObject>().raise();
  }
  if (std::optional<Value> found = find_attribute(r.sandbox, v, bound.text(0))) {
    return std::move(*found);
  }
  return r.sandbox.undefined(fmt::format("'{} object' has no attribute '{}'", type_name(v), bound.text(0)));
}

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"attr", attr},
      {"batch", batch},
      {"dictsort", dict_sort},
      {"first", first},
      {"groupby", group_by},
      {"items", items},
      {"join", join},
      {"last", last},
      {"list", list},
      {"map", transform<Transform::Mode::kMap>},
      {"max", extreme<false>},
      {"min", extreme<true>},
      {"reject", transform<Transform::Mode::kReject>},
      {"rejectattr", transform<Transform::Mode::kRejectAttribute>},
      {"reverse", reverse},
      {"select", transform<Transform::Mode::kSelect>},
      {"selectattr", transform<Transform::Mode::kSelectAttribute>},
      {"slice", slice_filter},
      {"sort", sort},
      {"sum", sum},
      {"unique", unique},
  };
  const auto it = kFilters.find(name);
  return it != kFilters.end() ? it->second : nullptr;
}

Filter find_filter(std::string_view name) {
  const Filter found = find_text_filter(name);
  return found != nullptr ? found : find_sequence_filter(name);
}

}  // namespace hetero::jinja
