#include "protocol/wire/messages.h"

#include <algorithm>
#include <boost/json.hpp>

#include "protocol/wire/limits.h"
#include "protocol/wire/message_fields.h"
#include "protocol/wire/quoting.h"

namespace protocol::wire {
namespace {

namespace json = boost::json;

// ---- values to JSON

json::value to_json(const std::string& bytes) {
  if (is_utf8(bytes)) return json::value(bytes);
  return json::object{{"base64", base64_encode(bytes)}};
}
json::value to_json(bool value) { return json::value(value); }
template <std::integral T>
json::value to_json(T value) {
  return json::value(static_cast<std::int64_t>(value));
}
template <class T>
json::value to_json(const std::vector<T>& values);
template <class T>
json::value to_json(const std::optional<T>& value);
json::value to_json(const std::vector<LeftOut>& values);
json::value to_json(const std::map<std::string, std::string>& values) {
  // Names may be any bytes, so an object's keys would not do.
  json::array out;
  for (const auto& [key, value] : values) out.push_back(json::array{to_json(key), to_json(value)});
  return out;
}
template <class M>
requires std::is_aggregate_v<M> json::value to_json(const M& message) {
  json::object out;
  auto visit = [&](const char* member, const auto& value) { out[member] = to_json(value); };
  fields(visit, message);
  return out;
}
template <class T>
json::value to_json(const std::vector<T>& values) {
  json::array out;
  out.reserve(values.size());
  for (const auto& value : values) out.push_back(to_json(value));
  return out;
}
template <class T>
json::value to_json(const std::optional<T>& value) {
  return value ? to_json(*value) : json::value(nullptr);
}
// The one list that a hostile tree can make as long as it likes. Cut, it says how much is missing.
json::value to_json(const std::vector<LeftOut>& values) {
  json::array out;
  std::size_t bytes = 0;
  for (const LeftOut& value : values) {
    bytes += value.path.size() + value.why.size();
    if (bytes > kMaxListedBytes) {
      const auto more = std::to_string(values.size() - out.size());
      out.push_back(to_json(LeftOut{.path = "", .why = "and " + more + " more"}));
      break;
    }
    out.push_back(to_json(value));
  }
  return out;
}

// ---- JSON to values. Each returns false for a wrong type or a number out of range.

bool from_json(const json::value& in, std::string& out) {
  if (const auto* text = in.if_string()) {
    out.assign(text->data(), text->size());
    return true;
  }
  const auto* object = in.if_object();
  const auto* coded = object != nullptr ? object->if_contains("base64") : nullptr;
  return coded != nullptr && coded->is_string() && base64_decode(coded->get_string(), out);
}
bool from_json(const json::value& in, bool& out) {
  if (!in.is_bool()) return false;
  out = in.get_bool();
  return true;
}
template <std::integral T>
bool from_json(const json::value& in, T& out) {
  if (!in.is_int64() || !std::in_range<T>(in.get_int64())) return false;
  out = static_cast<T>(in.get_int64());
  return true;
}
template <class T>
bool from_json(const json::value& in, std::vector<T>& out);
template <class T>
bool from_json(const json::value& in, std::optional<T>& out);
bool from_json(const json::value& in, std::map<std::string, std::string>& out) {
  const auto* pairs = in.if_array();
  if (pairs == nullptr || pairs->size() > kMaxListItems) return false;
  out.clear();
  for (const auto& item : *pairs) {
    const auto* pair = item.if_array();
    std::string key;
    std::string value;
    if (pair == nullptr || pair->size() != 2 || !from_json((*pair)[0], key) ||
        !from_json((*pair)[1], value)) {
      return false;
    }
    out[key] = value;
  }
  return true;
}
template <class M>
requires std::is_aggregate_v<M>
bool from_json(const json::value& in, M& out) {
  const auto* object = in.if_object();
  if (object == nullptr) return false;
  bool good = true;
  auto visit = [&](const char* member, auto& value) {
    const auto* found = object->if_contains(member);
    if (found != nullptr && !from_json(*found, value)) good = false;
  };
  fields(visit, out);
  return good;
}
template <class T>
bool from_json(const json::value& in, std::vector<T>& out) {
  const auto* items = in.if_array();
  if (items == nullptr || items->size() > kMaxListItems) return false;
  out.assign(items->size(), T());
  for (std::size_t i = 0; i < items->size(); ++i) {
    if (!from_json((*items)[i], out[i])) return false;
  }
  return true;
}
template <class T>
bool from_json(const json::value& in, std::optional<T>& out) {
  if (in.is_null()) {
    out.reset();
    return true;
  }
  return from_json(in, out.emplace());
}

// ---- messages

// `text` is what follows the name, the space included.
template <class M>
result<Message> read_members(std::string_view text) {
  M message;
  if (text.empty()) return Message(std::move(message));
  text.remove_prefix(1);
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code error;
  const auto parsed = json::parse(text, error, {}, options);
  const auto bad = [](const std::string& what) {
    return Failure(Errc::bad_input, std::string(kName<M>) + ": " + what);
  };
  if (error) return bad("not JSON: " + error.message());
  const auto* object = parsed.if_object();
  if (object == nullptr) return bad("not a JSON object");
  std::string wrong;
  auto visit = [&](const char* member, auto& value) {
    const auto* found = object->if_contains(member);
    if (found != nullptr && wrong.empty() && !from_json(*found, value)) wrong = member;
  };
  fields(visit, message);
  if (!wrong.empty()) return bad("wrong value for \"" + wrong + "\"");
  return Message(std::move(message));
}

template <std::size_t I = 0>
result<Message> decode_as(std::string_view name, std::string_view text) {
  if constexpr (I == std::variant_size_v<Message>) {
    return Failure(Errc::unsupported, "no message is called \"" + printable(name, 80) + "\"");
  } else {
    using M = std::variant_alternative_t<I, Message>;
    if (name == kName<M>) return read_members<M>(text);
    return decode_as<I + 1>(name, text);
  }
}

}  // namespace

std::string encode(const Message& message) {
  return std::visit(
      [](const auto& m) {
        using M = std::remove_cvref_t<decltype(m)>;
        std::string out(kName<M>);
        if constexpr (!std::is_empty_v<M>) out += " " + json::serialize(to_json(m));
        if (out.size() <= kMaxControlBytes) return out;
        return encode(Failed{.step = std::string(kName<M>),
                             .code = name(Errc::too_large),
                             .message = "it does not fit into one message"});
      },
      message);
}

result<Message> decode(std::string_view payload) {
  if (payload.size() > kMaxControlBytes) return Failure(Errc::too_large, "message over the limit");
  const auto end = std::min(payload.find(' '), payload.size());
  return decode_as(payload.substr(0, end), payload.substr(end));
}

std::string_view message_name(const Message& message) {
  return std::visit([](const auto& m) { return kName<std::remove_cvref_t<decltype(m)>>; }, message);
}

}  // namespace protocol::wire
