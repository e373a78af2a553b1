#include "orca-proxy/target.h"

#include <llhttp.h>
#include <string.h>
#include <strings.h>

static int hex(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_unreserved(uint8_t c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' || c == '.' || c == '_' || c == '~';
}

bool target_host(struct span w, char out[TARGET_HOST_MAX], size_t *ret_len) {
  size_t len = 0;
  const uint8_t *at = w.at, *end = w.at + w.len;
  if (at < end && *at == '[') { /* IPv6 literal */
    const uint8_t *close = memchr(at, ']', w.len);
    if (!close || close - at < 3 || close - at > 48)
      return false;
    for (const uint8_t *c = at + 1; c < close; c++)
      if (hex(*c) < 0 && *c != ':' && *c != '.')
        return false;
    for (; at <= close; at++)
      out[len++] = (char)(*at >= 'A' && *at <= 'F' ? *at | 0x20 : *at);
  } else {
    for (; at < end && *at != ':'; at++) {
      uint8_t c = *at;
      if (c >= 'A' && c <= 'Z')
        c |= 0x20;
      else if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'))
        return false;
      if (len == TARGET_HOST_MAX - 1)
        return false;
      out[len++] = (char)c;
    }
    if (len && out[len - 1] == '.')
      len--;
  }
  if (len == 0)
    return false;
  if (at < end) { /* ":" port; RFC 3986 lets it be empty */
    if (*at++ != ':' || end - at > 5)
      return false;
    for (; at < end; at++)
      if (*at < '0' || *at > '9')
        return false;
  }
  out[len] = 0;
  *ret_len = len;
  return true;
}

/* Removes dot segments in place (RFC 3986 section 5.2.4); false when `..` climbs above the root. */
static bool remove_dots(uint8_t *path, size_t *len) {
  size_t out = 0, i = 0;
  while (i < *len) { /* path[i] is '/' */
    size_t end = i + 1;
    while (end < *len && path[end] != '/')
      end++;
    size_t seg = end - i - 1;
    bool last = end == *len;
    if (seg == 1 && path[i + 1] == '.') {
      if (last)
        path[out++] = '/';
    } else if (seg == 2 && path[i + 1] == '.' && path[i + 2] == '.') {
      if (out == 0)
        return false;
      while (path[--out] != '/')
        ;
      if (last)
        path[out++] = '/';
    } else {
      memmove(path + out, path + i, end - i);
      out += end - i;
    }
    i = end;
  }
  *len = out;
  return true;
}

static bool normalise(struct span *path, uint8_t *room, const char **why) {
  size_t n = 0;
  bool dots = false;
  for (size_t i = 0; i < path->len; i++) {
    uint8_t c = path->at[i];
    if (c == '%') {
      int high = path->len - i > 2 ? hex(path->at[i + 1]) : -1;
      int low = path->len - i > 2 ? hex(path->at[i + 2]) : -1;
      if (high < 0 || low < 0) {
        *why = "broken percent-encoding in the path";
        return false;
      }
      uint8_t v = (uint8_t)(high << 4 | low);
      if (v == 0) {
        *why = "%00 in the path";
        return false;
      }
      i += 2;
      if (is_unreserved(v)) {
        room[n++] = v;
        c = v;
      } else {
        room[n++] = '%';
        room[n++] = (uint8_t) "0123456789ABCDEF"[high];
        room[n++] = (uint8_t) "0123456789ABCDEF"[low];
        c = 0;
      }
    } else {
      room[n++] = c;
    }
    if (c == '.' && n >= 2 && (room[n - 2] == '/' || room[n - 2] == '.'))
      dots = true;
  }
  if (dots && !remove_dots(room, &n)) {
    *why = "the path climbs above the root";
    return false;
  }
  *path = (struct span){room, n};
  return true;
}

/* True when the path has nothing to normalise: the common case, found in one pass. */
static bool is_plain(struct span path) {
  uint8_t before = 0;
  for (size_t i = 0; i < path.len; i++) {
    uint8_t c = path.at[i];
    if (c == '%' || (c == '.' && before == '/'))
      return false;
    before = c;
  }
  return true;
}

static bool absolute_form(struct target *t, struct span *rest, const struct head *h, const char **why) {
  size_t scheme = 7;
  if (rest->len > 7 && strncasecmp((const char *)rest->at, "http://", 7) == 0)
    scheme = 7;
  else if (rest->len > 8 && strncasecmp((const char *)rest->at, "https://", 8) == 0)
    scheme = 8;
  else {
    *why = "the request target is neither a path nor an http address";
    return false;
  }
  rest->at += scheme;
  rest->len -= scheme;
  size_t n = 0;
  while (n < rest->len && rest->at[n] != '/' && rest->at[n] != '?')
    n++;
  t->authority = (struct span){rest->at, n};
  rest->at += n;
  rest->len -= n;
  if (h->host.at && !span_same_nocase(h->host, t->authority)) {
    *why = "the request target and Host name different hosts";
    return false;
  }
  return true;
}

bool target_parse(struct target *t, const struct head *h, uint8_t *room, const char **why) {
  struct span rest = h->target;
  t->authority = h->host;
  t->host_len = 0;
  t->host[0] = 0;
  if (rest.len == 1 && rest.at[0] == '*') {
    if (h->method_id != HTTP_OPTIONS) {
      *why = "only OPTIONS may ask for *";
      return false;
    }
  } else if (rest.at[0] != '/' && !absolute_form(t, &rest, h, why)) {
    return false;
  }
  if (t->authority.at && !target_host(t->authority, t->host, &t->host_len)) {
    *why = "the host is not a valid name";
    return false;
  }
  const uint8_t *mark = rest.len ? memchr(rest.at, '?', rest.len) : NULL;
  t->path = (struct span){rest.at, mark ? (size_t)(mark - rest.at) : rest.len};
  t->query = mark ? (struct span){mark, (size_t)(rest.at + rest.len - mark)} : (struct span){NULL, 0};
  if (t->path.len == 0)
    t->path = SPAN("/");
  for (size_t i = 0; i < rest.len; i++)
    if (rest.at[i] == '#' || rest.at[i] <= 0x20 || rest.at[i] >= 0x7f || (rest.at[i] == '\\' && i < t->path.len)) {
      *why = "a character that may not stand in a request target";
      return false;
    }
  return t->path.at[0] != '/' || is_plain(t->path) || normalise(&t->path, room, why);
}

struct span target_strip(struct span path, size_t prefix_len) {
  if (prefix_len >= path.len)
    return SPAN("/");
  while (prefix_len && path.at[prefix_len] != '/') /* "/img*": what is left of a segment keeps all of it */
    prefix_len--;
  path.at += prefix_len;
  path.len -= prefix_len;
  while (path.len > 1 && path.at[0] == '/' && path.at[1] == '/') {
    path.at++;
    path.len--;
  }
  return path;
}
